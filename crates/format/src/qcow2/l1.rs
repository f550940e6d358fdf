//! The L1 table in memory: read without a lock, changed in place, grown without moving.

use super::layout::{MAX_L1_BYTES, OFFSET_MASK, OFLAG_COPIED};
use crate::field::{be64s, read_vec, to_index, to_u64};
use chart::{Error, Result, Source};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Entries in a chunk of the table.
const CHUNK: u64 = 8192;
/// Chunks of the largest table.
const CHUNKS: u64 = MAX_L1_BYTES / 8 / CHUNK;

/// An entry of the L1 table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct L1Entry(pub u64);

impl L1Entry {
    /// Where the L2 table is; `None` if there is none.
    #[inline]
    pub fn table(self) -> Option<u64> {
        Some(self.0 & OFFSET_MASK).filter(|&offset| offset != 0)
    }

    /// Whether nothing else refers to the L2 table.
    #[inline]
    pub fn is_copied(self) -> bool {
        self.0 & OFLAG_COPIED != 0
    }
}

/// An L1 table. Entries past its end are 0: nothing is mapped there.
pub struct L1 {
    len: AtomicU64,
    chunks: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

impl L1 {
    /// A table of `len` entries, all 0.
    pub fn new(len: u64) -> Result<L1> {
        let table = L1 {
            len: AtomicU64::new(0),
            chunks: std::iter::repeat_with(OnceLock::new).take(to_index(CHUNKS)).collect(),
        };
        table.resize(len)?;
        Ok(table)
    }

    /// Reads a table of `len` entries. The caller has checked its place; the limit is checked here.
    pub fn read(source: &dyn Source, offset: u64, len: u64) -> Result<L1> {
        let table = L1::new(len)?;
        let mut index = 0u64;
        while index < len {
            let now = len.saturating_sub(index).min(CHUNK);
            let part = offset.saturating_add(index.saturating_mul(8));
            for value in be64s(&read_vec(source, part, now.saturating_mul(8), "L1 table")?) {
                // Entries of nothing need no memory.
                if value != 0 {
                    table.set(index, L1Entry(value));
                }
                index = index.saturating_add(1);
            }
        }
        Ok(table)
    }

    /// How many entries it has.
    pub fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes it longer or shorter. Entries that come back after a shortening are 0.
    pub fn resize(&self, len: u64) -> Result<()> {
        if len > MAX_L1_BYTES / 8 {
            let what = format!("an L1 table of {len} entries; the most is {}", MAX_L1_BYTES / 8);
            return Err(Error::unsupported(format!("{what}; larger clusters need fewer")));
        }
        for index in len..self.len() {
            self.set(index, L1Entry(0));
        }
        self.len.store(len, Ordering::Release);
        Ok(())
    }

    /// The entry of that number.
    #[inline]
    pub fn entry(&self, index: u64) -> L1Entry {
        let chunk = self.chunks.get(to_index(index / CHUNK)).and_then(OnceLock::get);
        let entry = chunk.and_then(|chunk| chunk.get(to_index(index % CHUNK)));
        L1Entry(entry.map_or(0, |entry| entry.load(Ordering::Acquire)))
    }

    /// Sets an entry; one past the end is left alone.
    pub fn set(&self, index: u64, entry: L1Entry) {
        if index >= self.len() {
            return;
        }
        let Some(chunk) = self.chunks.get(to_index(index / CHUNK)) else { return };
        if entry.0 == 0 && chunk.get().is_none() {
            return;
        }
        let empty = || std::iter::repeat_with(AtomicU64::default).take(to_index(CHUNK)).collect();
        if let Some(word) = chunk.get_or_init(empty).get(to_index(index % CHUNK)) {
            word.store(entry.0, Ordering::Release);
        }
    }

    /// All entries, in order: for writing the table.
    pub fn entries(&self) -> impl Iterator<Item = L1Entry> + '_ {
        (0..self.len()).map(|index| self.entry(index))
    }

    /// How many bytes it takes on disk.
    pub fn bytes(&self) -> u64 {
        self.len().saturating_mul(to_u64(size_of::<u64>()))
    }
}
