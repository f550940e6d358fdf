//! Before the first write: where the image's tables are, and whether it may be written at all.

use super::Writer;
use crate::field::{be64s, read_vec};
use crate::qcow2::alloc::Allocator;
use crate::qcow2::check::{MAX_L1_ENTRIES, MAX_L2_TABLES};
use crate::qcow2::guard::{Run, Tables};
use crate::qcow2::layout::autoclear;
use crate::qcow2::{Header, Image, L1Entry, bitmap, snapshot};
use chart::{Error, Kind, Result};

/// An image with more bytes of tables is not looked over for data that is not counted, which takes a walk over all of
/// them: enough for 24 GiB in clusters of 64 KiB, and less than a twentieth of a second.
const MAX_WALKED: u64 = 4 << 20;

impl Image {
    /// Finds the tables and guards them. Refuses an image with tables where none can be, or that share a place,
    /// and one in which what is written next would take the place of data: of what is missing where it is cut off, or
    /// of what its refcounts call free.
    pub(super) fn guard_tables(&self, w: &mut Writer) -> Result<()> {
        let header = self.header().clone();
        self.refuse_cut_off(w, &header)?;
        let tables = self.tables(&header, self.l1.entries(), &w.alloc)?;
        if tables.total().saturating_mul(self.clusters.size()) <= MAX_WALKED {
            self.refuse_uncounted(w, &header)?;
        }
        self.mutator()?.guard.set(tables, self.l1.len());
        Ok(())
    }

    /// The tables of the image that `header` makes it, with these entries in its L1 table and these refcounts.
    pub(super) fn tables(
        &self,
        header: &Header,
        l1: impl Iterator<Item = L1Entry>,
        alloc: &Allocator,
    ) -> Result<Tables> {
        let mut sole = vec![
            self.run(header.l1_table_offset, u64::from(header.l1_size).saturating_mul(8)),
            (self.clusters.index(header.refcount_table_offset), header.refcount_table_clusters.into()),
        ];
        for offset in alloc.block_offsets() {
            sole.push((self.table_at(offset, "refcount block")?, 1));
        }
        let mut shared = Vec::new();
        for entry in l1 {
            match (entry.table(), entry.is_copied()) {
                (Some(offset), true) => sole.push((self.table_at(offset, "L2 table")?, 1)),
                (Some(offset), false) => shared.push(self.table_at(offset, "L2 table")?),
                (None, _) => {}
            }
        }
        let bytes = self.other_tables(header, &mut sole, &mut shared)?;
        sole.push(self.run(header.snapshots_offset, bytes));
        Tables::new(sole, shared)
    }

    /// Refuses an image in which tables share a place that new roots would leave where they are. Changes nothing.
    pub(super) fn refuse_overlaps(&self, header: &Header) -> Result<()> {
        let (mut sole, mut shared) = (Vec::new(), Vec::new());
        // Their flags may be wrong: those with one reference will be nobody else's.
        for offset in self.l1.entries().filter_map(L1Entry::table) {
            shared.push(self.table_at(offset, "L2 table")?);
        }
        self.other_tables(header, &mut sole, &mut shared)?;
        Tables::new(sole, shared).map(drop)
    }

    fn run(&self, offset: u64, bytes: u64) -> Run {
        (self.clusters.index(offset), self.clusters.count(bytes))
    }

    /// The header, and what snapshots and bitmaps have. Returns the length of the snapshot table.
    fn other_tables(&self, header: &Header, sole: &mut Vec<Run>, shared: &mut Vec<u64>) -> Result<u64> {
        sole.push((0, 1));
        let bytes = self.snapshot_tables(header, sole, shared)?;
        if header.bitmaps().is_some() && header.is_autoclear(autoclear::BITMAPS) {
            self.bitmap_tables(header, sole)?;
        }
        Ok(bytes)
    }

    fn table_at(&self, offset: u64, what: &str) -> Result<u64> {
        if self.clusters.within(offset) != 0 {
            return Err(
                Error::corrupt(format!("{} {what} does not begin where a cluster does", a(what))).at(offset)
            );
        }
        if offset >= self.file.len() {
            let what = format!(
                "{} {what} lies past the end of the file, which has {} bytes",
                a(what),
                self.file.len()
            );
            return Err(Error::corrupt(what).at(offset));
        }
        Ok(self.clusters.index(offset))
    }

    /// The tables of snapshots: their L1 tables, each in its place, and the L2 tables, which they share. Returns the
    /// length of the snapshot table.
    fn snapshot_tables(&self, header: &Header, sole: &mut Vec<Run>, shared: &mut Vec<u64>) -> Result<u64> {
        let (list, table_bytes) = snapshot::read_table(self.file.as_ref(), header)?;
        let mut places: Vec<(u64, u64)> = Vec::with_capacity(list.len());
        for snapshot in &list {
            snapshot.check(self.clusters, self.file.len())?;
            places.push((snapshot.l1_table_offset, u64::from(snapshot.l1_size).saturating_mul(8)));
        }
        places.sort_unstable();
        places.dedup();
        let (mut tables, mut walked) = (Vec::new(), 0_u64);
        for (offset, bytes) in places {
            sole.push(self.run(offset, bytes));
            walked = walked.saturating_add(bytes / 8);
            if walked > MAX_L1_ENTRIES {
                return Err(Error::unsupported(format!("more than {MAX_L1_ENTRIES} entries of L1 tables")));
            }
            for entry in be64s(&read_vec(self.file.as_ref(), offset, bytes, "snapshot's L1 table")?) {
                tables.extend(L1Entry(entry).table().map(|table| self.clusters.index(table)));
            }
            tables.sort_unstable();
            tables.dedup();
            if tables.len() > MAX_L2_TABLES {
                return Err(Error::unsupported(format!("more than {MAX_L2_TABLES} L2 tables")));
            }
        }
        shared.append(&mut tables);
        Ok(table_bytes)
    }

    fn bitmap_tables(&self, header: &Header, sole: &mut Vec<Run>) -> Result<()> {
        for (offset, bytes) in self.bitmap_places(header, &bitmap::read(self.file.as_ref(), header)?) {
            sole.push(self.run(offset, bytes));
        }
        Ok(())
    }

    /// Where the bitmap directory is, and the tables of these bitmaps: offsets and bytes.
    pub(super) fn bitmap_places(&self, header: &Header, bitmaps: &[crate::qcow2::Bitmap]) -> Vec<(u64, u64)> {
        let Some(place) = header.bitmaps() else { return Vec::new() };
        let directory = (place.bitmap_directory_offset.get(), place.bitmap_directory_size.get());
        let table = |bitmap: &crate::qcow2::Bitmap| {
            (bitmap.table_offset, u64::from(bitmap.table_size).saturating_mul(8))
        };
        std::iter::once(directory).chain(bitmaps.iter().map(table)).collect()
    }

    /// Before a cluster within the file is given out again, every reference is looked at: whether there is one to a
    /// cluster that is not counted. Where none is free, none is given out; but of a device, what there is no refcount
    /// block for may be.
    fn refuse_uncounted(&self, w: &mut Writer, header: &Header) -> Result<()> {
        if w.alloc.first_free()?.is_none() && !w.alloc.has_room_without_blocks() {
            return Ok(());
        }
        let census = match self.census(header) {
            // Small tables in a file, or on a device, that is too large to be checked.
            Err(e) if e.kind() == Kind::Unsupported => return Ok(()),
            counted => counted?.0,
        };
        let mut cluster = census.next_from(0);
        while cluster < census.clusters() {
            if census.of(cluster) > 0 && w.alloc.count(cluster)? == 0 {
                let what =
                    format!("cluster {cluster} is in use but is not counted as used; repair the image");
                return Err(Error::corrupt(what).at(self.clusters.offset(cluster).unwrap_or(u64::MAX)));
            }
            cluster = census.next_from(cluster.saturating_add(1));
        }
        Ok(())
    }

    /// Clusters that are counted past the end of the file are either leaks, of a writer that was stopped, or what
    /// was cut off: only a walk over all tables tells.
    fn refuse_cut_off(&self, w: &mut Writer, header: &Header) -> Result<()> {
        if !w.alloc.counts_past_end()? {
            return Ok(());
        }
        let (_, report) = self.census(header)?;
        match report.findings.first() {
            Some(finding) => Err(Error::corrupt(format!(
                "the file seems to be cut off, and nothing may take the place of what is missing: {}",
                finding.what
            ))
            .at(finding.offset)),
            None => Ok(()),
        }
    }
}

fn a(what: &str) -> &'static str {
    if what.starts_with('L') { "an" } else { "a" }
}
