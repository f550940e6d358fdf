//! The sources of a written chart: what they are, and what is refused.

use super::path;
use crate::{Error, Extent, Identity, Member, Place, Result};
use std::path::PathBuf;

/// The most bytes that a chart may hold itself, in all its sources together.
pub const MAX_INLINE: u64 = 1 << 29;
/// The most members that its families may have together.
pub const MAX_MEMBERS: u64 = 1 << 24;
/// The longest path of a member, in bytes.
pub const MAX_PATH: u64 = 1 << 16;
/// The most bytes that the paths of all members may take together.
pub const MAX_PATHS: u64 = 1 << 30;

/// A source as a written chart knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceRecord {
    /// A file, or what is at an address.
    Outside(Outside),
    /// Bytes that the chart holds itself.
    Inline(Vec<u8>),
    /// Many files beneath a directory.
    Family(FamilyRecord),
}

/// A source outside of the chart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    /// What to open: a path (relative to the chart's own directory, unless it is absolute) or an address.
    pub name: String,
    /// How long it was.
    pub len: u64,
    /// What it was, where that can be told from another.
    pub identity: Option<Identity>,
    /// When its content had changed last, where the system says so: nanoseconds since 1970.
    pub modified: Option<u64>,
}

/// Many files as one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyRecord {
    /// The directory their names are relative to: relative to the chart's own directory, unless it is absolute.
    pub root: PathBuf,
    /// How long the source is.
    pub len: u64,
    /// The files, in the order of their positions in it.
    pub members: Vec<Member>,
}

impl SourceRecord {
    /// How long the source is, where the chart itself says what there is in it.
    fn known_len(&self) -> Option<u64> {
        match self {
            SourceRecord::Outside(_) => None,
            SourceRecord::Inline(bytes) => Some(bytes.len() as u64),
            SourceRecord::Family(family) => Some(family.len),
        }
    }
}

/// Refuses an extent whose source or codec is not in the lists, or which reaches past the end of a source that the
/// chart itself describes.
pub(super) fn known(extent: &Extent, sources: &[SourceRecord], codecs: usize) -> Result<()> {
    let (source, codec) = match extent.place {
        Place::Raw { source, .. } => (source, None),
        Place::Frame { source, codec, .. } => (source, Some(codec)),
        Place::Hole | Place::Zero => return Ok(()),
    };
    let record = sources.get(usize::from(source.0));
    let Some(record) = record.filter(|_| codec.is_none_or(|c| usize::from(c.0) < codecs)) else {
        return Err(Error::corrupt("an extent names a source or codec that is not listed"));
    };
    match (extent.place, record.known_len()) {
        (Place::Raw { offset, .. }, Some(len)) if offset.saturating_add(extent.len) > len => {
            Err(Error::corrupt("an extent reaches past the end of its source"))
        }
        _ => Ok(()),
    }
}

/// What the sources of one chart take together, held against the limits.
#[derive(Default)]
pub(super) struct Sum {
    inline: u64,
    members: u64,
    paths: u64,
}

impl Sum {
    /// So many bytes more that the chart holds itself.
    pub(super) fn inline(&mut self, bytes: u64) -> Result<()> {
        self.inline = self.inline.saturating_add(bytes);
        within(self.inline, MAX_INLINE, "bytes in the chart itself")
    }

    /// So many members more, which are not there yet.
    pub(super) fn members(&mut self, count: u64) -> Result<()> {
        self.members = self.members.saturating_add(count);
        within(self.members, MAX_MEMBERS, "files in directories")
    }

    /// A path of so many bytes more.
    pub(super) fn path(&mut self, bytes: u64) -> Result<()> {
        within(bytes, MAX_PATH, "bytes in a path")?;
        self.paths = self.paths.saturating_add(bytes);
        within(self.paths, MAX_PATHS, "bytes in the paths of files")
    }
}

fn within(n: u64, most: u64, what: &str) -> Result<()> {
    if n <= most {
        Ok(())
    } else {
        Err(Error::unsupported(format!("a chart with {n} {what}, of at most {most}")))
    }
}

/// Refuses a member that no family may have: with another name than one beneath its root, empty, misplaced.
/// `end` is where the one before ended.
pub(super) fn sound_member(member: &Member, end: u64, len: u64) -> Result<()> {
    if !path::is_beneath(&member.name) {
        return Err(Error::corrupt(format!("{:?} is no name of a file in a directory", member.name)));
    }
    let fits = member.start.checked_add(member.len).is_some_and(|end| end <= len);
    if member.len == 0 || member.start < end || !fits {
        return Err(Error::corrupt(format!(
            "{:?} is misplaced among the files of its directory",
            member.name
        )));
    }
    if !matches!(member.identity, Identity::File { .. }) {
        return Err(Error::unsupported(format!("{:?} is no file of a host", member.name)));
    }
    Ok(())
}
