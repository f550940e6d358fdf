//! The index of a directory: a tree of the hashes of its names, that lives in blocks which look empty to whoever
//! does not know of it.

use super::dir::pick;
use super::feature::Incompat;
use super::hash::Hash;
use super::inode::Node;
use super::layout::{
    INDEX_ENTRY_LEN, INDEX_INFO_AT, INDEX_INFO_LEN, INDEX_NODE_ENTRIES_AT, INDEX_ROOT_ENTRIES_AT, IndexCount,
    IndexEntry, IndexInfo,
};
use super::map::Map;
use super::volume::Volume;
use crate::Inode;
use chart::{Error, Result};
use zerocopy::FromBytes;

/// The tree is no deeper, the root not counted.
const MAX_LEVELS: u8 = 1;
/// Nor with the feature `large_dir`.
const MAX_LARGE_LEVELS: u8 = 2;
/// One name is looked for in so many blocks: names with the same hash may fill more than one.
const MAX_LEAVES: usize = 256;

/// What looking into a part of the tree came to.
enum Outcome {
    Found(Inode),
    /// It is not there.
    Absent,
    /// It is not in this part, all of which was looked at; it may be in the next.
    Next,
}

/// One search.
struct Search<'a> {
    volume: &'a Volume,
    node: &'a Node,
    map: Map,
    name: &'a [u8],
    hash: u32,
    blocks: u64,
    leaves: usize,
}

impl Volume {
    /// Whose name this is, by the index. `Corrupt` where that cannot be used.
    pub(super) fn find_by_index(&self, node: &Node, name: &[u8]) -> Result<Option<Inode>> {
        let map = Map::of(node);
        let root = self.directory_block(&map, 0)?;
        // This looks at its checksum and at its first two entries.
        let _ = self.block_names(node, 0, &root, &mut |_| Err(wrong(node)))?;
        let info = root.get(INDEX_INFO_AT..).and_then(|bytes| IndexInfo::read_from_prefix(bytes).ok());
        let (info, _) = info.ok_or_else(|| wrong(node))?;
        let large = self.superblock.incompat.has(Incompat::LARGEDIR);
        let max = if large { MAX_LARGE_LEVELS } else { MAX_LEVELS };
        let usable = info.reserved_zero.get() == 0
            && info.info_length == INDEX_INFO_LEN
            && info.unused_flags & 1 == 0
            && info.indirect_levels <= max;
        let hash = Hash::of(info.hash_version, self.superblock.unsigned_hash, self.superblock.hash_seed);
        let Some(hash) = hash.filter(|_| usable) else { return Err(wrong(node)) };
        let blocks = self.directory_blocks(node)?;
        let mut search = Search { volume: self, node, map, name, hash: hash.name(name), blocks, leaves: 0 };
        let entries = root.get(INDEX_ROOT_ENTRIES_AT..).unwrap_or_default();
        Ok(match search.index(entries, info.indirect_levels)? {
            Outcome::Found(inode) => Some(inode),
            Outcome::Absent | Outcome::Next => None,
        })
    }
}

impl Search<'_> {
    /// Looks into what a list of entries of the index leads to, `levels` of further lists above the names.
    fn index(&mut self, bytes: &[u8], levels: u8) -> Result<Outcome> {
        let (counts, _) = IndexCount::read_from_prefix(bytes).map_err(|_| wrong(self.node))?;
        let (limit, count) = (usize::from(counts.limit.get()), usize::from(counts.count.get()));
        let len = count.saturating_mul(INDEX_ENTRY_LEN);
        let entries =
            bytes.get(..len).filter(|_| count > 0 && count <= limit).ok_or_else(|| wrong(self.node))?;
        let entry = |i: usize| {
            let (entry, _) =
                IndexEntry::read_from_prefix(entries.get(i.checked_mul(INDEX_ENTRY_LEN)?..)?).ok()?;
            // The first speaks of all hashes below the second's.
            Some((if i == 0 { 0 } else { entry.hash.get() }, u64::from(entry.block.get())))
        };
        let (mut low, mut high) = (1, count);
        while low < high {
            let middle = low.midpoint(high);
            match entry(middle) {
                Some((hash, _)) if hash <= self.hash => low = middle.saturating_add(1),
                _ => high = middle,
            }
        }
        for i in low.saturating_sub(1)..count {
            let (hash, block) = entry(i).ok_or_else(|| wrong(self.node))?;
            // Behind the first that may have it, only those that go on with the very same hash.
            if i >= low && hash & !1 != self.hash {
                return Ok(Outcome::Absent);
            }
            match self.below(block, levels)? {
                Outcome::Next => {}
                end => return Ok(end),
            }
        }
        Ok(Outcome::Next)
    }

    fn below(&mut self, block: u64, levels: u8) -> Result<Outcome> {
        self.leaves = self.leaves.saturating_add(1);
        if block == 0 || block >= self.blocks || self.leaves > MAX_LEAVES {
            return Err(wrong(self.node));
        }
        let bytes = self.volume.directory_block(&self.map, block)?;
        let mut found = None;
        let name = self.name;
        // Of a list of the index this looks at the checksum, and finds no names.
        let told = self
            .volume
            .block_names(self.node, block, &bytes, &mut |entry| Ok(pick(&entry, name, &mut found)));
        let _ = told?;
        match (levels.checked_sub(1), found) {
            (_, Some(inode)) => Ok(Outcome::Found(inode)),
            (None, None) => Ok(Outcome::Next),
            (Some(levels), None) => {
                self.index(bytes.get(INDEX_NODE_ENTRIES_AT..).unwrap_or_default(), levels)
            }
        }
    }
}

fn wrong(node: &Node) -> Error {
    Error::corrupt(format!("directory {} has an index that cannot be used", node.number))
}
