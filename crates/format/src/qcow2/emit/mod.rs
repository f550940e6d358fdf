//! A disk as the qcow2 file it would be: tables computed when they are read, data where it lies already.
//!
//! The file that is emitted has, in this order: the header, the refcount table and its blocks, the L1 table, the
//! L2 tables that are needed, and the data clusters in the order of the disk. All that is kept for it is a bit
//! for every cluster of the disk and a count for every L2 table.

mod pack;
mod survey;
mod tables;

pub use pack::{Options as PackOptions, Packed, pack};

use super::Clusters;
use super::create::{New, Preallocation};
use super::layout::OFLAG_COPIED;
use chart::{Chart, Disk, Error, Extent, Geometry, Result, SourceId, Wait};
use io::generated::Generated;
use io::watch::Watch;
use std::sync::Arc;
use survey::Survey;
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
    let survey = Arc::new(Survey::of(&disk, clusters, watch)?);
    let layout = Layout::new(new, clusters, &survey, survey.count())?;
    let meta_len = layout.data_start();
    let tables = Tables::new(layout, Arc::clone(&survey), Placed { start: meta_len, clusters });
    let meta = Generated::new("qcow2 tables", meta_len, tables);
    let chart = Emitted { meta_len, size: disk.len(), clusters, survey };
    let name = format!("{} as qcow2", disk.name());
    let geometry = Geometry { preferred: 1 << 20, ..Geometry::default() };
    let file = Disk::builder(name, Arc::new(chart)).source(Arc::new(meta)).source(disk);
    Ok((file.geometry(geometry).build()?, meta_len))
}

/// Refuses what a file that is emitted cannot be: it stands alone, and holds just what the disk does.
fn plain(disk: &Disk, new: &New) -> Result<Clusters> {
    if new.backing.is_some() || new.data_file.is_some() || new.preallocation != Preallocation::Off {
        let what = "an image that is emitted has no backing file, no data file and no preallocation";
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

const META: SourceId = SourceId(0);
const DATA: SourceId = SourceId(1);

/// Where the bytes of the emitted file live.
struct Emitted {
    meta_len: u64,
    /// The length of the disk that is emitted.
    size: u64,
    clusters: Clusters,
    survey: Arc<Survey>,
}

impl Chart for Emitted {
    fn len(&self) -> u64 {
        self.meta_len.saturating_add(self.survey.count().saturating_mul(self.clusters.size()))
    }

    fn extent_at(&self, at: u64, want: u64, _: Wait) -> Result<Extent> {
        let end = Chart::len(self);
        if at >= end {
            return Err(Error::out_of_range(format!("byte {at} of an image file of {end}")));
        }
        let want = want.max(1).min(end.saturating_sub(at));
        let Some(data) = at.checked_sub(self.meta_len) else {
            return Ok(Extent::raw(at, want.min(self.meta_len.saturating_sub(at)), META, at));
        };
        let within = self.clusters.within(data);
        let clusters = self.clusters.count(within.saturating_add(want));
        let (guest, run) = self.survey.select(self.clusters.index(data), clusters)?;
        let start = guest.saturating_mul(self.clusters.size()).saturating_add(within);
        let len = run.saturating_mul(self.clusters.size()).saturating_sub(within).min(want);
        // The disk may end inside its last cluster.
        match self.size.saturating_sub(start) {
            0 => Ok(Extent::zero(at, len)),
            rest => Ok(Extent::raw(at, len.min(rest), DATA, start)),
        }
    }
}
