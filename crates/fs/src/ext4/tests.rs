//! What needs no file system to be told.

use super::acl;
use super::checksum::{Crc32c, crc16};
use super::feature::Incompat;
use super::hash::Hash;
use super::inode::time;
use crate::Time;

/// 11223344-5566-7788-99aa-bbccddeeff00
const SEED: [u32; 4] = [0x4433_2211, 0x8877_6655, 0xccbb_aa99, 0x00ff_eedd];

#[test]
fn hashes_are_those_that_debugfs_computes() {
    let names = ["a", "hello-world", "this-is-a-name-that-is-longer-than-thirty-two-bytes", "\u{e9}t\u{e9}"];
    let told = [
        (0, [0xe74b_53e2, 0xd42c_991a, 0xde31_b1ae, 0x70d7_b7fc]),
        (1, [0x8217_0af6, 0x7b2e_b4f6, 0xf2be_e8c8, 0x07d1_e2c2]),
        (2, [0xbdaa_08e6, 0x9283_2714, 0x6713_fbc0, 0xe7f2_c3d6]),
    ];
    for (version, hashes) in told {
        let signed = Hash::of(version, false, SEED).unwrap();
        assert_eq!(names.map(|name| signed.name(name.as_bytes())), hashes, "version {version}");
        // Of bytes below 128 the sign does not matter; of others it does.
        let unsigned = Hash::of(version + 3, false, SEED).unwrap();
        assert_eq!(unsigned, Hash::of(version, true, SEED).unwrap());
        assert_eq!(unsigned.name(b"hello-world"), signed.name(b"hello-world"));
        assert_ne!(unsigned.name("\u{e9}t\u{e9}".as_bytes()), signed.name("\u{e9}t\u{e9}".as_bytes()));
    }
    assert_eq!(Hash::of(1, false, [0; 4]).unwrap().name(b"hello-world"), 0x41a7_dafe);
    assert!(Hash::of(6, false, SEED).is_none());
}

#[test]
fn checksums_are_those_of_the_catalogues() {
    let check = b"123456789";
    assert_eq!(Crc32c::START.with(check).0, !0xe306_9283);
    assert_eq!(crc16(0, check), 0xbb3d);
    assert_eq!(Crc32c::START.with(b"12").with(b"3456789"), Crc32c::START.with(check));
    assert_eq!(Crc32c::START.with_but(check, 3, 2), Crc32c::START.with(b"123\0\x006789"));
    let halves = Crc32c(0x1234_5678);
    assert_eq!((halves.high(), halves.low()), (0x1234, 0x5678));
}

#[test]
fn times_have_a_sign_and_two_bits_more() {
    let at = |seconds, nanos| Time { seconds, nanos };
    assert_eq!(time(0, 0), at(0, 0));
    assert_eq!(time(0xffff_ffff, 0), at(-1, 0));
    assert_eq!(time(0x8000_0000, 0), at(-(1 << 31), 0));
    assert_eq!(time(0x8000_0000, 1), at(1 << 31, 0));
    assert_eq!(time(0x7fff_ffff, 3 | 999_999_999 << 2), at((3 << 32) + (1 << 31) - 1, 999_999_999));
    assert_eq!(time(0, u32::MAX).nanos, 999_999_999);
}

#[test]
fn access_control_lists_are_told_as_system_calls_do() {
    let stored = [1_u16, 0, 1, 6, 2, 4, 1234, 0, 4, 4, 16, 7, 32, 0];
    let stored: Vec<u8> = stored.into_iter().flat_map(u16::to_le_bytes).collect();
    let told = acl::told(&stored).unwrap();
    assert_eq!(told.len(), 4 + 5 * 8);
    assert_eq!(told[..4], [2, 0, 0, 0]);
    assert_eq!(told[4..12], [1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(told[12..20], [2, 0, 4, 0, 0xd2, 4, 0, 0]);
    for len in 0..stored.len() {
        let cut = acl::told(&stored[..len]);
        assert!(cut.is_none_or(|told| (told.len() - 4).is_multiple_of(8)), "{len}");
    }
    assert_eq!(acl::told(&[2, 0, 0, 0]), None);
    assert_eq!(acl::told(&[1, 0, 0, 0, 3, 0, 0, 0]), None);
}

#[test]
fn what_is_not_understood_is_named() {
    Incompat(Incompat::KNOWN).check().unwrap();
    let refused = |bits| Incompat(bits | Incompat::EXTENTS).check().unwrap_err().to_string();
    assert!(refused(Incompat::COMPRESSION).contains("compression"));
    assert!(refused(Incompat::JOURNAL_DEV).contains("another file system's journal"));
    assert!(refused(Incompat::DIRDATA | 1 << 30).ends_with("dirdata, 0x40000000"));
    assert!(refused(1 << 31).ends_with("0x80000000"));
}
