//! Which grains of a disk hold anything: a bit each, and the ranks to find the nth.

use crate::field::{to_index, to_u64};
use crate::grain::Grain;
use chart::{Disk, Error, Purpose, Result};
use io::watch::Watch;

/// The most memory for the bits: enough for 32 TiB in grains of 64 KiB.
const MAX_BITS_BYTES: u64 = 64 << 20;

const WORD: u64 = 64;

/// A bit for each grain of a disk.
pub(crate) struct Survey {
    bits: Vec<u64>,
    /// How many bits are set before each group of words.
    ranks: Vec<u64>,
    grain: Grain,
    grains: u64,
    count: u64,
}

/// Words that share a rank: 4096 grains.
const GROUP: usize = 64;

impl Survey {
    /// Looks where the disk holds data.
    pub(crate) fn of(disk: &Disk, grain: Grain, watch: Watch<'_>) -> Result<Survey> {
        let mut survey = Survey::empty(disk.len(), grain)?;
        disk.walk(0..disk.len(), Purpose::Locate).ask_sources().each(|leaf| {
            if leaf.data {
                survey.mark(leaf.at, leaf.len);
            }
            watch.step(leaf.end(), disk.len())
        })?;
        survey.rank();
        Ok(survey)
    }

    /// Says that every grain of a disk of `len` bytes holds something.
    pub(crate) fn all(len: u64, grain: Grain) -> Result<Survey> {
        let mut survey = Survey::empty(len, grain)?;
        survey.mark(0, len);
        survey.rank();
        Ok(survey)
    }

    fn empty(len: u64, grain: Grain) -> Result<Survey> {
        let grains = grain.count(len);
        let words = grains.div_ceil(WORD);
        if words.saturating_mul(8) > MAX_BITS_BYTES {
            let what = format!("{grains} pieces of {} bytes are too many to look at", grain.size());
            return Err(Error::unsupported(format!("{what}; choose larger ones")));
        }
        Ok(Survey { bits: vec![0; to_index(words)], ranks: Vec::new(), grain, grains, count: 0 })
    }

    fn mark(&mut self, at: u64, len: u64) {
        let end = self.grain.count(at.saturating_add(len));
        let mut grain = self.grain.index(at);
        while grain < end {
            let Some(word) = self.bits.get_mut(to_index(grain / WORD)) else { return };
            let shift = u32::try_from(grain % WORD).unwrap_or(0);
            let run = end.saturating_sub(grain).min(WORD.saturating_sub(grain % WORD));
            let mask = u64::MAX.wrapping_shr(64_u32.saturating_sub(u32::try_from(run).unwrap_or(64)));
            *word |= mask.wrapping_shl(shift);
            grain = grain.saturating_add(run);
        }
    }

    fn rank(&mut self) {
        let mut count = 0_u64;
        self.ranks.clear();
        for group in self.bits.chunks(GROUP) {
            self.ranks.push(count);
            count = count.saturating_add(group.iter().map(|word| u64::from(word.count_ones())).sum());
        }
        self.count = count;
    }

    /// The unit that was looked at.
    pub(crate) fn grain(&self) -> Grain {
        self.grain
    }

    /// How many grains the disk has.
    pub(crate) fn grains(&self) -> u64 {
        self.grains
    }

    /// How many of them hold anything.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Whether a grain does.
    pub(crate) fn holds(&self, grain: u64) -> bool {
        let word = self.bits.get(to_index(grain / WORD)).copied().unwrap_or(0);
        word.wrapping_shr(u32::try_from(grain % WORD).unwrap_or(0)) & 1 != 0
    }

    /// How many grains before this one hold anything.
    pub(crate) fn rank_of(&self, grain: u64) -> u64 {
        let word = to_index(grain / WORD).min(self.bits.len());
        let group = word / GROUP;
        let Some(&before) = self.ranks.get(group) else { return self.count };
        let words = self.bits.get(group.saturating_mul(GROUP)..word).unwrap_or_default();
        let full: u64 = words.iter().map(|w| u64::from(w.count_ones())).sum();
        let below = 1_u64.wrapping_shl(u32::try_from(grain % WORD).unwrap_or(0)).wrapping_sub(1);
        let part = self.bits.get(word).map_or(0, |w| u64::from((w & below).count_ones()));
        before.saturating_add(full).saturating_add(part)
    }

    /// The grain that is the `rank`th to hold anything, and how many in a row from there do: at most `most`.
    pub(crate) fn select(&self, rank: u64, most: u64) -> Result<(u64, u64)> {
        let beyond = || Error::out_of_range(format!("grain {rank} of {} that are stored", self.count));
        if rank >= self.count {
            return Err(beyond());
        }
        let group = self.ranks.partition_point(|&before| before <= rank).saturating_sub(1);
        let mut left = rank.saturating_sub(self.ranks.get(group).copied().unwrap_or(0));
        let start = group.saturating_mul(GROUP);
        for (index, &word) in self.bits.iter().enumerate().skip(start) {
            let ones = u64::from(word.count_ones());
            if left >= ones {
                left = left.saturating_sub(ones);
                continue;
            }
            let grain = to_u64(index).saturating_mul(WORD).saturating_add(nth_one(word, left).into());
            return Ok((grain, self.run(grain, most)));
        }
        Err(beyond())
    }

    /// How many grains in a row hold something, from one that does.
    fn run(&self, grain: u64, most: u64) -> u64 {
        let mut run = 0_u64;
        while run < most.max(1) {
            let at = grain.saturating_add(run);
            let shift = u32::try_from(at % WORD).unwrap_or(0);
            let word = self.bits.get(to_index(at / WORD)).copied().unwrap_or(0).wrapping_shr(shift);
            let ones = u64::from(word.trailing_ones());
            run = run.saturating_add(ones);
            if ones < WORD.saturating_sub(at % WORD) {
                break;
            }
        }
        run.min(most).max(1)
    }
}

/// Where the `n`th set bit of a word is, from 0.
fn nth_one(mut word: u64, n: u64) -> u32 {
    for _ in 0..n {
        word &= word.wrapping_sub(1);
    }
    word.trailing_zeros()
}
