//! A file system's disk, as all parts of the reader see it.

use super::cache::{Bytes, Cache};
use super::superblock::Superblock;
use chart::{Disk, Error, Result, Wait};
use std::sync::Arc;

/// So much of a table is read at once, or a block.
const TABLE_CHUNK: u64 = 32 << 10;
/// So much of them is kept: some 60,000 inodes, since names are seldom in the order of their inodes.
const TABLE_CAPACITY: u64 = 16 << 20;
/// So much is read of anything else, or a block.
const BLOCK_CHUNK: u64 = 4 << 10;
/// So much of that is kept.
const BLOCK_CAPACITY: u64 = 8 << 20;

/// The disk, what its superblock says, and the metadata that was read lately.
pub(super) struct Volume {
    /// As it is after the journal was replayed.
    pub(super) disk: Arc<Disk>,
    /// Inodes and group descriptors: neighbours are asked for together.
    pub(super) tables: Cache,
    /// Everything else: directories, maps and attributes, whose neighbours may be anything.
    blocks: Cache,
    pub(super) superblock: Superblock,
}

impl Volume {
    /// The file system on this disk, whatever its journal says.
    pub(super) fn open(disk: Arc<Disk>) -> Result<Volume> {
        let superblock = Superblock::read(&disk)?;
        let tables = Cache::of(Arc::clone(&disk), superblock.block_size.max(TABLE_CHUNK), TABLE_CAPACITY);
        let blocks = Cache::of(Arc::clone(&disk), superblock.block_size.max(BLOCK_CHUNK), BLOCK_CAPACITY);
        Ok(Volume { disk, tables, blocks, superblock })
    }

    /// A block of metadata.
    pub(super) fn block(&self, number: u64, wait: Wait) -> Result<Bytes> {
        if !self.superblock.holds(number, 1) {
            return Err(Error::corrupt(format!("block {number} is named and does not exist")));
        }
        self.blocks.read(self.at(number), self.superblock.block_size, wait)
    }

    /// Where a block begins on the disk.
    pub(super) fn at(&self, block: u64) -> u64 {
        block.saturating_mul(self.superblock.block_size)
    }
}
