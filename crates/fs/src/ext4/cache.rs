//! Metadata that was read lately, in chunks: inodes that lie together are asked for together.

use chart::{Disk, Error, Result, Wait};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

/// How much is read at once. No block is larger.
const CHUNK: u64 = 64 << 10;
/// So many chunks may be kept in one place, by what [`set_of`] says.
const WAYS: usize = 8;
/// So many such places there are: 16 MiB in all.
const SETS: usize = 32;
/// The bits of a set's number.
const SET_BITS: u32 = 5;

const _: () = assert!(SETS == 1 << SET_BITS);

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
    sets: [Mutex<Set>; SETS],
}

impl Cache {
    /// Nothing of this disk yet.
    pub(super) fn of(disk: Arc<Disk>) -> Self {
        Cache { disk, sets: std::array::from_fn(|_| Mutex::default()) }
    }

    /// `len` bytes from `at` on, which do not cross the end of a chunk: a block, or less.
    pub(super) fn read(&self, at: u64, len: u64, wait: Wait) -> Result<Bytes> {
        let number = at / CHUNK;
        let from = at % CHUNK;
        let to = from.saturating_add(len);
        if to > CHUNK {
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
        let at = number.saturating_mul(CHUNK);
        let len = self.disk.len().saturating_sub(at).min(CHUNK);
        let chunk = self.fetch(at, len, wait)?;
        let Some(set) = self.sets.get(set_of(number)) else { return Ok(chunk) };
        let held = &mut set.lock().unwrap_or_else(PoisonError::into_inner).held;
        if !held.iter().any(|(n, _)| *n == number) {
            if held.len() >= WAYS {
                held.remove(0);
            }
            held.push((number, Arc::clone(&chunk)));
        }
        Ok(chunk)
    }

    fn find(&self, number: u64) -> Option<Arc<[u8]>> {
        let held = &mut self.sets.get(set_of(number))?.lock().unwrap_or_else(PoisonError::into_inner).held;
        let place = held.iter().position(|(n, _)| *n == number)?;
        let behind = held.get_mut(place..)?;
        behind.rotate_left(1);
        held.last().map(|(_, chunk)| Arc::clone(chunk))
    }
}

fn set_of(number: u64) -> usize {
    // Neighbours are spread, and so are the tables of groups, which lie at round distances.
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SET_BITS);
    size(mixed)
}

/// A length that is known to be small.
fn size(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
