//! Giving out clusters and counting references, in an image that is being written: the refcount table in memory,
//! its blocks as they are needed.
//!
//! A refcount may be raised on disk before anything refers to the cluster, and lowered after nothing does any
//! more: in between is a leak, never a corruption. So blocks may be written at any time. What must wait is the
//! table's pointer to a new block (until the block is durable), and the header's to a new table.

use super::guard::Guard;
use super::layout::{MAX_REFCOUNT_TABLE_BYTES, REFCOUNT_TABLE_RESERVED};
use super::refcount::{RefcountTable, Width, read_block};
use super::{Clusters, Header};
use crate::field::{to_index, to_u64};
use chart::{Error, Result, Source, Wait};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// At most so many bytes of clean refcount blocks are kept.
const KEPT_BYTES: u64 = 4 << 20;

/// The file grows by at least so much at once: the system call costs more than the zeros at its end.
const GROWTH: u64 = 4 << 20;

/// Some clusters in a row, given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The number of the first.
    pub(super) first: u64,
    /// How many.
    pub(super) count: u64,
    /// They were never used and read as zeros.
    pub(super) fresh: bool,
}

struct Block {
    bytes: Vec<u8>,
    /// The bytes that changed since they were last written; empty for none.
    dirty: Range<u64>,
}

impl Block {
    fn soil(&mut self, width: Width, entry: u64) {
        let bits = u64::from(width.bits());
        let bit = entry.saturating_mul(bits);
        let (start, end) = (bit / 8, bit.saturating_add(bits).div_ceil(8));
        let empty = self.dirty.is_empty();
        self.dirty.start = if empty { start } else { self.dirty.start.min(start) };
        self.dirty.end = if empty { end } else { self.dirty.end.max(end) };
    }
}

/// The clusters of an image that is being written, and how often each is referred to.
pub(super) struct Allocator {
    file: Arc<dyn Source>,
    clusters: Clusters,
    width: Width,
    /// What is never given out.
    guard: Arc<Guard>,
    table: Vec<u64>,
    table_offset: u64,
    /// How many entries the table on disk has; the one in memory may be longer until it is moved.
    table_on_disk: u64,
    /// Where a longer table will be and its length in clusters, until the header says so.
    moved_to: Option<(u64, u64)>,
    /// Entries of the table that the disk does not have yet.
    new_entries: BTreeSet<u64>,
    blocks: BTreeMap<u64, Block>,
    /// The first cluster that was never used.
    end: u64,
    /// No free cluster is known before this one.
    hint: u64,
    /// The file could not be made longer: a device, a partition, an export. What it has behind `end` may hold anything.
    fixed: bool,
}

impl Allocator {
    /// Those of the image in `file`.
    pub(super) fn open(file: Arc<dyn Source>, header: &Header, guard: Arc<Guard>) -> Result<Allocator> {
        let clusters = header.clusters()?;
        let RefcountTable { entries: mut table, width, .. } = RefcountTable::read(file.as_ref(), header)?;
        for entry in &mut table {
            *entry &= !REFCOUNT_TABLE_RESERVED;
        }
        let end = clusters.count(file.len());
        Ok(Allocator {
            clusters,
            width,
            guard,
            table_offset: header.refcount_table_offset,
            table_on_disk: to_u64(table.len()),
            moved_to: None,
            new_entries: BTreeSet::new(),
            blocks: BTreeMap::new(),
            hint: 0,
            fixed: false,
            table,
            file,
            end,
        })
    }

    /// How many refcounts a block holds.
    fn per_block(&self) -> u64 {
        self.width.per_block(self.clusters)
    }

    /// The block of a cluster's refcount, and which entry of it that is.
    fn place(&self, cluster: u64) -> (u64, u64) {
        let per_block = self.per_block().max(1);
        (cluster.checked_div(per_block).unwrap_or(0), cluster.checked_rem(per_block).unwrap_or(0))
    }

    /// Where the blocks are.
    pub(super) fn block_offsets(&self) -> impl Iterator<Item = u64> + '_ {
        self.table.iter().copied().filter(|&offset| offset != 0)
    }

    /// Whether clusters that the file does not have are counted.
    pub(super) fn counts_past_end(&mut self) -> Result<bool> {
        let (first, entry) = self.place(self.end);
        let behind = self.table.iter().skip(to_index(first).saturating_add(1)).any(|&offset| offset != 0);
        let (width, per_block) = (self.width, self.per_block());
        let here = self.block(first)?;
        Ok(behind || here.is_some_and(|b| (entry..per_block).any(|entry| width.read(&b.bytes, entry) != 0)))
    }

    /// Whether the file has clusters that there is no refcount block for.
    pub(super) fn has_room_without_blocks(&self) -> bool {
        let last = self.place(self.clusters.count(self.file.len()).saturating_sub(1)).0;
        (0..=last).any(|index| self.entry(index) == 0)
    }

    /// Whether it has turned out that the file cannot be made longer.
    pub(super) fn is_fixed(&self) -> bool {
        self.fixed
    }

    /// One past the last cluster that is counted.
    pub(super) fn end_of_counted(&mut self) -> Result<u64> {
        let (width, per_block) = (self.width, self.per_block());
        for index in (0..to_u64(self.table.len())).rev() {
            let Some(block) = self.block(index)? else { continue };
            let last = (0..per_block).rev().find(|&entry| width.read(&block.bytes, entry) != 0);
            if let Some(entry) = last {
                return Ok(index.saturating_mul(per_block).saturating_add(entry).saturating_add(1));
            }
        }
        Ok(0)
    }

    /// Refuses clusters that are about to be used and are a table's.
    fn refuse_tables(&self, mut clusters: Range<u64>) -> Result<()> {
        match clusters.find(|&cluster| self.guard.holds(cluster)) {
            Some(cluster) => {
                let what = format!(
                    "cluster {cluster} holds a table of the image but is not counted as used; repair it"
                );
                Err(Error::corrupt(what).at(self.clusters.offset(cluster).unwrap_or(u64::MAX)))
            }
            None => Ok(()),
        }
    }

    /// The first cluster that was never used.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    fn entry(&self, index: u64) -> u64 {
        self.table.get(to_index(index)).copied().unwrap_or(0)
    }

    /// The block of that number, read if need be; `None` where there is none.
    fn block(&mut self, index: u64) -> Result<Option<&mut Block>> {
        let offset = self.entry(index);
        if offset == 0 {
            return Ok(None);
        }
        if !self.blocks.contains_key(&index) {
            if self.clusters.within(offset) != 0 {
                return Err(Error::corrupt("a refcount block does not begin where a cluster does").at(offset));
            }
            self.make_room()?;
            let size = self.clusters.size();
            let mut bytes = vec![0; to_index(size)];
            read_block(self.file.as_ref(), offset, &mut bytes)?;
            self.blocks.insert(index, Block { bytes, dirty: 0..0 });
        }
        Ok(self.blocks.get_mut(&index))
    }

    /// Forgets blocks when there are many, writing those that changed.
    fn make_room(&mut self) -> Result<()> {
        let most = self.clusters.index(KEPT_BYTES).max(4);
        if to_u64(self.blocks.len()) < most {
            return Ok(());
        }
        self.write_blocks()?;
        // Clusters are given out in rising order, mostly: the low blocks are the ones done with.
        while to_u64(self.blocks.len()) >= most.max(2) / 2 {
            self.blocks.pop_first();
        }
        Ok(())
    }

    /// A cluster's refcount.
    pub(super) fn count(&mut self, cluster: u64) -> Result<u64> {
        let (index, entry) = self.place(cluster);
        let width = self.width;
        Ok(self.block(index)?.map_or(0, |block| width.read(&block.bytes, entry)))
    }

    fn set(&mut self, cluster: u64, value: u64) -> Result<()> {
        let (index, entry) = self.place(cluster);
        let width = self.width;
        let Some(block) = self.block(index)? else {
            return Err(Error::corrupt(format!("cluster {cluster} has no refcount block")));
        };
        width.write(&mut block.bytes, entry, value);
        block.soil(width, entry);
        Ok(())
    }

    /// One reference fewer. Returns whether the cluster is free now.
    pub(super) fn lower(&mut self, cluster: u64) -> Result<bool> {
        match self.count(cluster)? {
            // Somebody else's miscount: the cluster is left to those who check the image.
            0 => Ok(false),
            // Only a wrong map lets go of a table.
            1 if self.guard.holds(cluster) => Ok(false),
            1 => {
                self.set(cluster, 0)?;
                self.hint = self.hint.min(cluster);
                Ok(true)
            }
            n => self.set(cluster, n.wrapping_sub(1)).map(|()| false),
        }
    }

    /// One reference to each of the clusters, in one piece: at least one, at most `want` of them.
    pub(super) fn allocate(&mut self, want: u64) -> Result<Run> {
        let run = match self.find_free(want.max(1))? {
            Some(run) => run,
            // At the end of what cannot grow there may be room for fewer.
            None => self.extend(want.max(1)).or_else(|e| if want > 1 { self.extend(1) } else { Err(e) })?,
        };
        self.refer(run)
    }

    /// The same, all of them or none.
    pub(super) fn allocate_whole(&mut self, count: u64) -> Result<Run> {
        let run = self.extend(count.max(1))?;
        self.refer(run)
    }

    fn refer(&mut self, run: Run) -> Result<Run> {
        for cluster in run.first..run.first.saturating_add(run.count) {
            self.set(cluster, 1)?;
        }
        Ok(run)
    }

    /// Gives back clusters that nothing ever referred to.
    pub(super) fn give_back(&mut self, first: u64, count: u64) -> Result<()> {
        (first..first.saturating_add(count)).try_for_each(|cluster| self.lower(cluster).map(drop))
    }

    /// Free clusters among those once used.
    fn find_free(&mut self, want: u64) -> Result<Option<Run>> {
        let Some(cluster) = self.first_free()? else { return Ok(None) };
        self.refuse_tables(cluster..cluster.saturating_add(1))?;
        let mut count = 1_u64;
        while count < want && self.is_free(cluster.saturating_add(count))? {
            count = count.saturating_add(1);
        }
        self.hint = cluster.saturating_add(count);
        Ok(Some(Run { first: cluster, count, fresh: false }))
    }

    /// The first of those that are free, as far as refcounts say.
    pub(super) fn first_free(&mut self) -> Result<Option<u64>> {
        let mut cluster = self.hint;
        while cluster < self.end {
            let (index, _) = self.place(cluster);
            if self.entry(index) == 0 {
                cluster = index.saturating_add(1).saturating_mul(self.per_block());
            } else if self.count(cluster)? == 0 {
                self.hint = cluster;
                return Ok(Some(cluster));
            } else {
                cluster = cluster.saturating_add(1);
            }
        }
        self.hint = self.end;
        Ok(None)
    }

    /// The first run of free clusters from `from` on.
    pub(super) fn free_run(&mut self, from: u64) -> Result<Option<(u64, u64)>> {
        let (mut first, mut cluster) = (None, from);
        while cluster < self.end {
            match (first, self.count(cluster)?) {
                (None, 0) => first = Some(cluster),
                (Some(first), 1..) => return Ok(Some((first, cluster.saturating_sub(first)))),
                _ => {}
            }
            cluster = cluster.saturating_add(1);
        }
        Ok(first.map(|first| (first, self.end.saturating_sub(first))))
    }

    fn is_free(&mut self, cluster: u64) -> Result<bool> {
        let (index, _) = self.place(cluster);
        Ok(cluster < self.end
            && self.entry(index) != 0
            && self.count(cluster)? == 0
            && !self.guard.holds(cluster))
    }

    /// Clusters at the end of the file, with the blocks that count them.
    fn extend(&mut self, want: u64) -> Result<Run> {
        let last = self.end.saturating_add(want).saturating_add(want / 64).saturating_add(8);
        if self.place(last).0 >= to_u64(self.table.len()) {
            self.grow_table(self.place(last).0)?;
        }
        self.extend_within(want)
    }

    /// The same, where the table is long enough.
    fn extend_within(&mut self, want: u64) -> Result<Run> {
        let from = self.end;
        let missing = |blocks: u64| {
            let last = from.saturating_add(blocks).saturating_add(want).saturating_sub(1);
            (self.place(from).0..=self.place(last).0).filter(|&i| self.entry(i) == 0).count()
        };
        // As many more clusters as there are blocks to make, which may need a block more themselves.
        let mut blocks = 0;
        while to_u64(missing(blocks)) > blocks {
            blocks = blocks.saturating_add(1);
        }
        let first = from.saturating_add(blocks);
        let end = first.saturating_add(want);
        self.refuse_tables(from..end)?;
        let bytes =
            self.clusters.offset(end).ok_or_else(|| Error::no_space("the image cannot grow further"))?;
        if bytes > self.file.len() {
            let ahead = self.clusters.round_up(self.file.len().saturating_add(GROWTH));
            if let Err(e) = self.file.set_len(bytes.max(ahead)).or_else(|_| self.file.set_len(bytes)) {
                return self.extend_behind_counted(want, e);
            }
        }
        let indices: Vec<u64> = (self.place(from).0..=self.place(end.saturating_sub(1)).0)
            .filter(|&i| self.entry(i) == 0)
            .collect();
        for (index, cluster) in indices.iter().zip(from..) {
            self.add_block(*index, cluster)?;
        }
        for cluster in (from..).take(indices.len()) {
            self.set(cluster, 1)?;
        }
        self.end = end;
        Ok(Run { first, count: want, fresh: !self.fixed })
    }

    /// The same where the file cannot be made longer, but has room behind the last cluster that is counted.
    fn extend_behind_counted(&mut self, want: u64, refused: Error) -> Result<Run> {
        let end = self.end_of_counted()?;
        if self.fixed || end >= self.end {
            return Err(refused);
        }
        (self.fixed, self.end) = (true, end);
        self.hint = self.hint.min(end);
        self.extend_within(want)
    }

    /// A new block, all zero. All of it is written where the cluster may hold something.
    fn add_block(&mut self, index: u64, cluster: u64) -> Result<()> {
        self.make_room()?;
        let offset = self.clusters.offset(cluster).unwrap_or(0);
        let Some(entry) = self.table.get_mut(to_index(index)) else {
            return Err(Error::no_space("the refcount table is too short"));
        };
        *entry = offset;
        self.guard.add((cluster, 1));
        self.new_entries.insert(index);
        let size = self.clusters.size();
        let dirty = if self.fixed { 0..size } else { 0..0 };
        self.blocks.insert(index, Block { bytes: vec![0; to_index(size)], dirty });
        Ok(())
    }

    /// A longer table in a new place, so that block `index` fits.
    fn grow_table(&mut self, index: u64) -> Result<()> {
        let entries = index.saturating_add(1).saturating_mul(3) / 2;
        let bytes = self.clusters.round_up(entries.saturating_mul(8));
        if bytes > MAX_REFCOUNT_TABLE_BYTES {
            let what = format!(
                "the refcount table would need {bytes} bytes; the most is {MAX_REFCOUNT_TABLE_BYTES}"
            );
            return Err(Error::no_space(what));
        }
        let before = self.table.len();
        self.table.resize(to_index(bytes / 8), 0);
        let count = self.clusters.count(bytes);
        let run = match self.extend_within(count) {
            Ok(run) => run,
            Err(e) => {
                // The table on disk has no room for these entries.
                self.table.truncate(before);
                return Err(e);
            }
        };
        self.refer(run)?;
        let new = (self.clusters.offset(run.first).unwrap_or(0), count);
        match self.moved_to.replace(new) {
            // The header never named it.
            Some((old, count)) => self.give_back(self.clusters.index(old), count),
            None => Ok(()),
        }
    }

    /// Writes the blocks that changed.
    pub(super) fn write_blocks(&mut self) -> Result<()> {
        for (index, block) in &mut self.blocks {
            let Range { start, end } = block.dirty;
            if let Some(bytes) = block.bytes.get(to_index(start)..to_index(end)).filter(|b| !b.is_empty()) {
                let offset = self.table.get(to_index(*index)).copied().unwrap_or(0);
                self.file.write_at(offset.saturating_add(start), bytes, Wait::Allowed)?;
                block.dirty = 0..0;
            }
        }
        if let Some((offset, _)) = self.moved_to {
            self.file.write_at(offset, &self.table_bytes(), Wait::Allowed)?;
        }
        Ok(())
    }

    fn table_bytes(&self) -> Vec<u8> {
        self.table.iter().flat_map(|entry| entry.to_be_bytes()).collect()
    }

    /// Whether the table or the header must be told of what is durable after the next flush.
    pub(super) fn has_new_root(&self) -> bool {
        !self.new_entries.is_empty() || self.moved_to.is_some()
    }

    /// Writes the table's new entries, once the blocks are durable. Where the table has moved instead, returns
    /// its offset and its length in clusters for the header.
    pub(super) fn write_entries(&mut self) -> Result<Option<(u64, u32)>> {
        if let Some((offset, count)) = self.moved_to {
            return Ok(Some((offset, u32::try_from(count).unwrap_or(u32::MAX))));
        }
        while !self.new_entries.is_empty() {
            let grounded: Vec<u64> =
                self.new_entries.iter().copied().filter(|&index| self.is_grounded(index)).collect();
            if grounded.is_empty() {
                return Err(Error::corrupt("new refcount blocks count each other"));
            }
            for &index in &grounded {
                let offset = self.table_offset.saturating_add(index.saturating_mul(8));
                self.file.write_at(offset, &self.entry(index).to_be_bytes(), Wait::Allowed)?;
            }
            self.new_entries.retain(|index| !grounded.contains(index));
            if !self.new_entries.is_empty() {
                self.file.flush()?;
            }
        }
        Ok(None)
    }

    /// Whether the cluster of a new block is counted by one that the disk knows, or by itself.
    fn is_grounded(&self, index: u64) -> bool {
        let (counted_by, _) = self.place(self.clusters.index(self.entry(index)));
        counted_by == index || !self.new_entries.contains(&counted_by)
    }

    /// The header names the moved table. Returns the old one's clusters, which are free once that is durable.
    pub(super) fn table_moved(&mut self) -> Option<(u64, u64)> {
        let (offset, count) = self.moved_to.take()?;
        let old = (
            self.clusters.index(self.table_offset),
            self.clusters.count(self.table_on_disk.saturating_mul(8)),
        );
        self.guard.add((self.clusters.index(offset), count));
        self.guard.remove(old);
        self.table_offset = offset;
        self.table_on_disk = to_u64(self.table.len());
        self.new_entries.clear();
        Some(old)
    }
}
