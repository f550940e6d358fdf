//! The on-disk structures of qcow2, as `docs/interop/qcow2` of QEMU specifies them, and nothing else.
//!
//! All numbers are big-endian. Field names are the specification's.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `QFI\xfb`.
pub const MAGIC: u32 = 0x5146_49fb;

/// The smallest cluster: 512 bytes.
pub const MIN_CLUSTER_BITS: u32 = 9;
/// The largest cluster any implementation opens: 2 MiB.
pub const MAX_CLUSTER_BITS: u32 = 21;
/// The smallest cluster with extended L2 entries: 16 KiB.
pub const MIN_EXTENDED_L2_CLUSTER_BITS: u32 = 14;
/// Subclusters in a cluster, with extended L2 entries.
pub const SUBCLUSTERS: u64 = 32;
/// The widest refcount: 64 bits.
pub const MAX_REFCOUNT_ORDER: u32 = 6;

/// An L1 table may have so many bytes (QEMU's limit).
pub const MAX_L1_BYTES: u64 = 32 << 20;
/// A refcount table may have so many bytes (QEMU's limit).
pub const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
/// An image may have so many snapshots (QEMU's limit).
pub const MAX_SNAPSHOTS: u32 = 65536;
/// A snapshot table may have so many bytes (QEMU's limit).
pub const MAX_SNAPSHOT_TABLE_BYTES: u64 = 1024 * 65536;
/// A snapshot may have so many bytes of extra data (QEMU's limit).
pub const MAX_SNAPSHOT_EXTRA_BYTES: u32 = 1024;
/// An image may have so many bitmaps (QEMU's limit).
pub const MAX_BITMAPS: u32 = 65535;
/// A bitmap directory may have so many bytes (QEMU's limit).
pub const MAX_BITMAP_DIRECTORY_BYTES: u64 = 1024 * 65535;
/// A bitmap table may have so many entries (QEMU's limit).
pub const MAX_BITMAP_TABLE_ENTRIES: u32 = 0x0800_0000;
/// A bitmap may have so many bytes (QEMU's limit).
pub const MAX_BITMAP_BYTES: u64 = 0x2000_0000;
/// A bitmap's name may have so many bytes (QEMU's limit).
pub const MAX_BITMAP_NAME_BYTES: u16 = 1023;
/// The granularities QEMU supports.
pub const BITMAP_GRANULARITY_BITS: std::ops::RangeInclusive<u8> = 9..=31;
/// A backing file's name may have so many bytes (the specification's limit).
pub const MAX_BACKING_NAME_BYTES: u32 = 1023;
/// A format's name may have so many bytes (QEMU's limit).
pub const MAX_FORMAT_NAME_BYTES: u32 = 15;
/// A header may have so many extensions (ours; there are six kinds).
pub const MAX_EXTENSIONS: usize = 1024;
/// Host offsets have 56 bits.
pub const MAX_HOST_OFFSET: u64 = (1 << 56) - 1;

/// The header's first 72 bytes, which are all of it in version 2.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct HeaderV2 {
    /// [`MAGIC`].
    pub magic: U32,
    /// 2 or 3.
    pub version: U32,
    /// Where the backing file's name is; 0 where there is none.
    pub backing_file_offset: U64,
    /// How long the backing file's name is.
    pub backing_file_size: U32,
    /// A cluster has `1 << cluster_bits` bytes.
    pub cluster_bits: U32,
    /// The disk's size in bytes.
    pub size: U64,
    /// 0 none, 1 AES, 2 LUKS.
    pub crypt_method: U32,
    /// Entries in the active L1 table.
    pub l1_size: U32,
    /// Where the active L1 table is.
    pub l1_table_offset: U64,
    /// Where the refcount table is.
    pub refcount_table_offset: U64,
    /// How many clusters the refcount table takes.
    pub refcount_table_clusters: U32,
    /// How many snapshots there are.
    pub nb_snapshots: U32,
    /// Where the snapshot table is.
    pub snapshots_offset: U64,
}
const _: () = assert!(size_of::<HeaderV2>() == 72);

/// What version 3 adds and must have: bytes 72 to 103.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct HeaderV3 {
    /// Features one must know to open the image.
    pub incompatible_features: U64,
    /// Features one need not know.
    pub compatible_features: U64,
    /// Features one must clear when writing without knowing them.
    pub autoclear_features: U64,
    /// A refcount has `1 << refcount_order` bits.
    pub refcount_order: U32,
    /// Where the header ends and its extensions begin.
    pub header_length: U32,
}
const _: () = assert!(size_of::<HeaderV3>() == 32);

/// Where the compression type is, in headers long enough.
pub const COMPRESSION_TYPE_OFFSET: usize = 104;
/// The length of a version 2 header.
pub const HEADER_V2_LENGTH: u32 = 72;
/// The least length of a version 3 header.
pub const MIN_HEADER_V3_LENGTH: u32 = 104;
/// The length of the headers written here: up to the compression type and its padding.
pub const HEADER_V3_LENGTH: u32 = 112;

/// Bits of `incompatible_features`.
pub mod incompatible {
    /// Refcounts may be stale.
    pub const DIRTY: u64 = 1 << 0;
    /// Structures may be corrupt; do not write.
    pub const CORRUPT: u64 = 1 << 1;
    /// Guest clusters are in another file.
    pub const DATA_FILE: u64 = 1 << 2;
    /// `compression_type` is not 0.
    pub const COMPRESSION: u64 = 1 << 3;
    /// L2 entries have 128 bits.
    pub const EXTENDED_L2: u64 = 1 << 4;
    /// All that are understood.
    pub const KNOWN: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2;
}

/// Bits of `compatible_features`.
pub mod compatible {
    /// A writer may leave refcounts stale, with the dirty bit set.
    pub const LAZY_REFCOUNTS: u64 = 1 << 0;
}

/// Bits of `autoclear_features`.
pub mod autoclear {
    /// The bitmaps extension is consistent.
    pub const BITMAPS: u64 = 1 << 0;
    /// The data file is a raw image of the disk.
    pub const DATA_FILE_RAW: u64 = 1 << 1;
    /// All that are understood.
    pub const KNOWN: u64 = BITMAPS | DATA_FILE_RAW;
}

/// Types of header extensions.
pub mod extension {
    /// The end of the extensions.
    pub const END: u32 = 0;
    /// The backing file's format, as a string.
    pub const BACKING_FORMAT: u32 = 0xe279_2aca;
    /// Names of feature bits.
    pub const FEATURE_NAMES: u32 = 0x6803_f857;
    /// Persistent bitmaps.
    pub const BITMAPS: u32 = 0x2385_2875;
    /// Where the encryption header is.
    pub const CRYPTO: u32 = 0x0537_be77;
    /// The data file's name, as a string.
    pub const DATA_FILE: u32 = 0x4441_5441;
}

/// What a header extension begins with.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct ExtensionHeader {
    /// One of [`extension`], or unknown.
    pub kind: U32,
    /// The length of its data, without padding to the next multiple of 8.
    pub length: U32,
}
const _: () = assert!(size_of::<ExtensionHeader>() == 8);

/// An entry of the feature name table.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct FeatureName {
    /// 0 incompatible, 1 compatible, 2 autoclear.
    pub kind: u8,
    /// Which bit.
    pub bit: u8,
    /// What it is called, padded with zeros.
    pub name: [u8; 46],
}
const _: () = assert!(size_of::<FeatureName>() == 48);

/// The bitmaps extension.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct BitmapsExtension {
    /// How many bitmaps there are.
    pub nb_bitmaps: U32,
    /// 0.
    pub reserved: U32,
    /// The length of the bitmap directory.
    pub bitmap_directory_size: U64,
    /// Where the bitmap directory is.
    pub bitmap_directory_offset: U64,
}
const _: () = assert!(size_of::<BitmapsExtension>() == 24);

/// The full disk encryption header pointer.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct CryptoExtension {
    /// Where the encryption header is.
    pub offset: U64,
    /// How long it is.
    pub length: U64,
}
const _: () = assert!(size_of::<CryptoExtension>() == 16);

/// What a snapshot table entry begins with.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct SnapshotHeader {
    /// Where the snapshot's L1 table is.
    pub l1_table_offset: U64,
    /// Entries in it.
    pub l1_size: U32,
    /// The length of the id.
    pub id_str_size: U16,
    /// The length of the name.
    pub name_size: U16,
    /// When it was taken, in seconds since 1970.
    pub date_sec: U32,
    /// The part of a second of that.
    pub date_nsec: U32,
    /// How long the guest had run.
    pub vm_clock_nsec: U64,
    /// The size of the VM state, where the extra data does not have it.
    pub vm_state_size: U32,
    /// The length of the extra data.
    pub extra_data_size: U32,
}
const _: () = assert!(size_of::<SnapshotHeader>() == 40);

/// What a bitmap directory entry begins with.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct BitmapHeader {
    /// Where the bitmap table is.
    pub bitmap_table_offset: U64,
    /// Entries in it.
    pub bitmap_table_size: U32,
    /// See [`bitmap_flag`].
    pub flags: U32,
    /// 1: dirty tracking.
    pub kind: u8,
    /// A bit stands for `1 << granularity_bits` bytes.
    pub granularity_bits: u8,
    /// The length of the name.
    pub name_size: U16,
    /// The length of the extra data.
    pub extra_data_size: U32,
}
const _: () = assert!(size_of::<BitmapHeader>() == 24);

/// Flags of a bitmap.
pub mod bitmap_flag {
    /// Not saved properly; its contents may be stale.
    pub const IN_USE: u32 = 1 << 0;
    /// It must follow all writes.
    pub const AUTO: u32 = 1 << 1;
    /// Unknown extra data does not matter.
    pub const EXTRA_DATA_COMPATIBLE: u32 = 1 << 2;
}
/// The type of a dirty tracking bitmap.
pub const BITMAP_DIRTY_TRACKING: u8 = 1;

/// Bit 63 of L1 and L2 entries: the refcount is exactly one.
pub const OFLAG_COPIED: u64 = 1 << 63;
/// Bit 62 of L2 entries: the cluster is compressed.
pub const OFLAG_COMPRESSED: u64 = 1 << 62;
/// Bit 0 of standard L2 entries: the cluster reads as zeros.
pub const OFLAG_ZERO: u64 = 1;
/// Bits 9 to 55 of L1, L2 and bitmap table entries: a host offset.
pub const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
/// The bits of an L1 entry that must be 0.
pub const L1_RESERVED: u64 = 0x7f00_0000_0000_01ff;
/// The bits of a standard L2 entry that must be 0.
pub const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;
/// The bits of a refcount table entry that must be 0.
pub const REFCOUNT_TABLE_RESERVED: u64 = 0x1ff;
/// The bits of a bitmap table entry that must be 0.
pub const BITMAP_TABLE_RESERVED: u64 = 0xff00_0000_0000_01fe;
/// The unit of a compressed cluster's stored length.
pub const COMPRESSED_SECTOR: u64 = 512;
