//! Making the disk longer or shorter.

use super::Image;
use super::alloc::Bits;
use super::layout::{ENTRY, MAX_MAP_BYTES, SECTOR};
use super::map::{Entry, first_in, sector_of};
use super::writer::Writer;
use crate::field::{to_index, to_u64};
use chart::{Error, Result, Wait};
use io::watch::Watch;
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
        // From here on it is finished: half of it would be neither the old disk nor the new.
        self.onlooker.watch().go_on()?;
        let _between = self.mutator()?.flushes.between();
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
        let needed = new.saturating_mul(ENTRY);
        if needed > MAX_MAP_BYTES {
            let most = (MAX_MAP_BYTES / ENTRY).saturating_mul(self.block.size());
            return Err(Error::unsupported(format!(
                "{len} bytes; the longest disk that is made here has {most}"
            )));
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
        if needed > w.header.data_offset().saturating_sub(w.header.map_offset()) {
            return self.grow_over_blocks(w, len);
        }
        let first = first_in(sector_of(old));
        let offset = self.entry_offset(&w.header, first);
        self.write_entries(offset, first, new.saturating_sub(first), w.origin)?;
        self.file.flush()?;
        self.name_size(w, len)
    }

    /// The same where the map has no room to become longer: what is in the first blocks of the file goes elsewhere, a
    /// new map takes their place, and one write of the header makes that, and blocks that begin behind it, true.
    fn grow_over_blocks(&self, w: &mut Writer, len: u64) -> Result<()> {
        let new = self.block.count(len);
        let (map, origin) = (w.header.data_offset(), u64::from(w.origin));
        let taken = new.saturating_mul(ENTRY).div_ceil(self.stride.max(1));
        let first = origin.saturating_add(taken);
        let data = map.saturating_add(taken.saturating_mul(self.stride));
        let places = [data, map, first].map(u32::try_from);
        let [Ok(data), Ok(map), Ok(first)] = places else {
            return Err(Error::unsupported(
                "blocks would have to begin behind byte 2^32, which VDI cannot say",
            ));
        };
        let _kept = self.keep_in_place_writers_out()?;
        self.wait_for_readers(w)?;
        let (there, behind): (Vec<_>, Vec<_>) =
            self.map.stored(w.header.blocks()).partition(|(_, slot)| *slot < first);
        let free = w.limit().saturating_sub(first.into()).saturating_sub(to_u64(behind.len()));
        if free < to_u64(there.len()) {
            let what = "the block map lies right before the blocks, and every block is stored: there is no room for a \
                        longer map; convert the image to have one";
            return Err(Error::unsupported(what));
        }
        let hold = |w: &mut Writer| (origin..first.into()).for_each(|slot| w.slots.take_this(slot));
        hold(w);
        let limit = w.limit();
        self.move_blocks(w, &there, limit, self.told())?;
        hold(w);
        if self.file.len() < data.into() {
            self.file.set_len(data.into())?;
        }
        self.write_entries(map.into(), 0, new, first)?;
        self.file.flush()?;
        let count = u32::try_from(w.slots.end()).unwrap_or(u32::MAX).saturating_sub(first);
        w.write_header(self.file.as_ref(), |head| {
            head.offset_bmap.set(map);
            head.offset_data.set(data);
            head.disk_size.set(len);
            head.blocks_in_image.set(u32::try_from(new).unwrap_or(u32::MAX));
            head.blocks_allocated.set(count);
        })?;
        w.origin = first;
        self.size.store(len, Ordering::Release);
        self.file.flush()
    }

    /// First nothing is stored behind the new end, then nothing in blocks of the file that there will be too many,
    /// then the header says so.
    fn shrink(&self, w: &mut Writer, len: u64) -> Result<()> {
        let _moving = self.keep_in_place_writers_out()?;
        let new = self.block.count(len);
        self.drop_from(w, new);
        self.flush_with(w)?;
        self.wait_for_readers(w)?;
        let limit = new.saturating_add(w.origin.into());
        let far: Vec<_> = self.map.stored(new).filter(|(_, slot)| u64::from(*slot) >= limit).collect();
        self.move_blocks(w, &far, limit, self.told())?;
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
        let count = w.count();
        w.write_header(self.file.as_ref(), |head| {
            head.disk_size.set(len);
            head.blocks_in_image.set(blocks);
            head.blocks_allocated.set(count);
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

    /// Who is told how far this is, and does not end it.
    fn told(&self) -> Watch<'_> {
        Watch { cancel: None, ..self.onlooker.watch() }
    }

    /// Gives these blocks of the disk, which are in these blocks of the file, others there: of the first `limit`. To
    /// be called while nobody writes in place. What they were in is free when this returns. Where it fails or is
    /// interrupted before that is written, they are where they were.
    pub(super) fn move_blocks(
        &self,
        w: &mut Writer,
        blocks: &[(u64, u32)],
        limit: u64,
        watch: Watch<'_>,
    ) -> Result<()> {
        if blocks.is_empty() {
            return Ok(());
        }
        let epochs = &self.mutator()?.epochs;
        let (mut taken, size) = (Vec::with_capacity(blocks.len()), self.block.size());
        let total = to_u64(blocks.len()).saturating_mul(size);
        let moved = blocks.iter().try_for_each(|&(block, from)| {
            watch.step(to_u64(taken.len()).saturating_mul(size), total)?;
            let (to, _) = w.slots.take(limit, epochs)?;
            taken.push(to);
            self.copy_block(from, to)?;
            self.put(w, block, Entry::At(to));
            Ok(())
        });
        if moved.is_err() {
            for (&(block, from), _) in blocks.iter().zip(&taken) {
                self.put(w, block, Entry::At(from));
            }
            // Who has looked one up meanwhile may be reading there.
            epochs.wait_over(epochs.now());
            taken.into_iter().for_each(|slot| w.slots.release(slot));
            return moved;
        }
        self.flush_with(w)?;
        epochs.wait_over(epochs.now());
        // In an image that is being repaired, another block may have been in the same one, and still is.
        let mut named = Bits::default();
        let inside = |slot: &u32| u64::from(*slot) < w.limit();
        self.map.stored(w.header.blocks()).map(|(_, slot)| slot).filter(inside).for_each(|slot| {
            named.set(slot.into());
        });
        let left = blocks.iter().map(|(_, slot)| *slot).filter(|slot| !named.has((*slot).into()));
        left.for_each(|slot| w.slots.release(slot));
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
            let there = self.file.len().saturating_sub(start).min(to_u64(piece.len()));
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
