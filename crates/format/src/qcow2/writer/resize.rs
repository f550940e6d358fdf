//! Growing and shrinking the disk.

use super::Writer;
use crate::field::to_index;
use crate::qcow2::layout::{MAX_L1_BYTES, OFLAG_COMPRESSED, OFLAG_COPIED};
use crate::qcow2::{FILE, Image, L2Entry};
use chart::{Answer, Error, Extent, Layer, Place, Result, Source, Wait};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

impl Image {
    pub(super) fn resize_disk(&self, len: u64) -> Result<()> {
        if !len.is_multiple_of(512) {
            return Err(Error::invalid(format!("{len} bytes are not whole sectors of 512")));
        }
        if self.header().nb_snapshots > 0 && self.version < 3 {
            return Err(Error::unsupported("an image of version 2 with snapshots cannot be resized"));
        }
        let old = self.size();
        if len == old {
            return Ok(());
        }
        // From here on it is finished: half of it would be neither the old disk nor the new.
        self.onlooker.watch().go_on()?;
        if len < old { self.shrink(old, len) } else { self.grow(old, len) }
    }

    /// The header first: were it last, a crash could leave a disk whose end shows what lies below. Then what lies
    /// behind the new end is let go, so that it is gone whoever makes the disk longer again.
    fn shrink(&self, old: u64, len: u64) -> Result<()> {
        let mut w = self.begin()?;
        self.take_bitmaps(&mut w, true)?;
        self.name_size(&mut w, len)?;
        self.refit_bitmaps(&mut w, len)?;
        self.clear_tail(len)?;
        self.let_range_go(&mut w, (self.clusters.round_up(len), old), false)?;
        if let Some(data_file) = self.data_file.as_ref().filter(|file| file.len() > len) {
            let [_, data_end] = &self.ends;
            data_end.store(len, Ordering::Relaxed);
            data_file.set_len(len)?;
        }
        self.flush_with(&mut w)
    }

    /// Clears what lies behind `end` in its cluster, as far as the place is the active disk's own. Returns whether
    /// there is nothing else behind it that could be read.
    fn clear_tail(&self, end: u64) -> Result<bool> {
        let stop = self.clusters.round_up(end);
        // What bitmaps know does not matter here: this is no part of the disk.
        let (entry, own_table) = self.entry_of(end)?;
        let own = own_table && entry.is_copied();
        let (mut at, mut clear) = (end, true);
        // Subclusters answer each for itself.
        while at < stop {
            let answer = self.look(at, stop.saturating_sub(at), Wait::Allowed)?;
            match answer {
                Answer::Here(Extent { place: Place::Raw { source, offset }, len, .. }) if own => {
                    let file = if source == FILE { Some(&self.file) } else { self.data_file.as_ref() };
                    file.map_or(Ok(()), |file| file.zero(offset, len, false))?;
                }
                Answer::Here(extent) => clear &= extent.place.is_zero(),
                Answer::Below { .. } => clear &= !self.shows_below(at),
            }
            at = at.saturating_add(answer.len().max(1));
        }
        Ok(clear)
    }

    /// What the disk grows by is zeros, durably, before the header says that it is longer.
    fn grow(&self, old: u64, len: u64) -> Result<()> {
        let mut w = self.begin()?;
        let entries = self.clusters.l1_entries(len);
        if entries.saturating_mul(8) > MAX_L1_BYTES {
            let what = format!(
                "the L1 table would need {} bytes; the most is {MAX_L1_BYTES}",
                entries.saturating_mul(8)
            );
            return Err(Error::unsupported(format!("{what}; larger clusters need fewer")));
        }
        self.take_bitmaps(&mut w, true)?;
        if entries > self.l1.len() {
            self.move_l1(&mut w, entries)?;
        }
        self.hide_subclusters(&mut w, old)?;
        if !self.clear_tail(old)? {
            // The disk has made it so, but somebody has taken a snapshot since.
            return Err(Error::conflict("the disk's last cluster is not its own any more; try again").at(old));
        }
        self.let_range_go(&mut w, (self.clusters.round_up(old), len), true)?;
        if let Some(data_file) = &self.data_file {
            self.clear_data_file(data_file.as_ref(), old, len)?;
        }
        self.flush_with(&mut w)?;
        self.name_size(&mut w, len)?;
        self.refit_bitmaps(&mut w, len)
    }

    /// Says of the subclusters that lie behind the disk's end in its last cluster, whole, that they are zeros.
    fn hide_subclusters(&self, w: &mut Writer, end: u64) -> Result<()> {
        let (entry, _) = self.entry_of(end)?;
        let compressed = entry.word & OFLAG_COMPRESSED != 0;
        let nothing = entry == L2Entry::default() && !self.shows_below(end);
        if !self.clusters.extended_l2() || self.clusters.within(end) == 0 || compressed || nothing {
            return Ok(());
        }
        let cut = end & self.clusters.subcluster_size().wrapping_sub(1) != 0;
        let first = self.clusters.subcluster(end).saturating_add(u32::from(cut));
        let behind = u32::MAX.checked_shl(first).unwrap_or(0);
        let (allocated, zeros) = (entry.allocated() & !behind, entry.zeros() | behind);
        let bitmap = u64::from(zeros).wrapping_shl(32) | u64::from(allocated);
        if bitmap == entry.bitmap { Ok(()) } else { self.replace_entry(w, end, L2Entry { bitmap, ..entry }) }
    }

    /// Lets go of all that is mapped from the cluster at `from` to `to`, outside of the disk: besides what has just
    /// been cut off, what a shrinking that was interrupted left, or a machine's state that came with a snapshot.
    /// With `hide`, nothing of what lies below is seen there either.
    fn let_range_go(&self, w: &mut Writer, (from, to): (u64, u64), hide: bool) -> Result<()> {
        let mut at = from;
        let (watch, span) = (self.onlooker.watch(), self.clusters.l2_span());
        while at < to {
            if at == from || at & span.saturating_sub(1) == 0 {
                watch.tell(at.saturating_sub(from), to.saturating_sub(from));
            }
            if hide && self.shows_below(at) {
                self.set_new_zero(w, at)?;
            } else if self.l1.entry(self.clusters.l1_index(at)).table().is_none() {
                at = at.saturating_sub(at & span.saturating_sub(1)).saturating_add(span);
                continue;
            } else if self.entry_of(at)?.0 != L2Entry::default() {
                self.replace_entry(w, at, L2Entry::default())?;
            }
            at = at.saturating_add(self.clusters.size());
        }
        Ok(())
    }

    /// Others may read the data file as it is: what the disk grows by is there, and zeros.
    fn clear_data_file(&self, file: &dyn Source, old: u64, len: u64) -> Result<()> {
        let held = file.len();
        if held > old {
            io::engine::clear(file, old, held.min(len).saturating_sub(old))?;
        }
        if held < len { file.set_len(len) } else { Ok(()) }
    }

    /// Makes a cluster that this layer leaves to those below read as zeros, whatever they may come to hold.
    pub(super) fn hide_cluster(&self, at: u64) -> Result<()> {
        self.look(at, 1, Wait::Allowed)?;
        let mut w = self.begin()?;
        self.set_new_zero(&mut w, at)
    }

    fn set_new_zero(&self, w: &mut Writer, at: u64) -> Result<()> {
        if self.version >= 3 {
            return self.replace_entry(w, at, self.zero_entry(None, true));
        }
        // Version 2 has no word for zeros over a backing file: they are written.
        let run = w.alloc.allocate(1)?;
        let offset = self.clusters.offset(run.first).ok_or_else(|| Error::no_space("the image is full"))?;
        if !run.fresh {
            io::file::write_zeros(self.file.as_ref(), offset, self.clusters.size())?;
        }
        self.replace_entry(w, at, L2Entry { word: offset | OFLAG_COPIED, bitmap: 0 })
    }

    /// A longer L1 table in a new place. The header names it once it is durable.
    fn move_l1(&self, w: &mut Writer, entries: u64) -> Result<()> {
        self.flush_with(w)?;
        let bytes = entries.saturating_mul(8);
        let run = w.alloc.allocate_whole(self.clusters.count(bytes))?;
        let offset = self.clusters.offset(run.first).ok_or_else(|| Error::no_space("the image is full"))?;
        let old = (self.header().l1_table_offset, self.l1.bytes());
        let mut table: Vec<u8> = self.l1.entries().flat_map(|entry| entry.0.to_be_bytes()).collect();
        table.resize(to_index(self.clusters.round_up(bytes)), 0);
        self.file.write_at(offset, &table, Wait::Allowed)?;
        self.flush_with(w)?;
        self.name_l1(offset, entries)?;
        self.l1.resize(entries)?;
        self.mutator()?.guard.add((run.first, run.count));
        let old = (self.clusters.index(old.0), self.clusters.count(old.1));
        self.mutator()?.guard.remove(old);
        w.unmap(old.0, old.1);
        self.flush_with(w)
    }

    fn name_l1(&self, offset: u64, entries: u64) -> Result<()> {
        let mut header = self.header.write().unwrap_or_else(PoisonError::into_inner);
        header.l1_size = u32::try_from(entries).map_err(|_| Error::invalid("too many L1 entries"))?;
        header.l1_table_offset = offset;
        let mut fields = header.l1_size.to_be_bytes().to_vec();
        fields.extend(offset.to_be_bytes());
        // Both fields are in the first sector: the header names one table or the other.
        self.file.write_at(36, &fields, Wait::Allowed)?;
        let [l1, _] = &self.reserved;
        l1.set(self.clusters.index(offset), self.clusters.count(entries.saturating_mul(8)));
        Ok(())
    }

    fn name_size(&self, w: &mut Writer, len: u64) -> Result<()> {
        let mut header = self.header.write().unwrap_or_else(PoisonError::into_inner);
        header.size = len;
        self.file.write_at(24, &len.to_be_bytes(), Wait::Allowed)?;
        self.size.store(len, Ordering::Release);
        drop(header);
        self.flush_with(w)
    }
}
