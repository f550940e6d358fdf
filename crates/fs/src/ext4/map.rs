//! Where the blocks of a file are: by extents or by blocks of block numbers, told alike.

use super::checksum::Crc32c;
use super::inode::Node;
use super::layout::EXTENTS_FL;
use super::volume::Volume;
use chart::{Error, Result, Wait};
use std::ops::ControlFlow;

/// What is behind a run of a file's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// Nothing.
    Hole,
    /// Blocks that were never written.
    Unwritten,
    /// Blocks of the disk, from this one on.
    Data(u64),
}

/// A run of a file's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) block: u64,
    pub(super) len: u64,
    pub(super) held: Held,
}

impl Run {
    pub(super) fn end(&self) -> u64 {
        self.block.saturating_add(self.len)
    }

    /// What of it lies at `from` or behind; none where that is nothing.
    pub(super) fn from(self, from: u64) -> Option<Run> {
        let by = from.saturating_sub(self.block);
        let len = self.len.checked_sub(by).filter(|len| *len > 0)?;
        let held = match self.held {
            Held::Data(start) => Held::Data(start.saturating_add(by)),
            other => other,
        };
        Some(Run { block: self.block.saturating_add(by), len, held })
    }
}

/// Who is told of runs, until they have heard enough.
pub(super) type Told<'a> = &'a mut dyn FnMut(Run) -> ControlFlow<()>;

/// What an inode says of its blocks.
#[derive(Clone)]
pub(super) struct Map {
    pub(super) number: u32,
    /// What the checksums of extent nodes begin with.
    pub(super) seed: Crc32c,
    /// `i_block`: the root of the tree, or the first block numbers.
    pub(super) root: [u8; 60],
    extents: bool,
}

impl Map {
    /// Of this inode, which must not be inline.
    pub(super) fn of(node: &Node) -> Map {
        let extents = node.has(EXTENTS_FL);
        Map { number: node.number, seed: node.seed, root: node.raw.block, extents }
    }

    /// Tells the runs of the leaf of the map that speaks of block `from`, beginning there, holes too, and returns
    /// the block behind the last: how far one call goes is bounded by what one block of the map can hold.
    pub(super) fn leaf(&self, volume: &Volume, from: u64, wait: Wait, told: Told<'_>) -> Result<u64> {
        let end = match self.extents {
            true => self.extent_leaf(volume, from, wait, told),
            false => self.indirect_leaf(volume, from, wait, told),
        };
        let end =
            end.map_err(|e| if e.is_would_block() { e } else { e.during(format!("inode {}", self.number)) })?;
        if end > from { Ok(end) } else { Err(self.corrupt("has a map that does not go on")) }
    }

    /// The run that begins with this block.
    pub(super) fn run(&self, volume: &Volume, block: u64, wait: Wait) -> Result<Run> {
        let mut found = None;
        let end = self.leaf(volume, block, wait, &mut |run| {
            found = Some(run);
            ControlFlow::Break(())
        })?;
        let hole = Run { block, len: end.saturating_sub(block), held: Held::Hole };
        Ok(found.unwrap_or(hole))
    }

    pub(super) fn corrupt(&self, what: &str) -> Error {
        Error::corrupt(format!("inode {} {what}", self.number))
    }
}
