//! The slots that a slice may be in, and the place for those that need none.

use super::runs::Runs;
use super::seq::{Found, Seq};
use crate::field::{to_index, to_u64};
use chart::{Error, Result, Wait};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

/// Slots in a set.
pub(super) const WAYS: usize = 8;
/// No slice: where the header is there is no L2 table.
const EMPTY: u64 = 0;

/// The slots a slice may be in. What a lookup reads comes first, in two neighbouring cache lines; from there it is
/// one step to the words.
#[derive(Default)]
#[repr(C, align(128))]
pub(super) struct Set {
    /// Which slice is in which slot.
    tags: [AtomicU64; WAYS],
    /// Those of the slots.
    seqs: [Seq; WAYS],
    /// The words of all slots, one slot after the other.
    words: OnceLock<Box<[AtomicU64]>>,
    /// Used since the hand passed.
    used: [AtomicBool; WAYS],
    /// Changed since it was last written.
    dirty: [AtomicBool; WAYS],
    /// Counts a slot's changes, so that one written is not taken for a later one.
    stamps: [AtomicU32; WAYS],
    lock: Mutex<Clock>,
    /// The slices that need no slot. None of them is in one.
    pub(super) runs: Runs,
}

/// Where the hand is.
#[derive(Default)]
pub(super) struct Clock(usize);

/// A slot of a set, seen by whoever holds the set's lock.
#[derive(Clone, Copy)]
pub(super) struct Slot<'s> {
    pub(super) tag: &'s AtomicU64,
    pub(super) seq: &'s Seq,
    used: &'s AtomicBool,
    pub(super) dirty: &'s AtomicBool,
    pub(super) stamp: &'s AtomicU32,
    pub(super) words: &'s [AtomicU64],
}

impl Slot<'_> {
    pub(super) fn fill(&self, slice: u64, values: impl Iterator<Item = u64>) {
        self.seq.change(|| {
            self.tag.store(slice, Ordering::Relaxed);
            for (word, value) in self.words.iter().zip(values) {
                word.store(value, Ordering::Relaxed);
            }
        });
        self.used.store(true, Ordering::Relaxed);
    }

    pub(super) fn clear(&self) {
        self.seq.change(|| self.tag.store(EMPTY, Ordering::Relaxed));
        self.stamp.fetch_add(1, Ordering::Relaxed);
        self.dirty.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Relaxed)
    }

    pub(super) fn soil(&self) {
        self.stamp.fetch_add(1, Ordering::Relaxed);
        self.dirty.store(true, Ordering::Relaxed);
    }
}

impl Set {
    pub(super) fn lock(&self) -> MutexGuard<'_, Clock> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_or(&self, wait: Wait) -> Result<MutexGuard<'_, Clock>> {
        match (wait, self.lock.try_lock()) {
            (_, Ok(guard)) => Ok(guard),
            (_, Err(TryLockError::Poisoned(poisoned))) => Ok(poisoned.into_inner()),
            (Wait::Never, Err(TryLockError::WouldBlock)) => Err(Error::WOULD_BLOCK),
            (Wait::Allowed, Err(TryLockError::WouldBlock)) => Ok(self.lock()),
        }
    }

    /// Which slot holds a slice. Looks at all: an early end would be a branch that nobody can foretell.
    #[inline]
    pub(super) fn way(&self, slice: u64) -> Option<usize> {
        let found = |tag: &AtomicU64| u32::from(tag.load(Ordering::Relaxed) == slice);
        let ways = self.tags.iter().rev().fold(0u32, |ways, tag| ways << 1 | found(tag));
        if ways == 0 { None } else { usize::try_from(ways.trailing_zeros()).ok() }
    }

    /// Reads words of a slice out of its slot, without a lock. `per_slot` is how many words a slot has.
    #[inline]
    pub(super) fn peek(&self, slice: u64, per_slot: u64, word: u64, out: &mut [u64]) -> Found {
        let Some(way) = self.way(slice) else { return Found::Miss };
        let (Some(tag), Some(seq)) = (self.tags.get(way), self.seqs.get(way)) else { return Found::Miss };
        let Some(begun) = seq.begin() else { return Found::Changing };
        if tag.load(Ordering::Relaxed) != slice {
            return Found::Changing;
        }
        let Some(words) = self.words.get() else { return Found::Miss };
        let first = to_index(to_u64(way).wrapping_mul(per_slot).wrapping_add(word));
        let Some(words) = words.get(first..first.wrapping_add(out.len())) else { return Found::Miss };
        for (out, word) in out.iter_mut().zip(words) {
            *out = word.load(Ordering::Relaxed);
        }
        if !seq.is_still(begun) {
            return Found::Changing;
        }
        // Written only when it changes, so that readers on different processors do not fight for the line.
        if let Some(used) = self.used.get(way)
            && !used.load(Ordering::Relaxed)
        {
            used.store(true, Ordering::Relaxed);
        }
        Found::Hit
    }

    /// A slot of this set. The caller holds the set's lock.
    pub(super) fn slot(&self, way: usize, per_slot: u64) -> Option<Slot<'_>> {
        let all = to_index(per_slot.saturating_mul(to_u64(WAYS)));
        let words = self.words.get_or_init(|| std::iter::repeat_with(AtomicU64::default).take(all).collect());
        Some(Slot {
            tag: self.tags.get(way)?,
            seq: self.seqs.get(way)?,
            used: self.used.get(way)?,
            dirty: self.dirty.get(way)?,
            stamp: self.stamps.get(way)?,
            words: words.chunks_exact(to_index(per_slot)).nth(way)?,
        })
    }

    /// The slot a slice is in. The caller holds the set's lock.
    pub(super) fn find(&self, slice: u64, per_slot: u64) -> Option<Slot<'_>> {
        self.slot(self.way(slice)?, per_slot)
    }

    /// A slot to use for another slice: an empty one, else the first clean one not used since the hand passed.
    /// `None` if all are dirty. The caller holds the set's lock.
    pub(super) fn victim(&self, clock: &mut Clock, per_slot: u64) -> Option<Slot<'_>> {
        if let Some(found) = self.find(EMPTY, per_slot) {
            return Some(found);
        }
        for _ in 0..WAYS.saturating_mul(2) {
            let way = clock.0 % WAYS;
            clock.0 = way.wrapping_add(1);
            let slot = self.slot(way, per_slot)?;
            if !slot.is_dirty() && !slot.used.swap(false, Ordering::Relaxed) {
                return Some(slot);
            }
        }
        None
    }

    /// Every slot, unless there is none yet. The caller holds the set's lock.
    pub(super) fn slots(&self, per_slot: u64) -> impl Iterator<Item = Slot<'_>> {
        let some = if self.words.get().is_some() { WAYS } else { 0 };
        (0..some).filter_map(move |way| self.slot(way, per_slot))
    }

    /// Whether any slot may be dirty.
    pub(super) fn has_dirty(&self) -> bool {
        self.dirty.iter().any(|dirty| dirty.load(Ordering::Relaxed))
    }

    /// Forgets a slice, dirty or not. The caller holds the set's lock.
    pub(super) fn forget(&self, slice: u64, per_slot: u64) {
        if let Some(slot) = self.find(slice, per_slot) {
            slot.clear();
        }
        self.runs.forget(slice);
    }
}
