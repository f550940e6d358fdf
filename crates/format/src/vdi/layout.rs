//! The on-disk structures of VDI, version 1.1, and nothing else.
//!
//! All numbers are little-endian. Field names are those of the published descriptions (QEMU's driver, and the
//! structure in `kaitai_struct_formats`).

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What makes a file a VDI image.
pub const SIGNATURE: u32 = 0xbeda_107f;
/// Where that is: what stands before it is a text that differs from program to program.
pub const SIGNATURE_OFFSET: usize = 64;
/// The one version there is today: 1.1.
pub const VERSION: u32 = 0x0001_0001;
/// How long the header is, counted from `header_size` on, as it is written today.
pub const HEADER_SIZE: u32 = 0x190;

/// Values of `image_type`.
pub mod image_type {
    /// Blocks come to be when they are written.
    pub const DYNAMIC: u32 = 1;
    /// All blocks are there from the beginning.
    pub const STATIC: u32 = 2;
    /// What a disk was before, to be undone.
    pub const UNDO: u32 = 3;
    /// What has changed since a parent image.
    pub const DIFF: u32 = 4;
}

/// A sector: the unit of `disk_size`, and the only `sector_size` there is.
pub const SECTOR: u64 = 512;
/// A block: the size that every program reads.
pub const DEFAULT_BLOCK_BITS: u32 = 20;
/// The smallest block: a sector.
pub const MIN_BLOCK_BITS: u32 = 9;
/// The largest block that is read here, 64 MiB: a limit of ours, since a new block is filled in memory.
pub const MAX_BLOCK_BITS: u32 = 26;
/// A block map may have so many bytes, 32 TiB in blocks of 1 MiB: a limit of ours, since what it says of stored
/// blocks is kept in memory.
pub const MAX_MAP_BYTES: u64 = 128 << 20;

/// A map entry of a block that reads as zeros, and did not always.
pub const BLOCK_ZERO: u32 = 0xffff_fffe;
/// A map entry of a block that was never written.
pub const BLOCK_FREE: u32 = 0xffff_ffff;
/// Bytes in an entry of the block map.
pub const ENTRY: u64 = 4;

/// The first sector of the file.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Head {
    /// Which program made it, for people.
    pub text: [u8; 64],
    /// [`SIGNATURE`].
    pub signature: U32,
    /// [`VERSION`].
    pub version: U32,
    /// How long the header is, from this field on.
    pub header_size: U32,
    /// See [`image_type`].
    pub image_type: U32,
    /// Hints for VirtualBox.
    pub image_flags: U32,
    /// For people.
    pub description: [u8; 256],
    /// Where the block map is.
    pub offset_bmap: U32,
    /// Where the blocks begin.
    pub offset_data: U32,
    /// A geometry nobody uses.
    pub cylinders: U32,
    /// The same.
    pub heads: U32,
    /// The same.
    pub sectors: U32,
    /// [`SECTOR`].
    pub sector_size: U32,
    /// Nothing.
    pub unused1: U32,
    /// Bytes in the disk.
    pub disk_size: U64,
    /// Bytes of the disk in a block.
    pub block_size: U32,
    /// Bytes in front of each block that are not the disk's.
    pub block_extra: U32,
    /// Entries in the block map.
    pub blocks_in_image: U32,
    /// How many blocks the file holds: where the next one goes.
    pub blocks_allocated: U32,
    /// What tells this image from all others.
    pub uuid_image: [u8; 16],
    /// Another one whenever the image has been written to.
    pub uuid_last_snap: [u8; 16],
    /// Of the parent: what tells that from all others.
    pub uuid_link: [u8; 16],
    /// Of the parent: its `uuid_last_snap`.
    pub uuid_parent: [u8; 16],
    /// Another geometry: cylinders, heads, sectors, sector size.
    pub lchs_geometry: [U32; 4],
    /// Nothing.
    pub unused2: [u8; 40],
}
const _: () = assert!(size_of::<Head>() == 512);
