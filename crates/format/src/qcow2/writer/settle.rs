//! The order of writes: what a crash may find.

use super::{Lowered, Writer};
use crate::qcow2::Image;
use crate::qcow2::cache::DirtySlice;
use chart::{Result, Wait};
use std::sync::PoisonError;

/// What a crash between the steps of `settle` may leave is a leak, whatever subset of a step's writes survives:
///
/// 1. refcounts, and L2 tables that nothing refers to yet;
/// 2. once those are durable: the refcount table's new entries, or the header's pointer to a new table;
/// 3. once those and the data are durable: the L2 entries, and the L1 entries of new tables.
///
/// What the map no longer refers to has its refcount lowered only after step 3 is durable too: see `flush_all`.
impl Image {
    /// Writes what is dirty, in that order. What step 3 wrote is not durable yet.
    pub(in crate::qcow2) fn settle(&self, w: &mut Writer) -> Result<()> {
        let slices = self.slices.dirty();
        let is_new = |slice: &&DirtySlice| w.new_tables.contains(&self.clusters.start(slice.offset));
        let (unlinked, linked): (Vec<_>, Vec<_>) = slices.iter().partition(is_new);
        w.alloc.write_blocks()?;
        self.write_slices(&unlinked)?;
        if w.alloc.has_new_root() {
            self.file.flush()?;
            self.write_refcount_root(w)?;
        }
        if linked.is_empty() && w.dirty_l1.is_empty() {
            return Ok(());
        }
        if let Some(data_file) = &self.data_file {
            data_file.flush()?;
        }
        self.file.flush()?;
        self.write_slices(&linked)?;
        self.write_l1(w)
    }

    fn write_slices(&self, slices: &[&DirtySlice]) -> Result<()> {
        for slice in slices {
            self.file.write_at(slice.offset, &slice.bytes, Wait::Allowed)?;
            self.slices.mark_clean(slice)?;
        }
        Ok(())
    }

    fn write_refcount_root(&self, w: &mut Writer) -> Result<()> {
        let Some((offset, count)) = w.alloc.write_entries()? else { return Ok(()) };
        let mut header = self.header.write().unwrap_or_else(PoisonError::into_inner);
        header.refcount_table_offset = offset;
        header.refcount_table_clusters = count;
        let mut fields = offset.to_be_bytes().to_vec();
        fields.extend(count.to_be_bytes());
        // Both fields are in the first sector: the header names one table or the other.
        self.file.write_at(48, &fields, Wait::Allowed)?;
        drop(header);
        let [_, tables] = &self.reserved;
        tables.set(self.clusters.index(offset), count.into());
        if let Some((first, count)) = w.alloc.table_moved() {
            w.unmap(first, count);
        }
        Ok(())
    }

    fn write_l1(&self, w: &mut Writer) -> Result<()> {
        let table = self.header().l1_table_offset;
        for &index in &w.dirty_l1 {
            let offset = table.saturating_add(index.saturating_mul(8));
            self.file.write_at(offset, &self.l1.entry(index).0.to_be_bytes(), Wait::Allowed)?;
        }
        w.dirty_l1.clear();
        w.new_tables.clear();
        Ok(())
    }

    pub(super) fn flush_all(&self) -> Result<()> {
        let mut w = self.writer()?;
        self.flush_with(&mut w)
    }

    /// Makes the map durable, and then gives out again what it no longer refers to.
    pub(in crate::qcow2) fn flush_with(&self, w: &mut Writer) -> Result<()> {
        self.settle(w)?;
        if let Some(data_file) = &self.data_file {
            data_file.flush()?;
        }
        self.file.flush()?;
        if !w.unmapped.is_empty() {
            // Taken now, after every change: whoever enters a later epoch cannot see the old map.
            let epoch = self.mutator()?.epochs.now();
            let lowered = std::mem::take(&mut w.unmapped);
            w.retired.push_back((epoch, lowered));
        }
        self.reclaim(w)
    }

    /// Lowers the refcounts of what nobody can be reading any more.
    fn reclaim(&self, w: &mut Writer) -> Result<()> {
        let epochs = &self.mutator()?.epochs;
        while let Some((epoch, _)) = w.retired.front() {
            if !epochs.is_over(*epoch) {
                break;
            }
            for run in w.retired.pop_front().into_iter().flat_map(|(_, runs)| runs) {
                self.lower(w, run)?;
            }
        }
        Ok(())
    }

    fn lower(&self, w: &mut Writer, run: Lowered) -> Result<()> {
        for cluster in run.first..run.first.saturating_add(run.count) {
            if w.alloc.lower(cluster)? {
                let start = self.clusters.offset(cluster).unwrap_or(0);
                self.slices.invalidate(start, start.saturating_add(self.clusters.size()))?;
            }
        }
        Ok(())
    }

    /// Flushes, lowers all that can be lowered, and cuts off the room the file grew ahead.
    pub(super) fn close_image(&self) -> Result<()> {
        self.flush_all()?;
        if !self.writer()?.started {
            return Ok(());
        }
        let _frozen = self.freeze_any()?;
        let mut w = self.writer()?;
        self.stop_in_place()?;
        let closed = self.close_quietly(&mut w);
        // Unless its bitmaps are at rest, the next write goes on as before.
        self.set_in_place(w.started);
        closed
    }

    /// The same where nobody is writing, nor can.
    pub(super) fn close_quietly(&self, w: &mut Writer) -> Result<()> {
        self.flush_with(w)?;
        self.rest_bitmaps(w)?;
        while let Some((epoch, _)) = w.retired.front() {
            let epoch = *epoch;
            self.mutator()?.epochs.wait_over(epoch);
            self.reclaim(w)?;
        }
        w.alloc.write_blocks()?;
        let end = self.clusters.offset(w.alloc.end()).unwrap_or(u64::MAX);
        if self.file.len() > end {
            self.file.set_len(end)?;
        }
        self.file.flush()
    }
}
