//! Passes over the log: where it ends, what was revoked, and which copy of which block is the last.
//!
//! What is believed and what is not is as in `e2fsck`: see `docs/filesystems/ext4.md`.

use super::layout::{COMMIT, COMMIT_CRC32, DESCRIPTOR, REVOKE, REVOKE_HEADER_LEN, Revoke};
use super::log::{self, Block, Log, Walk};
use super::superblock::Checksums;
use super::tag;
use chart::{Error, Result};
use std::collections::HashMap;
use zerocopy::FromBytes;
use zerocopy::big_endian::{U32, U64};

/// So many blocks may be revoked, and so many have copies: what a journal of 16 GiB can hold.
const MAX_RECORDS: usize = 4 << 20;

/// A copy of a block, in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    /// Which block of the journal it is.
    pub(super) at: u32,
    /// Its first four bytes were the journal's magic number, and are zeros.
    pub(super) escaped: bool,
}

/// What looking at a commit block came to.
enum Verdict {
    /// The transaction is whole.
    Whole,
    /// It is not, and what follows is not looked at.
    End,
    /// Its blocks are not what was written, though it was committed: then nothing in the log is believed.
    Broken,
}

/// What is known of the transaction that is being looked at.
struct Scan<'a> {
    log: &'a Log,
    walk: Walk<'a>,
    /// Of all blocks of the transaction, in the first version of checksums.
    crc: u32,
    /// A block did not match its checksum: it may be left from earlier rounds, or broken.
    suspicious: bool,
    /// When the transaction before was committed.
    before: u64,
}

/// The number of the transaction behind the last that is whole. None where nothing in the log can be believed.
pub(super) fn end(log: &Log) -> Result<Option<u32>> {
    let mut scan = Scan { log, walk: log.walk(), crc: !0, suspicious: false, before: 0 };
    while let Some(block) = scan.walk.block()? {
        match block.blocktype {
            DESCRIPTOR => scan.descriptor(&block)?,
            COMMIT => match scan.commit(&block)? {
                Verdict::Whole => scan.walk.next_transaction(),
                Verdict::End => break,
                Verdict::Broken => return Ok(None),
            },
            _ => scan.suspicious |= !log.is_intact(&block.bytes),
        }
    }
    Ok(Some(scan.walk.sequence))
}

impl Scan<'_> {
    fn descriptor(&mut self, block: &Block) -> Result<()> {
        self.suspicious |= !self.log.is_intact(&block.bytes);
        if self.log.superblock.checksums != Checksums::V1 {
            self.walk.skip_copies(&block.bytes);
            return Ok(());
        }
        self.crc = crc32_be(self.crc, &block.bytes);
        for _ in 0..tag::count(self.log, &block.bytes) {
            let Some(at) = self.walk.take() else { break };
            self.crc = crc32_be(self.crc, &self.log.read(at)?);
        }
        Ok(())
    }

    fn commit(&mut self, block: &Block) -> Result<Verdict> {
        let commit = log::commit(&block.bytes)?;
        let committed = commit.commit_sec.get();
        if self.suspicious {
            // What is older than the transaction before is left from an earlier round.
            return Ok(if committed >= self.before { Verdict::Broken } else { Verdict::End });
        }
        let [found, ..] = commit.chksum;
        let kind = (commit.chksum_type, commit.chksum_size);
        let of_all = (kind, found.get()) == (COMMIT_CRC32, self.crc) || (kind, found.get()) == ((0, 0), 0);
        let whole = match self.log.superblock.checksums {
            Checksums::V1 => of_all,
            _ => self.log.is_intact_commit(&block.bytes),
        };
        self.crc = !0;
        self.before = committed;
        Ok(if whole { Verdict::Whole } else { Verdict::End })
    }
}

/// Which copy of which block counts, of the transactions before `end`.
pub(super) fn copies(log: &Log, end: u32) -> Result<HashMap<u64, Copy>> {
    let revoked = revoked(log, end)?;
    let mut copies = HashMap::new();
    let mut walk = log.walk();
    while is_before(walk.sequence, end) {
        let Some(block) = walk.block()? else { break };
        match block.blocktype {
            DESCRIPTOR => {
                for named in tag::all(log, &block.bytes) {
                    let Some(at) = walk.take() else { break };
                    // A revocation speaks of its own transaction too: whoever wrote the block again after it would
                    // have taken the revocation back.
                    let void = revoked.get(&named.block).is_some_and(|&by| !is_before(by, walk.sequence));
                    if void || !is_right(log, walk.sequence, &named, at)? {
                        continue;
                    }
                    copies.insert(named.block, Copy { at, escaped: named.escaped });
                    limit(copies.len())?;
                }
            }
            COMMIT => walk.next_transaction(),
            _ => {}
        }
    }
    Ok(copies)
}

/// Whether a copy matches its checksum. One that does not is left out, and the block remains what it was.
fn is_right(log: &Log, sequence: u32, named: &tag::Named, at: u32) -> Result<bool> {
    Ok(!log.every_block() || named.is(log::of_copy(log, sequence, &log.read(at)?)))
}

/// By which transaction blocks were revoked last.
fn revoked(log: &Log, end: u32) -> Result<HashMap<u64, u32>> {
    let mut revoked = HashMap::new();
    let mut walk = log.walk();
    while is_before(walk.sequence, end) {
        let Some(block) = walk.block()? else { break };
        match block.blocktype {
            DESCRIPTOR => walk.skip_copies(&block.bytes),
            COMMIT => walk.next_transaction(),
            REVOKE => {
                for number in revocations(log, &block.bytes)? {
                    revoked.insert(number, walk.sequence);
                    limit(revoked.len())?;
                }
            }
            _ => {}
        }
    }
    Ok(revoked)
}

/// The blocks that a revoke block names.
fn revocations<'a>(log: &Log, bytes: &'a [u8]) -> Result<impl Iterator<Item = u64> + 'a> {
    let wrong = || Error::corrupt("a revoke block of the journal is longer than a block");
    let (header, _) = Revoke::read_from_prefix(bytes).map_err(|_| wrong())?;
    let used = usize::try_from(header.count.get()).unwrap_or(usize::MAX);
    let used = if used <= log.room(bytes) { used } else { return Err(wrong()) };
    let records = bytes.get(REVOKE_HEADER_LEN..used).unwrap_or_default();
    let wide = log.superblock.wide;
    Ok(records.chunks_exact(if wide { 8 } else { 4 }).map(move |record| match wide {
        true => U64::read_from_bytes(record).map_or(0, U64::get),
        false => U32::read_from_bytes(record).map_or(0, |number| number.get().into()),
    }))
}

fn limit(records: usize) -> Result<()> {
    if records <= MAX_RECORDS {
        return Ok(());
    }
    Err(Error::unsupported(format!("the journal speaks of more than {MAX_RECORDS} blocks")))
}

/// Whether a transaction comes before another: numbers begin again when they are used up.
pub(super) fn is_before(number: u32, other: u32) -> bool {
    number.wrapping_sub(other).cast_signed() < 0
}

/// The crc32 of Ethernet with its bits not reflected, going on from `crc`, not inverted.
pub(super) fn crc32_be(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, byte| {
        let [top, ..] = crc.to_be_bytes();
        let entry = CRC32_BE.get(usize::from(top ^ byte)).copied().unwrap_or(0);
        crc << 8 ^ entry
    })
}

const CRC32_BE: [u32; 256] = {
    let mut table = [0; 256];
    let mut rest: &mut [u32] = &mut table;
    let mut first = 0_u32;
    while let [entry, behind @ ..] = rest {
        let mut crc = first;
        let mut bit = 0_u8;
        while bit < 8 {
            crc = if crc & 0x8000_0000 != 0 { crc << 1 ^ 0x04c1_1db7 } else { crc << 1 };
            bit = bit.wrapping_add(1);
        }
        *entry = crc;
        rest = behind;
        first = first.wrapping_add(1 << 24);
    }
    table
};
