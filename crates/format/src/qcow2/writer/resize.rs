//! Growing and shrinking the disk.

use super::Writer;
use crate::field::to_index;
use crate::qcow2::layout::{MAX_L1_BYTES, OFLAG_COPIED};
use crate::qcow2::{FILE, Image, L2Entry};
use chart::{Answer, Error, Layer, Place, Result, Wait};
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
    /// behind the new end is let go, so that it is gone if the disk ever grows again.
    fn shrink(&self, old: u64, len: u64) -> Result<()> {
        let mut w = self.begin()?;
        self.take_bitmaps(&mut w, true)?;
        self.clear_tail(len)?;
        self.name_size(&mut w, len)?;
        self.refit_bitmaps(&mut w, len)?;
        let from = self.clusters.round_up(len);
        let mut at = from;
        let (watch, span) = (self.onlooker.watch(), self.clusters.l2_span());
        while at < old {
            if at == from || at & span.saturating_sub(1) == 0 {
                watch.tell(at.saturating_sub(from), old.saturating_sub(from));
            }
            if self.l1.entry(self.clusters.l1_index(at)).table().is_none() {
                at = at.saturating_sub(at & span.saturating_sub(1)).saturating_add(span);
                continue;
            }
            if self.entry_of(at)?.0 != L2Entry::default() {
                self.replace_entry(&mut w, at, L2Entry::default())?;
            }
            at = at.saturating_add(self.clusters.size());
        }
        if let Some(data_file) = self.data_file.as_ref().filter(|file| file.len() > len) {
            data_file.set_len(len)?;
        }
        self.flush_with(&mut w)
    }

    /// The part of the last cluster that lies behind the new end reads as zeros, should the disk grow again.
    fn clear_tail(&self, len: u64) -> Result<()> {
        let within = self.clusters.within(len);
        if within == 0 {
            return Ok(());
        }
        let end = len.saturating_add(self.clusters.size().saturating_sub(within)).min(self.size());
        // What bitmaps know does not matter here: this is no part of the disk any more.
        let (entry, own_table) = self.entry_of(len)?;
        let own = own_table && entry.is_copied();
        let mut at = len;
        // Subclusters answer each for itself.
        while own && at < end {
            let rest = end.saturating_sub(at);
            let run = match self.look(at, rest, Wait::Allowed)? {
                Answer::Here(extent) => {
                    match extent.place {
                        Place::Raw { source: FILE, offset } => self.file.zero(offset, extent.len, false)?,
                        Place::Raw { offset, .. } => {
                            self.data_file
                                .as_ref()
                                .map_or(Ok(()), |file| file.zero(offset, extent.len, false))?;
                        }
                        _ => {}
                    }
                    extent.len
                }
                Answer::Below { len } => len,
            };
            at = at.saturating_add(run.max(1));
        }
        Ok(())
    }

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
        self.hide_below(&mut w, old, len)?;
        self.flush_with(&mut w)?;
        if let Some(data_file) = self.data_file.as_ref().filter(|file| file.len() < len) {
            data_file.set_len(len)?;
        }
        self.name_size(&mut w, len)?;
        self.refit_bitmaps(&mut w, len)
    }

    /// What a disk grows by reads as zeros, even where the backing file is longer than the disk was.
    fn hide_below(&self, w: &mut Writer, old: u64, len: u64) -> Result<()> {
        let Some(below) = self.below.as_ref().map(|below| below.len()) else { return Ok(()) };
        let end = below.min(len);
        let from = self.clusters.round_up(old);
        let mut at = from;
        let (watch, span) = (self.onlooker.watch(), self.clusters.l2_span());
        while at < end {
            if at == from || at & span.saturating_sub(1) == 0 {
                watch.tell(at.saturating_sub(from), end.saturating_sub(from));
            }
            self.set_new_zero(w, at)?;
            at = at.saturating_add(self.clusters.size());
        }
        Ok(())
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
