//! How a chart changes.

use crate::{Epochs, Layer, Result, SourceId};
use std::sync::Arc;

/// Why a place is being reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// New data is written.
    Write,
    /// Data that can already be read is brought up into this layer. Void where the layer has the grain (law 7).
    Fill,
}

/// A new place for some grains, not yet in the map.
///
/// Nobody reads it before `commit`. It covers whole grains of what it replaces, which may be more than was
/// asked; the disk fills the rest by reading through itself.
#[derive(Debug)]
pub struct Reservation {
    /// Where the range begins in the chart.
    pub at: u64,
    /// How long it is. May reach past the chart's end, where a grain does.
    pub len: u64,
    /// The source that will hold it.
    pub source: SourceId,
    /// Where it will begin in that source.
    pub offset: u64,
    /// Whether the place already reads as zeros, so that zeros need not be written.
    pub zeroed: bool,
    /// The driver's own note.
    pub token: u64,
}

/// The answer to a request for a place.
#[derive(Debug)]
pub enum Reserve {
    /// Write here, then commit.
    Ready(Reservation),
    /// Nothing to reserve: look again (a write finds a writable extent, a fill finds the grain filled).
    Already {
        /// For how many bytes at the least.
        len: u64,
    },
}

/// What a range is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// Reads as zeros from now on.
    Zero,
    /// Its content is of no more use (discard). Never uncovers a layer below: there it reads as zeros (law 7).
    Hole,
}

/// How a range may be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SetMode {
    /// Whether space may be given back.
    pub may_unmap: bool,
    /// Fail with `Unsupported` rather than write zeros.
    pub fast_only: bool,
}

/// The one mutator of a disk. Its methods take `&self`: it keeps a lock of its own, held shortly.
///
/// The [`Disk`](crate::Disk) makes sure that no two reservations overlap, and that nothing is asked past the end.
pub trait ChartMut: Layer {
    /// The unit in which places are given: ranges handed to [`ChartMut::set`] are whole grains, or end with the
    /// disk. A power of two is not promised.
    fn grain(&self) -> u64;

    /// The readers and in-place writers this mutator must wait for before space is used again. `None` where no
    /// place is ever given back or moved.
    fn epochs(&self) -> Option<&Arc<Epochs>>;

    /// A place for the grains that hold `at`, for at most `want` bytes from there.
    fn reserve(&self, at: u64, want: u64, intent: Intent) -> Result<Reserve>;

    /// Makes a reservation's place visible. Not durable before [`ChartMut::flush`].
    fn commit(&self, reservation: Reservation) -> Result<()>;

    /// Gives a reservation's place back.
    fn abort(&self, reservation: Reservation);

    /// Sets whole grains to read as zeros. `Unsupported` where the map cannot say so; the disk then writes them.
    /// Returns how many bytes from `at` were set: at least one grain.
    fn set(&self, at: u64, len: u64, to: To, mode: SetMode) -> Result<u64>;

    /// Grows or shrinks the disk. What it grows by reads as zeros from the moment on at which the new length may
    /// be found durable: what an earlier shrinking left, in the last grain too, and what lies below. The disk has
    /// made the grain that holds the old end this layer's own, unless that reads as zeros behind the end anyhow.
    fn resize(&self, len: u64) -> Result<()>;

    /// Makes all that was committed durable: data, then refcounts, then the map, then the root (law 8).
    fn flush(&self) -> Result<()>;

    /// Flushes and leaves the image as a reader wants to find it: no dirty flag, bitmaps stored.
    fn close(&self) -> Result<()> {
        self.flush()
    }
}
