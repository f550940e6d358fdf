//! Before the first write: where the image's tables are, and whether it may be written at all.

use super::Writer;
use crate::field::{be64s, read_vec};
use crate::qcow2::check::{MAX_L1_ENTRIES, MAX_L2_TABLES};
use crate::qcow2::guard::Run;
use crate::qcow2::layout::autoclear;
use crate::qcow2::{Header, Image, L1Entry, bitmap, snapshot};
use chart::{Error, Result};

impl Image {
    /// Finds the tables and guards them. Refuses an image with tables where none can be, or that share a place,
    /// and one that is cut off: what is written to it next would take the place of what is missing.
    pub(super) fn guard_tables(&self, w: &mut Writer) -> Result<()> {
        let header = self.header().clone();
        self.refuse_cut_off(w, &header)?;
        let run = |offset, bytes| (self.clusters.index(offset), self.clusters.count(bytes));
        let mut sole = vec![
            (0, 1),
            run(header.l1_table_offset, u64::from(header.l1_size).saturating_mul(8)),
            (self.clusters.index(header.refcount_table_offset), header.refcount_table_clusters.into()),
        ];
        for offset in w.alloc.block_offsets() {
            sole.push((self.table_at(offset, "refcount block")?, 1));
        }
        let mut shared = Vec::new();
        for entry in self.l1.entries() {
            match (entry.table(), entry.is_copied()) {
                (Some(offset), true) => sole.push((self.table_at(offset, "L2 table")?, 1)),
                (Some(offset), false) => shared.push(self.table_at(offset, "L2 table")?),
                (None, _) => {}
            }
        }
        self.snapshot_tables(&header, &mut sole, &mut shared)?;
        if header.bitmaps().is_some() && header.is_autoclear(autoclear::BITMAPS) {
            self.bitmap_tables(&header, &mut sole)?;
        }
        self.mutator()?.guard.set(sole, shared, self.l1.len())
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

    /// The tables of snapshots: their L1 tables, each in its place, and the L2 tables, which they share.
    fn snapshot_tables(&self, header: &Header, sole: &mut Vec<Run>, shared: &mut Vec<u64>) -> Result<()> {
        let (list, bytes) = snapshot::read_table(self.file.as_ref(), header)?;
        sole.push((self.clusters.index(header.snapshots_offset), self.clusters.count(bytes)));
        let mut places: Vec<(u64, u64)> = Vec::with_capacity(list.len());
        for snapshot in &list {
            snapshot.check(self.clusters, self.file.len())?;
            places.push((snapshot.l1_table_offset, u64::from(snapshot.l1_size).saturating_mul(8)));
        }
        places.sort_unstable();
        places.dedup();
        let (mut tables, mut walked) = (Vec::new(), 0_u64);
        for (offset, bytes) in places {
            sole.push((self.clusters.index(offset), self.clusters.count(bytes)));
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
        Ok(())
    }

    fn bitmap_tables(&self, header: &Header, sole: &mut Vec<Run>) -> Result<()> {
        for (offset, bytes) in self.bitmap_places(header, &bitmap::read(self.file.as_ref(), header)?) {
            sole.push((self.clusters.index(offset), self.clusters.count(bytes)));
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
