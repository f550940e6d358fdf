//! The on-disk structures of partition tables, and nothing else.
//!
//! The master boot record as every PC reads it, and the GUID partition table of the UEFI specification, chapter 5.
//! All numbers are little-endian.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Whatever the size of a sector, a boot record has so many bytes.
pub const BOOT_RECORD_BYTES: usize = 512;
/// The last two bytes of a boot record.
pub const BOOT_SIGNATURE: [u8; 2] = [0x55, 0xaa];
/// The boot indicator of a partition that is booted.
pub const ACTIVE: u8 = 0x80;

/// Types of MBR partitions that mean something to a reader.
pub mod os_type {
    /// Holds other partitions.
    pub const EXTENDED: u8 = 0x05;
    /// The same, addressed by LBA.
    pub const EXTENDED_LBA: u8 = 0x0f;
    /// The same, as Linux knew it.
    pub const EXTENDED_LINUX: u8 = 0x85;
    /// Covers the disk for whoever does not know of the GPT.
    pub const PROTECTIVE: u8 = 0xee;
}

/// A partition in a boot record.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct BootEntry {
    /// 0, or [`ACTIVE`].
    pub boot_indicator: u8,
    /// Its beginning as cylinder, head, sector; not looked at.
    pub start_chs: [u8; 3],
    /// What is in it: [`os_type`].
    pub os_type: u8,
    /// Its end as cylinder, head, sector; not looked at.
    pub end_chs: [u8; 3],
    /// Its beginning, in sectors from where the record counts.
    pub start_sectors: U32,
    /// Its length, in sectors.
    pub len_sectors: U32,
}

/// A boot record: the master, or an extended one.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct BootRecord {
    /// A program.
    pub code: [u8; 440],
    /// What tells the disk from others.
    pub signature: U32,
    /// Nothing.
    pub reserved: [u8; 2],
    /// The partitions.
    pub entries: [BootEntry; 4],
    /// [`BOOT_SIGNATURE`].
    pub boot_signature: [u8; 2],
}

const _: () = assert!(size_of::<BootRecord>() == BOOT_RECORD_BYTES);

/// `EFI PART`.
pub const GPT_SIGNATURE: [u8; 8] = *b"EFI PART";
/// The header has so many bytes at least.
pub const GPT_HEADER_BYTES: usize = 92;
/// Where its own checksum is in it, which counts as zeros.
pub const GPT_HEADER_CRC: std::ops::Range<usize> = 16..20;
/// An entry has so many bytes, or that times a power of two.
pub const GPT_ENTRY_BYTES: u32 = 128;
/// An entry has so many bytes at most (ours).
pub const MAX_GPT_ENTRY_BYTES: u32 = 4096;
/// All entries together have so many bytes at most (Linux's limit).
pub const MAX_GPT_ENTRIES_BYTES: u64 = 4 << 20;
/// The attribute of a partition that old firmware boots.
pub const LEGACY_BOOTABLE: u64 = 1 << 2;

/// The header of a GUID partition table.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct GptHeader {
    /// [`GPT_SIGNATURE`].
    pub signature: [u8; 8],
    /// The version.
    pub revision: U32,
    /// How many bytes of the header count.
    pub header_size: U32,
    /// The checksum over them.
    pub header_crc32: U32,
    /// Nothing.
    pub reserved: U32,
    /// The sector this header is in.
    pub my_lba: U64,
    /// The sector the other header is in.
    pub alternate_lba: U64,
    /// The first sector a partition may have.
    pub first_usable_lba: U64,
    /// The last one.
    pub last_usable_lba: U64,
    /// What tells the disk from others.
    pub disk_guid: [u8; 16],
    /// The sector the entries begin in.
    pub partition_entry_lba: U64,
    /// How many there are.
    pub number_of_partition_entries: U32,
    /// How long each is.
    pub size_of_partition_entry: U32,
    /// The checksum over all of them.
    pub partition_entry_array_crc32: U32,
}

const _: () = assert!(size_of::<GptHeader>() == GPT_HEADER_BYTES);

/// An entry of a GUID partition table.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct GptEntry {
    /// What is in it; zeros if the entry is not used.
    pub partition_type_guid: [u8; 16],
    /// What tells it from others.
    pub unique_partition_guid: [u8; 16],
    /// Its first sector.
    pub starting_lba: U64,
    /// Its last sector.
    pub ending_lba: U64,
    /// Bits, of which [`LEGACY_BOOTABLE`] is one.
    pub attributes: U64,
    /// Its name in UTF-16, up to a zero.
    pub partition_name: [[u8; 2]; 36],
}

const _: () = assert!(size_of::<GptEntry>() == 128);
