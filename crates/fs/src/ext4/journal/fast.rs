//! Fast commits: what changed since the last commit, told in the terms of files instead of blocks.

use super::log::Log;
use super::superblock::Superblock;
use crate::ext4::checksum::Crc32c;
use chart::Result;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// What begins every record.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Record {
    tag: U16,
    len: U16,
}

/// `fc_tag`: the last record of a fast commit: its transaction, and the checksum of all before.
const TAIL: u16 = 8;
/// `fc_tag`: the first record of all: features, and the transaction.
const HEAD: u16 = 9;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Tail {
    tid: U32,
    crc: U32,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Head {
    _features: U32,
    tid: U32,
}

/// Whether there is a whole fast commit behind the last transaction.
pub(super) fn is_needed(log: &Log, transaction: u32) -> Result<bool> {
    let Superblock { fast, last, total, .. } = log.superblock;
    if !fast {
        return Ok(false);
    }
    let mut crc = Crc32c(0);
    // The block behind the log is left out, by whoever writes them.
    for block in last.saturating_add(1)..total {
        let bytes = log.read(block)?;
        let mut rest = bytes.as_slice();
        while let Ok((record, value)) = Record::read_from_prefix(rest) {
            let value = value.get(..record.len.get().into()).unwrap_or(value);
            let len = size_of::<Record>().saturating_add(value.len());
            match record.tag.get() {
                TAIL => {
                    let Ok((tail, _)) = Tail::read_from_prefix(value) else { return Ok(false) };
                    let covered = size_of::<Record>().saturating_add(size_of::<U32>());
                    let crc = crc.with(rest.get(..covered).unwrap_or_default());
                    return Ok(tail.tid.get() == transaction && tail.crc.get() == crc.0);
                }
                HEAD => {
                    let Ok((head, _)) = Head::read_from_prefix(value) else { return Ok(false) };
                    if head.tid.get() != transaction {
                        return Ok(false);
                    }
                }
                1..TAIL => {}
                _ => return Ok(false),
            }
            crc = crc.with(rest.get(..len).unwrap_or_default());
            rest = rest.get(len..).unwrap_or_default();
        }
    }
    Ok(false)
}
