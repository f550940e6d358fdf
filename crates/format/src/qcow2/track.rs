//! Bitmaps while the image is written: their bits, and the marks by which a lookup knows, without a lock, where all
//! of them are set already and a write may go straight to its place.

#[cfg(test)]
mod tests;

use super::layout::OFFSET_MASK;
use super::{Bitmap, Clusters, DirtyMap};
use crate::field::{read_vec, to_index, to_u64};
use chart::{Error, Extent, Result, Source};
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The bits of all bitmaps that follow writes take no more memory than this; the marks may take as much again. A
/// bitmap that does not fit is not followed: it stays marked as in use, so that everybody sees that it is
/// inconsistent. Enough for one bitmap of 64 KiB granules over 32 TiB.
pub const MAX_TRACKED_BYTES: u64 = 64 << 20;

/// Words in a chunk of marks.
const CHUNK_WORDS: u64 = 8192;
/// Chunks of marks.
const CHUNKS: u64 = MAX_TRACKED_BYTES / 8 / CHUNK_WORDS;
/// One lookup looks at so many words of marks at most: a bound on its time.
const MAX_LOOKED: u64 = 64;

/// How far a range of bits reaches into each word: the word's number and the mask of its bits in the range.
fn masks(bits: Range<u64>) -> impl Iterator<Item = (u64, u64)> {
    let Range { start, end } = bits;
    (start / 64..end.div_ceil(64)).map(move |word| {
        let first = start.saturating_sub(word.saturating_mul(64)).min(63);
        let last = end.saturating_sub(1).saturating_sub(word.saturating_mul(64)).min(63);
        let low = u64::MAX.wrapping_shl(u32::try_from(first).unwrap_or(0));
        (word, low & u64::MAX.wrapping_shr(63u32.saturating_sub(u32::try_from(last).unwrap_or(63))))
    })
}

/// How many bits from `bit` on, at most up to `end`, are like the first, in the words that `word` gives.
fn same(bit: u64, end: u64, words: u64, word: impl Fn(u64) -> u64) -> (bool, u64) {
    let first = word(bit / 64).wrapping_shr(u32::try_from(bit % 64).unwrap_or(0)) & 1 != 0;
    let mut at = bit;
    for _ in 0..words {
        let shift = u32::try_from(at % 64).unwrap_or(0);
        let bits = word(at / 64);
        let run = if first { bits } else { !bits }.wrapping_shr(shift).trailing_ones();
        at = at.saturating_add(run.into());
        if run < 64u32.saturating_sub(shift) || at >= end {
            break;
        }
    }
    (first, at.min(end).saturating_sub(bit))
}

/// The granules that hold `[at, at + len)`.
fn granules(at: u64, len: u64, granularity_bits: u32) -> Range<u64> {
    let last = at.saturating_add(len).saturating_sub(1).wrapping_shr(granularity_bits);
    if len == 0 { 0..0 } else { at.wrapping_shr(granularity_bits)..last.saturating_add(1) }
}

/// The bits of one bitmap.
#[derive(Clone, Debug)]
pub(super) struct Bits {
    granularity_bits: u32,
    len: u64,
    words: Vec<u64>,
}

impl Bits {
    /// How many bytes they take for a disk of that size.
    pub(super) fn bytes_for(disk_size: u64, granularity_bits: u8) -> u64 {
        granules(0, disk_size, granularity_bits.into()).end.div_ceil(64).saturating_mul(8)
    }

    /// All clear. The caller has looked at how many bytes that takes.
    pub(super) fn new(disk_size: u64, granularity_bits: u8) -> Bits {
        let mut bits = Bits { granularity_bits: granularity_bits.into(), len: 0, words: Vec::new() };
        bits.resize(disk_size);
        bits
    }

    /// Those that are stored of a bitmap.
    pub(super) fn read(
        file: &dyn Source,
        clusters: Clusters,
        bitmap: &Bitmap,
        disk_size: u64,
    ) -> Result<Bits> {
        let bytes = bitmap.bytes_for(disk_size);
        if u64::from(bitmap.table_size) != clusters.count(bytes) {
            let what = format!("bitmap {:?} is stored for a disk of another size", bitmap.name);
            return Err(Error::corrupt(what).at(bitmap.table_offset));
        }
        let mut bits = Bits::new(disk_size, bitmap.granularity_bits);
        let per_cluster = clusters.size().saturating_mul(8);
        for (index, entry) in (0..).zip(bitmap.read_table(file, clusters)?) {
            let start = per_cluster.saturating_mul(index);
            match (entry & OFFSET_MASK, entry & 1) {
                (0, 0) => {}
                (0, _) => {
                    bits.set_bits(start..start.saturating_add(per_cluster), true);
                }
                (offset, _) => {
                    let len = bytes.saturating_sub(start / 8).min(clusters.size());
                    bits.take(start, &read_vec(file, offset, len, "bitmap")?);
                }
            }
        }
        Ok(bits)
    }

    /// Takes over bits as they are stored, from bit `start` on.
    fn take(&mut self, start: u64, bytes: &[u8]) {
        let words = self.words.get_mut(to_index(start / 64)..).unwrap_or_default();
        for (word, bytes) in words.iter_mut().zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            *word = u64::from_le_bytes(whole);
        }
        self.clear_behind();
    }

    /// What is stored of them: the bytes that go into cluster `index` of the bitmap. `None` if all bits are alike.
    pub(super) fn cluster(&self, clusters: Clusters, index: u64) -> Result<Vec<u8>, bool> {
        let start = clusters.size().saturating_mul(8).saturating_mul(index).min(self.len);
        let end = start.saturating_add(clusters.size().saturating_mul(8)).min(self.len);
        let (first, run) = self.same(start, end);
        if start.saturating_add(run) >= end {
            return Err(first);
        }
        let words = self.words.get(to_index(start / 64)..to_index(end.div_ceil(64))).unwrap_or_default();
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.resize(to_index(clusters.size()), 0);
        Ok(bytes)
    }

    /// How many clusters they are stored in.
    pub(super) fn clusters(&self, clusters: Clusters) -> u64 {
        clusters.count(self.len.div_ceil(8))
    }

    fn same(&self, bit: u64, end: u64) -> (bool, u64) {
        same(bit, end, u64::MAX, |word| self.words.get(to_index(word)).copied().unwrap_or(0))
    }

    fn set_bits(&mut self, bits: Range<u64>, to: bool) -> bool {
        let mut changed = false;
        for (word, mask) in masks(bits.start..bits.end.min(self.len)) {
            if let Some(word) = self.words.get_mut(to_index(word)) {
                let new = if to { *word | mask } else { *word & !mask };
                changed |= new != *word;
                *word = new;
            }
        }
        changed
    }

    /// Sets what stands for `[at, at + len)`. Whether anything changed.
    pub(super) fn set(&mut self, at: u64, len: u64) -> bool {
        self.set_bits(granules(at, len, self.granularity_bits), true)
    }

    /// Makes all of them the same.
    pub(super) fn set_all(&mut self, to: bool) {
        self.set_bits(0..self.len, to);
    }

    /// For a disk of another size: new bits are clear, as QEMU has it.
    pub(super) fn resize(&mut self, disk_size: u64) {
        self.len = granules(0, disk_size, self.granularity_bits).end;
        self.words.resize(to_index(self.len.div_ceil(64)), 0);
        self.clear_behind();
    }

    /// Bits behind the last must not come to light when there are more.
    fn clear_behind(&mut self) {
        let used = u32::try_from(self.len % 64).unwrap_or(0);
        if let (Some(last), 1..) = (self.words.last_mut(), used) {
            *last &= u64::MAX.wrapping_shr(64u32.saturating_sub(used));
        }
    }

    /// Sets what another map of a disk of the same size says.
    pub(super) fn merge(&mut self, map: &DirtyMap) -> bool {
        let (mut at, mut changed) = (0u64, false);
        while at < map.disk_size() {
            let (dirty, len) = map.run(at, u64::MAX);
            changed |= dirty && self.set(at, len);
            at = at.saturating_add(len.max(1));
        }
        changed
    }

    pub(super) fn held_bytes(&self) -> u64 {
        to_u64(self.words.len()).saturating_mul(8)
    }

    /// As bytes, the way they are stored.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(to_index(self.len.div_ceil(8)));
        bytes
    }
}

/// Where every bitmap that follows writes is set, in granules of the finest of them.
pub(super) struct Marks {
    /// 0 as long as there is nothing to follow: then all is marked.
    granularity_bits: AtomicU32,
    /// Made as they are needed; what is not made is not marked.
    chunks: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

impl Default for Marks {
    fn default() -> Self {
        let chunks = std::iter::repeat_with(OnceLock::new).take(to_index(CHUNKS)).collect();
        Marks { granularity_bits: AtomicU32::new(0), chunks }
    }
}

impl Marks {
    fn word(&self, word: u64) -> Option<&AtomicU64> {
        self.chunks.get(to_index(word / CHUNK_WORDS))?.get()?.get(to_index(word % CHUNK_WORDS))
    }

    fn made(&self, word: u64) -> Option<&AtomicU64> {
        let empty = || std::iter::repeat_with(AtomicU64::default).take(to_index(CHUNK_WORDS)).collect();
        let chunk = self.chunks.get(to_index(word / CHUNK_WORDS))?.get_or_init(empty);
        chunk.get(to_index(word % CHUNK_WORDS))
    }

    /// Marks a range, in every bitmap of which the caller has set it.
    pub(super) fn set(&self, at: u64, len: u64) {
        let granularity_bits = self.granularity_bits.load(Ordering::Relaxed);
        if granularity_bits == 0 {
            return;
        }
        for (word, mask) in masks(granules(at, len, granularity_bits)) {
            if let Some(word) = self.made(word) {
                word.fetch_or(mask, Ordering::Release);
            }
        }
    }

    /// Whether the byte at `at` is marked, and for how many bytes from there, at most `len`, that is so. Maybe
    /// fewer than it could be.
    fn run(&self, at: u64, len: u64) -> (bool, u64) {
        let granularity_bits = self.granularity_bits.load(Ordering::Relaxed);
        if granularity_bits == 0 {
            return (true, len);
        }
        let granules = granules(at, len, granularity_bits);
        let (marked, run) = same(granules.start, granules.end, MAX_LOOKED, |word| {
            self.word(word).map_or(0, |word| word.load(Ordering::Acquire))
        });
        let end = granules.start.saturating_add(run).saturating_mul(1u64.wrapping_shl(granularity_bits));
        (marked, end.saturating_sub(at).min(len))
    }

    /// Cuts an extent that may be written, as far as its map goes, where the marks end or begin.
    #[inline]
    pub(super) fn cut(&self, extent: Extent) -> Extent {
        if self.granularity_bits.load(Ordering::Relaxed) == 0 {
            return extent;
        }
        let (writable, len) = self.run(extent.at, extent.len);
        Extent { writable, len, ..extent }
    }

    /// Says what is followed from now on. Nobody may be looking: in-place writing is off, and those who found it on
    /// have left.
    pub(super) fn follow(&self, all: &[&Bits]) {
        for word in self.chunks.iter().filter_map(OnceLock::get).flatten() {
            word.store(0, Ordering::Relaxed);
        }
        let finest = all.iter().map(|bits| bits.granularity_bits).min().unwrap_or(0);
        self.granularity_bits.store(finest, Ordering::Release);
        let (same, coarser): (Vec<&Bits>, Vec<&Bits>) =
            all.iter().copied().partition(|bits| bits.granularity_bits == finest);
        let Some((first, others)) = same.split_first() else { return };
        for (index, word) in (0u64..).zip(&first.words) {
            let both =
                |so_far: u64, bits: &&Bits| so_far & bits.words.get(to_index(index)).copied().unwrap_or(0);
            let word = others.iter().fold(*word, both);
            // What is not marked needs no memory.
            if word != 0
                && let Some(mark) = self.made(index)
            {
                mark.store(word, Ordering::Release);
            }
        }
        for bits in coarser {
            self.unmark_clear(bits, finest);
        }
    }

    fn unmark_clear(&self, bits: &Bits, finest: u32) {
        let shift = bits.granularity_bits.saturating_sub(finest);
        let mut bit = 0;
        while bit < bits.len {
            let (dirty, run) = bits.same(bit, bits.len);
            let end = bit.saturating_add(run);
            if !dirty {
                for (word, mask) in masks(bit.wrapping_shl(shift)..end.wrapping_shl(shift)) {
                    if let Some(word) = self.word(word) {
                        word.fetch_and(!mask, Ordering::Release);
                    }
                }
            }
            bit = end.max(bit.saturating_add(1));
        }
    }
}
