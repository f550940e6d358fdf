//! The journal of a file system that was not unmounted, replayed as a chart: each block that it has a committed copy
//! of is that copy, where it lies in the journal.

mod chart;
mod fast;
mod layout;
mod log;
mod scan;
mod superblock;
mod tag;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests;

use super::feature::{Compat, Incompat};
use super::volume::Volume;
use crate::Inode;
use ::chart::{Disk, Error, Result};
use log::Log;
use std::sync::Arc;

/// The disk of a file system as it is when its journal is replayed; none where there is nothing to replay.
pub(super) fn replayed(volume: &Arc<Volume>) -> Result<Option<Arc<Disk>>> {
    let sb = &volume.superblock;
    if !sb.incompat.has(Incompat::RECOVER) || !sb.compat.has(Compat::HAS_JOURNAL) {
        return Ok(None);
    }
    if sb.journal_inum == 0 {
        let what =
            "this file system was not unmounted, and its journal is on another device (an external journal)";
        return Err(Error::unsupported(what));
    }
    replay(volume).map_err(|e| e.during("reading the journal"))
}

fn replay(volume: &Arc<Volume>) -> Result<Option<Arc<Disk>>> {
    let inode = volume.inode(Inode(volume.superblock.journal_inum.into()))?;
    let file = super::chart::file(volume, &inode)?;
    let Some(log) = Log::open(volume, file)? else { return Ok(None) };
    let Some(end) = scan::end(&log)? else { return Ok(None) };
    if fast::is_needed(&log, end)? {
        let what = "this file system was not unmounted, and its journal holds fast commits (fast_commit), which are \
                    not replayed here; mount it once, or run e2fsck, to have them replayed";
        return Err(Error::unsupported(what));
    }
    let copies = scan::copies(&log, end)?;
    if copies.is_empty() { Ok(None) } else { chart::replayed(volume, &log, copies).map(Some) }
}
