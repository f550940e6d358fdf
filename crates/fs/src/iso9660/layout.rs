//! The on-disk structures of ISO 9660, as ECMA-119 specifies them, with what Joliet, SUSP and Rock Ridge add;
//! and nothing else.
//!
//! Field names are the specification's. Most numbers are recorded twice, little-endian first.

use super::number::to_u8;
use zerocopy::byteorder::{big_endian, little_endian};
use zerocopy::{FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A logical sector, and a logical block: 2048 bytes.
pub(super) const SECTOR: u64 = 2048;
/// The first sectors are the system's (ECMA-119 6.2.1): left empty here.
pub(super) const SYSTEM_AREA_SECTORS: u64 = 16;
/// Sectors are counted in 32 bits.
pub(super) const MAX_SECTORS: u64 = 1 << 32;
/// The bytes of a directory are counted in 32 bits, and it has whole sectors.
pub(super) const MAX_DIRECTORY_SECTORS: u64 = (1 << 32) / SECTOR - 1;
/// So much of a file one record describes, if others follow: the most that 32 bits count in whole sectors.
pub(super) const SECTION: u64 = (1 << 32) - SECTOR;
/// A path table tells the parent of a directory as a number of 16 bits.
pub(super) const MAX_PARENTS: u32 = 65535;

/// `CD001` (8.1.2).
pub(super) const STANDARD_IDENTIFIER: [u8; 5] = *b"CD001";
/// The type of the primary volume descriptor (8.1.1).
pub(super) const PRIMARY: u8 = 1;
/// The type of a supplementary one.
pub(super) const SUPPLEMENTARY: u8 = 2;
/// The type of the one that ends their list.
pub(super) const TERMINATOR: u8 = 255;
/// What says that a supplementary descriptor is Joliet's, level 3.
pub(super) const JOLIET_ESCAPE: [u8; 3] = *b"%/E";

/// File flags (9.1.6): it is a directory.
pub(super) const DIRECTORY: u8 = 0x02;
/// File flags: another record describes what follows of the same file.
pub(super) const MULTI_EXTENT: u8 = 0x80;

/// The identifier of a directory in itself (6.8.2.2).
pub(super) const SELF: &[u8] = &[0];
/// The identifier of its parent.
pub(super) const PARENT: &[u8] = &[1];

/// A 16-bit number in both byte orders (7.2.3).
#[derive(IntoBytes, FromZeros, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct Both16 {
    little: little_endian::U16,
    big: big_endian::U16,
}

impl From<u16> for Both16 {
    fn from(n: u16) -> Self {
        Both16 { little: n.into(), big: n.into() }
    }
}

/// A 32-bit number in both byte orders (7.3.3).
#[derive(IntoBytes, FromZeros, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct Both32 {
    little: little_endian::U32,
    big: big_endian::U32,
}

impl From<u32> for Both32 {
    fn from(n: u32) -> Self {
        Both32 { little: n.into(), big: n.into() }
    }
}

/// A primary (8.4) or supplementary (8.5) volume descriptor.
#[derive(IntoBytes, FromZeros, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct VolumeDescriptor {
    pub(super) volume_descriptor_type: u8,
    pub(super) standard_identifier: [u8; 5],
    pub(super) volume_descriptor_version: u8,
    pub(super) volume_flags: u8,
    pub(super) system_identifier: [u8; 32],
    pub(super) volume_identifier: [u8; 32],
    pub(super) unused: [u8; 8],
    pub(super) volume_space_size: Both32,
    pub(super) escape_sequences: [u8; 32],
    pub(super) volume_set_size: Both16,
    pub(super) volume_sequence_number: Both16,
    pub(super) logical_block_size: Both16,
    pub(super) path_table_size: Both32,
    pub(super) location_of_type_l_path_table: little_endian::U32,
    pub(super) location_of_optional_type_l_path_table: little_endian::U32,
    pub(super) location_of_type_m_path_table: big_endian::U32,
    pub(super) location_of_optional_type_m_path_table: big_endian::U32,
    pub(super) directory_record_for_root_directory: [u8; 34],
    pub(super) volume_set_identifier: [u8; 128],
    pub(super) publisher_identifier: [u8; 128],
    pub(super) data_preparer_identifier: [u8; 128],
    pub(super) application_identifier: [u8; 128],
    pub(super) copyright_file_identifier: [u8; 37],
    pub(super) abstract_file_identifier: [u8; 37],
    pub(super) bibliographic_file_identifier: [u8; 37],
    pub(super) volume_creation_date_and_time: [u8; 17],
    pub(super) volume_modification_date_and_time: [u8; 17],
    pub(super) volume_expiration_date_and_time: [u8; 17],
    pub(super) volume_effective_date_and_time: [u8; 17],
    pub(super) file_structure_version: u8,
    pub(super) reserved: u8,
    pub(super) application_use: [u8; 512],
    pub(super) reserved_for_future: [u8; 653],
}
const _: () = assert!(size_of::<VolumeDescriptor>() == 2048);

/// The fixed part of a directory record (9.1). The identifier follows, a byte that makes the sum even, and the
/// system use.
#[derive(IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct DirectoryRecord {
    pub(super) length: u8,
    pub(super) extended_attribute_record_length: u8,
    pub(super) location_of_extent: Both32,
    pub(super) data_length: Both32,
    pub(super) recording_date_and_time: [u8; 7],
    pub(super) file_flags: u8,
    pub(super) file_unit_size: u8,
    pub(super) interleave_gap_size: u8,
    pub(super) volume_sequence_number: Both16,
    pub(super) length_of_file_identifier: u8,
}
const _: () = assert!(size_of::<DirectoryRecord>() == 33);

/// The longest directory record, which is even.
pub(super) const MAX_RECORD: usize = 254;

/// The fixed part of a path table record (9.4). The identifier follows, and a byte that makes the sum even.
#[derive(IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct PathTableRecord {
    pub(super) length_of_directory_identifier: u8,
    pub(super) extended_attribute_record_length: u8,
    /// In the byte order of its table.
    pub(super) location_of_extent: [u8; 4],
    /// In the byte order of its table.
    pub(super) parent_directory_number: [u8; 2],
}
const _: () = assert!(size_of::<PathTableRecord>() == 8);

/// The head of every system use field (SUSP 4.1): a signature, a length and a version, which is 1.
pub(super) const FIELD_HEAD: usize = 4;
/// How long a CE field is (SUSP 5.1): a block, an offset in it, and a length.
pub(super) const CE_LEN: usize = 28;
/// The check bytes of an SP field (SUSP 5.3).
pub(super) const SP_CHECK: [u8; 2] = [0xbe, 0xef];
/// What an ER field (SUSP 5.5) says of Rock Ridge, version 1.12: its identifier, what it is, where to ask.
pub(super) const ER: [&[u8]; 3] = [
    b"IEEE_P1282",
    b"THE IEEE P1282 PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS",
    b"PLEASE CONTACT THE IEEE STANDARDS DEPARTMENT, PISCATAWAY, NJ, USA FOR THE P1282 SPECIFICATION.",
];

/// The head of a system use field with a body of so many bytes.
pub(super) fn field_head(signature: [u8; 2], body: usize) -> [u8; FIELD_HEAD] {
    let [a, b] = signature;
    [a, b, to_u8(body.saturating_add(FIELD_HEAD)), 1]
}

/// NM and SL flags (RRIP 4.1.4, 4.1.3): the next field of this kind goes on.
pub(super) const CONTINUE: u8 = 0x01;
/// The longest part of a name in one NM field.
pub(super) const NM_MOST: usize = 250;
/// As many bytes of a name are read by Linux.
pub(super) const NM_LINUX: usize = 253;
/// The most bytes of component records in one SL field.
pub(super) const SL_MOST: usize = 250;
/// The head of a component record: flags and a length.
pub(super) const COMPONENT_HEAD: usize = 2;
/// Component flags: the next component record goes on with this name.
pub(super) const COMPONENT_CONTINUE: u8 = 0x01;
/// Component flags: it is `.`.
pub(super) const COMPONENT_CURRENT: u8 = 0x02;
/// Component flags: it is `..`.
pub(super) const COMPONENT_PARENT: u8 = 0x04;
/// Component flags: it is the root.
pub(super) const COMPONENT_ROOT: u8 = 0x08;

/// TF flags (RRIP 4.1.6): which times follow, in this order.
pub(super) const TF_CREATION: u8 = 0x01;
/// The time of the last modification.
pub(super) const TF_MODIFY: u8 = 0x02;
/// The time of the last access.
pub(super) const TF_ACCESS: u8 = 0x04;
/// The time of the last change of attributes.
pub(super) const TF_ATTRIBUTES: u8 = 0x08;
/// The times have 17 bytes rather than 7.
pub(super) const TF_LONG_FORM: u8 = 0x80;
