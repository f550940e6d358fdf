//! What else may be on a disk: marks of file systems, and of what holds some, that are not read here. Whoever is refused
//! wants to know what there is all the same.

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]
mod tests;

use chart::{Disk, Result, Wait};

/// Where a mark is, what it is, and whose: the name that `blkid` has, but for containers.
type Mark = (u64, &'static [u8], &'static str);

/// The longest of them.
const LONGEST: usize = 10;

/// In the order in which they are believed: what is written over something else often leaves marks of that.
const MARKS: &[Mark] = &[
    (0, b"LUKS\xba\xbe", "LUKS"),
    (3, b"-FVE-FS-", "BitLocker"),
    (0, b"XFSB", "xfs"),
    (65_600, b"_BHRfS_M", "btrfs"),
    (3, b"NTFS    ", "ntfs"),
    (3, b"EXFAT   ", "exfat"),
    (3, b"ReFS\0", "refs"),
    (0, b"hsqs", "squashfs"),
    (1024, b"\xe2\xe1\xf5\xe0", "erofs"),
    (1024, b"\x10\x20\xf5\xf2", "f2fs"),
    (32, b"NXSB", "apfs"),
    (1024, b"H+\0\x04", "hfsplus"),
    (1024, b"HX\0\x05", "hfsplus"),
    (65_588, b"ReIsEr", "reiserfs"),
    (32_768, b"JFS1", "jfs"),
    (4096, b"\xfc\x4e\x2b\xa9", "RAID"),
    // In any of the first four sectors.
    (24, b"LVM2 001", "LVM"),
    (536, b"LVM2 001", "LVM"),
    (1048, b"LVM2 001", "LVM"),
    (1560, b"LVM2 001", "LVM"),
    // In the last bytes of a page, of which there are two sizes in use.
    (4086, b"SWAPSPACE2", "swap"),
    (65_526, b"SWAPSPACE2", "swap"),
    (82, b"FAT32   ", "vfat"),
    (54, b"FAT16   ", "vfat"),
    (54, b"FAT12   ", "vfat"),
    (32_769, b"BEA01", "udf"),
    (32_769, b"CD001", "iso9660"),
];

/// What a disk holds that bears a mark and is not read here: `xfs`, `swap`, `LVM`.
pub fn mark(disk: &Disk) -> Result<Option<&'static str>> {
    for (at, bytes, name) in MARKS {
        if is_there(disk, *at, bytes)? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn is_there(disk: &Disk, at: u64, bytes: &[u8]) -> Result<bool> {
    let mut room = [0; LONGEST];
    let Some(found) = room.get_mut(..bytes.len()) else { return Ok(false) };
    let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if chart::check_range(disk.len(), at, len).is_err() {
        return Ok(false);
    }
    disk.read_at(at, found, Wait::Allowed)?;
    Ok(found == bytes)
}
