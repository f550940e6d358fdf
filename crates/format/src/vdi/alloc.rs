//! Which blocks of the file are taken, and by whom they were let go.
//!
//! Blocks of the file are called *slots* here, to tell them from the disk's. There are never more of them than the
//! disk has blocks: QEMU calls an image corrupt that has. So that this is always enough, a block of the disk that has
//! let go of a slot gets that one again, as long as nobody else may have it: each block of the disk then has one slot
//! at most, and whoever has none finds one.

use crate::field::{to_index, to_u64};
use chart::{Epochs, Error, Result};
use std::collections::{BTreeMap, VecDeque};

/// A block of the disk that has let go of a slot, and which time that was of all.
type Gone = (u64, u64);

/// The slots of a file.
pub(super) struct Slots {
    taken: Bits,
    /// Where to look for a free one: there is none before.
    hint: u64,
    /// From this one on nothing was ever written.
    virgin: u64,
    /// By block of the disk: the slot it has let go of, and which time that was.
    gone: BTreeMap<u64, (u32, u64)>,
    times: u64,
    /// Let go of by a map that is not durable yet.
    pending: Vec<Gone>,
    /// Let go of durably, by the epoch whose readers may still be there.
    retired: VecDeque<(u64, Vec<Gone>)>,
}

impl Slots {
    /// Slots of which these are taken; nothing was written from `virgin` on.
    pub(super) fn new(taken: Bits, virgin: u64) -> Slots {
        let (gone, pending, retired) = (BTreeMap::new(), Vec::new(), VecDeque::new());
        Slots { taken, hint: 0, virgin, gone, times: 0, pending, retired }
    }

    /// The slot that a block let go of, for itself again: of what is written there, nothing was anybody else's.
    pub(super) fn again(&mut self, block: u64) -> Option<u32> {
        self.gone.remove(&block).map(|(slot, _)| slot)
    }

    /// A free slot of the first `limit`, and whether it reads as zeros.
    pub(super) fn take(&mut self, limit: u64, epochs: &Epochs) -> Result<(u32, bool)> {
        self.reclaim(epochs);
        let slot = self.taken.next_clear(self.hint);
        let full = || Error::no_space("every block of the image is in use");
        let number = u32::try_from(slot).ok().filter(|_| slot < limit).ok_or_else(full)?;
        self.taken.set(slot);
        self.hint = slot.saturating_add(1);
        let zeroed = slot >= self.virgin;
        self.virgin = self.virgin.max(self.hint);
        Ok((number, zeroed))
    }

    /// Nobody ever looked up this slot, or nobody can any more.
    pub(super) fn release(&mut self, slot: u32) {
        self.taken.clear(slot.into());
        self.hint = self.hint.min(slot.into());
    }

    /// The map names this slot no longer, as far as the disk does not know yet.
    pub(super) fn let_go(&mut self, block: u64, slot: u32) {
        self.times = self.times.saturating_add(1);
        self.gone.insert(block, (slot, self.times));
        self.pending.push((block, self.times));
    }

    /// What the map that is about to be written does not name any more.
    pub(super) fn leaving(&mut self) -> Vec<Gone> {
        std::mem::take(&mut self.pending)
    }

    /// That map may not be durable after all.
    pub(super) fn stay(&mut self, leaving: Vec<Gone>) {
        self.pending.extend(leaving);
    }

    /// That map is durable, and every change of it was before `epoch`.
    pub(super) fn left(&mut self, leaving: Vec<Gone>, epoch: u64) {
        if !leaving.is_empty() {
            self.retired.push_back((epoch, leaving));
        }
    }

    /// Makes free what nobody can be reading any more.
    pub(super) fn reclaim(&mut self, epochs: &Epochs) {
        while self.retired.front().is_some_and(|(epoch, _)| epochs.is_over(*epoch)) {
            for (block, time) in self.retired.pop_front().into_iter().flat_map(|(_, gone)| gone) {
                // It may have been taken back meanwhile, and let go of again.
                if let Some(&(slot, last)) = self.gone.get(&block)
                    && last == time
                {
                    self.gone.remove(&block);
                    self.release(slot);
                }
            }
        }
    }

    /// The latest epoch that somebody may be in who reads what is not named any more.
    pub(super) fn last_epoch(&self) -> Option<u64> {
        self.retired.back().map(|(epoch, _)| *epoch)
    }

    /// One past the last slot that is taken.
    pub(super) fn end(&self) -> u64 {
        self.taken.end()
    }

    /// The free slots before the last that is taken: runs of first and count.
    pub(super) fn holes(&self) -> Vec<(u64, u64)> {
        let (end, mut holes, mut at) = (self.end(), Vec::new(), 0);
        loop {
            let first = self.taken.next_clear(at);
            if first >= end {
                return holes;
            }
            at = self.taken.next_set(first);
            holes.push((first, at.saturating_sub(first)));
        }
    }

    /// Takes a slot that is free.
    pub(super) fn take_this(&mut self, slot: u64) {
        self.taken.set(slot);
    }

    /// The file ends behind the last slot that is taken: what it grows by reads as zeros.
    pub(super) fn cut(&mut self) {
        self.virgin = self.end();
    }
}

/// Bits by block of the file.
#[derive(Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn has(&self, bit: u64) -> bool {
        let word = self.0.get(to_index(bit / 64)).copied().unwrap_or(0);
        word.wrapping_shr(shift(bit)) & 1 != 0
    }

    /// Sets a bit; whether it was clear.
    pub(super) fn set(&mut self, bit: u64) -> bool {
        let index = to_index(bit / 64);
        if self.0.len() <= index {
            self.0.resize(index.saturating_add(1), 0);
        }
        let Some(word) = self.0.get_mut(index) else { return false };
        let mask = 1_u64.wrapping_shl(shift(bit));
        let was = *word & mask != 0;
        *word |= mask;
        !was
    }

    pub(super) fn clear(&mut self, bit: u64) {
        if let Some(word) = self.0.get_mut(to_index(bit / 64)) {
            *word &= !1_u64.wrapping_shl(shift(bit));
        }
    }

    /// The first clear bit from `from` on.
    pub(super) fn next_clear(&self, from: u64) -> u64 {
        let mut bit = from;
        while let Some(word) = self.0.get(to_index(bit / 64)) {
            let rest = (!word).wrapping_shr(shift(bit));
            if rest != 0 {
                return bit.saturating_add(rest.trailing_zeros().into());
            }
            bit = (bit / 64).saturating_add(1).saturating_mul(64);
        }
        bit
    }

    /// The first set bit from `from` on; one past the last, where there is none.
    pub(super) fn next_set(&self, from: u64) -> u64 {
        let mut bit = from;
        while let Some(word) = self.0.get(to_index(bit / 64)) {
            let rest = word.wrapping_shr(shift(bit));
            if rest != 0 {
                return bit.saturating_add(rest.trailing_zeros().into());
            }
            bit = (bit / 64).saturating_add(1).saturating_mul(64);
        }
        bit
    }

    /// One past the last set bit.
    pub(super) fn end(&self) -> u64 {
        let Some(index) = self.0.iter().rposition(|&word| word != 0) else { return 0 };
        let top = self.0.get(index).map_or(0, |word| 64_u32.wrapping_sub(word.leading_zeros()));
        to_u64(index).saturating_mul(64).saturating_add(top.into())
    }
}

fn shift(bit: u64) -> u32 {
    u32::try_from(bit % 64).unwrap_or(0)
}
