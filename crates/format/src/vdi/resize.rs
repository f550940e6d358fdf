//! Making the disk longer or shorter.

use super::Image;
use super::alloc::Bits;
use super::layout::{ENTRY, MAX_MAP_BYTES, SECTOR};
use super::map::{Entry, first_in, sector_of};
use super::writer::Writer;
use crate::field::to_index;
use chart::{Error, Result, Wait};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Blocks are moved in pieces of at most this.
const PIECE: u64 = 1 << 20;

impl Image {
    /// All of the disk is in flight: nobody reserves meanwhile.
    pub(super) fn resize_disk(&self, len: u64) -> Result<()> {
        if !len.is_multiple_of(SECTOR) {
            let what = format!("a VDI disk has whole sectors of {SECTOR} bytes, which {len} bytes are not");
            return Err(Error::unsupported(what).in_path(self.file.name()));
        }
        let _one = self.mutator()?.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut w = self.begin()?;
        match len.cmp(&self.size()) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => self.grow(&mut w, len).map_err(|e| e.in_path(self.file.name())),
            std::cmp::Ordering::Less => self.shrink(&mut w, len),
        }
    }

    /// What the disk grows by is durably zeros before the header says that it is there.
    fn grow(&self, w: &mut Writer, len: u64) -> Result<()> {
        let (old, new) = (self.blocks(), self.block.count(len));
        let room = w.header.data_offset().saturating_sub(w.header.map_offset());
        let most = (room.min(MAX_MAP_BYTES) / ENTRY).saturating_mul(self.block.size());
        if new.saturating_mul(ENTRY) > room.min(MAX_MAP_BYTES) {
            let what = format!(
                "the block map lies right before the blocks and has room for a disk of {most} bytes; convert the \
                 image to have a longer one"
            );
            return Err(Error::unsupported(what));
        }
        let end = self.size();
        if let (Entry::At(slot), true) = (self.map.entry(self.block.index(end)), self.block.within(end) != 0)
        {
            let offset = self.offset_of(slot);
            let from = offset.saturating_add(self.block.within(end));
            let to = offset.saturating_add(self.block.size()).min(self.file.len());
            self.file.zero(from, to.saturating_sub(from), false)?;
        }
        // Entries behind the disk's end are of no use, whatever they say.
        self.drop_from(w, old);
        // Sectors are written whole, with what they say of blocks that there are: that has to be durable.
        self.flush_with(w)?;
        let first = first_in(sector_of(old));
        self.write_entries(&w.header, first, new.saturating_sub(first))?;
        self.file.flush()?;
        self.name_size(w, len)
    }

    /// First nothing is stored behind the new end, then nothing in blocks of the file that there will be too many,
    /// then the header says so.
    fn shrink(&self, w: &mut Writer, len: u64) -> Result<()> {
        let _moving = self.keep_in_place_writers_out()?;
        let new = self.block.count(len);
        self.drop_from(w, new);
        self.flush_with(w)?;
        self.wait_for_readers(w)?;
        let far: Vec<_> = self.map.stored(new).filter(|(_, slot)| u64::from(*slot) >= new).collect();
        self.move_blocks(w, &far, new)?;
        self.name_size(w, len)
    }

    /// Nothing is stored from this block of the disk on.
    fn drop_from(&self, w: &mut Writer, first: u64) {
        let dropped: Vec<_> =
            self.map.stored(w.header.blocks()).filter(|(block, _)| *block >= first).collect();
        for (block, slot) in dropped {
            self.put(w, block, Entry::Free);
            w.slots.let_go(block, slot);
        }
    }

    fn name_size(&self, w: &mut Writer, len: u64) -> Result<()> {
        let blocks = u32::try_from(self.block.count(len)).unwrap_or(u32::MAX);
        let end = u32::try_from(w.slots.end()).unwrap_or(u32::MAX);
        w.write_header(self.file.as_ref(), |head| {
            head.disk_size.set(len);
            head.blocks_in_image.set(blocks);
            head.blocks_allocated.set(end);
        })?;
        self.size.store(len, Ordering::Release);
        self.file.flush()
    }

    /// Until what is returned goes, nobody writes in place.
    pub(super) fn keep_in_place_writers_out(&self) -> Result<Kept<'_>> {
        let epochs = &self.mutator()?.epochs;
        self.in_place.store(false, Ordering::SeqCst);
        let kept = Kept(self);
        epochs.wait_over(epochs.now());
        Ok(kept)
    }

    /// Gives these blocks of the disk, which are in these blocks of the file, others there: of the first `limit`. To
    /// be called while nobody writes in place. What they were in is free when this returns.
    pub(super) fn move_blocks(&self, w: &mut Writer, blocks: &[(u64, u32)], limit: u64) -> Result<()> {
        if blocks.is_empty() {
            return Ok(());
        }
        let epochs = &self.mutator()?.epochs;
        let mut moved = Vec::with_capacity(blocks.len());
        for &(block, from) in blocks {
            let (to, _) = w.slots.take(limit, epochs)?;
            if let Err(e) = self.copy_block(from, to) {
                w.slots.release(to);
                return Err(e);
            }
            self.put(w, block, Entry::At(to));
            moved.push(from);
        }
        self.flush_with(w)?;
        epochs.wait_over(epochs.now());
        // In an image that is being repaired, another block may have been in the same one, and still is.
        let mut named = Bits::default();
        let inside = |slot: &u32| u64::from(*slot) < w.header.blocks();
        self.map.stored(w.header.blocks()).map(|(_, slot)| slot).filter(inside).for_each(|slot| {
            named.set(slot.into());
        });
        moved.retain(|slot| !named.has((*slot).into()));
        moved.into_iter().for_each(|slot| w.slots.release(slot));
        Ok(())
    }

    fn copy_block(&self, from: u32, to: u32) -> Result<()> {
        let (from, to, size) = (self.offset_of(from), self.offset_of(to), self.block.size());
        let end = to.saturating_add(size);
        if end > self.file.len() {
            self.file.set_len(end)?;
        }
        let mut piece = vec![0; to_index(size.min(PIECE))];
        for done in (0..size).step_by(to_index(PIECE)) {
            let start = from.saturating_add(done);
            // The last block of a file may be cut off.
            let there = self.file.len().saturating_sub(start).min(crate::field::to_u64(piece.len()));
            let (read, rest) = piece.split_at_mut(to_index(there));
            self.file.read_at(start, read, Wait::Allowed)?;
            rest.fill(0);
            self.file.write_at(to.saturating_add(done), &piece, Wait::Allowed)?;
        }
        Ok(())
    }
}

/// Nobody writes in place while this lives.
pub(super) struct Kept<'a>(&'a Image);

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.0.in_place.store(true, Ordering::SeqCst);
    }
}
