//! Directories, as lists of entries.

use super::cache::Bytes;
use super::checksum::Crc32c;
use super::feature::Incompat;
use super::inode::Node;
use super::layout::{
    ENTRY_HEAD_LEN, ENTRY_TAIL_LEN, ENTRY_TAIL_TYPE, INDEX_ENTRY_LEN, INDEX_FL, INDEX_NODE_ENTRIES_AT,
    INDEX_ROOT_ENTRIES_AT, IndexCount, ROOT_INO, RawEntry,
};
use super::map::{Held, Map};
use super::volume::Volume;
use crate::{Entry, Inode, Kind};
use chart::{Error, Result, Wait};
use std::ops::ControlFlow;
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

/// A directory may be so long, as Linux has it: 2 GiB, or more with the feature `large_dir`.
const MAX_LEN: u64 = 2 << 30;
/// The limit with that feature: ours; it is some billion names.
const MAX_LARGE_LEN: u64 = 256 << 30;
/// Names have at most so many bytes.
const MAX_NAME_LEN: usize = 255;

/// Who is told of entries, until they have heard enough.
pub(super) type Each<'a> = &'a mut dyn FnMut(Entry<'_>) -> Result<ControlFlow<()>>;

/// What a block of a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// The first one, that must begin with `.` and `..`.
    First,
    /// Any other.
    More,
    /// In the inode, where neither of the two is.
    Inline,
}

/// An entry as it is stored.
struct Stored<'a> {
    raw: RawEntry,
    name: &'a [u8],
}

impl Volume {
    /// Tells the names in a directory, in their order.
    pub(super) fn names(&self, node: &Node, each: Each<'_>) -> Result<()> {
        if node.kind != Kind::Directory {
            return Err(Error::invalid(format!("inode {} is no directory", node.number)));
        }
        node.readable()?;
        if node.is_inline() {
            return self.inline_names(node, each);
        }
        let map = Map::of(node);
        let blocks = self.directory_blocks(node)?;
        let mut next = 0;
        while next < blocks {
            // The runs of one leaf of the map are few, and whoever is told may ask the file system again.
            let mut runs = Vec::new();
            next = map.leaf(self, next, Wait::Allowed, &mut |run| {
                runs.push(run);
                ControlFlow::Continue(())
            })?;
            for run in runs {
                let Held::Data(start) = run.held else { continue };
                let len = run.end().min(blocks).saturating_sub(run.block);
                for by in 0..len {
                    let (number, place) = (run.block.saturating_add(by), start.saturating_add(by));
                    let block = self.block(place, Wait::Allowed)?;
                    let told = self.block_names(node, number, &block, each);
                    if told.map_err(|e| e.at(self.at(place)))?.is_break() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// How many blocks a directory has.
    pub(super) fn directory_blocks(&self, node: &Node) -> Result<u64> {
        let sb = &self.superblock;
        let max = if sb.incompat.has(Incompat::LARGEDIR) { MAX_LARGE_LEN } else { MAX_LEN };
        let blocks = node.len.div_ceil(sb.block_size);
        if node.len > max || blocks > sb.blocks_count {
            return Err(Error::corrupt(format!("directory {} is longer than any can be", node.number)));
        }
        Ok(blocks)
    }

    /// A block of a directory that must be there.
    pub(super) fn directory_block(&self, map: &Map, number: u64) -> Result<Bytes> {
        match map.run(self, number, Wait::Allowed)?.held {
            Held::Data(place) => self.block(place, Wait::Allowed),
            _ => Err(Error::corrupt(format!("directory {} has no block {number}", map.number))),
        }
    }

    /// Tells the names in one of the blocks.
    pub(super) fn block_names(
        &self,
        node: &Node,
        number: u64,
        block: &[u8],
        each: Each<'_>,
    ) -> Result<ControlFlow<()>> {
        if self.superblock.has_metadata_csum() && !is_intact(node, number, block) {
            let what = format!("block {number} of directory {} does not match its checksum", node.number);
            return Err(Error::corrupt(what));
        }
        let content = if number == 0 { Content::First } else { Content::More };
        self.entries(node, block, content, each)
    }

    fn inline_names(&self, node: &Node, each: Each<'_>) -> Result<()> {
        let mut left = usize::try_from(node.len).unwrap_or(usize::MAX);
        for (number, (at, len)) in self.inline_parts(node)?.into_iter().enumerate() {
            let len = len.min(left);
            left = left.saturating_sub(len);
            // The first part begins with the parent's inode, in place of `..`.
            let skip = if number == 0 { 4 } else { 0 };
            let part = node.bytes.get(at..).and_then(|bytes| bytes.get(skip..len));
            let Some(part) = part.filter(|part| !part.is_empty()) else { continue };
            if self.entries(node, part, Content::Inline, each)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn entries(
        &self,
        node: &Node,
        bytes: &[u8],
        content: Content,
        each: Each<'_>,
    ) -> Result<ControlFlow<()>> {
        let (mut rest, mut order) = (bytes, 0_u8);
        while !rest.is_empty() {
            let (stored, behind) = self.entry(node, rest)?;
            rest = behind;
            let place = order;
            order = order.saturating_add(1);
            if is_dot(content, place, &stored).map_err(|what| wrong(node, what))? {
                continue;
            }
            let inode = stored.raw.inode.get();
            if inode == 0 {
                continue;
            }
            self.check(inode, stored.name).map_err(|what| wrong(node, what))?;
            let kind = self.superblock.incompat.has(Incompat::FILETYPE).then(|| kind(stored.raw.file_type));
            let entry = Entry { name: stored.name, inode: Inode(inode.into()), kind: kind.flatten() };
            if each(entry)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The first entry of these, and what is behind it.
    fn entry<'a>(&self, node: &Node, bytes: &'a [u8]) -> Result<(Stored<'a>, &'a [u8])> {
        let overrun = || wrong(node, "an entry that reaches past its block");
        let (raw, behind) = RawEntry::read_from_prefix(bytes).map_err(|_| overrun())?;
        let len = record_len(raw.rec_len.get(), self.superblock.block_size);
        let typed = self.superblock.incompat.has(Incompat::FILETYPE);
        if !typed && raw.file_type != 0 && raw.inode.get() != 0 {
            return Err(wrong(node, "a name that is too long"));
        }
        let name = behind.get(..raw.name_len.into()).ok_or_else(overrun)?;
        if !len.is_multiple_of(4) || len < ENTRY_HEAD_LEN.saturating_add(name.len()) || len < ENTRY_TAIL_LEN {
            return Err(wrong(node, "an entry of an impossible length"));
        }
        let rest = bytes.get(len..).ok_or_else(overrun)?;
        Ok((Stored { raw, name }, rest))
    }

    /// What is wrong with a name, and with whose it is.
    fn check(&self, inode: u32, name: &[u8]) -> Result<(), &'static str> {
        let sb = &self.superblock;
        if inode > sb.inodes_count || inode != ROOT_INO && inode < sb.first_ino {
            return Err("an entry whose inode cannot be");
        }
        match name {
            [] => Err("an entry without a name"),
            [b'.'] | [b'.', b'.'] => Err("an entry . or .. where there can be none"),
            name if name.iter().any(|byte| matches!(byte, b'/' | 0)) => Err("a name with / or NUL in it"),
            _ => Ok(()),
        }
    }

    /// Whose name this is, by looking at all of them.
    pub(super) fn search(&self, node: &Node, name: &[u8]) -> Result<Option<Inode>> {
        let mut found = None;
        self.names(node, &mut |entry| Ok(pick(&entry, name, &mut found)))?;
        Ok(found)
    }

    /// Whose name this is in a directory.
    pub(super) fn find(&self, node: &Node, name: &[u8]) -> Result<Option<Inode>> {
        if name.is_empty() || name.len() > MAX_NAME_LEN {
            return Ok(None);
        }
        if node.kind == Kind::Directory
            && node.is_indexed()
            && self.superblock.compat.has(super::feature::Compat::DIR_INDEX)
        {
            match self.find_by_index(node, name) {
                // The index is only a help: the names are there without it.
                Err(e) if e.kind() == chart::Kind::Corrupt => {}
                found => return found,
            }
        }
        self.search(node, name)
    }
}

/// Notes whose name it is, if it is this one.
pub(super) fn pick(entry: &Entry<'_>, name: &[u8], found: &mut Option<Inode>) -> ControlFlow<()> {
    if entry.name != name {
        return ControlFlow::Continue(());
    }
    *found = Some(entry.inode);
    ControlFlow::Break(())
}

/// Whether an entry is one of the two that every directory begins with, or why it cannot be here.
fn is_dot(content: Content, place: u8, stored: &Stored<'_>) -> Result<bool, &'static str> {
    let expected: &[u8] = match (content, place) {
        (Content::First, 0) => b".",
        (Content::First, 1) => b"..",
        _ => return Ok(false),
    };
    if stored.raw.inode.get() != 0 && stored.name == expected {
        return Ok(true);
    }
    Err("no entries . and .. at its beginning")
}

fn wrong(node: &Node, what: &str) -> Error {
    Error::corrupt(format!("directory {} has {what}", node.number))
}

/// The length of an entry: where blocks are of 64 KiB, two bits are in the two that are always clear.
fn record_len(stored: u16, block_size: u64) -> usize {
    let stored = usize::from(stored);
    let block_size = usize::try_from(block_size).unwrap_or(usize::MAX);
    if block_size < 1 << 16 {
        return stored;
    }
    if stored == 0xffff || stored == 0 { block_size } else { stored & 0xfffc | (stored & 3) << 16 }
}

fn kind(file_type: u8) -> Option<Kind> {
    Some(match file_type {
        1 => Kind::File,
        2 => Kind::Directory,
        3 => Kind::CharacterDevice,
        4 => Kind::BlockDevice,
        5 => Kind::Fifo,
        6 => Kind::Socket,
        7 => Kind::Symlink,
        _ => return None,
    })
}

/// Whether a block of a directory matches its checksum, be it of entries or of an index.
fn is_intact(node: &Node, number: u64, block: &[u8]) -> bool {
    let index = node.has(INDEX_FL).then(|| index_entries(number, block)).flatten();
    match index {
        Some(at) => index_is_intact(node, block, at),
        None => leaf_is_intact(node, block),
    }
}

/// Where the entries of an index begin in a block, where it is of an index.
fn index_entries(number: u64, block: &[u8]) -> Option<usize> {
    if number == 0 {
        return Some(INDEX_ROOT_ENTRIES_AT);
    }
    let (first, _) = RawEntry::read_from_prefix(block).ok()?;
    let whole = record_len(first.rec_len.get(), u64::try_from(block.len()).ok()?) == block.len();
    (first.inode.get() == 0 && whole).then_some(INDEX_NODE_ENTRIES_AT)
}

fn leaf_is_intact(node: &Node, block: &[u8]) -> bool {
    let Some((covered, tail)) =
        block.len().checked_sub(ENTRY_TAIL_LEN).and_then(|at| block.split_at_checked(at))
    else {
        return false;
    };
    let Ok((entry, stored)) = RawEntry::read_from_prefix(tail) else { return false };
    let shape = (entry.inode.get(), usize::from(entry.rec_len.get()), entry.name_len, entry.file_type);
    shape == (0, ENTRY_TAIL_LEN, 0, ENTRY_TAIL_TYPE) && node.seed.with(covered).0.to_le_bytes() == stored
}

/// An index has its checksum behind the room for its entries, and covers only those that there are.
fn index_is_intact(node: &Node, block: &[u8], at: usize) -> bool {
    let parts = || {
        let (counts, _) = IndexCount::read_from_prefix(block.get(at..)?).ok()?;
        let end = |entries: u16| usize::from(entries).checked_mul(INDEX_ENTRY_LEN)?.checked_add(at);
        let covered = block.get(..end(counts.count.get())?)?;
        let tail = block.get(end(counts.limit.get())?..)?;
        let (reserved, stored) = tail.split_at_checked(4)?;
        let (stored, _) = U32::read_from_prefix(stored).ok()?;
        Some((covered, reserved, stored.get()))
    };
    parts().is_some_and(|(covered, reserved, stored)| {
        node.seed.with(covered).with(reserved).with_u32(0) == Crc32c(stored)
    })
}
