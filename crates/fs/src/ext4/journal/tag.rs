//! Tags: what a descriptor block says of the copies that follow it.

use super::layout::{
    HEADER_LEN, TAG_ESCAPED, TAG_HIGH_LEN, TAG_LAST, TAG_LEN, TAG_SAME_UUID, TAG_UUID_LEN, TAG_V2_MORE,
    TAG_V3_LEN, Tag, TagV3,
};
use super::log::Log;
use super::superblock::Checksums;
use crate::ext4::checksum::Crc32c;
use zerocopy::FromBytes;
use zerocopy::big_endian::U32;

/// What is said of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Of which block it is.
    pub(super) block: u64,
    pub(super) escaped: bool,
    /// Its checksum, where there is one: as much of it as there is.
    checksum: Option<Stored>,
    last: bool,
    /// How long the tag is, with what follows it.
    len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    Half(u16),
    Whole(u32),
}

impl Named {
    /// Whether a copy with this checksum is the right one.
    pub(super) fn is(&self, crc: Crc32c) -> bool {
        match self.checksum {
            None => true,
            Some(Stored::Half(half)) => crc.low() == half,
            Some(Stored::Whole(whole)) => crc.0 == whole,
        }
    }
}

/// How long a tag is without a UUID.
fn len(log: &Log) -> usize {
    let high = if log.superblock.wide { TAG_HIGH_LEN } else { 0 };
    match log.superblock.checksums {
        Checksums::V3 => TAG_V3_LEN,
        Checksums::V2 => TAG_LEN.saturating_add(TAG_V2_MORE).saturating_add(high),
        Checksums::None | Checksums::V1 => TAG_LEN.saturating_add(high),
    }
}

fn parse(log: &Log, bytes: &[u8]) -> Option<Named> {
    let (low, high, flags, checksum) = match log.superblock.checksums {
        Checksums::V3 => {
            let (tag, _) = TagV3::read_from_prefix(bytes).ok()?;
            (tag.blocknr, tag.blocknr_high, tag.flags.get(), Some(Stored::Whole(tag.checksum.get())))
        }
        kind => {
            let (tag, behind) = Tag::read_from_prefix(bytes).ok()?;
            let high = if log.superblock.wide { U32::read_from_prefix(behind).ok()?.0 } else { U32::ZERO };
            let checksum = (kind == Checksums::V2).then_some(Stored::Half(tag.checksum.get()));
            (tag.blocknr, high, tag.flags.get().into(), checksum)
        }
    };
    let high = if log.superblock.wide { u64::from(high.get()) } else { 0 };
    let uuid = if flags & TAG_SAME_UUID == 0 { TAG_UUID_LEN } else { 0 };
    Some(Named {
        block: high << 32 | u64::from(low.get()),
        escaped: flags & TAG_ESCAPED != 0,
        checksum,
        last: flags & TAG_LAST != 0,
        len: len(log).saturating_add(uuid),
    })
}

/// The tags of a descriptor block: up to the one that says it is the last, or as many as there is room for.
pub(super) fn all<'a>(log: &'a Log, descriptor: &'a [u8]) -> impl Iterator<Item = Named> + 'a {
    let mut rest = descriptor.get(HEADER_LEN..log.room(descriptor));
    std::iter::from_fn(move || {
        let bytes = rest.filter(|bytes| bytes.len() >= len(log))?;
        let named = parse(log, bytes)?;
        rest = bytes.get(named.len..).filter(|_| !named.last);
        Some(named)
    })
}

/// How many there are.
pub(super) fn count(log: &Log, descriptor: &[u8]) -> u32 {
    u32::try_from(all(log, descriptor).count()).unwrap_or(u32::MAX)
}
