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

/// Appends numbers of a few bits each.
fn push_bits(bytes: &mut Vec<u8>, numbers: impl Iterator<Item = u64>, bits: u32) {
    let (mut held, mut many) = (0u128, 0u32);
    for number in numbers.take(if bits == 0 { 0 } else { FANOUT }) {
        held |= u128::from(number).wrapping_shl(many);
        many = many.saturating_add(bits);
        if many >= 64 {
            bytes.extend(u64::try_from(held & u128::from(u64::MAX)).unwrap_or(0).to_le_bytes());
            held = held.wrapping_shr(64);
            many = many.saturating_sub(64);
        }
    }
    let rest = usize::try_from(many.div_ceil(8)).unwrap_or(0);
    bytes.extend(held.to_le_bytes().iter().take(rest));
}

/// How many bytes so many numbers take.
fn bits_len(many: usize, bits: u32) -> usize {
    usize::try_from(bits).unwrap_or(0).saturating_mul(many).div_ceil(8)
}

/// The number that begins at a bit. Behind the bytes are zeros.
#[inline]
fn bits_at(bytes: &[u8], at: usize, bits: u32) -> u64 {
    let first = at / 8;
    let eight = match bytes.get(first..).and_then(<[u8]>::first_chunk::<8>) {
        Some(eight) => u64::from_le_bytes(*eight),
        None => {
            let mut eight = [0; 8];
            eight.iter_mut().zip(bytes.iter().skip(first)).for_each(|(to, from)| *to = *from);
            u64::from_le_bytes(eight)
        }
    };
    // At most 36 bits, which begin in the first of the eight bytes.
    let mask = 1u64.wrapping_shl(bits).wrapping_sub(1);
    eight.wrapping_shr(u32::try_from(at % 8).unwrap_or(0)) & mask
}

/// How many bits it takes to tell numbers up to `most` apart.
fn bits_of(most: u64) -> u32 {
    u64::BITS.saturating_sub(most.leading_zeros())
}

/// The smallest of some numbers, and the bits of the differences from it.
fn frame(numbers: impl Iterator<Item = i64>) -> (i64, u32) {
    let (least, most) = numbers.fold((i64::MAX, i64::MIN), |(least, most), n| (least.min(n), most.max(n)));
    if least > most { (0, 0) } else { (least, bits_of(most.abs_diff(least))) }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Packs a node.
pub(crate) fn pack(number: u64, page: &Page) -> Vec<u8> {
    let words = || page.iter().map(|&bits| Word::from_bits(bits)).filter(|word| !word.is_below());
    let ranks = || words().zip(0i64..);
    let many = words().count();
    let mut bitmap = [0u8; FANOUT / 8];
    for (byte, words) in bitmap.iter_mut().zip(page.chunks(8)) {
        let here = |word: &u64| u8::from(!Word::from_bits(*word).is_below());
        *byte = words.iter().rev().fold(0, |byte, word| byte.wrapping_shl(1) | here(word));
    }
    let flat = frame(words().map(|w| signed(w.value())));
    let ranked = frame(ranks().map(|(w, rank)| signed(w.value()).saturating_sub(rank)));
    let is_flat = flat.1 <= ranked.1;
    let (value, value_bits) = if is_flat { flat } else { ranked };
    let (birth, birth_bits) = frame(words().map(|w| i64::from(w.birth())));
    let bitmap = if many == FANOUT { &[][..] } else { &bitmap[..] };
    let flags = if many == FANOUT { ALL } else { 0 } | if is_flat { FLAT } else { 0 };
    let packed = bits_len(many, value_bits).saturating_add(bits_len(many, birth_bits));
    let len = HEADER.saturating_add(bitmap.len()).saturating_add(packed);

    let mut bytes = Vec::with_capacity(len);
    bytes.extend([0; 4]);
    bytes.extend([LAYOUT, byte(value_bits), byte(birth_bits), flags]);
    bytes.extend(number.to_le_bytes());
    bytes.extend(value.to_le_bytes());
    bytes.extend(u32::try_from(birth).unwrap_or(0).to_le_bytes());
    bytes.extend(u16::try_from(many).unwrap_or(0).to_le_bytes());
    bytes.extend(u16::try_from(len).unwrap_or(0).to_le_bytes());
    bytes.extend(bitmap);
    let rank_of = |rank| if is_flat { 0 } else { rank };
    let by = |(w, rank): (Word, i64)| signed(w.value()).saturating_sub(rank_of(rank)).abs_diff(value);
    push_bits(&mut bytes, ranks().map(by), value_bits);
    push_bits(&mut bytes, words().map(|w| i64::from(w.birth()).abs_diff(birth)), birth_bits);
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
    let (values, births) = rest.split_at_checked(bits_len(many, value_bits))?;
    if births.len() != bits_len(many, birth_bits) {
        return None;
    }
    let (value_step, birth_step) = (usize::from(*bytes.get(5)?), usize::from(*bytes.get(6)?));
    let (mut rank, mut sound) = (0usize, true);
    for (i, word) in page.iter_mut().enumerate() {
        let byte = bitmap.get(i / 8)?;
        if byte.wrapping_shr(u32::try_from(i % 8).ok()?) & 1 == 0 {
            *word = 0;
            continue;
        }
        let by = signed(bits_at(values, rank.wrapping_mul(value_step), value_bits));
        let base = if flags & FLAT == 0 { value.checked_add(i64::try_from(rank).ok()?)? } else { value };
        let value = u64::try_from(base.checked_add(by)?).ok()?;
        let by = u32::try_from(bits_at(births, rank.wrapping_mul(birth_step), birth_bits)).ok()?;
        let birth = birth.checked_add(by)?;
        sound &= 0 < value && value < VALUES && birth < BIRTHS;
        *word = Word::new(value & VALUES.wrapping_sub(1), birth & BIRTHS.wrapping_sub(1)).bits();
        rank = rank.wrapping_add(1);
    }
    sound.then_some(())
}

#[cfg(test)]
mod tests;
