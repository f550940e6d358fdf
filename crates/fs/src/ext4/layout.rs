//! The on-disk structures of ext2, ext3 and ext4, as `Documentation/filesystems/ext4` of Linux specifies them, and
//! nothing else. All numbers are little-endian; the journal's, which are not, are in [`super::journal`].
//!
//! Field names are the specification's, without their prefixes.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// Where the superblock is, and how long.
pub(super) const SUPERBLOCK_AT: u64 = 1024;
/// See [`SUPERBLOCK_AT`].
pub(super) const SUPERBLOCK_LEN: usize = 1024;
/// `s_magic`.
pub(super) const MAGIC: u16 = 0xef53;
/// The smallest block: 1 KiB.
pub(super) const MIN_BLOCK_BITS: u32 = 10;
/// The largest block: 64 KiB.
pub(super) const MAX_BLOCK_BITS: u32 = 16;
/// Inodes of the first revision, and the part that all have.
pub(super) const GOOD_OLD_INODE_SIZE: usize = 128;
/// The first inode that is not reserved, in the first revision.
pub(super) const GOOD_OLD_FIRST_INO: u32 = 11;
/// The root directory.
pub(super) const ROOT_INO: u32 = 2;
/// A group descriptor without the feature `64bit`.
pub(super) const MIN_DESC_SIZE: u64 = 32;
/// The shortest one with it.
pub(super) const MIN_DESC_SIZE_64BIT: u64 = 64;
/// The longest one.
pub(super) const MAX_DESC_SIZE: u64 = 1024;
/// `s_flags`: names are hashed as unsigned bytes.
pub(super) const FLAGS_UNSIGNED_HASH: u32 = 2;
/// `s_checksum_type`: crc32c, the only one.
pub(super) const CHECKSUM_CRC32C: u8 = 1;
/// Where the superblock's own checksum is, which is its last field.
pub(super) const SUPERBLOCK_CHECKSUM_AT: usize = 0x3fc;

/// The superblock, as far as a reader needs it.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct RawSuperblock {
    pub(super) inodes_count: U32,
    pub(super) blocks_count_lo: U32,
    _r_blocks_count_lo: U32,
    _free_blocks_count_lo: U32,
    _free_inodes_count: U32,
    pub(super) first_data_block: U32,
    pub(super) log_block_size: U32,
    _log_cluster_size: U32,
    pub(super) blocks_per_group: U32,
    _clusters_per_group: U32,
    pub(super) inodes_per_group: U32,
    _mtime_wtime: [U32; 2],
    _mnt_counts: [U16; 2],
    pub(super) magic: U16,
    _state_errors_minor: [U16; 3],
    _lastcheck_checkinterval: [U32; 2],
    _creator_os: U32,
    pub(super) rev_level: U32,
    _def_resuid_resgid: [U16; 2],
    pub(super) first_ino: U32,
    pub(super) inode_size: U16,
    _block_group_nr: U16,
    pub(super) feature_compat: U32,
    pub(super) feature_incompat: U32,
    pub(super) feature_ro_compat: U32,
    pub(super) uuid: [u8; 16],
    pub(super) volume_name: [u8; 16],
    _last_mounted: [u8; 64],
    _algorithm_usage_bitmap: U32,
    _prealloc_reserved_gdt: [U16; 2],
    _journal_uuid: [u8; 16],
    pub(super) journal_inum: U32,
    _journal_dev: U32,
    _last_orphan: U32,
    pub(super) hash_seed: [U32; 4],
    _def_hash_version_jnl_backup_type: [u8; 2],
    pub(super) desc_size: U16,
    _default_mount_opts: U32,
    pub(super) first_meta_bg: U32,
    _mkfs_time: U32,
    _jnl_blocks: [U32; 17],
    pub(super) blocks_count_hi: U32,
    _r_free_blocks_count_hi: [U32; 2],
    _min_want_extra_isize: [U16; 2],
    pub(super) flags: U32,
    _raid_mmp: [u8; 16],
    _log_groups_per_flex: u8,
    pub(super) checksum_type: u8,
    _reserved_pad: U16,
    _written_snapshots_errors_mount_opts: [u8; 0xc8],
    _quota_inums_overhead: [U32; 3],
    pub(super) backup_bgs: [U32; 2],
    _encrypt_lpf_ino_prj_quota: [u8; 28],
    pub(super) checksum_seed: U32,
}

const _: () = assert!(size_of::<RawSuperblock>() == 0x274);

/// A group descriptor's first half.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct RawGroup {
    _block_bitmap_lo: U32,
    _inode_bitmap_lo: U32,
    pub(super) inode_table_lo: U32,
    _counts: [U16; 3],
    _flags: U16,
    _exclude_bitmap_lo: U32,
    _bitmap_csums_itable_unused: [U16; 3],
    pub(super) checksum: U16,
}

const _: () = assert!(size_of::<RawGroup>() == 32);

/// Where a group descriptor's checksum is.
pub(super) const GROUP_CHECKSUM_AT: usize = 0x1e;
/// Where the high half of `bg_inode_table` is.
pub(super) const GROUP_INODE_TABLE_HI_AT: usize = 0x28;

/// The part of an inode that all have.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct RawInode {
    pub(super) mode: U16,
    pub(super) uid: U16,
    pub(super) size_lo: U32,
    pub(super) atime: U32,
    pub(super) ctime: U32,
    pub(super) mtime: U32,
    _dtime: U32,
    pub(super) gid: U16,
    pub(super) links_count: U16,
    pub(super) blocks_lo: U32,
    pub(super) flags: U32,
    _osd1: U32,
    pub(super) block: [u8; 60],
    pub(super) generation: U32,
    pub(super) file_acl_lo: U32,
    pub(super) size_high: U32,
    _obso_faddr: U32,
    pub(super) blocks_high: U16,
    pub(super) file_acl_high: U16,
    pub(super) uid_high: U16,
    pub(super) gid_high: U16,
    pub(super) checksum_lo: U16,
    _reserved: U16,
}

const _: () = assert!(size_of::<RawInode>() == GOOD_OLD_INODE_SIZE);

/// Where `i_block` is in an inode.
pub(super) const INODE_BLOCK_AT: usize = 0x28;
/// Where `i_checksum_lo` is.
pub(super) const INODE_CHECKSUM_LO_AT: usize = 0x7c;
/// Where `i_checksum_hi` is, and where it ends.
pub(super) const INODE_CHECKSUM_HI_AT: usize = 0x82;

/// What follows in longer inodes, of which `extra_isize` bytes are valid.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct RawExtra {
    pub(super) extra_isize: U16,
    pub(super) checksum_hi: U16,
    pub(super) ctime_extra: U32,
    pub(super) mtime_extra: U32,
    pub(super) atime_extra: U32,
    pub(super) crtime: U32,
    pub(super) crtime_extra: U32,
}

/// `i_flags`: compressed, by a patch that never became part of Linux.
pub(super) const COMPR_FL: u32 = 0x4;
/// `i_flags`: encrypted.
pub(super) const ENCRYPT_FL: u32 = 0x800;
/// `i_flags`: a directory with an index.
pub(super) const INDEX_FL: u32 = 0x1000;
/// `i_flags`: `i_blocks` counts blocks of the file system.
pub(super) const HUGE_FILE_FL: u32 = 0x4_0000;
/// `i_flags`: mapped by extents.
pub(super) const EXTENTS_FL: u32 = 0x8_0000;
/// `i_flags`: holds the value of an extended attribute.
pub(super) const EA_INODE_FL: u32 = 0x20_0000;
/// `i_flags`: its bytes are in the inode.
pub(super) const INLINE_DATA_FL: u32 = 0x1000_0000;
/// `i_flags`: a directory whose names are looked up whatever their case.
pub(super) const CASEFOLD_FL: u32 = 0x4000_0000;

/// What begins every node of an extent tree.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct ExtentHeader {
    pub(super) magic: U16,
    pub(super) entries: U16,
    pub(super) max: U16,
    pub(super) depth: U16,
    _generation: U32,
}

/// `eh_magic`.
pub(super) const EXTENT_MAGIC: u16 = 0xf30a;
/// Trees are no deeper.
pub(super) const MAX_EXTENT_DEPTH: u16 = 5;
/// `ee_len` above this: that much less, and never written.
pub(super) const MAX_INIT_LEN: u16 = 32768;

/// An entry of an inner node.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct ExtentIndex {
    pub(super) block: U32,
    pub(super) leaf_lo: U32,
    pub(super) leaf_hi: U16,
    _unused: U16,
}

/// An entry of a leaf.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct RawExtent {
    pub(super) block: U32,
    pub(super) len: U16,
    pub(super) start_hi: U16,
    pub(super) start_lo: U32,
}

/// All entries of extent nodes, and their header, are so long.
pub(super) const EXTENT_ENTRY_LEN: usize = 12;

/// What begins a directory entry.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct RawEntry {
    pub(super) inode: U32,
    pub(super) rec_len: U16,
    pub(super) name_len: u8,
    /// The high byte of the name's length where the feature `filetype` is missing.
    pub(super) file_type: u8,
}

/// How long that is.
pub(super) const ENTRY_HEAD_LEN: usize = 8;
/// The entry at the end of a directory's block that holds its checksum.
pub(super) const ENTRY_TAIL_LEN: usize = 12;
/// Its `file_type`.
pub(super) const ENTRY_TAIL_TYPE: u8 = 0xde;

/// What the root of a directory's index begins with, behind the entries `.` and `..`.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct IndexInfo {
    pub(super) reserved_zero: U32,
    pub(super) hash_version: u8,
    pub(super) info_length: u8,
    pub(super) indirect_levels: u8,
    pub(super) unused_flags: u8,
}

/// Where that is in the root.
pub(super) const INDEX_INFO_AT: usize = 24;
/// How long it says to be.
pub(super) const INDEX_INFO_LEN: u8 = 8;
/// Where the entries begin in the root.
pub(super) const INDEX_ROOT_ENTRIES_AT: usize = 32;
/// Where they begin in any other node.
pub(super) const INDEX_NODE_ENTRIES_AT: usize = 8;
/// How long they are. The first one has the limit and the count in place of a hash.
pub(super) const INDEX_ENTRY_LEN: usize = 8;

/// An entry of an index.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct IndexEntry {
    pub(super) hash: U32,
    pub(super) block: U32,
}

/// What the first entry of an index has in place of a hash.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct IndexCount {
    pub(super) limit: U16,
    pub(super) count: U16,
}

/// What begins the extended attributes, in an inode and in a block.
pub(super) const XATTR_MAGIC: u32 = 0xea02_0000;
/// How long the header of a block of them is.
pub(super) const XATTR_HEADER_LEN: usize = 32;
/// Where its checksum is.
pub(super) const XATTR_CHECKSUM_AT: usize = 16;

/// What begins a block of extended attributes.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct XattrHeader {
    pub(super) magic: U32,
    _refcount: U32,
    pub(super) blocks: U32,
    _hash: U32,
    pub(super) checksum: U32,
}

/// An extended attribute, before its name.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct XattrEntry {
    pub(super) name_len: u8,
    pub(super) name_index: u8,
    pub(super) value_offs: U16,
    pub(super) value_inum: U32,
    pub(super) value_size: U32,
    _hash: U32,
}

/// How long that is.
pub(super) const XATTR_ENTRY_LEN: usize = 16;
