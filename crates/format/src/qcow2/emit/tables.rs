//! The tables of an emitted file: where they are, and their bytes when asked.

use super::Entries;
use crate::field::{to_index, to_u64};
use crate::qcow2::Clusters;
use crate::qcow2::create::New;
use crate::qcow2::layout::{OFLAG_COMPRESSED, OFLAG_COPIED};
use crate::qcow2::places::Places;
use crate::survey::Survey;
use chart::{Result, Wait};
use io::generated::Rule;
use std::sync::Arc;

/// Where everything is in an emitted file.
pub(super) struct Layout {
    header: Vec<u8>,
    places: Places,
    /// Which L1 entries have a table: their numbers, in order.
    tables: Vec<u32>,
}

impl Layout {
    /// A layout with room for `data_clusters` of data.
    pub(super) fn new(new: &New, clusters: Clusters, survey: &Survey, data_clusters: u64) -> Result<Layout> {
        let l1_entries = clusters.l1_entries(new.size);
        let tables = needed_tables(survey, clusters, l1_entries);
        let places =
            Places::lay(clusters, new.refcount_order, l1_entries, to_u64(tables.len()), data_clusters)?;
        Ok(Layout { header: new.header(&places)?.encode()?, places, tables })
    }

    /// Where the data begins.
    pub(super) fn data_start(&self) -> u64 {
        self.places.offset(self.places.data)
    }
}

fn needed_tables(survey: &Survey, clusters: Clusters, l1_size: u64) -> Vec<u32> {
    let span = clusters.l2_entries();
    let used = |table: &u64| {
        let first = table.saturating_mul(span);
        survey.rank_of(first.saturating_add(span).min(survey.grains())) > survey.rank_of(first)
    };
    (0..l1_size).filter(used).filter_map(|table| u32::try_from(table).ok()).collect()
}

/// Computes the tables.
pub(super) struct Tables<E> {
    layout: Layout,
    survey: Arc<Survey>,
    entries: E,
}

impl<E: Entries> Tables<E> {
    pub(super) fn new(layout: Layout, survey: Arc<Survey>, entries: E) -> Self {
        Tables { layout, survey, entries }
    }

    /// A word of the refcount table.
    fn refcount_table_word(&self, index: u64) -> u64 {
        let places = &self.layout.places;
        if index < places.block_count { places.offset(places.blocks.saturating_add(index)) } else { 0 }
    }

    /// A word of the L1 table.
    fn l1_word(&self, index: u64) -> u64 {
        let Ok(wanted) = u32::try_from(index) else { return 0 };
        let Ok(table) = self.layout.tables.binary_search(&wanted) else { return 0 };
        self.layout.places.offset(self.layout.places.l2.saturating_add(to_u64(table))) | OFLAG_COPIED
    }

    /// A word of the L2 region: of the `i`th table there.
    fn l2_word(&self, word: u64) -> u64 {
        let words = self.layout.places.clusters.entry_words();
        let entries = self.layout.places.clusters.l2_entries();
        // Both are powers of two, never 0.
        let entry = word.checked_div(words).unwrap_or(0);
        let i = entry.checked_div(entries).unwrap_or(0);
        let table = self.layout.tables.get(to_index(i)).copied().unwrap_or(0);
        let within = entry.checked_rem(entries).unwrap_or(0);
        let cluster = u64::from(table).saturating_mul(entries).saturating_add(within);
        if cluster >= self.survey.grains() || !self.survey.holds(cluster) {
            return 0;
        }
        let value = self.entries.word(self.survey.rank_of(cluster));
        match (words, word & 1) {
            // The bitmap: all subclusters are stored, unless there is nothing, or a frame, which has none.
            (2, 1) if value == 0 || value & OFLAG_COMPRESSED != 0 => 0,
            (2, 1) => 0xffff_ffff,
            _ => value,
        }
    }

    /// The refcounts of a block's part: `len` bytes from `start` on, counted from the first block's begin.
    fn refcounts(&self, start: u64, out: &mut [u8]) {
        let bits = u64::from(self.layout.places.width.bits());
        // Whole bytes hold whole refcounts, or a refcount holds whole bytes: start at one of either.
        let unit = (bits / 8).max(1);
        let from = start.saturating_sub(start.checked_rem(unit).unwrap_or(0));
        let lead = to_index(start.saturating_sub(from));
        let mut block = vec![0; out.len().saturating_add(lead).saturating_add(to_index(unit))];
        let first = from.saturating_mul(8).checked_div(bits).unwrap_or(0);
        let count = to_u64(block.len()).saturating_mul(8).checked_div(bits).unwrap_or(0);
        for i in 0..count {
            let cluster = first.saturating_add(i);
            let value = match cluster.checked_sub(self.layout.places.data) {
                _ if cluster >= self.layout.places.end => break,
                Some(data) => self.entries.refcount(data),
                None => 1,
            };
            self.layout.places.width.write(&mut block, i, value);
        }
        if let Some(bytes) = block.get(lead..lead.saturating_add(out.len())) {
            out.copy_from_slice(bytes);
        }
    }

    /// Fills a buffer that lies within one region, which begins at cluster `region`.
    fn fill_region(&self, offset: u64, region: u64, out: &mut [u8]) {
        let start = offset.saturating_sub(self.layout.places.clusters.offset(region).unwrap_or(0));
        let word = |index: u64| match region {
            r if r == self.layout.places.table => self.refcount_table_word(index),
            r if r == self.layout.places.l1 => self.l1_word(index),
            _ => self.l2_word(index),
        };
        if region == self.layout.places.blocks {
            return self.refcounts(start, out);
        }
        let lead = to_index(start % 8);
        let mut words = (start / 8..).map(word).flat_map(u64::to_be_bytes).skip(lead);
        out.iter_mut().for_each(|byte| *byte = words.next().unwrap_or(0));
    }
}

impl<E: Entries> Rule for Tables<E> {
    fn fill(&self, mut offset: u64, mut buf: &mut [u8], _: Wait) -> Result<()> {
        let l = &self.layout.places;
        let regions = [0, l.table, l.blocks, l.l1, l.l2, l.data];
        while !buf.is_empty() {
            let cluster = l.clusters.index(offset);
            let region = regions.iter().rev().copied().find(|&r| r <= cluster).unwrap_or(0);
            let end = regions.iter().copied().find(|&r| r > cluster).unwrap_or(u64::MAX);
            let rest = l.clusters.offset(end).unwrap_or(u64::MAX).saturating_sub(offset);
            let now = to_index(rest).min(buf.len());
            let (part, behind) = buf.split_at_mut(now);
            if region == 0 {
                let bytes =
                    self.layout.header.iter().copied().chain(std::iter::repeat(0)).skip(to_index(offset));
                part.iter_mut().zip(bytes).for_each(|(out, byte)| *out = byte);
            } else {
                self.fill_region(offset, region, part);
            }
            offset = offset.saturating_add(to_u64(now));
            buf = behind;
        }
        Ok(())
    }
}
