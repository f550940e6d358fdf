//! qcow2: QEMU's image format, versions 2 and 3.
//!
//! An [`Image`] is the map of one file: a [`Layer`](::chart::Layer) that answers from its L2 tables and leaves what
//! it does not hold to the backing file. Compressed clusters are frames, data clusters raw runs of the file (or of
//! the external data file), zero clusters zeros. The image never opens what it names: it asks.

mod alloc;
pub mod bitmap;
pub mod cache;
mod chart;
pub mod check;
mod cluster;
pub mod create;
pub mod emit;
mod entry;
mod guard;
mod header;
mod image;
mod info;
mod l1;
pub mod layout;
mod places;
pub mod refcount;
pub mod snapshot;
mod stretch;
#[cfg(test)]
mod tests;
mod track;
mod writer;

pub use crate::check::Repair;
pub use bitmap::{Bitmap, DirtyMap};
pub use cluster::Clusters;
pub use entry::{L2Entry, Meaning, Subcluster};
pub use header::{Compression, Extension, Header};
pub use info::Info;
pub use l1::{L1, L1Entry};
pub use snapshot::Snapshot;
pub use track::MAX_TRACKED_BYTES;
pub use writer::Rebased;

use ::chart::{Result, Source, SourceId};
use cache::SliceCache;
use io::watch::Onlooker;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, RwLock};

/// The source id of the image file in a disk made by [`Image::disk`].
pub const FILE: SourceId = SourceId(0);
/// The source id of the external data file, where there is one.
pub const DATA_FILE: SourceId = SourceId(1);

/// Whether a file that begins with these bytes says it is a qcow2 image.
pub fn probe(first: &[u8]) -> bool {
    first.starts_with(&layout::MAGIC.to_be_bytes())
}

/// Another file that an image needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What unallocated clusters fall through to.
    Backing,
    /// What holds the guest's clusters.
    DataFile,
}

/// What an image asks for when it is opened.
#[derive(Clone, Copy, Debug)]
pub struct Needed<'a> {
    /// What for.
    pub role: Role,
    /// As the image names it: relative to the image, absolute, or an address.
    pub name: &'a str,
    /// Its format, where the image says. A data file is always raw.
    pub format: Option<&'a str>,
}

/// Who opens the other files, or refuses to. The image never does.
pub type Opener<'a> = dyn FnMut(Needed<'_>) -> Result<Arc<dyn Source>> + 'a;

/// How an image is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Data clusters may be written in place. Refused for a snapshot and for an image marked corrupt.
    pub writable: bool,
    /// An image marked corrupt is opened all the same: for checking it, and for saving what can be read.
    pub allow_corrupt: bool,
    /// An image that was left dirty, or is marked corrupt, is opened for writing all the same: in order to repair
    /// it, before which nothing is written. See [`Image::repair`] and [`Image::is_damaged`].
    pub repair: bool,
    /// The files it names are not asked for: for looking at metadata. What they hold cannot be read then.
    pub alone: bool,
    /// At most so many bytes of L2 tables are kept.
    pub cache_bytes: usize,
    /// The disk as this internal snapshot, by id or else by name, holds it.
    pub snapshot: Option<String>,
    /// Who looks on while it does what takes long: checks and repairs, new roots, another length. Until the one
    /// write that makes a change true, it can be ended and leaves the image as it was.
    pub onlooker: Onlooker,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            writable: false,
            allow_corrupt: false,
            repair: false,
            alone: false,
            cache_bytes: cache::DEFAULT_CACHE_BYTES,
            snapshot: None,
            onlooker: Onlooker::default(),
        }
    }
}

/// An open image.
pub struct Image {
    file: Arc<dyn Source>,
    data_file: Option<Arc<dyn Source>>,
    below: Option<Arc<dyn Source>>,
    header: RwLock<Header>,
    clusters: Clusters,
    version: u32,
    compression: Compression,
    /// Guest clusters are in the data file.
    has_data_file: bool,
    /// Unallocated clusters are the backing file's to answer for.
    has_backing: bool,
    size: AtomicU64,
    l1: L1,
    slices: SliceCache,
    /// The length of the image file and of the data file as last seen: they only matter near their ends.
    ends: [AtomicU64; 2],
    /// Where data cannot be: the active L1 table and the refcount table.
    reserved: [chart::Reserved; 2],
    /// Data clusters may be written where they are, without anything else having to change.
    in_place: AtomicBool,
    writable: bool,
    onlooker: Onlooker,
    /// What changes the map, where that is allowed.
    mutator: Option<writer::Mutator>,
}
