//! What needs no journal to be told.

use super::layout::{MAGIC, SUPERBLOCK_LEN};
use super::scan::{crc32_be, is_before};
use super::superblock::{Checksums, Superblock};
use chart::Kind;

#[test]
fn the_checksum_of_transactions_is_that_of_the_catalogues() {
    assert_eq!(crc32_be(!0, b"123456789"), 0x0376_e6e7);
}

#[test]
fn numbers_of_transactions_begin_again() {
    assert!(is_before(1, 2) && !is_before(2, 2) && !is_before(3, 2));
    assert!(is_before(u32::MAX, 0) && !is_before(0, u32::MAX));
}

/// A superblock of the second version: its first numbers, and features.
fn superblock(numbers: [u32; 6], compat: u32, incompat: u32) -> Vec<u8> {
    let [blocktype, maxlen, first, sequence, start, fast] = numbers;
    let words = [MAGIC, blocktype, 0, 1024, maxlen, first, sequence, start, 0, compat, incompat, 0];
    let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_be_bytes).collect();
    bytes.resize(SUPERBLOCK_LEN, 0);
    bytes[0x54..0x58].copy_from_slice(&fast.to_be_bytes());
    bytes
}

#[test]
fn superblocks_of_journals() {
    let decode =
        |numbers, compat, incompat| Superblock::decode(&superblock(numbers, compat, incompat), 4096, 1024);
    let plain = decode([4, 4096, 1, 7, 20, 0], 0, 2).unwrap();
    assert_eq!((plain.first, plain.last, plain.sequence, plain.start, plain.wide), (1, 4096, 7, 20, true));
    assert_eq!(decode([4, 4096, 1, 7, 20, 0], 1, 1).unwrap().checksums, Checksums::V1);
    // The first version has no features.
    let first = decode([3, 4096, 1, 7, 20, 0], 1, 2).unwrap();
    assert_eq!((first.checksums, first.wide), (Checksums::None, false));
    assert_eq!(decode([4, 4096, 1, 7, 20, 0], 0, 0x20).unwrap().last, 4096 - 256);
    assert_eq!(decode([4, 4096, 1, 7, 20, 100], 0, 0x20).unwrap().last, 4096 - 100);
    let kind = |numbers, compat, incompat| decode(numbers, compat, incompat).unwrap_err().kind();
    assert_eq!(kind([5, 4096, 1, 7, 20, 0], 0, 0), Kind::Corrupt);
    assert_eq!(kind([4, 5000, 1, 7, 20, 0], 0, 0), Kind::Corrupt);
    assert_eq!(kind([4, 4096, 0, 7, 20, 0], 0, 0), Kind::Corrupt);
    assert_eq!(kind([4, 4096, 1, 7, 4096, 0], 0, 0), Kind::Corrupt);
    assert_eq!(kind([4, 4096, 1, 7, 20, 9000], 0, 0x20), Kind::Corrupt);
    assert_eq!(kind([4, 4096, 1, 7, 20, 0], 1, 0x10), Kind::Corrupt);
    assert_eq!(kind([4, 4096, 1, 7, 20, 0], 0, 0x18), Kind::Corrupt);
    assert_eq!(kind([4, 4096, 1, 7, 20, 0], 0, 0x40), Kind::Unsupported);
    assert_eq!(kind([4, 4096, 1, 7, 20, 0], 0, 0x10), Kind::Unsupported);
}
