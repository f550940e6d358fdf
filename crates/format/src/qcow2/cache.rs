//! L2 tables in memory: slices of them, in slots that are read without a lock.
//!
//! A slot is a seqlock made of atomics. A reader that finds the slice's offset among a set's tags reads the words
//! it wants and then looks whether the slot's sequence number is still the even one it began with. Whoever changes
//! a slot holds its set's lock. A slice is read from the file *under that lock*, so that what was read before a
//! change can never be installed after it.

use super::cluster::Clusters;
use crate::field::{be64s, to_index, to_u64};
use chart::{Error, Result, Source, Wait};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

/// A slice of an L2 table has so many bytes, unless the whole table has fewer.
const SLICE_BYTES: u64 = 4096;
/// Slots in a set.
const WAYS: usize = 8;
/// A cache is never smaller: less would make a single lookup thrash.
pub const MIN_CACHE_BYTES: usize = 64 << 10;
/// What a cache has unless the user says otherwise: enough for 128 GiB of 64 KiB clusters.
pub const DEFAULT_CACHE_BYTES: usize = 32 << 20;
/// How often a reader looks again at a slot that is changing before it asks for the set's lock.
const SPINS: usize = 8;
/// No slice: where the header is there is no L2 table.
const EMPTY: u64 = 0;

/// The L2 slices of one image that are in memory.
pub struct SliceCache {
    slice_bytes: u64,
    sets: Box<[Set]>,
}

/// The slots a slice may be in. What a lookup reads comes first, in two neighbouring cache lines; from there it is
/// one step to the words.
#[derive(Default)]
#[repr(C, align(128))]
struct Set {
    /// Which slice is in which slot.
    tags: [AtomicU64; WAYS],
    /// Odd while the slot changes.
    seqs: [AtomicU32; WAYS],
    /// The words of all slots, one slot after the other.
    words: OnceLock<Box<[AtomicU64]>>,
    /// Used since the hand passed.
    used: [AtomicBool; WAYS],
    /// Changed since it was last written.
    dirty: [AtomicBool; WAYS],
    /// Counts a slot's changes, so that one written is not taken for a later one.
    stamps: [AtomicU32; WAYS],
    lock: Mutex<Clock>,
}

/// Where the hand is.
#[derive(Default)]
struct Clock(usize);

/// A slice that has changed and must be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirtySlice {
    /// Where it belongs.
    pub offset: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Which state of it this is, for [`SliceCache::mark_clean`].
    stamp: u32,
}

enum Found {
    Hit,
    Miss,
    Changing,
}

/// A slot of a set, seen by whoever holds the set's lock.
#[derive(Clone, Copy)]
struct Slot<'s> {
    tag: &'s AtomicU64,
    seq: &'s AtomicU32,
    used: &'s AtomicBool,
    dirty: &'s AtomicBool,
    stamp: &'s AtomicU32,
    words: &'s [AtomicU64],
}

impl Slot<'_> {
    /// Changes it: readers that began before find out.
    fn change(&self, set: impl FnOnce()) {
        let seq = self.seq.load(Ordering::Relaxed);
        self.seq.store(seq.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        set();
        self.seq.store(seq.wrapping_add(2), Ordering::Release);
    }

    fn fill(&self, slice: u64, values: impl Iterator<Item = u64>) {
        self.change(|| {
            self.tag.store(slice, Ordering::Relaxed);
            for (word, value) in self.words.iter().zip(values) {
                word.store(value, Ordering::Relaxed);
            }
        });
        self.used.store(true, Ordering::Relaxed);
    }

    fn clear(&self) {
        self.change(|| self.tag.store(EMPTY, Ordering::Relaxed));
        self.stamp.fetch_add(1, Ordering::Relaxed);
        self.dirty.store(false, Ordering::Relaxed);
    }

    fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Relaxed)
    }

    fn soil(&self) {
        self.stamp.fetch_add(1, Ordering::Relaxed);
        self.dirty.store(true, Ordering::Relaxed);
    }
}

impl Set {
    fn lock(&self) -> MutexGuard<'_, Clock> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_or(&self, wait: Wait) -> Result<MutexGuard<'_, Clock>> {
        match (wait, self.lock.try_lock()) {
            (_, Ok(guard)) => Ok(guard),
            (_, Err(TryLockError::Poisoned(poisoned))) => Ok(poisoned.into_inner()),
            (Wait::Never, Err(TryLockError::WouldBlock)) => Err(Error::WOULD_BLOCK),
            (Wait::Allowed, Err(TryLockError::WouldBlock)) => Ok(self.lock()),
        }
    }

    /// Which slot holds a slice. Looks at all: an early end would be a branch that nobody can foretell.
    #[inline]
    fn way(&self, slice: u64) -> Option<usize> {
        let found = |tag: &AtomicU64| u32::from(tag.load(Ordering::Relaxed) == slice);
        let ways = self.tags.iter().rev().fold(0u32, |ways, tag| ways << 1 | found(tag));
        if ways == 0 { None } else { usize::try_from(ways.trailing_zeros()).ok() }
    }

    /// Reads words of a slice without a lock. `per_slot` is how many words a slot has.
    #[inline]
    fn peek(&self, slice: u64, per_slot: u64, word: u64, out: &mut [u64]) -> Found {
        let Some(way) = self.way(slice) else { return Found::Miss };
        let (Some(tag), Some(seq_now)) = (self.tags.get(way), self.seqs.get(way)) else { return Found::Miss };
        let seq = seq_now.load(Ordering::Acquire);
        if seq & 1 != 0 || tag.load(Ordering::Relaxed) != slice {
            return Found::Changing;
        }
        let Some(words) = self.words.get() else { return Found::Miss };
        let first = to_index(to_u64(way).wrapping_mul(per_slot).wrapping_add(word));
        let Some(words) = words.get(first..first.wrapping_add(out.len())) else { return Found::Miss };
        for (out, word) in out.iter_mut().zip(words) {
            *out = word.load(Ordering::Relaxed);
        }
        fence(Ordering::Acquire);
        if seq_now.load(Ordering::Relaxed) != seq {
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

    fn slot(&self, way: usize, per_slot: u64) -> Option<Slot<'_>> {
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

    fn find(&self, slice: u64, per_slot: u64) -> Option<Slot<'_>> {
        self.slot(self.way(slice)?, per_slot)
    }

    /// A slot to use for another slice: an empty one, else the first clean one not used since the hand passed.
    /// `None` if all are dirty. The caller holds the set's lock.
    fn victim(&self, clock: &mut Clock, per_slot: u64) -> Option<Slot<'_>> {
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
}

impl SliceCache {
    /// A cache of at most `capacity` bytes of tables, and never fewer than [`MIN_CACHE_BYTES`]. Memory is taken
    /// when slices come in.
    pub fn new(clusters: Clusters, capacity: usize) -> SliceCache {
        let slice_bytes = clusters.size().min(SLICE_BYTES);
        let set_bytes = slice_bytes.saturating_mul(to_u64(WAYS));
        let sets =
            to_u64(capacity.max(MIN_CACHE_BYTES)).checked_div(set_bytes).unwrap_or(0).clamp(1, 1 << 24);
        SliceCache { slice_bytes, sets: std::iter::repeat_with(Set::default).take(to_index(sets)).collect() }
    }

    /// Bytes in a slice.
    #[inline]
    pub fn slice_bytes(&self) -> u64 {
        self.slice_bytes
    }

    /// The slice that holds an offset, and which of its words that is.
    #[inline]
    pub fn slice_of(&self, offset: u64) -> (u64, u64) {
        // Slices have a power of two of bytes.
        let within = offset & self.slice_bytes.wrapping_sub(1);
        (offset.wrapping_sub(within), within / 8)
    }

    fn words_in_slice(&self) -> u64 {
        self.slice_bytes / 8
    }

    #[inline]
    fn set(&self, slice: u64) -> Result<&Set> {
        // Fibonacci hashing of the slice's number, then scaled to the number of sets.
        let hash = (slice / 512).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_shr(32);
        let index = to_index(hash.wrapping_mul(to_u64(self.sets.len())).wrapping_shr(32));
        self.sets.get(index).ok_or_else(|| Error::invalid("an L2 cache without sets"))
    }

    /// Reads `out.len()` words of a slice from its `word` on, from memory or from the file.
    #[inline]
    pub fn read(
        &self,
        source: &dyn Source,
        slice: u64,
        word: u64,
        out: &mut [u64],
        wait: Wait,
    ) -> Result<()> {
        let set = self.set(slice)?;
        for _ in 0..SPINS {
            match set.peek(slice, self.words_in_slice(), word, out) {
                Found::Hit => return Ok(()),
                Found::Miss => break,
                Found::Changing => std::hint::spin_loop(),
            }
        }
        self.read_slow(source, slice, word, out, wait)
    }

    #[cold]
    fn read_slow(
        &self,
        source: &dyn Source,
        slice: u64,
        word: u64,
        out: &mut [u64],
        wait: Wait,
    ) -> Result<()> {
        let set = self.set(slice)?;
        let mut clock = set.lock_or(wait)?;
        // Under the lock nothing changes: what is found now is true.
        if matches!(set.peek(slice, self.words_in_slice(), word, out), Found::Hit) {
            return Ok(());
        }
        self.load(source, set, &mut clock, slice, wait)?;
        if matches!(set.peek(slice, self.words_in_slice(), word, out), Found::Hit) {
            return Ok(());
        }
        // All slots are dirty: read past them.
        let offset = slice.saturating_add(word.saturating_mul(8));
        let mut bytes = vec![0; out.len().saturating_mul(8)];
        source.read_at(offset, &mut bytes, wait)?;
        for (out, value) in out.iter_mut().zip(be64s(&bytes)) {
            *out = value;
        }
        Ok(())
    }

    /// Brings a slice in, if a slot can be had for it. The caller holds the set's lock, across the reading too.
    fn load(&self, source: &dyn Source, set: &Set, clock: &mut Clock, slice: u64, wait: Wait) -> Result<()> {
        let mut room = [0; 4096];
        let bytes = room.get_mut(..to_index(self.slice_bytes)).unwrap_or_default();
        if slice.saturating_add(self.slice_bytes) > source.len() {
            let what =
                format!("an L2 table reaches past the end of the file, which has {} bytes", source.len());
            return Err(Error::corrupt(what).at(slice));
        }
        let Some(slot) = set.victim(clock, self.words_in_slice()) else { return Ok(()) };
        source.read_at(slice, bytes, wait)?;
        slot.fill(slice, be64s(bytes));
        Ok(())
    }

    /// Makes sure that a slice is in memory, if a slot can be had for it: whether it is.
    pub fn ensure(&self, source: &dyn Source, slice: u64, wait: Wait) -> Result<bool> {
        let set = self.set(slice)?;
        let mut clock = set.lock_or(wait)?;
        if set.way(slice).is_none() {
            self.load(source, set, &mut clock, slice, wait)?;
        }
        Ok(set.way(slice).is_some())
    }

    /// Changes words of a slice that is in memory and marks it dirty; dirty slices stay until they are marked
    /// clean. `false`, and nothing is changed, if the slice is not in memory: [`SliceCache::ensure`] it, and
    /// where that finds no slot, write the dirty ones first.
    pub fn store(&self, slice: u64, word: u64, values: &[u64]) -> Result<bool> {
        let set = self.set(slice)?;
        let _clock = set.lock();
        let Some(slot) = set.find(slice, self.words_in_slice()) else { return Ok(false) };
        let words = slot.words.get(to_index(word)..).unwrap_or_default();
        if words.len() < values.len() {
            return Err(Error::invalid(format!("word {word} of an L2 slice of {} bytes", self.slice_bytes)));
        }
        slot.soil();
        slot.change(|| {
            for (word, value) in words.iter().zip(values) {
                word.store(*value, Ordering::Relaxed);
            }
        });
        Ok(true)
    }

    /// Puts a whole new slice in, dirty: a new L2 table's, which nothing in the file says yet. `false` if all
    /// slots it could have are dirty.
    pub fn put(&self, slice: u64, values: &[u64]) -> Result<bool> {
        if to_u64(values.len()) != self.words_in_slice() {
            return Err(Error::invalid(format!("{} words for an L2 slice", values.len())));
        }
        let set = self.set(slice)?;
        let mut clock = set.lock();
        let per_slot = self.words_in_slice();
        let Some(slot) = set.find(slice, per_slot).or_else(|| set.victim(&mut clock, per_slot)) else {
            return Ok(false);
        };
        slot.soil();
        slot.fill(slice, values.iter().copied());
        Ok(true)
    }

    /// The dirty slices, in the order of their offsets. They stay dirty until they are marked clean.
    pub fn dirty(&self) -> Vec<DirtySlice> {
        let mut found = Vec::new();
        for set in &self.sets {
            if set.dirty.iter().all(|dirty| !dirty.load(Ordering::Relaxed)) {
                continue;
            }
            let _clock = set.lock();
            let slots = (0..WAYS).filter_map(|way| set.slot(way, self.words_in_slice()));
            found.extend(slots.filter(Slot::is_dirty).map(|slot| DirtySlice {
                offset: slot.tag.load(Ordering::Relaxed),
                bytes:
                    slot.words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_be_bytes()).collect(),
                stamp: slot.stamp.load(Ordering::Relaxed),
            }));
        }
        found.sort_unstable_by_key(|slice| slice.offset);
        found
    }

    /// Marks a slice clean that is written now, unless it has changed since it was taken.
    pub fn mark_clean(&self, written: &DirtySlice) -> Result<()> {
        let set = self.set(written.offset)?;
        let _clock = set.lock();
        if let Some(slot) = set.find(written.offset, self.words_in_slice())
            && slot.stamp.load(Ordering::Relaxed) == written.stamp
        {
            slot.dirty.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Forgets everything, dirty or not.
    pub fn clear(&self) {
        for set in &self.sets {
            let _clock = set.lock();
            // A set without words never held anything.
            if set.words.get().is_some() {
                let slots = (0..WAYS).filter_map(|way| set.slot(way, self.words_in_slice()));
                slots.for_each(|slot| slot.clear());
            }
        }
    }

    /// Forgets the slices in `[start, end)`, dirty or not: their clusters are no L2 tables any more.
    pub fn invalidate(&self, start: u64, end: u64) -> Result<()> {
        let mut slice = self.slice_of(start).0;
        while slice < end {
            let set = self.set(slice)?;
            // Even where nothing is found without it: somebody may be about to install what was read before.
            let _clock = set.lock();
            if let Some(slot) = set.find(slice, self.words_in_slice()) {
                slot.clear();
            }
            slice = slice.saturating_add(self.slice_bytes);
        }
        Ok(())
    }
}
