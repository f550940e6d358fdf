//! What is written, and found again.

use super::Load;
use super::pattern::Dice;
use chart::{Error, Result};

/// How much of a block depends on where it lies.
const STAMP: usize = 8;

/// Bytes that depend on a seed and on the place. No two blocks are the same, so that nothing finds them alike, and each
/// can be checked by who has not written it.
pub(super) struct Payload {
    seed: u64,
    verify: bool,
    bytes: Vec<u8>,
}

impl Payload {
    pub(super) fn new(load: &Load) -> Payload {
        // The size has been checked.
        let mut bytes = vec![0; load.size as usize];
        Dice::new(load.seed).fill(&mut bytes);
        Payload { seed: load.seed, verify: load.verify, bytes }
    }

    /// A block to be marked, or to be read into.
    pub(super) fn block(&self) -> Vec<u8> {
        self.bytes.clone()
    }

    /// The beginning of the block at `at`.
    pub(super) fn stamp(&self, at: u64) -> [u8; STAMP] {
        Dice::of_worker(self.seed, at).next().to_le_bytes()
    }

    /// How long the beginning is: all of a very short block.
    pub(super) fn stamp_len(&self) -> usize {
        self.bytes.len().min(STAMP)
    }

    /// The rest of every block.
    pub(super) fn body(&self) -> &[u8] {
        self.bytes.get(STAMP..).unwrap_or_default()
    }

    /// Makes it the block at `at`.
    pub(super) fn mark(&self, at: u64, block: &mut [u8]) {
        block.iter_mut().zip(self.stamp(at)).for_each(|(byte, stamp)| *byte = stamp);
    }

    /// Checks a piece of the block at `at` that begins `from` bytes behind its beginning, if that was asked for.
    pub(super) fn check(&self, at: u64, from: usize, piece: &[u8]) -> Result<()> {
        if !self.verify {
            return Ok(());
        }
        let stamp = self.stamp(at);
        let stamped = stamp.get(from..).unwrap_or_default();
        let (head, body) = piece.split_at(stamped.len().min(piece.len()));
        let behind = from.max(STAMP);
        let expected = self.bytes.get(behind..behind + body.len()).unwrap_or_default();
        if stamped.starts_with(head) && body == expected {
            return Ok(());
        }
        let what = "what is read is not what was written here with this size and seed";
        Err(Error::corrupt(what).at(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_known_by_any_piece_of_them() {
        for size in [1, 7, 8, 9, 100] {
            let payload = Payload::new(&Load { size, verify: true, ..Load::default() });
            let mut block = payload.block();
            payload.mark(4096, &mut block);
            for from in 0..block.len() {
                for to in from..=block.len() {
                    payload.check(4096, from, &block[from..to]).unwrap();
                }
            }
            assert!(payload.check(8192, 0, &block).is_err(), "{size}");
            block[size as usize - 1] ^= 1;
            assert!(payload.check(4096, 0, &block).is_err() && payload.check(4096, 0, &[0; 200]).is_err());
            let idle = Payload::new(&Load { size, ..Load::default() });
            idle.check(4096, 0, &block).unwrap();
        }
    }
}
