//! Directory records: where something is, what it is called, and what else is said of it.

use super::layout::{Both16, Both32, DirectoryRecord, MAX_RECORD};
use super::number::to_u8;
use zerocopy::IntoBytes;

/// What a directory record says of an extent.
pub(super) struct Described {
    pub(super) sector: u32,
    pub(super) len: u32,
    pub(super) date: [u8; 7],
    pub(super) flags: u8,
}

/// How long the part of a record is that is not system use, for an identifier of so many bytes: always even.
fn fixed_len(identifier: usize) -> usize {
    size_of::<DirectoryRecord>().saturating_add(identifier).next_multiple_of(2)
}

/// How much room for system use there is in a record.
pub(super) fn room(identifier: usize) -> usize {
    MAX_RECORD.saturating_sub(fixed_len(identifier))
}

/// How long a record is.
pub(super) fn len(identifier: usize, system_use: usize) -> usize {
    fixed_len(identifier).saturating_add(system_use).next_multiple_of(2)
}

/// Adds a record.
pub(super) fn push(out: &mut Vec<u8>, described: &Described, identifier: &[u8], system_use: &[u8]) {
    let start = out.len();
    let record = DirectoryRecord {
        length: to_u8(len(identifier.len(), system_use.len())),
        extended_attribute_record_length: 0,
        location_of_extent: Both32::from(described.sector),
        data_length: Both32::from(described.len),
        recording_date_and_time: described.date,
        file_flags: described.flags,
        file_unit_size: 0,
        interleave_gap_size: 0,
        volume_sequence_number: Both16::from(1),
        length_of_file_identifier: to_u8(identifier.len()),
    };
    out.extend_from_slice(record.as_bytes());
    out.extend_from_slice(identifier);
    out.resize(start.saturating_add(fixed_len(identifier.len())), 0);
    out.extend_from_slice(system_use);
    out.resize(start.saturating_add(len(identifier.len(), system_use.len())), 0);
}
