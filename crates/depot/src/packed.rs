//! A node as it is stored: packed, with a checksum.
//!
//! ```text
//! 0  crc32c of all that follows       16 smallest value (signed: less its rank where FLAT is not set)
//! 4  layout, 1                        24 smallest birth
//! 5  bits of a value                  28 how many words are not empty
//! 6  bits of a birth                  30 bytes, this header included
//! 7  flags                            32 which of the 256 words are not empty, unless ALL is set
//! 8  the node's number                .. the values, the births: differences from the smallest, packed
//! ```
//!
//! Places that lie in a row, as those written in a row do, take no bits for their values; blocks of one version none for
//! their births. Whatever is stored takes at most 64 bits a block, besides the header.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![deny(clippy::as_conversions)]

use crate::word::{BIRTH_BITS, BIRTHS, VALUE_BITS, VALUES, Word};
use chart::{Error, Result};

/// Words in a node.
pub(crate) const FANOUT: usize = 256;
/// A node as it is used: every word, empty or not.
pub(crate) type Page = [u64; FANOUT];

/// The most bytes a packed node takes.
pub(crate) const MOST: usize = 32 + 32 + FANOUT * 8 + 16;

const HEADER: usize = 32;
const LAYOUT: u8 = 1;
/// Every word is there: no bitmap.
const ALL: u8 = 1;
/// Values are stored as they are, not less their rank.
const FLAT: u8 = 2;

/// Numbers in a row, of a few bits each.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    held: u128,
    many: u32,
}

impl Bits {
    fn push(&mut self, value: u64, bits: u32) {
        self.held |= u128::from(value).wrapping_shl(self.many);
        self.many = self.many.saturating_add(bits);
        while self.many >= 8 {
            let [low, ..] = self.held.to_le_bytes();
            self.bytes.push(low);
            self.held = self.held.wrapping_shr(8);
            self.many = self.many.saturating_sub(8);
        }
    }

    fn end(mut self) -> Vec<u8> {
        if self.many > 0 {
            let [low, ..] = self.held.to_le_bytes();
            self.bytes.push(low);
        }
        self.bytes
    }
}

/// The same, being read.
struct Unbits<'b> {
    bytes: std::slice::Iter<'b, u8>,
    held: u128,
    many: u32,
}

impl<'b> Unbits<'b> {
    fn of(bytes: &'b [u8]) -> Self {
        Unbits { bytes: bytes.iter(), held: 0, many: 0 }
    }

    fn next(&mut self, bits: u32) -> Option<u64> {
        while self.many < bits {
            self.held |= u128::from(*self.bytes.next()?).wrapping_shl(self.many);
            self.many = self.many.saturating_add(8);
        }
        let mask = 1u128.wrapping_shl(bits).wrapping_sub(1);
        let value = u64::try_from(self.held & mask).ok()?;
        self.held = self.held.wrapping_shr(bits);
        self.many = self.many.saturating_sub(bits);
        Some(value)
    }
}

/// How many bits it takes to tell numbers up to `most` apart.
fn bits_of(most: u64) -> u32 {
    u64::BITS.saturating_sub(most.leading_zeros())
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The smallest of some numbers, and how far the others are from it.
fn frame(numbers: &[i64]) -> (i64, Vec<u64>, u32) {
    let least = numbers.iter().copied().min().unwrap_or(0);
    let by: Vec<u64> = numbers.iter().map(|n| n.abs_diff(least)).collect();
    let bits = bits_of(by.iter().copied().max().unwrap_or(0));
    (least, by, bits)
}

/// Packs a node.
pub(crate) fn pack(number: u64, page: &Page) -> Vec<u8> {
    let words: Vec<Word> = page.iter().map(|&bits| Word::from_bits(bits)).filter(|w| !w.is_below()).collect();
    let mut bitmap = [0u8; FANOUT / 8];
    for (byte, words) in bitmap.iter_mut().zip(page.chunks(8)) {
        let here = |word: &u64| u8::from(!Word::from_bits(*word).is_below());
        *byte = words.iter().rev().fold(0, |byte, word| byte.wrapping_shl(1) | here(word));
    }
    let flat: Vec<i64> = words.iter().map(|w| signed(w.value())).collect();
    let ranked: Vec<i64> = flat.iter().zip(0i64..).map(|(v, rank)| v.saturating_sub(rank)).collect();
    let (flat, ranked) = (frame(&flat), frame(&ranked));
    let is_flat = flat.2 <= ranked.2;
    let (value, values, value_bits) = if is_flat { flat } else { ranked };
    let births: Vec<i64> = words.iter().map(|w| i64::from(w.birth())).collect();
    let (birth, births, birth_bits) = frame(&births);

    let mut packed = Bits::default();
    values.iter().for_each(|&v| packed.push(v, value_bits));
    births.iter().for_each(|&b| packed.push(b, birth_bits));
    let packed = packed.end();
    let all = words.len() == FANOUT;
    let bitmap = if all { &[][..] } else { &bitmap[..] };
    let flags = if all { ALL } else { 0 } | if is_flat { FLAT } else { 0 };
    let len = HEADER.saturating_add(bitmap.len()).saturating_add(packed.len());

    let mut bytes = Vec::with_capacity(len);
    bytes.extend([0; 4]);
    bytes.extend([LAYOUT, byte(value_bits), byte(birth_bits), flags]);
    bytes.extend(number.to_le_bytes());
    bytes.extend(value.to_le_bytes());
    bytes.extend(u32::try_from(birth).unwrap_or(0).to_le_bytes());
    bytes.extend(u16::try_from(words.len()).unwrap_or(0).to_le_bytes());
    bytes.extend(u16::try_from(len).unwrap_or(0).to_le_bytes());
    bytes.extend(bitmap);
    bytes.extend(packed);
    let sum = crc32c::crc32c(bytes.get(4..).unwrap_or_default());
    if let Some(first) = bytes.get_mut(..4) {
        first.copy_from_slice(&sum.to_le_bytes());
    }
    bytes
}

fn byte(bits: u32) -> u8 {
    u8::try_from(bits).unwrap_or(u8::MAX)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let end = at.saturating_add(N);
    bytes.get(at..end).and_then(|b| b.try_into().ok()).unwrap_or([0; N])
}

/// Unpacks a node into `page`. Bytes behind its end are of no matter.
pub(crate) fn unpack(number: u64, bytes: &[u8], page: &mut Page) -> Result<()> {
    unpack_or_none(number, bytes, page)
        .ok_or_else(|| Error::corrupt(format!("node {number} of the map is damaged where it is stored")))
}

fn unpack_or_none(number: u64, bytes: &[u8], page: &mut Page) -> Option<()> {
    let len = usize::from(u16::from_le_bytes(field(bytes, 30)));
    let bytes = bytes.get(..len).filter(|b| b.len() >= HEADER)?;
    let sum = u32::from_le_bytes(field(bytes, 0));
    let [layout, value_bits, birth_bits, flags] = field(bytes, 4);
    let sound = crc32c::crc32c(bytes.get(4..)?) == sum
        && layout == LAYOUT
        && u64::from_le_bytes(field(bytes, 8)) == number;
    let (value_bits, birth_bits) = (u32::from(value_bits), u32::from(birth_bits));
    if !sound || value_bits > VALUE_BITS || birth_bits > BIRTH_BITS {
        return None;
    }
    let (value, birth) = (i64::from_le_bytes(field(bytes, 16)), u32::from_le_bytes(field(bytes, 24)));
    let many = usize::from(u16::from_le_bytes(field(bytes, 28)));
    let rest = bytes.get(HEADER..)?;
    let (bitmap, rest) = if flags & ALL == 0 {
        rest.split_at_checked(FANOUT / 8)?
    } else {
        (&[u8::MAX; FANOUT / 8][..], rest)
    };
    let set: u32 = bitmap.iter().map(|byte| byte.count_ones()).sum();
    if usize::try_from(set).ok()? != many {
        return None;
    }
    let mut bits = Unbits::of(rest);
    let mut words = [0u64; FANOUT];
    for (word, rank) in words.iter_mut().take(many).zip(0i64..) {
        let by = i64::try_from(bits.next(value_bits)?).ok()?;
        let base = if flags & FLAT == 0 { value.checked_add(rank)? } else { value };
        *word = u64::try_from(base.checked_add(by)?).ok().filter(|&v| 0 < v && v < VALUES)?;
    }
    for word in words.iter_mut().take(many) {
        let by = u32::try_from(bits.next(birth_bits)?).ok()?;
        let birth = birth.checked_add(by).filter(|&b| b < BIRTHS)?;
        *word = Word::new(*word, birth).bits();
    }
    let mut words = words.iter();
    for (i, word) in page.iter_mut().enumerate() {
        let byte = bitmap.get(i / 8)?;
        let here = byte.wrapping_shr(u32::try_from(i % 8).ok()?) & 1 == 1;
        *word = if here { *words.next()? } else { 0 };
    }
    Some(())
}

#[cfg(test)]
mod tests;
