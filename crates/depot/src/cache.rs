//! Nodes in memory: in slots that are read without a lock.
//!
//! A slot is a seqlock made of atomics, as in an L2 cache of qcow2: who finds a node's number among a set's tags reads
//! the words it wants, and then looks whether the slot's sequence number is still the even one it began with.
//! Whoever puts a node into a slot, or takes it out, holds its set's lock. A word of a node that is being changed
//! is one store: the sequence number is about *which* node is in the slot, nothing else.

use crate::packed::{FANOUT, Page};
use chart::{Error, Result, Wait};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

/// Slots in a set.
const WAYS: usize = 4;
/// Memory is taken for so many slots at a time.
const LOT: usize = 64;
/// How often a reader looks again at a slot that is changing before it asks for the set's lock.
const SPINS: usize = 8;
/// No node has this number.
const EMPTY: u64 = 0;

/// The nodes that are in memory.
pub(crate) struct Cache {
    sets: Box<[Set]>,
    /// The words of all slots: first those of the first slot of each set, so that a small map lies close together.
    lots: Box<[OnceLock<Box<[AtomicU64]>>]>,
    /// As many ones as it takes to number the sets.
    mask: u64,
}

/// The slots that a node may be in: one cache line, which is all of the set that a lookup reads.
#[derive(Default)]
#[repr(align(64))]
struct Set {
    tags: [AtomicU64; WAYS],
    /// Odd while another node is put in.
    seqs: [AtomicU32; WAYS],
    /// Used since the hand passed.
    used: [AtomicBool; WAYS],
    /// Not as it is stored, or not stored at all. Changed and read under the lock.
    dirty: [AtomicBool; WAYS],
    lock: Mutex<u8>,
}

const _: () = assert!(size_of::<Set>() == 64);

impl Set {
    #[inline]
    fn way(&self, number: u64) -> Option<usize> {
        // All of them: an early end would be a branch that nobody can foretell.
        let found = |tag: &AtomicU64| u32::from(tag.load(Ordering::Relaxed) == number);
        let ways = self.tags.iter().rev().fold(0u32, |ways, tag| ways << 1 | found(tag));
        if ways == 0 { None } else { Some(ways.trailing_zeros() as usize) }
    }

    /// Reads from the slot that holds a node, if one does all the while.
    #[inline]
    fn peek(&self, number: u64, read: impl FnOnce(usize)) -> bool {
        let Some(way) = self.way(number) else { return false };
        let seq = self.seqs[way].load(Ordering::Acquire);
        if seq & 1 != 0 || self.tags[way].load(Ordering::Relaxed) != number {
            return false;
        }
        read(way);
        fence(Ordering::Acquire);
        if self.seqs[way].load(Ordering::Relaxed) != seq {
            return false;
        }
        // Written only when it changes, so that readers on different processors do not fight for the line.
        if !self.used[way].load(Ordering::Relaxed) {
            self.used[way].store(true, Ordering::Relaxed);
        }
        true
    }
}

impl Cache {
    /// A cache of at most `bytes` of nodes, but of one set at the least. Memory is taken when nodes come in.
    pub(crate) fn new(bytes: usize) -> Self {
        let most = (bytes / (WAYS * FANOUT * 8)).clamp(1, 1 << 24);
        // A power of two, so that finding a set is no division.
        let sets = if most.is_power_of_two() { most } else { most.next_power_of_two() / 2 };
        Cache {
            sets: std::iter::repeat_with(Set::default).take(sets).collect(),
            lots: std::iter::repeat_with(OnceLock::new).take((sets * WAYS).div_ceil(LOT)).collect(),
            mask: sets as u64 - 1,
        }
    }

    /// How many bytes of nodes it holds at most.
    pub(crate) fn bytes(&self) -> u64 {
        (self.sets.len() * WAYS * FANOUT * 8) as u64
    }

    /// Nodes are numbered in a row, so their numbers are spread well as they are; folded once, for those that come in
    /// steps.
    #[inline]
    fn set(&self, number: u64) -> usize {
        ((number ^ number >> self.mask.count_ones()) & self.mask) as usize
    }

    /// The words of a slot.
    #[inline]
    fn words(&self, set: usize, way: usize) -> &[AtomicU64] {
        let slot = way * self.sets.len() + set;
        let lot =
            || std::iter::repeat_with(AtomicU64::default).take(LOT.min(self.sets.len() * WAYS) * FANOUT);
        let lot = self.lots[slot / LOT].get_or_init(|| lot().collect());
        &lot[slot % LOT * FANOUT..][..FANOUT]
    }

    /// Reads words of a node from its word `first` on, if it is in memory.
    #[inline]
    pub(crate) fn peek(&self, number: u64, first: usize, out: &mut [u64]) -> bool {
        let set = self.set(number);
        let mut read = |way| {
            for (out, word) in out.iter_mut().zip(&self.words(set, way)[first..]) {
                *out = word.load(Ordering::Relaxed);
            }
        };
        (0..SPINS).any(|_| self.sets[set].peek(number, &mut read))
    }

    /// One word of a node, if it is in memory.
    #[inline]
    pub(crate) fn peek_word(&self, number: u64, index: usize) -> Option<u64> {
        let set = self.set(number);
        let mut found = 0;
        let read = |way| found = self.words(set, way)[index].load(Ordering::Relaxed);
        self.sets[set].peek(number, read).then_some(found)
    }

    /// Keeps everybody else from changing which nodes are in the slots that this one may be in.
    pub(crate) fn hold(&self, number: u64, wait: Wait) -> Result<Held<'_>> {
        let index = self.set(number);
        let set = &self.sets[index];
        let hand = match (wait, set.lock.try_lock()) {
            (_, Ok(hand)) => hand,
            (_, Err(TryLockError::Poisoned(hand))) => hand.into_inner(),
            (Wait::Never, Err(TryLockError::WouldBlock)) => return Err(Error::WOULD_BLOCK),
            (Wait::Allowed, Err(TryLockError::WouldBlock)) => {
                set.lock.lock().unwrap_or_else(PoisonError::into_inner)
            }
        };
        Ok(Held { cache: self, index, set, hand })
    }

    /// The sets, one after the other, each held.
    pub(crate) fn each(&self) -> impl Iterator<Item = Held<'_>> {
        (0..self.sets.len()).map(|index| {
            let set = &self.sets[index];
            Held { cache: self, index, set, hand: set.lock.lock().unwrap_or_else(PoisonError::into_inner) }
        })
    }
}

/// A set whose lock is held.
pub(crate) struct Held<'c> {
    cache: &'c Cache,
    index: usize,
    set: &'c Set,
    hand: MutexGuard<'c, u8>,
}

/// A slot of a held set.
#[derive(Clone, Copy)]
pub(crate) struct Slot(usize);

impl Held<'_> {
    /// The slot that holds a node.
    pub(crate) fn find(&self, number: u64) -> Option<Slot> {
        self.set.way(number).map(Slot)
    }

    /// All slots that hold something.
    pub(crate) fn full(&self) -> impl Iterator<Item = Slot> + use<> {
        let full: Vec<_> =
            (0..WAYS).filter(|&way| self.set.tags[way].load(Ordering::Relaxed) != EMPTY).collect();
        full.into_iter().map(Slot)
    }

    fn words(&self, slot: Slot) -> &[AtomicU64] {
        self.cache.words(self.index, slot.0)
    }

    /// A slot for another node: an empty one, else a clean one not used since the hand passed. `None` where all are
    /// dirty.
    pub(crate) fn clean(&mut self) -> Option<Slot> {
        self.set.way(EMPTY).map(Slot).or_else(|| self.unused(|dirty| !dirty))
    }

    /// The same, and where all are dirty one of those.
    pub(crate) fn any(&mut self) -> Slot {
        let found = self.clean().or_else(|| self.unused(|_| true));
        found.unwrap_or(Slot(usize::from(*self.hand)))
    }

    /// The hand goes round at most twice: the first time it takes from each what it has been used for.
    fn unused(&mut self, fits: impl Fn(bool) -> bool) -> Option<Slot> {
        for _ in 0..WAYS * 2 {
            let way = usize::from(*self.hand);
            *self.hand = (*self.hand + 1) % WAYS as u8;
            let dirty = self.set.dirty[way].load(Ordering::Relaxed);
            if fits(dirty) && !self.set.used[way].swap(false, Ordering::Relaxed) {
                return Some(Slot(way));
            }
        }
        None
    }

    /// Which node is in a slot.
    pub(crate) fn number(&self, slot: Slot) -> u64 {
        self.set.tags[slot.0].load(Ordering::Relaxed)
    }

    /// What is in a slot.
    pub(crate) fn page(&self, slot: Slot, page: &mut Page) {
        for (to, from) in page.iter_mut().zip(self.words(slot)) {
            *to = from.load(Ordering::Relaxed);
        }
    }

    /// Whether a slot must be stored before it is given away.
    pub(crate) fn is_dirty(&self, slot: Slot) -> bool {
        self.set.dirty[slot.0].load(Ordering::Relaxed)
    }

    /// It is stored as it is now, or not any more.
    pub(crate) fn mark(&self, slot: Slot, dirty: bool) {
        self.set.dirty[slot.0].store(dirty, Ordering::Relaxed);
    }

    /// Which node is in it changes: readers that began before find out.
    fn change(&self, slot: Slot, number: u64, page: Option<&Page>) {
        let seq = self.set.seqs[slot.0].load(Ordering::Relaxed);
        self.set.seqs[slot.0].store(seq.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.set.tags[slot.0].store(number, Ordering::Relaxed);
        for (to, from) in self.words(slot).iter().zip(page.into_iter().flatten()) {
            to.store(*from, Ordering::Relaxed);
        }
        self.set.seqs[slot.0].store(seq.wrapping_add(2), Ordering::Release);
    }

    /// Puts a node in.
    pub(crate) fn put(&self, slot: Slot, number: u64, page: &Page, dirty: bool) {
        self.change(slot, number, Some(page));
        self.set.used[slot.0].store(true, Ordering::Relaxed);
        self.mark(slot, dirty);
    }

    /// Takes a node out, whatever has become of it.
    pub(crate) fn clear(&self, slot: Slot) {
        self.change(slot, EMPTY, None);
        self.mark(slot, false);
    }

    /// Changes words of a node. Readers see each of them as it was or as it is, and with it all that was written
    /// before.
    pub(crate) fn store(&self, slot: Slot, first: usize, words: &[u64]) {
        for (to, from) in self.words(slot)[first..].iter().zip(words) {
            to.store(*from, Ordering::Release);
        }
        self.mark(slot, true);
    }
}
