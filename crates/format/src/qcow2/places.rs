//! Where everything goes in an image that is made at once.

use super::Clusters;
use super::layout as l;
use super::refcount::Width;
use chart::{Error, Result};

/// Where everything goes, in clusters: the header, the refcount table, its blocks, the L1 table, the L2 tables,
/// the data.
pub(super) struct Places {
    pub(super) clusters: Clusters,
    pub(super) width: Width,
    pub(super) table: u64,
    pub(super) table_clusters: u64,
    pub(super) blocks: u64,
    pub(super) block_count: u64,
    pub(super) l1: u64,
    pub(super) l1_entries: u64,
    pub(super) l2: u64,
    pub(super) l2_count: u64,
    pub(super) data: u64,
    pub(super) data_count: u64,
    pub(super) end: u64,
}

impl Places {
    /// Room for so many L1 entries, L2 tables and clusters of data.
    pub(super) fn lay(
        clusters: Clusters,
        refcount_order: u32,
        l1_entries: u64,
        l2_count: u64,
        data_count: u64,
    ) -> Result<Places> {
        let width = Width::new(refcount_order)?;
        // A disk of no bytes has an entry too, or the table's cluster would be referred to by nothing.
        let l1_entries = l1_entries.max(1);
        let l1_clusters = clusters.count(l1_entries.saturating_mul(8));
        let rest = l1_clusters.saturating_add(l2_count).saturating_add(data_count).saturating_add(1);
        let per_block = width.per_block(clusters).max(1);
        let (mut block_count, mut table_clusters) = (1u64, 1u64);
        // Blocks count themselves and the table too: a few rounds until that is enough.
        loop {
            let total = rest.saturating_add(block_count).saturating_add(table_clusters);
            let needed = total.div_ceil(per_block);
            let table = clusters.count(needed.saturating_mul(8)).max(1);
            if needed <= block_count && table <= table_clusters {
                break;
            }
            (block_count, table_clusters) = (block_count.max(needed), table_clusters.max(table));
            if table_clusters.saturating_mul(clusters.size()) > l::MAX_REFCOUNT_TABLE_BYTES {
                let what = "a refcount table for so many clusters is too large; use larger clusters";
                return Err(Error::invalid(what));
            }
        }
        let blocks = table_clusters.saturating_add(1);
        let l1 = blocks.saturating_add(block_count);
        let l2 = l1.saturating_add(l1_clusters);
        let data = l2.saturating_add(l2_count);
        let end = data.saturating_add(data_count);
        let places = Places {
            clusters,
            width,
            table: 1,
            table_clusters,
            blocks,
            block_count,
            l1,
            l1_entries,
            l2,
            l2_count,
            data,
            data_count,
            end,
        };
        if places.offset(end) > l::MAX_HOST_OFFSET {
            return Err(Error::invalid("the image would be larger than qcow2 can say"));
        }
        Ok(places)
    }

    /// Where a cluster of that number begins.
    pub(super) fn offset(&self, cluster: u64) -> u64 {
        self.clusters.offset(cluster).unwrap_or(u64::MAX)
    }
}
