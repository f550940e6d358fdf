//! Writing an image in place.
//!
//! One [`Writer`] behind one lock changes the map; lookups never take that lock. What a crash may find is decided
//! by the order of writes, which is in one place, `settle`: data and refcounts, then the roots that refcounts
//! hang from, then the map, and only when the map is durable and nobody reads by the old one is space given out
//! again.

mod bitmap_edits;
mod bitmaps;
mod commit;
mod entries;
mod guarding;
mod head;
mod rebase;
mod repair;
mod reserve;
mod resize;
mod roots;
mod set;
mod settle;
mod snapshots;

pub use rebase::Rebased;

use super::alloc::Allocator;
use super::guard::Guard;
use super::track::Marks;
use super::{Image, layout};
use crate::flushes::Flushes;
use ::chart::{ChartMut, Epochs, Error, Intent, Reservation, Reserve, Result, SetMode, To};
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What an open image needs to be written.
pub(super) struct Mutator {
    pub(super) epochs: Arc<Epochs>,
    /// Where bitmaps know of writes already.
    pub(super) marks: Marks,
    /// Where the tables are, from the first write on.
    pub(super) guard: Arc<Guard>,
    flushes: Flushes,
    state: Mutex<Writer>,
    /// Told when a reservation ends or the image thaws.
    changed: Condvar,
}

/// The state that only the writer has.
pub(super) struct Writer {
    pub(super) alloc: Allocator,
    /// Clusters that the map no longer refers to, as far as the disk does not know yet.
    unmapped: Vec<Lowered>,
    /// Those that it durably does not refer to, by the epoch whose readers may still.
    retired: VecDeque<(u64, Vec<Lowered>)>,
    /// Entries of the L1 table that the disk does not have yet.
    dirty_l1: BTreeSet<u64>,
    /// L2 tables that nothing on disk refers to yet.
    new_tables: BTreeSet<u64>,
    /// Raised whenever tables or entries of the map are about to be written.
    links: u64,
    /// The bitmaps, from the first write to when the image is closed.
    bitmaps: Vec<bitmaps::Tracked>,
    /// The header and the bitmaps say all that they must before the first write.
    started: bool,
    /// The image was left dirty, or is marked corrupt: nothing is written before it is repaired.
    damaged: bool,
    /// Reservations that are neither committed nor given back.
    open: u32,
    /// No reservation may begin: the shape of the image is changing.
    frozen: bool,
}

/// Clusters in a row that have one reference fewer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lowered {
    first: u64,
    count: u64,
}

impl Mutator {
    pub(super) fn new(alloc: Allocator, guard: Arc<Guard>, damaged: bool) -> Self {
        let writer = Writer {
            alloc,
            unmapped: Vec::new(),
            retired: VecDeque::new(),
            dirty_l1: BTreeSet::new(),
            new_tables: BTreeSet::new(),
            links: 0,
            bitmaps: Vec::new(),
            started: false,
            damaged,
            open: 0,
            frozen: false,
        };
        Mutator {
            epochs: Arc::default(),
            marks: Marks::default(),
            guard,
            flushes: Flushes::default(),
            state: Mutex::new(writer),
            changed: Condvar::new(),
        }
    }
}

impl Writer {
    /// The map no longer refers to these clusters.
    fn unmap(&mut self, first: u64, count: u64) {
        match self.unmapped.last_mut() {
            Some(last) if last.first.saturating_add(last.count) == first => {
                last.count = last.count.saturating_add(count);
            }
            _ => self.unmapped.push(Lowered { first, count }),
        }
    }
}

impl Image {
    pub(super) fn mutator(&self) -> Result<&Mutator> {
        let none = || Error::read_only("is open read-only").in_path(self.file.name());
        self.mutator.as_ref().ok_or_else(none)
    }

    pub(super) fn writer(&self) -> Result<MutexGuard<'_, Writer>> {
        Ok(self.mutator()?.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The writer, once nothing forbids a new reservation, and once the header says that the image is written.
    fn begin(&self) -> Result<MutexGuard<'_, Writer>> {
        self.begin_with(true)
    }

    /// The same on an image that has yet to be repaired.
    fn begin_on_any(&self) -> Result<MutexGuard<'_, Writer>> {
        self.begin_with(false)
    }

    fn begin_with(&self, sound: bool) -> Result<MutexGuard<'_, Writer>> {
        let mutator = self.mutator()?;
        let mut writer = self.writer()?;
        while writer.frozen {
            writer = mutator.changed.wait(writer).unwrap_or_else(PoisonError::into_inner);
        }
        if sound && writer.damaged {
            let what =
                "the image was not closed properly, or is marked corrupt; repair it before it is written";
            return Err(Error::corrupt(what).in_path(self.file.name()));
        }
        if !writer.started {
            if let Err(e) = self.guard_tables(&mut writer)
                && sound
            {
                return Err(e.in_path(self.file.name()));
            }
            self.start()?;
            self.start_bitmaps(&mut writer)?;
            writer.started = true;
            self.set_in_place(true);
        }
        Ok(writer)
    }

    /// Says in the header what must be known before the first write: features that this program does not keep
    /// up are cleared.
    fn start(&self) -> Result<()> {
        let mut header = self.header.write().unwrap_or_else(PoisonError::into_inner);
        let kept = header.autoclear_features & layout::autoclear::KNOWN;
        if header.version >= 3 && header.autoclear_features != kept {
            header.autoclear_features = kept;
            self.file.write_at(88, &kept.to_be_bytes(), chart::Wait::Allowed)?;
            self.file.flush()?;
        }
        drop(header);
        self.round_up_file()
    }

    /// The last cluster may be cut off by the end of the file; it is about to be written.
    fn round_up_file(&self) -> Result<()> {
        let whole = self.clusters.round_up(self.file.len());
        if whole == self.file.len() {
            return Ok(());
        }
        match self.file.set_len(whole) {
            // A device has the size it has: its last part is of no use then.
            Err(e) if e.kind() == chart::Kind::NoSpace => Ok(()),
            done => done,
        }
    }

    /// Ends a reservation.
    fn close_one(&self, writer: &mut Writer) {
        writer.open = writer.open.saturating_sub(1);
        if let Some(mutator) = &self.mutator {
            mutator.changed.notify_all();
        }
    }

    /// Keeps new reservations out and waits for those there are; the image thaws when the guard goes.
    pub(super) fn freeze(&self) -> Result<Frozen<'_>> {
        drop(self.begin()?);
        self.freeze_any()
    }

    /// The same on an image that has yet to be repaired.
    pub(super) fn freeze_any(&self) -> Result<Frozen<'_>> {
        let mutator = self.mutator()?;
        let mut writer = self.begin_on_any()?;
        writer.frozen = true;
        while writer.open > 0 {
            writer = mutator.changed.wait(writer).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(Frozen { image: self })
    }
}

/// No reservation begins while this lives.
pub(super) struct Frozen<'a> {
    image: &'a Image,
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if let (Ok(mut writer), Some(mutator)) = (self.image.writer(), &self.image.mutator) {
            writer.frozen = false;
            mutator.changed.notify_all();
        }
    }
}

impl ChartMut for Image {
    fn grain(&self) -> u64 {
        self.clusters.size()
    }

    fn epochs(&self) -> Option<&Arc<Epochs>> {
        self.mutator.as_ref().map(|m| &m.epochs)
    }

    fn reserve(&self, at: u64, want: u64, intent: Intent) -> Result<Reserve> {
        self.reserve_place(at, want, intent)
    }

    fn commit(&self, reservation: Reservation) -> Result<()> {
        self.commit_place(&reservation)
    }

    fn abort(&self, reservation: Reservation) {
        self.abort_place(&reservation);
    }

    fn set(&self, at: u64, len: u64, to: To, mode: SetMode) -> Result<u64> {
        self.set_clusters(at, len, to, mode)
    }

    fn resize(&self, len: u64) -> Result<()> {
        self.resize_disk(len)
    }

    fn flush(&self) -> Result<()> {
        self.flush_all()
    }

    fn close(&self) -> Result<()> {
        self.close_image()
    }
}
