//! Metadata that was read lately, in chunks: inodes that lie together are asked for together.

use chart::{Disk, Error, Result, Wait};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

/// So many chunks may be kept in one place, by what [`Cache::set_of`] says.
const WAYS: u64 = 8;
/// Bytes of a chunk, kept as long as somebody looks at them.
#[derive(Clone)]
pub(super) struct Bytes {
    chunk: Arc<[u8]>,
    from: usize,
    to: usize,
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.chunk.get(self.from..self.to).unwrap_or_default()
    }
}

#[derive(Default)]
struct Set {
    /// The chunks' numbers, the one that was asked for last at the end.
    held: Vec<(u64, Arc<[u8]>)>,
}

/// A bounded number of chunks of a disk.
pub(super) struct Cache {
    disk: Arc<Disk>,
    /// How much is read at once: a power of two.
    chunk: u64,
    /// A power of two of them.
    sets: Vec<Mutex<Set>>,
}

impl Cache {
    /// Nothing of this disk yet, to be read in chunks of so many bytes, a power of two, and to keep so many of them.
    pub(super) fn of(disk: Arc<Disk>, chunk: u64, capacity: u64) -> Self {
        let sets = capacity.checked_div(chunk.saturating_mul(WAYS)).unwrap_or(0).max(1);
        Cache { disk, chunk, sets: (0..sets).map(|_| Mutex::default()).collect() }
    }

    /// `len` bytes from `at` on, which do not cross the end of a chunk: a block, or less.
    pub(super) fn read(&self, at: u64, len: u64, wait: Wait) -> Result<Bytes> {
        let number = at.checked_div(self.chunk).unwrap_or(0);
        let from = at.checked_rem(self.chunk).unwrap_or(0);
        let to = from.saturating_add(len);
        if to > self.chunk {
            return Err(Error::invalid(format!("{len} bytes of metadata that are no block")).at(at));
        }
        chart::check_range(self.disk.len(), at, len)
            .map_err(|_| Error::corrupt("metadata past the end of the disk").at(at))?;
        let chunk = match self.find(number) {
            Some(chunk) => chunk,
            None => match self.load(number, wait) {
                Ok(chunk) => chunk,
                Err(e) if e.is_would_block() => return Err(e),
                // Perhaps what cannot be read is something else that lies near.
                Err(_) => return self.exactly(at, len, wait),
            },
        };
        Ok(Bytes { chunk, from: size(from), to: size(to) })
    }

    fn exactly(&self, at: u64, len: u64, wait: Wait) -> Result<Bytes> {
        let chunk = self.fetch(at, len, wait)?;
        Ok(Bytes { chunk, from: 0, to: size(len) })
    }

    fn fetch(&self, at: u64, len: u64, wait: Wait) -> Result<Arc<[u8]>> {
        let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, size(len)).collect();
        let room = Arc::get_mut(&mut bytes).ok_or_else(|| Error::invalid("new bytes are shared"))?;
        self.disk.read_at(at, room, wait)?;
        Ok(bytes)
    }

    fn load(&self, number: u64, wait: Wait) -> Result<Arc<[u8]>> {
        let at = number.saturating_mul(self.chunk);
        let len = self.disk.len().saturating_sub(at).min(self.chunk);
        let chunk = self.fetch(at, len, wait)?;
        let Some(set) = self.sets.get(self.set_of(number)) else { return Ok(chunk) };
        let held = &mut set.lock().unwrap_or_else(PoisonError::into_inner).held;
        if !held.iter().any(|(n, _)| *n == number) {
            if held.len() >= size(WAYS) {
                held.remove(0);
            }
            held.push((number, Arc::clone(&chunk)));
        }
        Ok(chunk)
    }

    fn find(&self, number: u64) -> Option<Arc<[u8]>> {
        let held =
            &mut self.sets.get(self.set_of(number))?.lock().unwrap_or_else(PoisonError::into_inner).held;
        let place = held.iter().position(|(n, _)| *n == number)?;
        let behind = held.get_mut(place..)?;
        behind.rotate_left(1);
        held.last().map(|(_, chunk)| Arc::clone(chunk))
    }

    fn set_of(&self, number: u64) -> usize {
        // Neighbours are spread, and so are the tables of groups, which lie at round distances.
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        size(mixed).checked_rem(self.sets.len()).unwrap_or(0)
    }
}

/// A length that is known to be small.
fn size(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
