//! The on-disk structures of the journal, as `Documentation/filesystems/ext4/journal.rst` of Linux specifies them.
//! All numbers are big-endian.

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// What begins every block of the journal that is no copy.
pub(super) const MAGIC: u32 = 0xc03b_3998;

/// See [`MAGIC`].
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct Header {
    pub(super) magic: U32,
    pub(super) blocktype: U32,
    pub(super) sequence: U32,
}

/// How long that is.
pub(super) const HEADER_LEN: usize = 12;

/// `h_blocktype`: names blocks whose copies follow.
pub(super) const DESCRIPTOR: u32 = 1;
/// `h_blocktype`: ends a transaction.
pub(super) const COMMIT: u32 = 2;
/// `h_blocktype`: the superblock of the first version.
pub(super) const SUPERBLOCK_V1: u32 = 3;
/// `h_blocktype`: that of the second.
pub(super) const SUPERBLOCK_V2: u32 = 4;
/// `h_blocktype`: names blocks whose earlier copies are void.
pub(super) const REVOKE: u32 = 5;

/// The journal's superblock.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct RawSuperblock {
    pub(super) header: Header,
    pub(super) blocksize: U32,
    pub(super) maxlen: U32,
    pub(super) first: U32,
    pub(super) sequence: U32,
    pub(super) start: U32,
    _errno: U32,
    pub(super) feature_compat: U32,
    pub(super) feature_incompat: U32,
    _feature_ro_compat: U32,
    pub(super) uuid: [u8; 16],
    pub(super) nr_users: U32,
    _dynsuper_max_transaction_max_trans_data: [U32; 3],
    pub(super) checksum_type: u8,
    _padding2: [u8; 3],
    pub(super) num_fc_blks: U32,
}

/// How long the superblock is, with what is reserved and a list of users.
pub(super) const SUPERBLOCK_LEN: usize = 1024;
/// Where its checksum is.
pub(super) const SUPERBLOCK_CHECKSUM_AT: usize = 0xfc;

/// `s_feature_compat`: commit blocks have a checksum of all blocks of the transaction.
pub(super) const COMPAT_CHECKSUM: u32 = 1;
/// `s_feature_incompat`: block numbers have 64 bits.
pub(super) const INCOMPAT_64BIT: u32 = 2;
/// `s_feature_incompat`: all blocks have checksums, copies of them 16 bits.
pub(super) const INCOMPAT_CSUM_V2: u32 = 8;
/// `s_feature_incompat`: all blocks have checksums.
pub(super) const INCOMPAT_CSUM_V3: u32 = 0x10;
/// `s_feature_incompat`: there is a part for fast commits.
pub(super) const INCOMPAT_FAST_COMMIT: u32 = 0x20;
/// `s_feature_incompat`: what is understood: revocations (1) and commit blocks that may be written before the
/// blocks they commit (4) too.
pub(super) const INCOMPAT_KNOWN: u32 = 0x3f;
/// `s_checksum_type`: crc32c.
pub(super) const CHECKSUM_CRC32C: u8 = 4;
/// `s_num_fc_blks` where it is 0.
pub(super) const DEFAULT_FC_BLOCKS: u32 = 256;

/// A tag of a descriptor block, with checksums of the third version.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct TagV3 {
    pub(super) blocknr: U32,
    pub(super) flags: U32,
    pub(super) blocknr_high: U32,
    pub(super) checksum: U32,
}

/// A tag without, before the high half of the block's number.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct Tag {
    pub(super) blocknr: U32,
    pub(super) checksum: U16,
    pub(super) flags: U16,
}

/// How long a tag of the third version is.
pub(super) const TAG_V3_LEN: usize = 16;
/// How long one without is.
pub(super) const TAG_LEN: usize = 8;
/// The high half of its block's number.
pub(super) const TAG_HIGH_LEN: usize = 4;
/// What tags of the second version are longer, for no reason.
pub(super) const TAG_V2_MORE: usize = 2;
/// A copy of the journal's UUID, behind tags that do not say they have the same as the one before.
pub(super) const TAG_UUID_LEN: usize = 16;

/// A tag's flag: the first four bytes of the copy were [`MAGIC`], and are zeros.
pub(super) const TAG_ESCAPED: u32 = 1;
/// A tag's flag: no UUID follows.
pub(super) const TAG_SAME_UUID: u32 = 2;
/// A tag's flag: it is the last one.
pub(super) const TAG_LAST: u32 = 8;

/// The checksum at the end of descriptor and revoke blocks.
pub(super) const TAIL_LEN: usize = 4;

/// A commit block.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct Commit {
    pub(super) header: Header,
    pub(super) chksum_type: u8,
    pub(super) chksum_size: u8,
    _padding: [u8; 2],
    pub(super) chksum: [U32; 8],
    pub(super) commit_sec: zerocopy::big_endian::U64,
}

/// Where a commit block's checksum is.
pub(super) const COMMIT_CHECKSUM_AT: usize = 16;
/// `h_chksum_type` of the first version of checksums, and how long they are.
pub(super) const COMMIT_CRC32: (u8, u8) = (1, 4);

/// A revoke block's header: how many of its bytes are used, these too.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct Revoke {
    pub(super) header: Header,
    pub(super) count: U32,
}

/// How long that is.
pub(super) const REVOKE_HEADER_LEN: usize = 16;
