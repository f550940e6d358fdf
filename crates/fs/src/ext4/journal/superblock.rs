//! The journal's superblock.

use super::layout::{
    CHECKSUM_CRC32C, COMPAT_CHECKSUM, DEFAULT_FC_BLOCKS, INCOMPAT_64BIT, INCOMPAT_CSUM_V2, INCOMPAT_CSUM_V3,
    INCOMPAT_FAST_COMMIT, INCOMPAT_KNOWN, MAGIC, RawSuperblock, SUPERBLOCK_CHECKSUM_AT, SUPERBLOCK_LEN,
    SUPERBLOCK_V1, SUPERBLOCK_V2,
};
use crate::ext4::checksum::Crc32c;
use chart::{Error, Result};
use zerocopy::FromBytes;

/// Which checksums there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checksums {
    None,
    /// One of a whole transaction, in its commit block.
    V1,
    /// One of every block, of which the tags have the lower half.
    V2,
    /// One of every block.
    V3,
}

/// What the journal says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Superblock {
    pub(super) checksums: Checksums,
    pub(super) wide: bool,
    pub(super) seed: Crc32c,
    /// How many blocks there are in all.
    pub(super) total: u32,
    /// The first block of the log, and the one behind its last.
    pub(super) first: u32,
    pub(super) last: u32,
    /// Where the oldest transaction begins; 0 where there is none.
    pub(super) start: u32,
    /// Its number.
    pub(super) sequence: u32,
    /// Whether blocks behind the log's last are for fast commits.
    pub(super) fast: bool,
}

fn corrupt(what: &'static str) -> Error {
    Error::corrupt(what)
}

impl Superblock {
    /// Of these bytes, in a file of so many blocks of this size.
    pub(super) fn decode(bytes: &[u8], blocks: u64, block_size: u64) -> Result<Superblock> {
        let raw = RawSuperblock::read_from_prefix(bytes).map_err(|_| corrupt("the journal is cut short"))?.0;
        if raw.header.magic.get() != MAGIC {
            return Err(corrupt("the journal has no superblock"));
        }
        let (compat, incompat) = match raw.header.blocktype.get() {
            SUPERBLOCK_V1 => (0, 0),
            SUPERBLOCK_V2 => (raw.feature_compat.get(), raw.feature_incompat.get()),
            _ => return Err(corrupt("the journal has no superblock")),
        };
        let unknown = incompat & !INCOMPAT_KNOWN;
        if unknown != 0 {
            let what = format!("the journal has features that are not understood here: {unknown:#x}");
            return Err(Error::unsupported(what));
        }
        let checksums = checksums(compat, incompat)?;
        if matches!(checksums, Checksums::V2 | Checksums::V3) {
            verify(&raw, bytes)?;
        }
        if raw.header.blocktype.get() == SUPERBLOCK_V2 && raw.nr_users.get() > 1 {
            return Err(Error::unsupported("the journal is shared by several file systems"));
        }
        let fast = incompat & INCOMPAT_FAST_COMMIT != 0;
        let of_fast = match raw.num_fc_blks.get() {
            _ if !fast => 0,
            0 => DEFAULT_FC_BLOCKS,
            some => some,
        };
        let total = raw.maxlen.get();
        let (first, start) = (raw.first.get(), raw.start.get());
        let last = total.checked_sub(of_fast).filter(|last| first > 0 && first < *last);
        let last = last.ok_or_else(|| corrupt("the journal has no room for a log"))?;
        if u64::from(raw.blocksize.get()) != block_size || u64::from(total) > blocks || start >= last {
            return Err(corrupt("the journal has an impossible shape"));
        }
        let wide = incompat & INCOMPAT_64BIT != 0;
        let seed = Crc32c::START.with(&raw.uuid);
        let sequence = raw.sequence.get();
        Ok(Superblock { checksums, wide, seed, total, first, last, start, sequence, fast })
    }
}

fn checksums(compat: u32, incompat: u32) -> Result<Checksums> {
    let has = |features: u32, bit: u32| features & bit != 0;
    let v1 = has(compat, COMPAT_CHECKSUM);
    match (v1, has(incompat, INCOMPAT_CSUM_V2), has(incompat, INCOMPAT_CSUM_V3)) {
        (false, false, false) => Ok(Checksums::None),
        (true, false, false) => Ok(Checksums::V1),
        (false, true, false) => Ok(Checksums::V2),
        (false, false, true) => Ok(Checksums::V3),
        _ => Err(corrupt("the journal has checksums of more than one kind")),
    }
}

fn verify(raw: &RawSuperblock, bytes: &[u8]) -> Result<()> {
    if raw.checksum_type != CHECKSUM_CRC32C {
        return Err(Error::unsupported("the journal has checksums other than crc32c"));
    }
    let all = bytes.get(..SUPERBLOCK_LEN).unwrap_or_default();
    let stored = all.get(SUPERBLOCK_CHECKSUM_AT..).and_then(|bytes| bytes.first_chunk::<4>());
    let crc = Crc32c::START.with_but(all, SUPERBLOCK_CHECKSUM_AT, 4).0;
    match stored {
        Some(stored) if crc.to_be_bytes() == *stored => Ok(()),
        _ => Err(corrupt("the journal's superblock does not match its checksum")),
    }
}
