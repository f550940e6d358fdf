//! Which clusters of a disk hold anything: a bit each, and the ranks to find the nth.

use crate::field::{to_index, to_u64};
use crate::qcow2::Clusters;
use chart::{Disk, Error, Purpose, Result};
use io::watch::Watch;

/// The most memory for the bits: enough for 32 TiB of 64 KiB clusters.
const MAX_BITS_BYTES: u64 = 64 << 20;

const WORD: u64 = 64;

/// A bit for each cluster of a disk.
pub(super) struct Survey {
    bits: Vec<u64>,
    /// How many bits are set before each group of words.
    ranks: Vec<u64>,
    clusters: u64,
    count: u64,
}

/// Words that share a rank: 4096 clusters.
const GROUP: usize = 64;

impl Survey {
    /// Looks where the disk holds data.
    pub(super) fn of(disk: &Disk, clusters: Clusters, watch: Watch<'_>) -> Result<Survey> {
        let total = clusters.count(disk.len());
        let words = total.div_ceil(WORD);
        if words.saturating_mul(8) > MAX_BITS_BYTES {
            let what = format!("{total} clusters of {} bytes are too many here", clusters.size());
            return Err(Error::unsupported(format!("{what}; choose larger clusters")));
        }
        let mut survey =
            Survey { bits: vec![0; to_index(words)], ranks: Vec::new(), clusters: total, count: 0 };
        disk.walk(0..disk.len(), Purpose::Locate).ask_sources().each(|leaf| {
            if leaf.data {
                survey.mark(clusters, leaf.at, leaf.len);
            }
            watch.step(leaf.end(), disk.len())
        })?;
        survey.rank();
        Ok(survey)
    }

    fn mark(&mut self, clusters: Clusters, at: u64, len: u64) {
        let end = clusters.count(at.saturating_add(len));
        let mut cluster = clusters.index(at);
        while cluster < end {
            let Some(word) = self.bits.get_mut(to_index(cluster / WORD)) else { return };
            let shift = u32::try_from(cluster % WORD).unwrap_or(0);
            let run = end.saturating_sub(cluster).min(WORD.saturating_sub(cluster % WORD));
            let mask = u64::MAX.wrapping_shr(64_u32.saturating_sub(u32::try_from(run).unwrap_or(64)));
            *word |= mask.wrapping_shl(shift);
            cluster = cluster.saturating_add(run);
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

    /// How many clusters the disk has.
    pub(super) fn clusters(&self) -> u64 {
        self.clusters
    }

    /// How many of them hold anything.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Whether a cluster does.
    pub(super) fn holds(&self, cluster: u64) -> bool {
        let word = self.bits.get(to_index(cluster / WORD)).copied().unwrap_or(0);
        word.wrapping_shr(u32::try_from(cluster % WORD).unwrap_or(0)) & 1 != 0
    }

    /// How many clusters before this one hold anything.
    pub(super) fn rank_of(&self, cluster: u64) -> u64 {
        let word = to_index(cluster / WORD).min(self.bits.len());
        let group = word / GROUP;
        let Some(&before) = self.ranks.get(group) else { return self.count };
        let words = self.bits.get(group.saturating_mul(GROUP)..word).unwrap_or_default();
        let full: u64 = words.iter().map(|w| u64::from(w.count_ones())).sum();
        let below = 1_u64.wrapping_shl(u32::try_from(cluster % WORD).unwrap_or(0)).wrapping_sub(1);
        let part = self.bits.get(word).map_or(0, |w| u64::from((w & below).count_ones()));
        before.saturating_add(full).saturating_add(part)
    }

    /// The cluster that is the `rank`th to hold anything, and how many in a row from there do: at most `most`.
    pub(super) fn select(&self, rank: u64, most: u64) -> Result<(u64, u64)> {
        let beyond = || Error::out_of_range(format!("cluster {rank} of {} that are stored", self.count));
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
            let cluster = to_u64(index).saturating_mul(WORD).saturating_add(nth_one(word, left).into());
            return Ok((cluster, self.run(cluster, most)));
        }
        Err(beyond())
    }

    /// How many clusters in a row hold something, from one that does.
    fn run(&self, cluster: u64, most: u64) -> u64 {
        let mut run = 0_u64;
        while run < most.max(1) {
            let at = cluster.saturating_add(run);
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
