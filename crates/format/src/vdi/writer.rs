//! Writing an image in place.
//!
//! One [`Writer`] behind one lock changes the map; lookups never take that lock. What a crash may find is decided by
//! the order of writes, which is in `settle`.

use super::alloc::Slots;
use super::layout::ENTRY;
use super::map::{Entry, sector_of};
use super::{FILE, Header, Image, Kind, Uuid};
use crate::flushes::Flushes;
use ::chart::{ChartMut, Epochs, Error, Intent, Reservation, Reserve, Result, SetMode, Source, To, Wait};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use zerocopy::IntoBytes;

/// At most so many blocks are set before others may have the lock.
const BATCH: usize = 4096;

/// The file grows by about so much at a time.
const STEP: u64 = 16 << 20;

/// Marks the token of a reservation that is a block's own slot again.
const AGAIN: u64 = 1 << 32;

/// What an open image needs to be written.
pub(super) struct Mutator {
    pub(super) epochs: Arc<Epochs>,
    pub(super) flushes: Flushes,
    state: Mutex<Writer>,
}

/// The state that only the writer has.
pub(super) struct Writer {
    /// As it is on disk, or as it was last written there.
    pub(super) header: Header,
    pub(super) slots: Slots,
    /// The slot that is block 0 of the file. Those before it hold the map, since the disk has grown.
    pub(super) origin: u32,
    /// Sectors of the map that the disk does not have yet.
    pub(super) dirty: BTreeSet<u64>,
    /// Blocks of the disk that are being written to a new place.
    pub(super) open: BTreeSet<u64>,
    /// The header says that the image has been written to.
    pub(super) started: bool,
    /// The map contradicts itself: nothing is written before it is repaired.
    pub(super) damaged: bool,
}

impl Mutator {
    pub(super) fn new(header: &Header, slots: Slots, damaged: bool) -> Mutator {
        let (dirty, open) = (BTreeSet::new(), BTreeSet::new());
        let state =
            Mutex::new(Writer { header: *header, slots, origin: 0, dirty, open, started: false, damaged });
        Mutator { epochs: Arc::default(), flushes: Flushes::default(), state }
    }
}

impl Writer {
    /// How many slots there can be.
    pub(super) fn limit(&self) -> u64 {
        self.header.blocks().saturating_add(self.origin.into())
    }

    /// What the header is to count: one past the last block of the file that is taken.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.slots.end()).unwrap_or(u32::MAX).saturating_sub(self.origin)
    }

    /// Writes the header as `change` makes it.
    pub(super) fn write_header(
        &mut self,
        file: &dyn Source,
        change: impl FnOnce(&mut super::layout::Head),
    ) -> Result<()> {
        let mut head = self.header.head;
        change(&mut head);
        let header = Header::of(head)?;
        // One sector, so that it is written as one.
        file.write_at(0, head.as_bytes(), Wait::Allowed)?;
        self.header = header;
        Ok(())
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

    /// The writer, once the header says that the image is written.
    pub(super) fn begin(&self) -> Result<MutexGuard<'_, Writer>> {
        let mut w = self.writer()?;
        if w.damaged {
            let what = "the block map contradicts itself; repair the image before it is written";
            return Err(Error::corrupt(what).in_path(self.file.name()));
        }
        self.start(&mut w)?;
        Ok(w)
    }

    /// Gives the image another modification UUID, once: images that were made over it can tell by it that they no
    /// longer fit. Only then may blocks be written in place (law 4).
    pub(super) fn start(&self, w: &mut Writer) -> Result<()> {
        if w.started {
            return Ok(());
        }
        w.write_header(self.file.as_ref(), |head| head.uuid_last_snap = Uuid::fresh().0)?;
        self.file.flush()?;
        self.round_up_file(w)?;
        w.started = true;
        self.in_place.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// The last block may be cut off by the end of the file; it is about to be written.
    fn round_up_file(&self, w: &Writer) -> Result<()> {
        let end = u32::try_from(w.slots.end()).map_or(0, |end| self.offset_of(end));
        if end > self.file.len() { self.file.set_len(end) } else { Ok(()) }
    }

    /// The map's entry of a block changes.
    pub(super) fn put(&self, w: &mut Writer, block: u64, entry: Entry) {
        self.map.set(block, entry);
        w.dirty.insert(sector_of(block));
    }

    fn reserve_block(&self, at: u64, want: u64, intent: Intent) -> Result<Reserve> {
        let mut w = self.begin()?;
        let block = self.block.index(at);
        let rest = self.block.size().saturating_sub(self.block.within(at)).min(want);
        // There is nothing below: zeros are the layer's own.
        if intent == Intent::Fill || matches!(self.map.entry(block), Entry::At(_)) {
            return Ok(Reserve::Already { len: rest });
        }
        let (slot, zeroed, again) = match w.slots.again(block) {
            Some(slot) => (slot, false, AGAIN),
            None => {
                let (slot, zeroed) = {
                    let limit = w.limit();
                    w.slots.take(limit, &self.mutator()?.epochs)?
                };
                (slot, zeroed, 0)
            }
        };
        if let Err(e) = self.make_room(slot, w.limit()) {
            self.give_back(&mut w, block, slot, again != 0);
            return Err(e);
        }
        w.open.insert(block);
        Ok(Reserve::Ready(Reservation {
            at: self.block.start(at),
            len: self.block.size(),
            source: FILE,
            offset: self.offset_of(slot),
            zeroed,
            token: u64::from(slot) | again,
        }))
    }

    /// Makes the file long enough to hold a slot, and more at once, as far as there can be more.
    fn make_room(&self, slot: u32, limit: u64) -> Result<()> {
        let (start, len) = (self.offset_of(slot), self.file.len());
        let needed = start.saturating_add(self.block.size());
        if needed <= len {
            return Ok(());
        }
        let most = self.first.saturating_add(limit.saturating_mul(self.stride));
        let ample = start.saturating_add(STEP).min(most).max(needed);
        match self.file.set_len(ample) {
            Err(_) if ample > needed => self.file.set_len(needed),
            done => done,
        }
    }

    fn give_back(&self, w: &mut Writer, block: u64, slot: u32, again: bool) {
        match again {
            // Whether the map on disk has let go of it is not asked again: a flush will tell.
            true => w.slots.let_go(block, slot),
            false => w.slots.release(slot),
        }
    }

    fn commit_block(&self, r: &Reservation) -> Result<()> {
        let mut w = self.writer()?;
        let block = self.block.index(r.at);
        w.open.remove(&block);
        self.put(&mut w, block, Entry::At(slot_of(r)));
        Ok(())
    }

    fn set_blocks(&self, at: u64, len: u64, to: To, mode: SetMode) -> Result<u64> {
        let w = self.begin()?;
        let end = at.saturating_add(len);
        if (to == To::Hole || mode.may_unmap) && self.kind == Kind::Dynamic {
            let entry = if to == To::Hole { Entry::Free } else { Entry::Zero };
            return Ok(self.unmap(w, at, end, entry).min(end).saturating_sub(at));
        }
        drop(w);
        // The space is to be kept: then it is the file that holds the zeros. Nobody else gives these blocks other
        // places meanwhile: they are in flight.
        let mut next = at;
        while next < end && to == To::Zero {
            if let Entry::At(slot) = self.map.entry(self.block.index(next)) {
                match self.clear(slot, mode.fast_only) {
                    Err(e) if next > at && e.kind() == ::chart::Kind::Unsupported => {
                        return Ok(next.saturating_sub(at));
                    }
                    done => done?,
                }
            }
            next = self.block_behind(next);
        }
        Ok(len)
    }

    /// Lets go of what is stored from `at` to `end`, or of the first part of it. Returns how far that is.
    fn unmap(&self, mut w: MutexGuard<'_, Writer>, at: u64, end: u64, entry: Entry) -> u64 {
        let mut next = at;
        for _ in 0..BATCH {
            if next >= end {
                break;
            }
            let block = self.block.index(next);
            if let Entry::At(slot) = self.map.entry(block) {
                self.put(&mut w, block, entry);
                w.slots.let_go(block, slot);
            }
            next = self.block_behind(next);
        }
        next
    }

    fn block_behind(&self, at: u64) -> u64 {
        self.block.start(at).saturating_add(self.block.size())
    }

    fn clear(&self, slot: u32, fast_only: bool) -> Result<()> {
        let offset = self.offset_of(slot);
        let len = self.block.size().min(self.file.len().saturating_sub(offset));
        self.file.zero(offset, len, fast_only)
    }

    /// Writes the map's entries of these blocks to this place, numbered from `origin` on.
    pub(super) fn write_entries(&self, offset: u64, first: u64, count: u64, origin: u32) -> Result<()> {
        let len = count.saturating_mul(ENTRY);
        crate::preallocation::write_pieces(self.file.as_ref(), offset, len, |done, piece| {
            self.map.write(first.saturating_add(done / ENTRY), origin, piece);
        })
    }
}

fn slot_of(r: &Reservation) -> u32 {
    u32::try_from(r.token & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

impl ChartMut for Image {
    fn grain(&self) -> u64 {
        self.block.size()
    }

    fn epochs(&self) -> Option<&Arc<Epochs>> {
        self.mutator.as_ref().map(|m| &m.epochs)
    }

    fn reserve(&self, at: u64, want: u64, intent: Intent) -> Result<Reserve> {
        self.reserve_block(at, want, intent)
    }

    fn commit(&self, reservation: Reservation) -> Result<()> {
        self.commit_block(&reservation)
    }

    fn abort(&self, r: Reservation) {
        let Ok(mut w) = self.writer() else { return };
        let block = self.block.index(r.at);
        w.open.remove(&block);
        self.give_back(&mut w, block, slot_of(&r), r.token & AGAIN != 0);
    }

    fn set(&self, at: u64, len: u64, to: To, mode: SetMode) -> Result<u64> {
        self.set_blocks(at, len, to, mode)
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
