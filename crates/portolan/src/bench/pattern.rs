//! Where requests go.

use chart::{Error, Result};
use std::sync::atomic::{AtomicU64, Ordering};

/// Which places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// One behind the other, from the beginning again at the end.
    Sequential,
    /// Anywhere; or mostly in a part of the disk.
    Random(Option<Hot>),
}

/// A part of the disk that most requests go to: `80/20` means 80 of a hundred to 20 of a hundred of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hot {
    /// So many of a hundred requests.
    pub requests: u8,
    /// Go to so many of a hundred blocks.
    pub blocks: u8,
}

impl Hot {
    /// Reads `80/20`.
    pub fn parse(text: &str) -> Result<Hot> {
        let wrong =
            || Error::invalid(format!("{text:?}: 80/20 means 80% of the requests to 20% of the disk"));
        let (requests, blocks) = text.split_once('/').ok_or_else(wrong)?;
        let percent = |text: &str| text.parse::<u8>().ok().filter(|n| (1..=99).contains(n)).ok_or_else(wrong);
        Ok(Hot { requests: percent(requests)?, blocks: percent(blocks)? })
    }
}

/// The places of a disk of so many blocks.
pub(super) struct Places {
    pattern: Pattern,
    blocks: u64,
    next: AtomicU64,
    /// What is hot lies so many runs apart.
    step: u64,
}

/// What is hot, and what is not, lies together in so many blocks.
const RUN: u64 = 256;

impl Places {
    pub(super) fn new(pattern: Pattern, blocks: u64) -> Places {
        let runs = (blocks / RUN).max(1);
        // A step that shares no divisor with the number of runs visits each of them once.
        let mut step = (runs as f64 * 0.618_033_988_75) as u64 | 1;
        while gcd(step, runs) != 1 {
            step += 2;
        }
        Places { pattern, blocks: blocks.max(1), next: AtomicU64::new(0), step }
    }

    /// The next block.
    pub(super) fn next(&self, dice: &mut Dice) -> u64 {
        match self.pattern {
            Pattern::Sequential => self.next.fetch_add(1, Ordering::Relaxed) % self.blocks,
            Pattern::Random(None) => dice.below(self.blocks),
            Pattern::Random(Some(hot)) => {
                let edge = (u128::from(self.blocks) * u128::from(hot.blocks) / 100).max(1) as u64;
                let hot = dice.below(100) < u64::from(hot.requests) || edge >= self.blocks;
                if hot {
                    self.scatter(dice.below(edge))
                } else {
                    self.scatter(edge + dice.below(self.blocks - edge))
                }
            }
        }
    }

    /// Spreads what is hot over the whole disk, always to the same blocks: real hot spots do not lie together.
    fn scatter(&self, block: u64) -> u64 {
        let runs = self.blocks / RUN;
        if runs < 2 || block >= runs * RUN {
            return block;
        }
        let (run, within) = (block / RUN, block % RUN);
        let to = (u128::from(run) * u128::from(self.step) % u128::from(runs)) as u64;
        to * RUN + within
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Random numbers that are the same for the same seed (splitmix64).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// Those of one of many who share a seed.
    pub(super) fn of_worker(seed: u64, worker: u64) -> Dice {
        Dice(seed ^ Dice(worker).next())
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    pub(super) fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn hot_places_are_few_and_always_the_same() {
        let places = Places::new(Pattern::Random(Some(Hot { requests: 80, blocks: 20 })), 100_000);
        let mut dice = Dice::new(7);
        let mut counts = std::collections::HashMap::new();
        for _ in 0..200_000 {
            *counts.entry(places.next(&mut dice) / 256).or_insert(0u32) += 1;
        }
        let mut counts: Vec<u32> = counts.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let fifth: u32 = counts[..counts.len() / 5].iter().sum();
        assert!((150_000..=175_000).contains(&fifth), "{fifth}");
    }

    #[test]
    fn scattering_loses_no_block() {
        for blocks in [1, 255, 512, 1000, 65_536, 70_001] {
            let places = Places::new(Pattern::Sequential, blocks);
            let seen: HashSet<_> = (0..blocks).map(|b| places.scatter(b)).collect();
            assert_eq!(seen.len() as u64, blocks);
            assert!(seen.iter().all(|&b| b < blocks));
        }
    }

    #[test]
    fn hot_is_read_as_written() {
        assert_eq!(Hot::parse("80/20").unwrap(), Hot { requests: 80, blocks: 20 });
        assert!(["80", "0/20", "80/100", "a/b", ""].iter().all(|t| Hot::parse(t).is_err()));
    }
}
