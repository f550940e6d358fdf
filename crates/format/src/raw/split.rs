//! A raw disk in several files, end to end.

use ::chart::{Disk, Error, Extent, Result, Source, SourceId, Table};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How many files a disk may be in.
pub const MAX_PARTS: usize = 4096;

/// The files, one behind the other, as one disk.
pub fn split(name: impl Into<String>, parts: Vec<Arc<dyn Source>>, writable: bool) -> Result<Arc<Disk>> {
    if parts.is_empty() || parts.len() > MAX_PARTS {
        let what = format!("a disk in {} files: 1 to {MAX_PARTS} are possible", parts.len());
        return Err(Error::unsupported(what));
    }
    if writable && let Some(fixed) = parts.iter().find(|p| p.limits().read_only) {
        return Err(Error::read_only(format!("{} cannot be written", fixed.name())));
    }
    let (mut table, mut at) = (Table::builder(), 0u64);
    for (i, part) in parts.iter().enumerate() {
        let id = SourceId(u16::try_from(i).unwrap_or(u16::MAX));
        if !part.is_empty() {
            table.push(Extent { writable, ..Extent::raw(at, part.len(), id, 0) })?;
        }
        let too_long = || Error::unsupported("the files together are longer than a disk can be");
        at = at.checked_add(part.len()).ok_or_else(too_long)?;
    }
    let mut builder = Disk::builder(name, Arc::new(table.finish(at)?));
    for part in parts {
        builder = builder.source(part);
    }
    if writable { builder.straight().build() } else { builder.build() }
}

/// The name of the part behind `path`, where its name ends like one: `disk.001` is followed by `disk.002`.
pub fn next_part(path: &Path) -> Option<PathBuf> {
    let digits = path.extension()?.to_str()?;
    if digits.len() < 2 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let next = digits.parse::<u32>().ok()?.checked_add(1)?;
    let text = format!("{next:0width$}", width = digits.len());
    (text.len() == digits.len()).then(|| path.with_extension(text))
}
