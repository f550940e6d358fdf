//! VDI: VirtualBox's image format, version 1.1, dynamic and static.
//!
//! A header of a sector, a block map with an entry for each block of the disk, and the blocks: an [`Image`] is the
//! map of one file, a [`Layer`](::chart::Layer) that answers from it. There are no refcounts: which blocks of the file
//! are in use follows from the map, and the header says only how many there are, which is where the next one goes.

mod alloc;
mod chart;
mod check;
pub mod create;
pub mod emit;
mod header;
mod image;
pub mod layout;
mod map;
mod repair;
mod resize;
mod rest;
mod settle;
#[cfg(test)]
mod tests;
mod uuid;
mod writer;

pub use create::New;
pub use emit::emit;
pub use header::{Header, Kind};
pub use uuid::Uuid;

use crate::grain::Grain;
use ::chart::{Source, SourceId};
use io::watch::Onlooker;
use map::Map;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// The source id of the image file in a disk made by [`Image::disk`].
pub const FILE: SourceId = SourceId(0);

/// Whether a file that begins with these bytes says it is a VDI image.
pub fn probe(first: &[u8]) -> bool {
    let rest = first.get(layout::SIGNATURE_OFFSET..);
    rest.is_some_and(|rest| rest.starts_with(&layout::SIGNATURE.to_le_bytes()))
}

/// How an image is opened.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// It may be written.
    pub writable: bool,
    /// Who looks on while what takes long is done: checking, repairing, changing the disk's length.
    pub onlooker: Onlooker,
    /// An image whose map contradicts itself is opened for writing all the same: in order to repair it, before which
    /// nothing is written. See [`Image::repair`].
    pub repair: bool,
}

/// An open image.
pub struct Image {
    file: Arc<dyn Source>,
    kind: Kind,
    block: Grain,
    /// From one block of the file to the next: what belongs to a block, and is not the disk's, comes first.
    stride: u64,
    /// Where the bytes of the first block of the file begin.
    first: u64,
    map: Map,
    /// Bytes in the disk.
    size: AtomicU64,
    /// The length of the file as last seen: it only matters near its end.
    end: AtomicU64,
    /// Blocks may be written where they are, without anything else having to change.
    in_place: AtomicBool,
    mutator: Option<writer::Mutator>,
    onlooker: Onlooker,
    /// What was found when it was opened. Where it is written, the writer knows better.
    opened: Header,
}
