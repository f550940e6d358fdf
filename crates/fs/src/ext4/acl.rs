//! Access control lists: stored with less than the system calls give.

use zerocopy::FromBytes;
use zerocopy::little_endian::{U16, U32};

/// `a_version`, as it is stored.
const STORED_VERSION: u32 = 1;
/// The version of what `getxattr` gives.
const TOLD_VERSION: u32 = 2;
/// The entry of a user that is named.
const USER: u16 = 0x02;
/// The entry of a group that is named.
const GROUP: u16 = 0x08;
/// The entries that name nobody: the owner, the owning group, the mask, the others.
const UNNAMED: [u16; 4] = [0x01, 0x04, 0x10, 0x20];
/// Whom they name.
const NOBODY: u32 = u32::MAX;

/// A list as `getxattr` gives it; none where it is not as it should be.
pub(super) fn told(stored: &[u8]) -> Option<Vec<u8>> {
    let (version, mut rest) = U32::read_from_prefix(stored).ok()?;
    if version.get() != STORED_VERSION {
        return None;
    }
    let mut told = Vec::from(TOLD_VERSION.to_le_bytes());
    while !rest.is_empty() {
        let ([tag, permissions], behind) = <[U16; 2]>::read_from_prefix(rest).ok()?;
        rest = behind;
        let id = match tag.get() {
            USER | GROUP => {
                let (id, behind) = U32::read_from_prefix(rest).ok()?;
                rest = behind;
                id.get()
            }
            tag if UNNAMED.contains(&tag) => NOBODY,
            _ => return None,
        };
        told.extend_from_slice(&tag.get().to_le_bytes());
        told.extend_from_slice(&permissions.get().to_le_bytes());
        told.extend_from_slice(&id.to_le_bytes());
    }
    Some(told)
}
