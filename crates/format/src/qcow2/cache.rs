//! L2 tables in memory: slices of them, read without a lock.
//!
//! A slice is in a slot, word by word; or, if its words go up evenly, it is a run, which takes next to nothing. Both are
//! seqlocks made of atomics. A reader that finds the slice's offset among a set's tags reads the words it wants and
//! then looks whether the sequence number is still the even one it began with. Whoever changes a set holds its lock. A
//! slice is read from the file *under that lock*, so that what was read before a change can never be installed after
//! it. Only slots change and are dirty: a run that is to change gets a slot first.

mod runs;
mod seq;
mod set;

use super::cluster::Clusters;
use crate::field::{be64s, to_index, to_u64};
use chart::{Error, Result, Source, Wait};
pub(super) use runs::Run;
use seq::Found;
use set::{Set, Slot, WAYS};
use std::sync::atomic::Ordering;

/// A slice of an L2 table has so many bytes, unless the whole table has fewer.
const SLICE_BYTES: u64 = 4096;
/// A cache is never smaller: less would make a single lookup thrash.
pub const MIN_CACHE_BYTES: usize = 64 << 10;
/// What a cache has unless the user says otherwise: enough for 256 GiB of 64 KiB clusters wherever they lie, and for a
/// TiB of clusters that follow each other.
pub const DEFAULT_CACHE_BYTES: usize = 32 << 20;
/// How often a reader looks again at a slot that is changing before it asks for the set's lock.
const SPINS: usize = 8;

/// More than this no image of so many bytes has a use for: four times its L2 tables, since sets fill unevenly and
/// snapshots have tables too. A chain of a hundred small images takes little memory then.
pub fn enough(clusters: Clusters, size: u64) -> usize {
    let words = clusters.count(size).saturating_mul(clusters.entry_words());
    to_index(words.saturating_mul(4 * 8))
}

/// The L2 slices of one image that are in memory.
pub struct SliceCache {
    slice_bytes: u64,
    /// By how much the words of a run go up; 0 where slices are never runs.
    rise: u64,
    sets: Box<[Set]>,
}

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

impl SliceCache {
    /// A cache of at most `capacity` bytes of tables, and never fewer than [`MIN_CACHE_BYTES`]. Memory is taken
    /// when slices come in.
    pub fn new(clusters: Clusters, capacity: usize) -> SliceCache {
        let slice_bytes = clusters.size().min(SLICE_BYTES);
        let set_bytes = slice_bytes.saturating_mul(to_u64(WAYS));
        let sets =
            to_u64(capacity.max(MIN_CACHE_BYTES)).checked_div(set_bytes).unwrap_or(0).clamp(1, 1 << 24);
        // An entry of two words has its subclusters in the second, which do not go up with the first.
        let rise = if clusters.entry_words() == 1 { clusters.size() } else { 0 };
        let sets = std::iter::repeat_with(Set::default).take(to_index(sets)).collect();
        SliceCache { slice_bytes, rise, sets }
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

    #[inline]
    fn peek(&self, set: &Set, slice: u64, word: u64, out: &mut [u64]) -> Found {
        match set.peek(slice, self.words_in_slice(), word, out) {
            Found::Miss => set.runs.peek(slice, self.rise, word, out),
            found => found,
        }
    }

    /// The run that a slice is, if it is in memory and is one.
    pub(super) fn run(&self, slice: u64) -> Option<Run> {
        let mut ends = [0; 2];
        let runs = &self.set(slice).ok()?.runs;
        (runs.peek(slice, self.rise, 0, &mut ends) == Found::Hit).then(|| Run::between(ends))
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
            match self.peek(set, slice, word, out) {
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
        if matches!(self.peek(set, slice, word, out), Found::Hit) {
            return Ok(());
        }
        let mut room = [0; 4096];
        let bytes = self.fetch(source, slice, &mut room, wait)?;
        for (out, value) in out.iter_mut().zip(be64s(bytes).skip(to_index(word))) {
            *out = value;
        }
        if let Some(run) = self.run_of(bytes) {
            set.runs.keep(slice, run);
        } else if let Some(slot) = set.victim(&mut clock, self.words_in_slice()) {
            slot.fill(slice, be64s(bytes));
        }
        Ok(())
    }

    /// The run that a slice is, if it is one.
    fn run_of(&self, bytes: &[u8]) -> Option<Run> {
        if self.rise == 0 { None } else { Run::of(be64s(bytes), self.rise) }
    }

    /// A slice as the file has it. The caller holds the lock of its set.
    fn fetch<'r>(&self, source: &dyn Source, slice: u64, room: &'r mut [u8], wait: Wait) -> Result<&'r [u8]> {
        let len = source.len();
        if slice.saturating_add(self.slice_bytes) > len {
            let what = format!("an L2 table reaches past the end of the file, which has {len} bytes");
            return Err(Error::corrupt(what).at(slice));
        }
        let bytes = room.get_mut(..to_index(self.slice_bytes)).unwrap_or_default();
        source.read_at(slice, bytes, wait)?;
        Ok(bytes)
    }

    /// Makes sure that a slice is in a slot, if one can be had for it: whether it is.
    pub fn ensure(&self, source: &dyn Source, slice: u64, wait: Wait) -> Result<bool> {
        let set = self.set(slice)?;
        let mut clock = set.lock_or(wait)?;
        if set.way(slice).is_some() {
            return Ok(true);
        }
        let Some(slot) = set.victim(&mut clock, self.words_in_slice()) else { return Ok(false) };
        if let Some(run) = set.runs.find(slice, self.rise) {
            slot.fill(slice, run.words(0));
            set.runs.forget(slice);
        } else {
            let mut room = [0; 4096];
            slot.fill(slice, be64s(self.fetch(source, slice, &mut room, wait)?));
        }
        Ok(true)
    }

    /// Changes words of a slice that is in a slot and marks it dirty; dirty slices stay until they are marked
    /// clean. `false`, and nothing is changed, if the slice is in none: [`SliceCache::ensure`] it, and
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
        slot.seq.change(|| {
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
        set.runs.forget(slice);
        slot.soil();
        slot.fill(slice, values.iter().copied());
        Ok(true)
    }

    /// The dirty slices, in the order of their offsets. They stay dirty until they are marked clean.
    pub fn dirty(&self) -> Vec<DirtySlice> {
        let mut found = Vec::new();
        for set in self.sets.iter().filter(|set| set.has_dirty()) {
            let _clock = set.lock();
            found.extend(set.slots(self.words_in_slice()).filter(Slot::is_dirty).map(|slot| DirtySlice {
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
            set.slots(self.words_in_slice()).for_each(|slot| slot.clear());
            set.runs.clear();
        }
    }

    /// Forgets the slices in `[start, end)`, dirty or not: their clusters are no L2 tables any more.
    pub fn invalidate(&self, start: u64, end: u64) -> Result<()> {
        let mut slice = self.slice_of(start).0;
        while slice < end {
            let set = self.set(slice)?;
            // Even where nothing is found without it: somebody may be about to install what was read before.
            let _clock = set.lock();
            set.forget(slice, self.words_in_slice());
            slice = slice.saturating_add(self.slice_bytes);
        }
        Ok(())
    }
}
