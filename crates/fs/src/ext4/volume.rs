//! A file system's disk, as all parts of the reader see it.

use super::cache::{Bytes, Cache};
use super::superblock::Superblock;
use chart::{Disk, Error, Result, Wait};
use std::sync::Arc;

/// The disk, what its superblock says, and the metadata that was read lately.
pub(super) struct Volume {
    /// As it is after the journal was replayed.
    pub(super) disk: Arc<Disk>,
    pub(super) cache: Cache,
    pub(super) superblock: Superblock,
}

impl Volume {
    /// The file system on this disk, whatever its journal says.
    pub(super) fn open(disk: Arc<Disk>) -> Result<Volume> {
        let superblock = Superblock::read(&disk)?;
        Ok(Volume { cache: Cache::of(Arc::clone(&disk)), disk, superblock })
    }

    /// A block of metadata.
    pub(super) fn block(&self, number: u64, wait: Wait) -> Result<Bytes> {
        if !self.superblock.holds(number, 1) {
            return Err(Error::corrupt(format!("block {number} is named and does not exist")));
        }
        self.cache.read(self.at(number), self.superblock.block_size, wait)
    }

    /// Where a block begins on the disk.
    pub(super) fn at(&self, block: u64) -> u64 {
        block.saturating_mul(self.superblock.block_size)
    }
}
