//! The walk over everything in an image that refers to a cluster.

use super::super::layout::{self as l, L1_RESERVED, L2_RESERVED, MAX_L1_BYTES, OFFSET_MASK};
use super::super::refcount::RefcountTable;
use super::super::{Bitmap, Header, Image, L1Entry, L2Entry, Meaning, Snapshot, bitmap, snapshot};
use super::{Census, Report, Stored, Wrong};
use crate::field::{be64s, read_vec, to_index, to_u64};
use chart::{Error, Kind, Result, Wait};
use zerocopy::FromBytes;

/// So many entries of L1 tables are walked, those of snapshots with one table counted once: a limit of ours.
pub const MAX_L1_ENTRIES: u64 = 1 << 26;
/// Different L2 tables are remembered up to so many: a limit of ours.
pub const MAX_L2_TABLES: usize = 1 << 24;

/// So many entries of bitmap tables are walked: a limit of ours.
pub const MAX_BITMAP_ENTRIES: u64 = 1 << 26;

/// An L2 table, and how often it is referred to.
#[derive(Clone, Copy)]
struct L2Table {
    offset: u64,
    /// By the active L1 table.
    active: u64,
    /// By all L1 tables.
    total: u64,
}

pub(super) struct Walk<'a> {
    image: &'a Image,
    header: &'a Header,
    /// What flags are held against; `None` to count only.
    stored: Option<&'a Stored>,
    census: &'a mut Census,
    report: &'a mut Report,
    tables: Vec<L2Table>,
    /// Tables up to here are sorted and different.
    sorted: usize,
    l1_entries: u64,
    bitmap_entries: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        image: &'a Image,
        header: &'a Header,
        stored: Option<&'a Stored>,
        census: &'a mut Census,
        report: &'a mut Report,
    ) -> Self {
        Walk {
            image,
            header,
            stored,
            census,
            report,
            tables: Vec::new(),
            sorted: 0,
            l1_entries: 0,
            bitmap_entries: 0,
        }
    }

    pub(super) fn all(mut self, refcounts: &RefcountTable) -> Result<()> {
        let clusters = self.image.clusters;
        self.count((0, clusters.size()), 1, "header")?;
        self.l1((self.header.l1_table_offset, self.header.l1_size), true, 1)?;
        self.snapshots()?;
        self.l2_tables()?;
        let bytes = u64::from(self.header.refcount_table_clusters).saturating_mul(clusters.size());
        self.count((self.header.refcount_table_offset, bytes), 1, "refcount table")?;
        if let Some(data) = self.header.extension(l::extension::CRYPTO)
            && let Ok((crypto, _)) = l::CryptoExtension::read_from_prefix(data)
        {
            self.count((crypto.offset.get(), crypto.length.get()), 1, "encryption header")?;
        }
        self.bitmaps()?;
        self.refcount_blocks(refcounts)
    }

    fn count(&mut self, range: (u64, u64), times: u64, what: &str) -> Result<bool> {
        self.census.add(range, times, what, self.report)
    }

    fn corrupt(&mut self, times: u64, offset: u64, what: impl FnOnce() -> String) {
        self.report.add(Wrong::Corruption, times, offset, what);
    }

    /// An L1 table that is referred to `times` times.
    fn l1(&mut self, (offset, size): (u64, u32), active: bool, times: u64) -> Result<()> {
        let bytes = u64::from(size).saturating_mul(8);
        if !self.count((offset, bytes), times, "L1 table")? {
            return Ok(());
        }
        self.l1_entries = self.l1_entries.saturating_add(size.into());
        if self.l1_entries > MAX_L1_ENTRIES {
            return Err(Error::unsupported(format!("more than {MAX_L1_ENTRIES} entries of L1 tables")));
        }
        let file = self.image.file.as_ref();
        let held = bytes.min(file.len().saturating_sub(offset));
        let table = read_vec(file, offset, held, "L1 table")?;
        for (index, entry) in be64s(&table).enumerate().filter(|(_, entry)| *entry != 0) {
            self.l1_entry((to_u64(index), L1Entry(entry)), offset, active, times)?;
        }
        Ok(())
    }

    fn l1_entry(&mut self, (index, entry): (u64, L1Entry), l1: u64, active: bool, times: u64) -> Result<()> {
        let at = l1.saturating_add(index.saturating_mul(8));
        if entry.0 & L1_RESERVED != 0 {
            self.corrupt(times, at, || format!("L1 entry {index} has reserved bits set: {:#x}", entry.0));
        }
        let Some(offset) = entry.table() else { return Ok(()) };
        let clusters = self.image.clusters;
        if clusters.within(offset) != 0 {
            self.corrupt(times, at, || {
                format!("the L2 table of L1 entry {index} is not where a cluster begins")
            });
            return Ok(());
        }
        let count = self.stored.map(|stored| stored.of(clusters.index(offset)));
        if let Some(count) = count.filter(|&count| active && (count == 1) != entry.is_copied()) {
            self.corrupt(1, at, || {
                format!("L1 entry {index} is {:#x}, but its refcount is {count}", entry.0)
            });
        }
        let active = if active { times } else { 0 };
        self.tables.push(L2Table { offset, active, total: times });
        if self.tables.len() > self.sorted.saturating_mul(2).max(1 << 16) {
            self.merge()?;
        }
        Ok(())
    }

    /// Sorts the L2 tables and makes one of those that are the same.
    fn merge(&mut self) -> Result<()> {
        self.tables.sort_unstable_by_key(|table| table.offset);
        self.tables.dedup_by(|next, kept| {
            let same = next.offset == kept.offset;
            if same {
                kept.active = kept.active.saturating_add(next.active);
                kept.total = kept.total.saturating_add(next.total);
            }
            same
        });
        self.sorted = self.tables.len();
        if self.sorted > MAX_L2_TABLES {
            return Err(Error::unsupported(format!("more than {MAX_L2_TABLES} L2 tables")));
        }
        Ok(())
    }

    fn snapshots(&mut self) -> Result<()> {
        let (list, bytes) = match snapshot::read_table(self.image.file.as_ref(), self.header) {
            Ok(table) => table,
            Err(e) if e.kind() == Kind::Corrupt || e.kind() == Kind::Unsupported => {
                self.corrupt(1, self.header.snapshots_offset, || format!("the snapshot table: {e}"));
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        let mut tables = Vec::new();
        for snapshot in &list {
            tables.extend(self.snapshot(snapshot));
        }
        tables.sort_unstable();
        for same in tables.chunk_by(|a, b| a == b) {
            if let Some(&table) = same.first() {
                self.l1(table, false, to_u64(same.len()))?;
            }
        }
        self.count((self.header.snapshots_offset, bytes), 1, "snapshot table").map(drop)
    }

    /// A snapshot's L1 table, if it is where one can be.
    fn snapshot(&mut self, snapshot: &Snapshot) -> Option<(u64, u32)> {
        let (offset, size) = (snapshot.l1_table_offset, snapshot.l1_size);
        let unaligned = self.image.clusters.within(offset) != 0;
        if unaligned || u64::from(size).saturating_mul(8) > MAX_L1_BYTES {
            let id = &snapshot.id;
            self.corrupt(1, offset, || {
                format!("snapshot {id}'s L1 table of {size} entries at byte {offset}")
            });
            return None;
        }
        Some((offset, size))
    }

    fn l2_tables(&mut self) -> Result<()> {
        self.merge()?;
        let size = self.image.clusters.size();
        let mut bytes = vec![0; to_index(size)];
        let (tables, watch) = (std::mem::take(&mut self.tables), self.image.onlooker.watch());
        let total = to_u64(tables.len()).saturating_mul(size);
        for (index, table) in tables.into_iter().enumerate() {
            watch.step(to_u64(index).saturating_mul(size), total)?;
            if !self.count((table.offset, size), table.total, "L2 table")? {
                continue;
            }
            let file = self.image.file.as_ref();
            let held = size.min(file.len().saturating_sub(table.offset));
            // What is not stored maps nothing, and in a sparse file there may be very much of it.
            if held == 0 || file.data_at(table.offset, held).is_ok_and(|run| !run.data && run.len >= held) {
                continue;
            }
            bytes.fill(0);
            if let Some(stored) = bytes.get_mut(..to_index(held)) {
                file.read_at(table.offset, stored, Wait::Allowed)?;
            }
            self.l2(table, &bytes)?;
        }
        Ok(())
    }

    fn l2(&mut self, table: L2Table, bytes: &[u8]) -> Result<()> {
        let words = to_index(self.image.clusters.entry_words());
        let mut entries = be64s(bytes);
        let mut next_offset = None;
        let mut at = table.offset;
        while let Some(word) = entries.next() {
            let bitmap = if words == 2 { entries.next().unwrap_or(0) } else { 0 };
            if word != 0 || bitmap != 0 {
                let offset = self.l2_entry(&table, at, L2Entry { word, bitmap })?;
                if let Some(offset) = offset {
                    if next_offset.is_some_and(|next| next != offset) {
                        self.report.fragmented_clusters =
                            self.report.fragmented_clusters.saturating_add(table.active);
                    }
                    next_offset = Some(offset.saturating_add(self.image.clusters.size()));
                }
            }
            at = at.saturating_add(self.image.clusters.entry_words().saturating_mul(8));
        }
        Ok(())
    }

    /// An L2 entry at byte `at`. Returns where its data cluster is, if it has one.
    fn l2_entry(&mut self, table: &L2Table, at: u64, entry: L2Entry) -> Result<Option<u64>> {
        let image = self.image;
        match entry.meaning(image.clusters, image.has_data_file) {
            Meaning::Compressed { offset, stored_len } => {
                self.compressed(table, at, entry, (offset, stored_len)).map(|()| None)
            }
            meaning => {
                if entry.word & L2_RESERVED != 0 {
                    self.corrupt(table.total, at, || {
                        format!("an L2 entry has reserved bits set: {:#x}", entry.word)
                    });
                }
                match meaning {
                    Meaning::Standard { offset } | Meaning::Zero { kept: Some(offset) } => {
                        self.standard(table, at, entry, offset).map(|()| Some(offset))
                    }
                    _ => {
                        if entry.allocated() != 0 {
                            let what = || "subclusters are allocated in a cluster that is not".to_owned();
                            self.corrupt(table.total, at, what);
                        }
                        Ok(None)
                    }
                }
            }
        }
    }

    fn compressed(&mut self, table: &L2Table, at: u64, entry: L2Entry, range: (u64, u64)) -> Result<()> {
        let word = entry.word;
        if entry.is_copied() {
            self.corrupt(table.total, at, || {
                format!("a compressed cluster is marked as writable: {word:#x}")
            });
        }
        if self.image.has_data_file {
            self.corrupt(table.total, at, || format!("a compressed cluster, with a data file: {word:#x}"));
            return Ok(());
        }
        if entry.bitmap != 0 {
            self.corrupt(table.total, at, || format!("a compressed cluster with subclusters: {word:#x}"));
            return Ok(());
        }
        self.count(range, table.total, "compressed cluster")?;
        let report = &mut *self.report;
        report.allocated_clusters = report.allocated_clusters.saturating_add(table.active);
        report.compressed_clusters = report.compressed_clusters.saturating_add(table.active);
        // Compressed clusters are fragmented by their nature.
        report.fragmented_clusters = report.fragmented_clusters.saturating_add(table.active);
        Ok(())
    }

    fn standard(&mut self, table: &L2Table, at: u64, entry: L2Entry, offset: u64) -> Result<()> {
        let (clusters, word) = (self.image.clusters, entry.word);
        if entry.allocated() & entry.zeros() != 0 {
            self.corrupt(table.total, at, || {
                format!("a subcluster is both allocated and zero: {:#x}", entry.bitmap)
            });
        }
        if clusters.within(offset) != 0 {
            self.corrupt(table.total, at, || {
                format!("a data cluster is not where a cluster begins: {word:#x}")
            });
        }
        self.report.allocated_clusters = self.report.allocated_clusters.saturating_add(table.active);
        let count = if self.image.has_data_file {
            Some(1)
        } else {
            self.count((offset, clusters.size()), table.total, "data cluster")?;
            self.stored.map(|stored| stored.of(clusters.index(offset)))
        };
        if let Some(count) = count.filter(|&count| (count == 1) != entry.is_copied()) {
            self.corrupt(table.active, at, || {
                format!("an L2 entry is {word:#x}, but its refcount is {count}")
            });
        }
        Ok(())
    }

    fn bitmaps(&mut self) -> Result<()> {
        let Some(extension) = self.header.bitmaps() else { return Ok(()) };
        let list = match bitmap::read(self.image.file.as_ref(), self.header) {
            Ok(list) => list,
            Err(e) if e.kind() == Kind::Corrupt || e.kind() == Kind::Unsupported => {
                self.corrupt(1, extension.bitmap_directory_offset.get(), || {
                    format!("the bitmap directory: {e}")
                });
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        if list.is_empty() {
            return Ok(());
        }
        let directory = (extension.bitmap_directory_offset.get(), extension.bitmap_directory_size.get());
        self.count(directory, 1, "bitmap directory")?;
        list.iter().try_for_each(|bitmap| self.bitmap(bitmap))
    }

    fn bitmap(&mut self, bitmap: &Bitmap) -> Result<()> {
        let clusters = self.image.clusters;
        let bytes = u64::from(bitmap.table_size).saturating_mul(8);
        self.bitmap_entries = self.bitmap_entries.saturating_add(bitmap.table_size.into());
        if self.bitmap_entries > MAX_BITMAP_ENTRIES {
            return Err(Error::unsupported(format!(
                "more than {MAX_BITMAP_ENTRIES} entries of bitmap tables"
            )));
        }
        self.count((bitmap.table_offset, bytes), 1, "bitmap table")?;
        let entries = match bitmap.read_table(self.image.file.as_ref(), clusters) {
            Ok(entries) => entries,
            Err(e) if e.kind() == Kind::Corrupt || e.kind() == Kind::Unsupported => {
                self.corrupt(1, bitmap.table_offset, || format!("bitmap {:?}: {e}", bitmap.name));
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        for offset in entries.into_iter().map(|entry| entry & OFFSET_MASK).filter(|&offset| offset != 0) {
            self.count((offset, clusters.size()), 1, "bitmap cluster")?;
        }
        Ok(())
    }

    fn refcount_blocks(&mut self, refcounts: &RefcountTable) -> Result<()> {
        let clusters = self.image.clusters;
        for (index, &entry) in refcounts.entries.iter().enumerate().filter(|(_, entry)| **entry != 0) {
            let index = to_u64(index);
            let at = self.header.refcount_table_offset.saturating_add(index.saturating_mul(8));
            let offset = entry & !l::REFCOUNT_TABLE_RESERVED;
            if entry & l::REFCOUNT_TABLE_RESERVED != 0 {
                self.corrupt(1, at, || {
                    format!("refcount table entry {index} has reserved bits set: {entry:#x}")
                });
            }
            if clusters.within(offset) != 0 {
                self.corrupt(1, at, || format!("refcount block {index} is not where a cluster begins"));
                continue;
            }
            if offset == 0 || !self.count((offset, clusters.size()), 1, "refcount block")? {
                continue;
            }
            let count = self.census.of(clusters.index(offset));
            if count != 1 {
                self.corrupt(1, at, || format!("refcount block {index} is referred to {count} times"));
            }
        }
        Ok(())
    }
}
