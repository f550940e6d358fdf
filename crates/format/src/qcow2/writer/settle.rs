//! The order of writes: what a crash may find.

use super::{Lowered, Writer};
use crate::flushes::Between;
use crate::qcow2::Image;
use crate::qcow2::cache::DirtySlice;
use chart::{Result, Wait};
use std::collections::BTreeSet;
use std::sync::PoisonError;

/// How often a flush that lets go of the writer begins again because somebody else has linked meanwhile.
const STEPS_TRIES: usize = 3;

/// What step 3 is to write, as it was at one moment.
struct Batch {
    slices: Vec<DirtySlice>,
    /// Entries of the L1 table, and the tables that they link.
    l1: BTreeSet<u64>,
    tables: BTreeSet<u64>,
    /// What `Writer::links` was then.
    links: u64,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.slices.is_empty() && self.l1.is_empty()
    }
}

/// What a crash between the steps of `settle` may leave is a leak, whatever subset of a step's writes survives:
///
/// 1. refcounts, and L2 tables that nothing refers to yet;
/// 2. once those are durable: the refcount table's new entries, or the header's pointer to a new table;
/// 3. once those and the data are durable: the L2 entries, and the L1 entries of new tables.
///
/// What the map no longer refers to has its refcount lowered only after step 3 is durable too: see `flush_all`.
///
/// A flush that many wait for does not keep others from writing: `flush_all` lets go of the writer while the system
/// makes things durable. What it links afterwards is what it took before, so what was written meanwhile waits for the
/// next one.
impl Image {
    /// Writes what is dirty, in that order. What step 3 wrote is not durable yet.
    pub(in crate::qcow2) fn settle(&self, w: &mut Writer) -> Result<()> {
        let batch = self.gather(w)?;
        if w.alloc.has_new_root() {
            self.file.flush()?;
            self.write_refcount_root(w)?;
        }
        if !batch.is_empty() {
            self.flush_files()?;
            self.link(w, &batch)?;
        }
        Ok(())
    }

    /// Step 1, and what step 3 is to write.
    fn gather(&self, w: &mut Writer) -> Result<Batch> {
        // Before anything is written, whatever becomes of it: who has taken a batch earlier must not link that now.
        w.links = w.links.wrapping_add(1);
        let slices = self.slices.dirty();
        let is_new = |slice: &DirtySlice| w.new_tables.contains(&self.clusters.start(slice.offset));
        let (unlinked, linked): (Vec<_>, Vec<_>) = slices.into_iter().partition(is_new);
        w.alloc.write_blocks()?;
        self.write_slices(&unlinked)?;
        let (l1, tables) = (w.dirty_l1.clone(), w.new_tables.clone());
        Ok(Batch { slices: linked, l1, tables, links: w.links })
    }

    /// Step 3, once everything that `batch` refers to is durable.
    fn link(&self, w: &mut Writer, batch: &Batch) -> Result<()> {
        w.links = w.links.wrapping_add(1);
        // From here on the disk may refer to these tables, also where a write fails half way.
        w.new_tables.retain(|table| !batch.tables.contains(table));
        self.write_slices(&batch.slices)?;
        let table = self.header().l1_table_offset;
        for index in &batch.l1 {
            let offset = table.saturating_add(index.saturating_mul(8));
            self.file.write_at(offset, &self.l1.entry(*index).0.to_be_bytes(), Wait::Allowed)?;
        }
        w.dirty_l1.retain(|index| !batch.l1.contains(index));
        Ok(())
    }

    fn flush_files(&self) -> Result<()> {
        if let Some(data_file) = &self.data_file {
            data_file.flush()?;
        }
        self.file.flush()
    }

    fn write_slices(&self, slices: &[DirtySlice]) -> Result<()> {
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

    /// Keeps flushes out: nobody is between the steps of one while this is held, having taken what the map has let go
    /// of. For those who make refcounts anew, or bring the image to rest. To be taken before the writer.
    pub(super) fn between_flushes(&self) -> Result<Between<'_>> {
        Ok(self.mutator()?.flushes.between())
    }

    /// Makes everything durable that was written before.
    pub(super) fn flush_all(&self) -> Result<()> {
        self.mutator()?.flushes.flush(|| self.flush_in_steps())
    }

    /// The same as `flush_with`, letting go of the writer whenever the system is at work.
    fn flush_in_steps(&self) -> Result<()> {
        for _ in 0..STEPS_TRIES {
            let mut w = self.writer()?;
            let batch = self.gather(&mut w)?;
            if w.alloc.has_new_root() {
                break;
            }
            let unmapped = std::mem::take(&mut w.unmapped);
            if !batch.is_empty() {
                drop(w);
                let durable = self.flush_files();
                w = self.writer()?;
                // Somebody else has linked more than this meanwhile, and newer: it must not be undone.
                let linked = durable.and_then(|()| {
                    if w.links == batch.links { self.link(&mut w, &batch).map(|()| true) } else { Ok(false) }
                });
                if !matches!(linked, Ok(true)) {
                    w.unmapped.splice(0..0, unmapped);
                    linked?;
                    continue;
                }
            }
            drop(w);
            let durable = self.flush_files();
            let mut w = self.writer()?;
            if durable.is_err() {
                w.unmapped.splice(0..0, unmapped);
                return durable;
            }
            self.retire(&mut w, unmapped)?;
            return self.reclaim(&mut w);
        }
        let mut w = self.writer()?;
        self.flush_with(&mut w)
    }

    /// Makes the map durable, and then gives out again what it no longer refers to.
    pub(in crate::qcow2) fn flush_with(&self, w: &mut Writer) -> Result<()> {
        self.settle(w)?;
        self.flush_files()?;
        let unmapped = std::mem::take(&mut w.unmapped);
        self.retire(w, unmapped)?;
        self.reclaim(w)
    }

    /// The durable map does not refer to these any more; who looked it up before may still be at them.
    fn retire(&self, w: &mut Writer, unmapped: Vec<Lowered>) -> Result<()> {
        if !unmapped.is_empty() {
            // Taken now, after every change: whoever enters a later epoch cannot see the old map.
            let epoch = self.mutator()?.epochs.now();
            w.retired.push_back((epoch, unmapped));
        }
        Ok(())
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
        let _between = self.between_flushes()?;
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
        if self.file.len() > end && !w.alloc.is_fixed() {
            self.file.set_len(end)?;
        }
        self.file.flush()
    }
}
