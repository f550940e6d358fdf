//! Slices whose words go up evenly: each is known by its first word.
//!
//! Who writes a disk from one end to the other, or makes it whole at once, gets clusters that follow each other, and
//! where nothing is written all words are 0. Such a slice takes 16 bytes here instead of 4096 in a slot, so that the
//! tables of a terabyte fit where a processor finds them at once.

use super::seq::{Found, Seq};
use crate::field::to_index;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[cfg(test)]
mod tests;

/// So many slices a set knows in this way.
const RUNS: usize = 32;
/// So many marks are in a word.
const IN_WORD: usize = 8;
/// In the tag of a slice: its words go up by the size of a cluster. Slices begin at multiples of 512.
const RISES: u64 = 1;
/// One in each byte of a word.
const ONES: u64 = 0x0101_0101_0101_0101;
/// The highest bit of each: set in every mark.
const HIGHS: u64 = ONES << 7;

/// The regular slices of a set. Read without a lock, as its slots are, and changed only by who holds the set's lock.
#[derive(Default)]
#[repr(C, align(64))]
pub(super) struct Runs {
    /// A byte of each slice's hash, so that one look at four words finds nearly always the right one; 0 for none.
    marks: [AtomicU64; RUNS / IN_WORD],
    /// That of all of them.
    seq: Seq,
    /// One bit each: used since the hand passed.
    used: AtomicU32,
    /// The one that is looked at next when room is made.
    hand: AtomicU32,
    entries: [Entry; RUNS],
}

/// Which slice, and whether its words go up or are all the same; and its first word.
#[derive(Default)]
struct Entry {
    tag: AtomicU64,
    first: AtomicU64,
}

const _: () = assert!(RUNS == 32, "there is a bit for each");

/// The words of a regular slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::qcow2) struct Run {
    first: u64,
    step: u64,
}

impl Run {
    /// The run that these words are, if they are one.
    pub(super) fn of(mut words: impl Iterator<Item = u64>, cluster: u64) -> Option<Run> {
        let first = words.next()?;
        let second = words.next()?;
        let step = second.wrapping_sub(first);
        if step != 0 && step != cluster {
            return None;
        }
        // All of them, without a look at each result: that is faster than to stop.
        let differs = |(expected, different): (u64, u64), word: u64| {
            let expected = expected.wrapping_add(step);
            (expected, different | word ^ expected)
        };
        let (_, different) = words.fold((second, 0), differs);
        (different == 0).then_some(Run { first, step })
    }

    /// The run that begins with these two words.
    pub(super) fn between([first, second]: [u64; 2]) -> Run {
        Run { first, step: second.wrapping_sub(first) }
    }

    /// The word of that number, and those behind it.
    #[inline]
    pub(in crate::qcow2) fn words(self, from: u64) -> impl Iterator<Item = u64> {
        let Run { first, step } = self;
        (0..).map(move |i: u64| first.wrapping_add(from.wrapping_add(i).wrapping_mul(step)))
    }
}

/// What marks a slice among those of its set.
#[inline]
fn mark(slice: u64) -> u64 {
    // Sets are chosen by higher bits of the same product.
    (slice / 512).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_shr(16) & 0x7f | 0x80
}

impl Runs {
    /// Which of them a slice is.
    #[inline]
    fn way(&self, slice: u64) -> Option<usize> {
        let wanted = mark(slice).wrapping_mul(ONES);
        for (word, marks) in self.marks.iter().enumerate() {
            let other = marks.load(Ordering::Relaxed) ^ wanted;
            // The highest bits of bytes that are 0, and perhaps of some behind them that are not.
            let mut same = other.wrapping_sub(ONES) & !other & HIGHS;
            while same != 0 {
                let byte = usize::try_from(same.trailing_zeros() / 8).unwrap_or(0);
                let way = word.wrapping_mul(IN_WORD).wrapping_add(byte);
                if self.entries.get(way)?.tag.load(Ordering::Relaxed) | RISES == slice | RISES {
                    return Some(way);
                }
                same &= same.wrapping_sub(1);
            }
        }
        None
    }

    /// Reads words of a slice without a lock.
    #[inline]
    pub(super) fn peek(&self, slice: u64, cluster: u64, word: u64, out: &mut [u64]) -> Found {
        let Some(begun) = self.seq.begin() else { return Found::Changing };
        let Some(way) = self.way(slice) else { return Found::Miss };
        let Some(run) = self.run(way, cluster) else { return Found::Miss };
        if !self.seq.is_still(begun) {
            return Found::Changing;
        }
        for (out, value) in out.iter_mut().zip(run.words(word)) {
            *out = value;
        }
        let bit = 1u32.wrapping_shl(u32::try_from(way).unwrap_or(0));
        // Written only when it changes, so that readers on different processors do not fight for the line.
        if self.used.load(Ordering::Relaxed) & bit == 0 {
            self.used.fetch_or(bit, Ordering::Relaxed);
        }
        Found::Hit
    }

    #[inline]
    fn run(&self, way: usize, cluster: u64) -> Option<Run> {
        let entry = self.entries.get(way)?;
        let step = if entry.tag.load(Ordering::Relaxed) & RISES == 0 { 0 } else { cluster };
        Some(Run { first: entry.first.load(Ordering::Relaxed), step })
    }

    /// What a slice is. The caller holds the set's lock, as do those of what follows.
    pub(super) fn find(&self, slice: u64, cluster: u64) -> Option<Run> {
        self.run(self.way(slice)?, cluster)
    }

    /// Keeps a slice that is a run, instead of another if there is no room.
    pub(super) fn keep(&self, slice: u64, run: Run) {
        let way = self.way(slice).unwrap_or_else(|| self.room());
        let rises = if run.step == 0 { 0 } else { RISES };
        self.change(way, mark(slice), slice | rises, run.first);
    }

    /// Forgets a slice.
    pub(super) fn forget(&self, slice: u64) {
        if let Some(way) = self.way(slice) {
            self.change(way, 0, 0, 0);
        }
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        for way in 0..RUNS {
            self.change(way, 0, 0, 0);
        }
    }

    /// A place where nothing is, else the next that was not used since the hand passed.
    fn room(&self) -> usize {
        if let Some(way) = self.entries.iter().position(|entry| entry.tag.load(Ordering::Relaxed) == 0) {
            return way;
        }
        let mut hand = self.hand.load(Ordering::Relaxed) % 32;
        // What is noted meanwhile may be lost: it is only advice.
        let mut used = self.used.load(Ordering::Relaxed);
        for _ in 0..RUNS {
            let bit = 1u32.wrapping_shl(hand);
            if used & bit == 0 {
                break;
            }
            used &= !bit;
            hand = hand.wrapping_add(1) % 32;
        }
        self.used.store(used, Ordering::Relaxed);
        self.hand.store(hand.wrapping_add(1), Ordering::Relaxed);
        to_index(u64::from(hand))
    }

    fn change(&self, way: usize, mark: u64, tag: u64, first: u64) {
        let (word, byte) = (way / IN_WORD, way % IN_WORD);
        let (Some(entry), Some(marks)) = (self.entries.get(way), self.marks.get(word)) else { return };
        let shift = u32::try_from(byte.wrapping_mul(8)).unwrap_or(0);
        let others = marks.load(Ordering::Relaxed) & !0xffu64.wrapping_shl(shift);
        self.seq.change(|| {
            marks.store(others | mark.wrapping_shl(shift), Ordering::Relaxed);
            entry.tag.store(tag, Ordering::Relaxed);
            entry.first.store(first, Ordering::Relaxed);
        });
    }
}
