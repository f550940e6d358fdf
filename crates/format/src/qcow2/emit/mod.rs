//! A disk as the qcow2 file it would be: tables computed when they are read, data where it lies already.
//!
//! The file that is emitted has, in this order: the header, the refcount table and its blocks, the L1 table, the
//! L2 tables that are needed, and the data clusters in the order of the disk. All that is kept for it is a bit
//! for every cluster of the disk and a count for every L2 table.

mod pack;
mod tables;

pub use pack::{Options as PackOptions, Packed, pack};

use super::Clusters;
use super::create::{New, Preallocation};
use super::layout::OFLAG_COPIED;
use crate::emitted;
use crate::survey::Survey;
use chart::{Disk, Error, Result};
use io::watch::Watch;
use std::sync::Arc;
use tables::{Layout, Tables};

/// The bytes of the qcow2 file that holds what `disk` holds, as a disk. Nothing of it is stored; `disk` must not
/// change while it is in use.
pub fn emit(disk: Arc<Disk>, new: &New) -> Result<Arc<Disk>> {
    emit_apart(disk, new, Watch::default()).map(|(file, _)| file)
}

/// The same, and how many bytes at the beginning of the file are tables: the rest is the disk's own. Watched while
/// it looks where the disk holds anything.
pub fn emit_apart(disk: Arc<Disk>, new: &New, watch: Watch<'_>) -> Result<(Arc<Disk>, u64)> {
    let clusters = plain(&disk, new)?;
    let survey = Arc::new(Survey::of(&disk, clusters.grain(), watch)?);
    let layout = Layout::new(new, clusters, &survey, survey.count())?;
    let len = layout.data_start();
    let tables = Tables::new(layout, Arc::clone(&survey), Placed { start: len, clusters });
    Ok((emitted::file(disk, "qcow2", tables, len, survey)?, len))
}

/// Refuses what a file that is emitted cannot be: it stands alone, and holds just what the disk does.
fn plain(disk: &Disk, new: &New) -> Result<Clusters> {
    if new.backing.is_some() || new.data_file.is_some() || new.preallocation != Preallocation::Off {
        let what =
            "an image that is made of another disk has no backing file, no data file and no preallocation";
        return Err(Error::unsupported(what));
    }
    if new.size < disk.len() {
        return Err(Error::invalid(format!("{} bytes are too few for a disk of {}", new.size, disk.len())));
    }
    new.check()
}

/// What the L2 entries say.
trait Entries: Send + Sync {
    /// The entry of the cluster that is the `rank`th of those that are stored.
    fn word(&self, rank: u64) -> u64;
    /// How often the clusters from where the data begins are referred to.
    fn refcount(&self, data_cluster: u64) -> u64;
}

/// Data clusters one behind the other.
struct Placed {
    start: u64,
    clusters: Clusters,
}

impl Entries for Placed {
    fn word(&self, rank: u64) -> u64 {
        self.start.saturating_add(rank.saturating_mul(self.clusters.size())) | OFLAG_COPIED
    }

    fn refcount(&self, _: u64) -> u64 {
        1
    }
}
