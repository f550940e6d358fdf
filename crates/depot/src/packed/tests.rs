#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

use super::{FANOUT, MOST, Page, pack, unpack};
use crate::word::{BIRTHS, VALUES, Word};
use testkit::Rng;

fn pages() -> Vec<Page> {
    let mut rng = Rng::new(7);
    let mut pages = vec![[0; FANOUT], [Word::zero(3).bits(); FANOUT]];
    for (spread, births, every) in
        [(0, 1, 1), (1 << 10, 4, 1), (VALUES - 300, BIRTHS - 1, 1), (1 << 24, 1000, 2), (99, 9, 100)]
    {
        let mut page = [0; FANOUT];
        for (i, word) in page.iter_mut().enumerate() {
            if rng.once_in(every) {
                let value = 2 + i as u64 + rng.below(spread);
                *word = Word::new(value, rng.below(births.into()) as u32).bits();
            }
        }
        pages.push(page);
    }
    pages
}

#[test]
fn what_is_packed_comes_back() {
    for page in pages() {
        let bytes = pack(42, &page);
        assert!(bytes.len() <= MOST);
        let mut again = [1; FANOUT];
        unpack(42, &bytes, &mut again).unwrap();
        assert!(page == again);
        let mut more = bytes.clone();
        more.extend([0xff; 40]);
        unpack(42, &more, &mut again).unwrap();
        assert!(page == again);
        assert!(unpack(43, &bytes, &mut again).is_err());
    }
}

#[test]
fn never_more_than_eight_bytes_a_block_and_a_header() {
    for page in pages() {
        let many = page.iter().filter(|&&w| w != 0).count();
        assert!(pack(2, &page).len() <= 64 + 8 * many);
    }
    // In a row, and of one version: nothing but the header.
    let row: Page = std::array::from_fn(|i| Word::new(1000 + i as u64, 9).bits());
    assert_eq!(pack(2, &row).len(), 32);
}

#[test]
fn whatever_is_damaged_is_refused() {
    let mut rng = Rng::new(1);
    for page in pages() {
        let bytes = pack(42, &page);
        for _ in 0..500 {
            let mut bad = bytes.clone();
            let at = rng.below(bad.len() as u64) as usize;
            bad[at] ^= 1 << rng.below(8);
            assert!(unpack(42, &bad, &mut [0; FANOUT]).is_err());
            // And with a checksum that fits: refused, or at least nothing that a word cannot hold.
            let sum = crc32c::crc32c(&bad[4..]).to_le_bytes();
            bad[..4].copy_from_slice(&sum);
            let _ = unpack(42, &bad, &mut [0; FANOUT]);
        }
        for len in 0..bytes.len() {
            assert!(unpack(42, &bytes[..len], &mut [0; FANOUT]).is_err());
        }
    }
}
