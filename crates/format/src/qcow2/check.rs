//! Checking an image: every reference there is against the refcounts that are stored.
//!
//! The walk counts references once for each *distinct* table, times how often the table is referred to: what that
//! costs is bounded by the file's length, however tables refer to each other.

mod census;
mod walk;

pub(super) use census::Census;
pub use walk::{MAX_BITMAP_ENTRIES, MAX_L1_ENTRIES, MAX_L2_TABLES};

use super::refcount::{RefcountTable, Width, read_block};
use super::{Clusters, Header, Image};
pub use crate::check::{Finding, MAX_FINDINGS, Report, Wrong};
use crate::field::to_index;
use chart::{Error, Result, Source};

/// Files of more clusters are not checked (QEMU's limit).
pub const MAX_CHECKED_CLUSTERS: u64 = 0x7fff_ffff;
impl Image {
    /// Checks the image, changing nothing. An error is one of reading, or a limit: what is wrong with the image
    /// is in the report. Nobody may write to the image meanwhile.
    pub fn check(&self) -> Result<Report> {
        self.check_inner().map_err(|e| e.in_path(self.file.name()).during("checking"))
    }

    fn check_inner(&self) -> Result<Report> {
        let header = self.header().clone();
        let file = self.file.as_ref();
        let table = RefcountTable::read(file, &header)?;
        let mut report = Report { total_clusters: self.clusters.count(header.size), ..Report::default() };
        let stored = Stored::load(file, &table, self.clusters)?;
        let mut census = Census::new(self.clusters, table.width, file.len())?;
        walk::Walk::new(self, &header, Some(&stored), &mut census, &mut report).all(&table)?;
        compare(&stored, &census, self.clusters, &mut report);
        Ok(report)
    }
}

impl Image {
    /// Counts the references from the roots that `header` names, but for the refcounts' own. What is wrong with
    /// the tables on the way is in the report; flags are not looked at.
    pub(super) fn census(&self, header: &Header) -> Result<(Census, Report)> {
        let width = Width::new(header.refcount_order)?;
        let mut census = Census::new(self.clusters, width, self.file.len())?;
        let mut report = Report::default();
        let none = RefcountTable::empty(self.clusters, width);
        let header = Header { refcount_table_clusters: 0, refcount_table_offset: 0, ..header.clone() };
        walk::Walk::new(self, &header, None, &mut census, &mut report).all(&none)?;
        Ok((census, report))
    }
}

/// The refcounts as they are stored, as far as the file goes.
pub(super) struct Stored {
    counts: census::Counts,
}

impl Stored {
    fn load(file: &dyn Source, table: &RefcountTable, clusters: Clusters) -> Result<Stored> {
        let total = file_clusters(file.len(), clusters)?;
        let mut stored = Stored { counts: census::Counts::new(total) };
        let per_block = table.width.per_block(clusters).max(1);
        let mut block = vec![0; to_index(clusters.size())];
        for (index, first) in (0..total).step_by(to_index(per_block)).enumerate() {
            let Some(&entry) = table.entries.get(index) else { break };
            let offset = entry & !super::layout::REFCOUNT_TABLE_RESERVED;
            // Blocks that are not where a block can be are the walk's to report.
            if offset == 0 || clusters.within(offset) != 0 || offset >= file.len() {
                continue;
            }
            read_block(file, offset, &mut block)?;
            if block.iter().all(|&byte| byte == 0) {
                continue;
            }
            stored.take_block(table.width, &block, first, total.min(first.saturating_add(per_block)))?;
        }
        Ok(stored)
    }

    fn take_block(&mut self, width: Width, block: &[u8], first: u64, end: u64) -> Result<()> {
        for (index, cluster) in (0..).zip(first..end) {
            let count = width.read(block, index);
            if count != 0 {
                self.counts.set(cluster, count)?;
            }
        }
        Ok(())
    }

    /// A cluster's stored refcount; 65535 stands for all that are larger.
    pub(super) fn of(&self, cluster: u64) -> u64 {
        self.counts.of(cluster)
    }
}

/// How many clusters a file has, at most the limit.
fn file_clusters(len: u64, clusters: Clusters) -> Result<u64> {
    let total = clusters.count(len);
    if total > MAX_CHECKED_CLUSTERS {
        let what = format!("the file has {total} clusters; at most {MAX_CHECKED_CLUSTERS} can be checked");
        return Err(Error::unsupported(what));
    }
    Ok(total)
}

fn compare(stored: &Stored, census: &Census, clusters: Clusters, report: &mut Report) {
    let (mut highest, mut cluster) = (0, 0u64);
    while cluster < census.clusters() {
        let next = stored.counts.next_from(cluster).min(census.next_from(cluster));
        if next > cluster {
            cluster = next;
            continue;
        }
        let (is, should) = (stored.of(cluster), census.of(cluster));
        if is > 0 || should > 0 {
            highest = cluster;
        }
        let offset = clusters.offset(cluster).unwrap_or(u64::MAX);
        let what = || format!("cluster {cluster} has refcount {is} and {should} references");
        match is.cmp(&should) {
            std::cmp::Ordering::Less => report.add(Wrong::Corruption, 1, offset, what),
            std::cmp::Ordering::Greater => report.add(Wrong::Leak, 1, offset, what),
            std::cmp::Ordering::Equal => {}
        }
        cluster = cluster.saturating_add(1);
    }
    report.image_end_offset = clusters.offset(highest.saturating_add(1)).unwrap_or(u64::MAX);
}
