//! Refcounts as they are stored: a table of blocks, and entries of 1 to 64 bits in them.

use super::cluster::Clusters;
use super::header::Header;
use super::layout::{MAX_REFCOUNT_ORDER, REFCOUNT_TABLE_RESERVED};
use crate::field::{be64s, to_index};
use chart::{Error, Result, Source, Wait};

/// How wide a refcount is: `1 << order` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Width {
    order: u32,
}

impl Width {
    /// A width of `1 << order` bits.
    pub fn new(order: u32) -> Result<Width> {
        if order > MAX_REFCOUNT_ORDER {
            return Err(Error::corrupt(format!("refcounts of 2^{order} bits; the most is 64")).at(96));
        }
        Ok(Width { order })
    }

    /// Its bits.
    pub fn bits(self) -> u32 {
        1u32.wrapping_shl(self.order)
    }

    /// The largest refcount.
    pub fn max(self) -> u64 {
        u64::MAX.wrapping_shr(64u32.wrapping_sub(self.bits()))
    }

    /// Refcounts in a block.
    pub fn per_block(self, clusters: Clusters) -> u64 {
        clusters.size().wrapping_shl(3).wrapping_shr(self.order)
    }

    /// The refcount of that number in a block; 0 past its end.
    pub fn read(self, block: &[u8], index: u64) -> u64 {
        if self.order < 3 {
            let (byte, shift) = self.split(index);
            let value = block.get(byte).copied().unwrap_or(0).wrapping_shr(shift);
            return u64::from(value) & self.max();
        }
        let bytes = 1usize.wrapping_shl(self.order.wrapping_sub(3));
        let start = to_index(index).saturating_mul(bytes);
        let entry = block.get(start..start.saturating_add(bytes)).unwrap_or_default();
        entry.iter().fold(0, |value, byte| value.wrapping_shl(8) | u64::from(*byte))
    }

    /// Stores a refcount, which fits, in a block; past its end nothing happens.
    pub fn write(self, block: &mut [u8], index: u64, value: u64) {
        if self.order < 3 {
            let (byte, shift) = self.split(index);
            let low = u8::try_from(value & self.max()).unwrap_or(0);
            let mask = u8::try_from(self.max()).unwrap_or(0).wrapping_shl(shift);
            if let Some(byte) = block.get_mut(byte) {
                *byte = *byte & !mask | low.wrapping_shl(shift);
            }
            return;
        }
        let bytes = 1usize.wrapping_shl(self.order.wrapping_sub(3));
        let start = to_index(index).saturating_mul(bytes);
        let value = value.to_be_bytes();
        let low = value.get(value.len().saturating_sub(bytes)..).unwrap_or_default();
        if let Some(entry) = block.get_mut(start..start.saturating_add(bytes)) {
            entry.copy_from_slice(low);
        }
    }

    /// Where a refcount of less than a byte is: the byte, and how far up in it.
    fn split(self, index: u64) -> (usize, u32) {
        let bit = index.wrapping_shl(self.order);
        (to_index(bit / 8), u32::try_from(bit % 8).unwrap_or(0))
    }
}

/// The refcount table: where the blocks are.
#[derive(Clone, Debug)]
pub struct RefcountTable {
    /// The entries, as stored.
    pub entries: Vec<u64>,
    /// How wide refcounts are.
    pub width: Width,
    clusters: Clusters,
}

impl RefcountTable {
    /// A table of no blocks.
    pub fn empty(clusters: Clusters, width: Width) -> RefcountTable {
        RefcountTable { entries: Vec::new(), width, clusters }
    }

    /// Reads the table of an image. What of its last cluster is not in the file is 0.
    pub fn read(file: &dyn Source, header: &Header) -> Result<RefcountTable> {
        let clusters = header.clusters()?;
        let width = Width::new(header.refcount_order)?;
        let offset = header.refcount_table_offset;
        header.check_tables(file.len())?;
        let bytes = u64::from(header.refcount_table_clusters).saturating_mul(clusters.size());
        let stored = bytes.min(file.len().saturating_sub(offset));
        let mut table = vec![0; to_index(bytes)];
        if let Some(stored) = table.get_mut(..to_index(stored)) {
            file.read_at(offset, stored, Wait::Allowed)?;
        }
        Ok(RefcountTable { entries: be64s(&table).collect(), width, clusters })
    }

    /// Where the block is that counts a cluster, and the refcount's number in it. `None` if there is none: the
    /// refcount is 0.
    pub fn locate(&self, cluster: u64) -> Result<Option<(u64, u64)>> {
        let per_block = self.width.per_block(self.clusters).max(1);
        let index = cluster.checked_div(per_block).unwrap_or(0);
        let entry = self.entries.get(to_index(index)).copied().unwrap_or(0);
        let offset = entry & !REFCOUNT_TABLE_RESERVED;
        if offset == 0 {
            return Ok(None);
        }
        if self.clusters.within(offset) != 0 {
            return Err(Error::corrupt("a refcount block does not begin where a cluster does").at(offset));
        }
        Ok(Some((offset, cluster.checked_rem(per_block).unwrap_or(0))))
    }
}

/// Reads a refcount block. What of it is not in the file is 0.
pub fn read_block(file: &dyn Source, offset: u64, block: &mut [u8]) -> Result<()> {
    let stored = to_index(file.len().saturating_sub(offset)).min(block.len());
    block.fill(0);
    match block.get_mut(..stored) {
        Some(stored) if !stored.is_empty() => file.read_at(offset, stored, Wait::Allowed),
        _ => Ok(()),
    }
}
