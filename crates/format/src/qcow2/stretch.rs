//! Long answers: for all that is left of a slice whose entries go up evenly.
//!
//! Who walks a disk asks for as much as there is. Where clusters follow each other, the slice is known to be a run
//! (`cache/runs.rs`), and what is true of its first and of its last entry is true of those between.

use super::cache::Run;
use super::entry::{L2Entry, Meaning};
use super::{DATA_FILE, FILE, Image};
use chart::{Answer, Extent};
use std::sync::atomic::Ordering;

/// The entries of a slice that an answer is about.
struct Stretch {
    at: u64,
    /// How far into its cluster that is.
    within: u64,
    len: u64,
    /// How many clusters that touches.
    count: u64,
    first: L2Entry,
    last: L2Entry,
}

impl Image {
    /// The answer for what one slice tells of `want` bytes, if the slice is in memory and is a run. Not where each cluster needs
    /// a look of its own: while the image may change, near the end of its file, or where something is wrong.
    pub(super) fn stretch(&self, at: u64, want: u64) -> Option<Answer> {
        if self.mutator.is_some() {
            return None;
        }
        let clusters = self.clusters;
        let table = self.l1.entry(clusters.l1_index(at)).table().filter(|&at| clusters.within(at) == 0)?;
        let offset = table.checked_add(clusters.l2_index(at).checked_mul(8)?)?;
        let (slice, word) = self.slices.slice_of(offset);
        let run = self.slices.run(slice)?;
        let within = clusters.within(at);
        let left = (self.slices.slice_bytes() / 8).checked_sub(word)?;
        let len = want.min(clusters.offset(left)?.checked_sub(within)?);
        let count = clusters.count(within.checked_add(len)?);
        let last = word.checked_add(count.checked_sub(1)?)?;
        self.told(&Stretch { at, within, len, count, first: entry(run, word), last: entry(run, last) })
    }

    fn told(&self, stretch: &Stretch) -> Option<Answer> {
        let Stretch { at, within, len, count, first, last } = *stretch;
        let meaning = |entry: L2Entry| entry.meaning(self.clusters, self.has_data_file);
        match (meaning(first), meaning(last)) {
            (Meaning::Unallocated, Meaning::Unallocated) => Some(self.unallocated(at, len)),
            (Meaning::Zero { .. }, Meaning::Zero { .. }) if self.version >= 3 => {
                Some(Answer::Here(Extent::zero(at, len)))
            }
            (Meaning::Standard { offset }, Meaning::Standard { offset: end }) => {
                let rises = end.checked_sub(offset)? == self.clusters.offset(count.checked_sub(1)?)?;
                let source = self.holds_all(at.checked_sub(within)?, offset, count).filter(|_| rises)?;
                Some(Answer::Here(Extent::raw(at, len, source, offset.checked_add(within)?)))
            }
            _ => None,
        }
    }

    /// Which file holds that many clusters from `offset` on, for the disk from `at` on, if nothing can be wrong with that.
    fn holds_all(&self, at: u64, offset: u64, count: u64) -> Option<chart::SourceId> {
        let (source, end) = if self.has_data_file { (DATA_FILE, 1) } else { (FILE, 0) };
        let first = self.clusters.index(offset);
        let sound = if self.has_data_file {
            offset == at
        } else {
            first != 0 && !self.reserved.iter().any(|tables| tables.meets(first, count))
        };
        let known = self.ends.get(end)?.load(Ordering::Relaxed);
        let behind = offset.checked_add(self.clusters.offset(count)?)?;
        (sound && self.clusters.within(offset) == 0 && behind <= known).then_some(source)
    }
}

fn entry(run: Run, word: u64) -> L2Entry {
    L2Entry { word: run.words(word).next().unwrap_or(0), bitmap: 0 }
}
