//! Where an image's own tables are, so that nothing else is ever written there, whatever refcounts and map say.
//!
//! Refcounts that are too low would have the header, a table or a refcount block given out as room for data; an L2
//! entry may say that data is where a table is. Both are looked for here before anything is written: a filter
//! answers for almost every cluster without a lock, what passes it is looked up.

use crate::field::to_index;
use chart::{Error, Result};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};

/// The filter has at least so many words: 8 KiB, enough for the tables of 1 TiB in clusters of 64 KiB.
const MIN_WORDS: u64 = 1 << 10;
/// And at most so many: 8 MiB.
const MAX_WORDS: u64 = 1 << 20;
/// So many clusters are put into the filter; where there are more, everything passes it.
const MAX_FILTERED: u64 = 1 << 23;

/// Clusters in a row: the first, and how many.
pub(super) type Run = (u64, u64);

/// The clusters of an image's tables.
#[derive(Default)]
pub(super) struct Guard {
    filter: OnceLock<Box<[AtomicU64]>>,
    exact: RwLock<Tables>,
}

/// Where they are.
#[derive(Default)]
pub(super) struct Tables {
    /// As they were found, in order, none touching the next.
    runs: Vec<Run>,
    /// How often a cluster has become a table since, less how often it has ceased to be one.
    changes: BTreeMap<u64, i64>,
}

impl Tables {
    /// Tables in these places. `sole` are nobody else's, neither each other's nor those of `shared`, of which some
    /// may be the same. Where two are, the image is corrupt.
    pub(super) fn new(mut sole: Vec<Run>, mut shared: Vec<u64>) -> Result<Tables> {
        sole.retain(|(_, count)| *count > 0);
        let mut changes = BTreeMap::new();
        shared.sort_unstable();
        for same in shared.chunk_by(|a, b| a == b) {
            let more = same.len().saturating_sub(1);
            if let (Some(&cluster), 1..) = (same.first(), more) {
                changes.insert(cluster, i64::try_from(more).unwrap_or(i64::MAX));
            }
        }
        shared.dedup();
        sole.extend(shared.into_iter().map(|cluster| (cluster, 1)));
        sole.sort_unstable();
        let end = |run: &Run| run.0.saturating_add(run.1);
        if let Some([_, next]) = sole.array_windows().find(|[a, b]| end(a) > b.0) {
            let what = format!("two tables of the image share cluster {}", next.0);
            return Err(Error::corrupt(what));
        }
        sole.dedup_by(|next, kept| {
            let joins = end(kept) == next.0;
            if joins {
                kept.1 = kept.1.saturating_add(next.1);
            }
            joins
        });
        Ok(Tables { runs: sole, changes })
    }

    /// How many clusters they have.
    pub(super) fn total(&self) -> u64 {
        self.runs.iter().fold(0, |total, run| total.saturating_add(run.1))
    }

    fn holds(&self, cluster: u64) -> bool {
        let behind = self.runs.partition_point(|(first, _)| *first <= cluster);
        let run = behind.checked_sub(1).and_then(|index| self.runs.get(index));
        let found = run.is_some_and(|(first, count)| cluster.saturating_sub(*first) < *count);
        self.changes.get(&cluster).copied().unwrap_or(0).saturating_add(i64::from(found)) > 0
    }
}

impl Guard {
    /// Guards these. `expected` more are about to come.
    pub(super) fn set(&self, tables: Tables, expected: u64) {
        let mut exact = self.exact.write().unwrap_or_else(PoisonError::into_inner);
        *exact = tables;
        let total = exact.total();
        let words = total.max(expected).saturating_mul(16) / 64;
        let words = words.clamp(MIN_WORDS, MAX_WORDS).next_power_of_two();
        let filter = self
            .filter
            .get_or_init(|| std::iter::repeat_with(AtomicU64::default).take(to_index(words)).collect());
        if total > MAX_FILTERED {
            filter.iter().for_each(|word| word.store(u64::MAX, Ordering::Release));
            return;
        }
        for &(first, count) in &exact.runs {
            (first..first.saturating_add(count)).for_each(|cluster| pass(filter, cluster));
        }
    }

    /// These have become a table.
    pub(super) fn add(&self, run: Run) {
        self.change(run, 1);
    }

    /// These are no table any more.
    pub(super) fn remove(&self, run: Run) {
        self.change(run, -1);
    }

    fn change(&self, (first, count): Run, by: i64) {
        // Before the first write nothing is guarded: the tables are looked for then.
        let Some(filter) = self.filter.get() else { return };
        let mut exact = self.exact.write().unwrap_or_else(PoisonError::into_inner);
        for cluster in first..first.saturating_add(count) {
            let change = exact.changes.entry(cluster).or_insert(0);
            *change = change.saturating_add(by);
            if *change == 0 {
                exact.changes.remove(&cluster);
            }
            pass(filter, cluster);
        }
    }

    /// Whether a cluster is a table's.
    #[inline]
    pub(super) fn holds(&self, cluster: u64) -> bool {
        let Some(filter) = self.filter.get() else { return false };
        let (word, bits) = place(filter, cluster);
        let passes = word.is_some_and(|word| word.load(Ordering::Acquire) & bits == bits);
        passes && self.holds_exactly(cluster)
    }

    #[cold]
    fn holds_exactly(&self, cluster: u64) -> bool {
        self.exact.read().unwrap_or_else(PoisonError::into_inner).holds(cluster)
    }
}

/// The word of the filter that knows of a cluster, and which two of its bits.
#[inline]
fn place(filter: &[AtomicU64], cluster: u64) -> (Option<&AtomicU64>, u64) {
    // Fibonacci hashing: the high bits are the good ones.
    let hash = cluster.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let word = hash.wrapping_shr(32) & crate::field::to_u64(filter.len()).wrapping_sub(1);
    let bit = |shift: u32| 1_u64.wrapping_shl(u32::try_from(hash.wrapping_shr(shift) & 63).unwrap_or(0));
    (filter.get(to_index(word)), bit(58) | bit(26))
}

fn pass(filter: &[AtomicU64], cluster: u64) {
    if let (Some(word), bits) = place(filter, cluster) {
        word.fetch_or(bits, Ordering::AcqRel);
    }
}
