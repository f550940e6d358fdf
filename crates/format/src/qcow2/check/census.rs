//! Counting references: sixteen bits a cluster, and only where there are any.

use super::super::Clusters;
use super::super::refcount::Width;
use super::{Report, file_clusters};
use crate::field::{to_index, to_u64};
use chart::{Error, Result};

/// Clusters in a chunk of counts.
const CHUNK: u64 = 1024;
/// Counts take no more memory than this: enough for 32 TiB of 64 KiB clusters, a limit of ours.
pub(super) const MAX_COUNT_BYTES: u64 = 1 << 30;

/// A number for every cluster of a file. 65535 stands for all that are larger.
pub(super) struct Counts {
    total: u64,
    chunks: Vec<Option<Box<[u16]>>>,
    held: u64,
}

impl Counts {
    pub(super) fn new(total: u64) -> Self {
        let mut chunks = Vec::new();
        chunks.resize_with(to_index(total.div_ceil(CHUNK)), || None);
        Counts { total, chunks, held: 0 }
    }

    pub(super) fn of(&self, cluster: u64) -> u64 {
        let chunk = self.chunks.get(to_index(cluster / CHUNK)).and_then(Option::as_ref);
        chunk.and_then(|chunk| chunk.get(to_index(cluster % CHUNK))).map_or(0, |&count| count.into())
    }

    pub(super) fn set(&mut self, cluster: u64, count: u64) -> Result<()> {
        if cluster >= self.total {
            return Ok(());
        }
        let Some(slot) = self.chunks.get_mut(to_index(cluster / CHUNK)) else { return Ok(()) };
        if slot.is_none() {
            self.held = self.held.saturating_add(CHUNK.saturating_mul(2));
            if self.held > MAX_COUNT_BYTES {
                let what = format!("checking takes more than {MAX_COUNT_BYTES} bytes of memory");
                return Err(Error::unsupported(what));
            }
        }
        let chunk = slot.get_or_insert_with(|| vec![0; to_index(CHUNK)].into());
        if let Some(entry) = chunk.get_mut(to_index(cluster % CHUNK)) {
            *entry = u16::try_from(count).unwrap_or(u16::MAX);
        }
        Ok(())
    }

    /// The next cluster, from `cluster` on, that may have a count.
    pub(super) fn next_from(&self, cluster: u64) -> u64 {
        let first = to_index(cluster / CHUNK);
        let mut rest = self.chunks.iter().skip(first);
        match rest.position(Option::is_some) {
            Some(0) => cluster,
            Some(n) => to_u64(first.saturating_add(n)).saturating_mul(CHUNK),
            None => self.total,
        }
    }
}

/// How many references there are to each cluster of a file.
pub(in super::super) struct Census {
    clusters: Clusters,
    file_len: u64,
    most: u64,
    counts: Counts,
}

impl Census {
    pub(super) fn new(clusters: Clusters, width: Width, file_len: u64) -> Result<Self> {
        // The last cluster may be cut off, and what is in it may reach into the one behind.
        let total = file_clusters(file_len, clusters)?.saturating_add(1);
        Ok(Census { clusters, file_len, most: width.max(), counts: Counts::new(total) })
    }

    /// How many clusters there are.
    pub(in super::super) fn clusters(&self) -> u64 {
        self.clusters.count(self.file_len)
    }

    /// How often a cluster is referred to; 65535 stands for all that is more.
    pub(in super::super) fn of(&self, cluster: u64) -> u64 {
        self.counts.of(cluster)
    }

    /// The next cluster, from `cluster` on, that may be referred to.
    pub(in super::super) fn next_from(&self, cluster: u64) -> u64 {
        self.counts.next_from(cluster)
    }

    /// Whether a structure of `len` bytes at `offset` is in the file; of the last, less than a cluster may be
    /// missing.
    fn holds(&self, offset: u64, len: u64) -> bool {
        let end = offset.checked_add(len);
        end.is_some_and(|end| end.saturating_sub(self.file_len) < self.clusters.size())
    }

    /// Counts `times` references to the clusters of `len` bytes at `offset`. Whether they are in the file.
    pub(super) fn add(
        &mut self,
        (offset, len): (u64, u64),
        times: u64,
        what: &str,
        report: &mut Report,
    ) -> Result<bool> {
        if len == 0 || times == 0 {
            return Ok(true);
        }
        if !self.holds(offset, len) {
            report.add(super::Wrong::Corruption, times, offset, || {
                format!(
                    "a {what} of {len} bytes reaches past the end of the file, which has {}",
                    self.file_len
                )
            });
            return Ok(false);
        }
        let (first, last) = (self.clusters.index(offset), offset.saturating_add(len).saturating_sub(1));
        for cluster in first..=self.clusters.index(last) {
            let count = self.counts.of(cluster).saturating_add(times);
            if count > self.most {
                let more = count.saturating_sub(self.most);
                report.add(super::Wrong::Corruption, more, offset, || {
                    format!("cluster {cluster} has more references than the {} a refcount can say", self.most)
                });
            }
            self.counts.set(cluster, count.min(self.most))?;
        }
        Ok(true)
    }
}
