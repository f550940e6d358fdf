//! The log: the journal's blocks, in a ring, and who walks through its transactions.

use super::layout::{
    COMMIT, COMMIT_CHECKSUM_AT, Commit, DESCRIPTOR, HEADER_LEN, Header, MAGIC, REVOKE, SUPERBLOCK_LEN,
    TAIL_LEN,
};
use super::superblock::{Checksums, Superblock};
use super::tag;
use crate::ext4::checksum::Crc32c;
use crate::ext4::volume::Volume;
use chart::{Chart, Disk, Error, Place, Result, Wait};
use std::sync::Arc;
use zerocopy::FromBytes;

/// A journal may have so many blocks: what `mke2fs` makes at most.
const MAX_BLOCKS: u32 = 10_240_000;

/// The journal of a file system, as a file of the disk as it lies there.
pub(super) struct Log {
    file: Arc<Disk>,
    block_size: u64,
    pub(super) superblock: Superblock,
}

/// A block of the log that begins with a header.
pub(super) struct Block {
    pub(super) blocktype: u32,
    pub(super) bytes: Vec<u8>,
}

impl Log {
    /// The log, where it holds something.
    pub(super) fn open(volume: &Volume, file: Arc<Disk>) -> Result<Option<Log>> {
        let block_size = volume.superblock.block_size;
        let mut bytes = [0; SUPERBLOCK_LEN];
        let short = |e: Error| Error::corrupt("the journal is shorter than its superblock").caused_by(e);
        file.read_at(0, &mut bytes, Wait::Allowed).map_err(short)?;
        let blocks = file.len().checked_div(block_size).unwrap_or(0);
        let superblock = Superblock::decode(&bytes, blocks, block_size)?;
        // A journal is not larger than the disk it is on, however often its map names the same blocks.
        if superblock.total > MAX_BLOCKS || u64::from(superblock.total) > volume.superblock.blocks_count {
            return Err(Error::corrupt("the journal is longer than any can be"));
        }
        let length = u64::from(superblock.total).saturating_mul(block_size);
        if length > Disk::len(&volume.disk) {
            return Err(Error::corrupt("the journal is longer than the disk"));
        }
        Ok((superblock.start != 0).then_some(Log { file, block_size, superblock }))
    }

    /// The bytes of a block of the journal.
    pub(super) fn read(&self, block: u32) -> Result<Vec<u8>> {
        if block >= self.superblock.total {
            return Err(Error::corrupt("the log leads past the end of the journal"));
        }
        let mut bytes = vec![0; usize::try_from(self.block_size).unwrap_or(0)];
        self.file.read_at(self.at(block), &mut bytes, Wait::Allowed)?;
        Ok(bytes)
    }

    fn at(&self, block: u32) -> u64 {
        u64::from(block).saturating_mul(self.block_size)
    }

    /// Where on the disk a block of the journal is.
    pub(super) fn place(&self, block: u32) -> Result<u64> {
        let extent = self.file.extent_at(self.at(block), self.block_size, Wait::Allowed)?;
        match extent.place {
            Place::Raw { offset, .. } if extent.len == self.block_size => Ok(offset),
            _ => Err(Error::corrupt(format!("block {block} of the journal is nowhere"))),
        }
    }

    /// The block of the log that comes `by` behind this one.
    pub(super) fn behind(&self, block: u32, by: u32) -> u32 {
        let Superblock { first, last, .. } = self.superblock;
        let ring = last.saturating_sub(first).max(1);
        let from_first = u64::from(block.saturating_sub(first)).saturating_add(by.into());
        let within = from_first.checked_rem(ring.into()).unwrap_or(0);
        first.saturating_add(u32::try_from(within).unwrap_or(0))
    }

    /// Whether every block has a checksum.
    pub(super) fn every_block(&self) -> bool {
        matches!(self.superblock.checksums, Checksums::V2 | Checksums::V3)
    }

    /// How long a descriptor or revoke block is without its checksum.
    pub(super) fn room(&self, bytes: &[u8]) -> usize {
        bytes.len().saturating_sub(if self.every_block() { TAIL_LEN } else { 0 })
    }

    /// Whether a descriptor or revoke block matches its checksum, where it has one.
    pub(super) fn is_intact(&self, bytes: &[u8]) -> bool {
        let at = bytes.len().saturating_sub(TAIL_LEN);
        !self.every_block() || self.matches(bytes, at)
    }

    /// Whether a commit block does.
    pub(super) fn is_intact_commit(&self, bytes: &[u8]) -> bool {
        !self.every_block() || self.matches(bytes, COMMIT_CHECKSUM_AT)
    }

    fn matches(&self, bytes: &[u8], at: usize) -> bool {
        let stored = bytes.get(at..).and_then(|tail| tail.first_chunk::<4>());
        stored.is_some_and(|stored| self.superblock.seed.with_but(bytes, at, 4).0.to_be_bytes() == *stored)
    }

    /// Begins to walk at the oldest transaction.
    pub(super) fn walk(&self) -> Walk<'_> {
        let Superblock { start, sequence, total, .. } = self.superblock;
        Walk { log: self, next: start, sequence, left: total }
    }
}

/// Somebody on the way through the log.
pub(super) struct Walk<'a> {
    log: &'a Log,
    /// The next block to look at.
    next: u32,
    /// The transaction that it must be of.
    pub(super) sequence: u32,
    /// So many more blocks there can be: once around.
    left: u32,
}

impl Walk<'_> {
    /// The next block of the transaction; none where the log ends.
    pub(super) fn block(&mut self) -> Result<Option<Block>> {
        let Some(here) = self.take() else { return Ok(None) };
        let bytes = self.log.read(here)?;
        let header = bytes.get(..HEADER_LEN).and_then(|bytes| Header::read_from_bytes(bytes).ok());
        let ours = |header: &Header| header.magic.get() == MAGIC && header.sequence.get() == self.sequence;
        let block = header.filter(ours).map(|header| Block { blocktype: header.blocktype.get(), bytes });
        Ok(block.filter(|block| matches!(block.blocktype, DESCRIPTOR | COMMIT | REVOKE)))
    }

    /// The number of the next block, whatever it is; none where all were looked at.
    pub(super) fn take(&mut self) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        let here = self.next;
        self.next = self.log.behind(here, 1);
        Some(here)
    }

    /// Goes past the copies that a descriptor block names.
    pub(super) fn skip_copies(&mut self, descriptor: &[u8]) {
        let count = tag::count(self.log, descriptor);
        self.left = self.left.saturating_sub(count);
        self.next = self.log.behind(self.next, count);
    }

    /// Goes on with the next transaction.
    pub(super) fn next_transaction(&mut self) {
        self.sequence = self.sequence.wrapping_add(1);
    }
}

/// A commit block's fields.
pub(super) fn commit(bytes: &[u8]) -> Result<Commit> {
    let parsed = Commit::read_from_prefix(bytes).map(|(commit, _)| commit);
    parsed.map_err(|_| Error::corrupt("a commit block is cut short"))
}

/// The checksum of a copy that belongs to a transaction.
pub(super) fn of_copy(log: &Log, sequence: u32, bytes: &[u8]) -> Crc32c {
    log.superblock.seed.with(&sequence.to_be_bytes()).with(bytes)
}
