//! Making disks longer or shorter.

use crate::{Opened, size};
use chart::{Error, Remedy, Result};

/// A length, or how much to add or take away: `10G`, `+1G`, `-512M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// To this length.
    To(u64),
    /// Longer by this.
    By(u64),
    /// Shorter by this.
    Less(u64),
}

impl Change {
    /// Reads it.
    pub fn parse(text: &str) -> Result<Change> {
        match (text.strip_prefix('+'), text.strip_prefix('-')) {
            (Some(more), _) => Ok(Change::By(size::parse(more)?)),
            (_, Some(less)) => Ok(Change::Less(size::parse(less)?)),
            _ => Ok(Change::To(size::parse(text)?)),
        }
    }

    fn from(self, len: u64) -> Result<u64> {
        let impossible = || Error::invalid(format!("a disk of {len} bytes cannot be changed by that much"));
        match self {
            Change::To(len) => Ok(len),
            Change::By(more) => len.checked_add(more).ok_or_else(impossible),
            Change::Less(less) => len.checked_sub(less).ok_or_else(impossible),
        }
    }
}

/// Makes a disk, which is open for writing, longer or shorter; that is only done if `shrink` says that what lies
/// behind the new end may be lost. Returns its old length and its new one.
pub fn resize(opened: &Opened, change: Change, shrink: bool) -> Result<(u64, u64)> {
    let old = opened.disk.len();
    let new = change.from(old)?;
    if new < old && !shrink {
        let what = format!("{new} bytes are fewer than the {old} it has: what lies behind would be lost");
        let refusal = Error::invalid(what).in_path(opened.disk.name());
        return Err(refusal.with_remedy(Remedy::AllowShrinking));
    }
    opened.disk.resize(new)?;
    Ok((old, new))
}
