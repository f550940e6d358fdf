//! The block map in memory: an entry for each block, in parts that are there only where blocks are stored.

use super::layout::{self as l, BLOCK_FREE, BLOCK_ZERO};
use crate::field::{read_vec, to_index};
use chart::{Result, Source};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Entries in a part: 64 KiB of them.
const PART: u64 = 1 << 14;

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Nothing is stored, nor was.
    Free,
    /// Reads as zeros.
    Zero,
    /// Stored in this block of the file.
    At(u32),
}

impl Entry {
    fn of(word: u32) -> Entry {
        match word {
            BLOCK_FREE => Entry::Free,
            BLOCK_ZERO => Entry::Zero,
            slot => Entry::At(slot),
        }
    }

    fn word(self) -> u32 {
        match self {
            Entry::Free => BLOCK_FREE,
            Entry::Zero => BLOCK_ZERO,
            Entry::At(slot) => slot,
        }
    }
}

/// The entries. Lookups take no lock.
pub(super) struct Map {
    parts: Box<[OnceLock<Box<[AtomicU32]>>]>,
}

impl Map {
    /// Reads the map of so many blocks.
    pub(super) fn read(file: &dyn Source, offset: u64, blocks: u64) -> Result<Map> {
        // Room for the longest map there can be, so that a disk can grow.
        let most = (l::MAX_MAP_BYTES / l::ENTRY).div_ceil(PART);
        let map = Map { parts: std::iter::repeat_with(OnceLock::new).take(to_index(most)).collect() };
        let mut block = 0;
        while block < blocks {
            let count = blocks.saturating_sub(block).min(PART);
            let at = offset.saturating_add(block.saturating_mul(l::ENTRY));
            let bytes = read_vec(file, at, count.saturating_mul(l::ENTRY), "block map")?;
            if bytes.iter().any(|&byte| byte != 0xff) {
                for (i, word) in (block..).zip(bytes.as_chunks::<4>().0) {
                    map.set(i, Entry::of(u32::from_le_bytes(*word)));
                }
            }
            block = block.saturating_add(count);
        }
        Ok(map)
    }

    /// The entry of a block.
    #[inline]
    pub(super) fn entry(&self, block: u64) -> Entry {
        let part = self.parts.get(to_index(block / PART)).and_then(OnceLock::get);
        let word = part.and_then(|part| part.get(to_index(block % PART)));
        word.map_or(Entry::Free, |word| Entry::of(word.load(Ordering::Acquire)))
    }

    pub(super) fn set(&self, block: u64, entry: Entry) {
        let Some(part) = self.parts.get(to_index(block / PART)) else { return };
        let new = || std::iter::repeat_with(|| AtomicU32::new(BLOCK_FREE)).take(to_index(PART)).collect();
        if let Some(word) = part.get_or_init(new).get(to_index(block % PART)) {
            word.store(entry.word(), Ordering::Release);
        }
    }

    /// The blocks of the disk below `end` that are stored, and where.
    pub(super) fn stored(&self, end: u64) -> impl Iterator<Item = (u64, u32)> + '_ {
        let parts = (0_u64..).zip(&self.parts).filter_map(|(i, part)| Some((i, part.get()?)));
        let words = parts.flat_map(|(i, part)| (i.saturating_mul(PART)..).zip(part.iter()));
        let entries = words.map(|(block, word)| (block, Entry::of(word.load(Ordering::Acquire))));
        entries.take_while(move |(block, _)| *block < end).filter_map(|(block, entry)| match entry {
            Entry::At(slot) => Some((block, slot)),
            _ => None,
        })
    }

    /// The bytes of the entries from `block` on, where blocks of the file are numbered from `origin` on.
    pub(super) fn write(&self, block: u64, origin: u32, out: &mut [u8]) {
        for (i, word) in (block..).zip(out.as_chunks_mut::<4>().0) {
            let entry = match self.entry(i) {
                Entry::At(slot) => Entry::At(slot.saturating_sub(origin)),
                entry => entry,
            };
            *word = entry.word().to_le_bytes();
        }
    }
}

/// The sector of the map, counted from its beginning, that holds a block's entry.
pub(super) fn sector_of(block: u64) -> u64 {
    block.saturating_mul(l::ENTRY) / l::SECTOR
}

/// The first block whose entry a sector of the map holds.
pub(super) fn first_in(sector: u64) -> u64 {
    sector.saturating_mul(l::SECTOR / l::ENTRY)
}
