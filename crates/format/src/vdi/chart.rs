//! Where the bytes of the disk live, from the block map.

use super::map::Entry;
use super::{FILE, Image};
use chart::{Answer, Error, Extent, Layer, Result, Wait};
use std::sync::atomic::Ordering;

/// One answer joins at most so many blocks: a bound on the time that a lookup takes.
const MAX_JOINED: usize = 512;

impl Layer for Image {
    fn len(&self) -> u64 {
        self.size()
    }

    /// Never waits: the map is in memory.
    fn look(&self, at: u64, want: u64, _: Wait) -> Result<Answer> {
        let mut extent = self.piece(at, want)?;
        for _ in 1..MAX_JOINED {
            let rest = want.saturating_sub(extent.len);
            if rest == 0 {
                break;
            }
            // What goes wrong further on is for the lookup that begins there to say.
            match self.piece(extent.end(), rest) {
                Ok(next) if extent.joins(&next) => extent.len = extent.len.saturating_add(next.len),
                _ => break,
            }
        }
        Ok(Answer::Here(extent))
    }
}

impl Image {
    /// The answer for a part of one block.
    #[inline]
    fn piece(&self, at: u64, want: u64) -> Result<Extent> {
        let within = self.block.within(at);
        let len = want.min(self.block.size().wrapping_sub(within));
        let slot = match self.map.entry(self.block.index(at)) {
            Entry::Free => return Ok(Extent::hole(at, len)),
            Entry::Zero => return Ok(Extent::zero(at, len)),
            Entry::At(slot) => slot,
        };
        let offset = self.offset_of(slot).saturating_add(within);
        let len = match offset.saturating_add(len) <= self.end.load(Ordering::Relaxed) {
            true => len,
            false => match self.before_end(slot, within)?.min(len) {
                0 => return Ok(Extent::zero(at, len)),
                len => len,
            },
        };
        let writable = self.in_place.load(Ordering::Acquire);
        Ok(Extent { writable, ..Extent::raw(at, len, FILE, offset) })
    }

    /// How much of a block of the file lies before the file's end, from so far in it on. Only the file's last block
    /// may be cut off; what is missing of it reads as zeros.
    #[cold]
    fn before_end(&self, slot: u32, within: u64) -> Result<u64> {
        let len = self.file.len();
        self.end.store(len, Ordering::Relaxed);
        let offset = self.offset_of(slot);
        if offset >= len {
            let what = format!("a block lies past the end of the file, which has {len} bytes");
            return Err(Error::corrupt(what).at(offset).in_path(self.file.name()));
        }
        Ok(len.saturating_sub(offset.saturating_add(within)))
    }
}
