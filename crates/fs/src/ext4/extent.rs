//! Extent trees.

use super::cache::Bytes;
use super::checksum::Crc32c;
use super::layout::{
    EXTENT_ENTRY_LEN, EXTENT_MAGIC, ExtentHeader, ExtentIndex, MAX_EXTENT_DEPTH, MAX_INIT_LEN, RawExtent,
};
use super::map::{Held, Map, Run, Told};
use super::volume::Volume;
use chart::{Result, Wait};
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

/// One past the last block that an extent can speak of.
const END: u64 = 1 << 32;

/// A node of the tree, checked as far as its header goes.
struct TreeNode<'a> {
    depth: u16,
    /// Room for as many entries as it has.
    entries: &'a [u8],
}

impl Map {
    fn node<'a>(&self, bytes: &'a [u8]) -> Result<TreeNode<'a>> {
        let cut = |_| self.corrupt("has an extent node that is cut short");
        let (header, rest) = ExtentHeader::read_from_prefix(bytes).map_err(cut)?;
        if header.magic.get() != EXTENT_MAGIC {
            return Err(self.corrupt("has an extent node that is none"));
        }
        let len = usize::from(header.entries.get()).saturating_mul(EXTENT_ENTRY_LEN);
        let room = usize::from(header.max.get()).saturating_mul(EXTENT_ENTRY_LEN);
        let entries = rest.get(..len).filter(|_| len <= room && room <= rest.len());
        let entries = entries.ok_or_else(|| self.corrupt("has an extent node with too many entries"))?;
        let depth = header.depth.get();
        if depth > 0 && entries.is_empty() {
            return Err(self.corrupt("has an extent node that leads nowhere"));
        }
        Ok(TreeNode { depth, entries })
    }

    /// A node behind the room for entries of which its checksum is; the root, in the inode, has none of its own.
    fn checked(&self, volume: &Volume, bytes: &[u8]) -> Result<()> {
        if !volume.superblock.has_metadata_csum() {
            return Ok(());
        }
        let wrong = || self.corrupt("has an extent node that does not match its checksum");
        let (header, _) = ExtentHeader::read_from_prefix(bytes).map_err(|_| wrong())?;
        let len = usize::from(header.max.get()).saturating_add(1).saturating_mul(EXTENT_ENTRY_LEN);
        let (covered, tail) = bytes.split_at_checked(len).ok_or_else(wrong)?;
        let (stored, _) = U32::read_from_prefix(tail).map_err(|_| wrong())?;
        if self.seed.with(covered) == Crc32c(stored.get()) { Ok(()) } else { Err(wrong()) }
    }

    /// See [`Map::leaf`].
    pub(super) fn extent_leaf(&self, volume: &Volume, from: u64, wait: Wait, told: Told<'_>) -> Result<u64> {
        let mut depth = self.node(&self.root)?.depth;
        if depth > MAX_EXTENT_DEPTH {
            return Err(self.corrupt("has an extent tree that is too deep"));
        }
        if from >= END {
            return Ok(u64::MAX);
        }
        let (mut range, mut held) = (0..END, None::<Bytes>);
        loop {
            let node = self.node(held.as_deref().unwrap_or(&self.root))?;
            if node.depth != depth {
                return Err(self.corrupt("has an extent node of the wrong depth"));
            }
            let Some(above) = depth.checked_sub(1) else {
                return self.extents(volume, node.entries, range, from, told);
            };
            let Some(child) = self.child(node.entries, &mut range, from)? else {
                return Ok(tell_hole(from, range.start, told));
            };
            let block = volume.block(child, wait)?;
            self.checked(volume, &block).map_err(|e| e.at(volume.at(child)))?;
            (depth, held) = (above, Some(block));
        }
    }

    /// The child of an inner node that speaks of block `from`, and the range it may speak of. None where there is
    /// none: then the range begins with the first child.
    fn child(&self, entries: &[u8], range: &mut std::ops::Range<u64>, from: u64) -> Result<Option<u64>> {
        let (mut found, mut before) = (None, None);
        for entry in entries.chunks_exact(EXTENT_ENTRY_LEN) {
            let Ok((index, _)) = ExtentIndex::read_from_prefix(entry) else { break };
            let block = u64::from(index.block.get());
            let in_order = before.is_none_or(|before| before < block) && range.contains(&block);
            if !in_order {
                return Err(self.corrupt("has an extent node that is out of order"));
            }
            before = Some(block);
            if block > from {
                let behind = if found.is_some() { range.start..block } else { block..range.end };
                *range = behind;
                return Ok(found);
            }
            range.start = block;
            found = Some(u64::from(index.leaf_hi.get()) << 32 | u64::from(index.leaf_lo.get()));
        }
        Ok(found)
    }

    /// Tells the extents of a leaf that may speak of `range`.
    fn extents(
        &self,
        volume: &Volume,
        entries: &[u8],
        range: std::ops::Range<u64>,
        from: u64,
        told: Told<'_>,
    ) -> Result<u64> {
        let mut cursor = range.start;
        for entry in entries.chunks_exact(EXTENT_ENTRY_LEN) {
            let Ok((extent, _)) = RawExtent::read_from_prefix(entry) else { break };
            let run = self.extent(volume, &extent)?;
            if run.block < cursor || run.end() > range.end {
                return Err(self.corrupt("has extents that overlap"));
            }
            let hole = Run { block: cursor, len: run.block.saturating_sub(cursor), held: Held::Hole };
            cursor = run.end();
            for run in [hole.from(from), run.from(from)].into_iter().flatten() {
                if told(run).is_break() {
                    return Ok(run.end());
                }
            }
        }
        Ok(tell_hole(cursor.max(from), range.end, told))
    }

    fn extent(&self, volume: &Volume, extent: &RawExtent) -> Result<Run> {
        let (unwritten, len) = match extent.len.get().checked_sub(MAX_INIT_LEN) {
            Some(len) if len > 0 => (true, len),
            _ => (false, extent.len.get()),
        };
        let start = u64::from(extent.start_hi.get()) << 32 | u64::from(extent.start_lo.get());
        if len == 0 || !volume.superblock.holds(start, len.into()) {
            return Err(self.corrupt("has an extent that cannot be"));
        }
        let held = if unwritten { Held::Unwritten } else { Held::Data(start) };
        Ok(Run { block: extent.block.get().into(), len: len.into(), held })
    }
}

/// Tells of a hole between two blocks, where there is one, and returns its end.
fn tell_hole(from: u64, end: u64, told: Told<'_>) -> u64 {
    if end > from {
        let _ = told(Run { block: from, len: end.saturating_sub(from), held: Held::Hole });
    }
    end
}
