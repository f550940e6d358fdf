//! The hashes of names in a directory's index: that of ext2, half of MD4, and TEA.

/// Which of them, by `hash_version`: signed as long as the superblock does not say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Legacy,
    HalfMd4,
    Tea,
}

/// How names are hashed in one directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hash {
    pub(super) family: Family,
    pub(super) unsigned: bool,
    pub(super) seed: [u32; 4],
}

/// What MD4 begins with, where the file system has no seed.
const MD4_START: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
/// The largest hash means the end of the directory, so that no name has it.
const LAST: u32 = 0xffff_fffe;

impl Hash {
    /// As an index with this `hash_version` does it; none where that is not known.
    pub(super) fn of(version: u8, unsigned: bool, seed: [u32; 4]) -> Option<Hash> {
        let family = match version % 3 {
            0 => Family::Legacy,
            1 => Family::HalfMd4,
            _ => Family::Tea,
        };
        let seed = if seed == [0; 4] { MD4_START } else { seed };
        (version < 6).then_some(Hash { family, unsigned: unsigned || version >= 3, seed })
    }

    /// The hash of a name; its lowest bit is clear.
    pub(super) fn name(&self, name: &[u8]) -> u32 {
        let hash = match self.family {
            Family::Legacy => self.legacy(name),
            Family::HalfMd4 => {
                let mut state = self.seed;
                for part in name.chunks(32) {
                    half_md4(&mut state, &self.words::<8>(part, name.len(), part_start(name, part)));
                }
                state[1]
            }
            Family::Tea => {
                let mut state = self.seed;
                for part in name.chunks(16) {
                    tea(&mut state, &self.words::<4>(part, name.len(), part_start(name, part)));
                }
                state[0]
            }
        };
        let hash = hash & !1;
        if hash == LAST { LAST.wrapping_sub(2) } else { hash }
    }

    fn byte(&self, byte: u8) -> u32 {
        if self.unsigned { byte.into() } else { i32::from(byte.cast_signed()).cast_unsigned() }
    }

    fn legacy(&self, name: &[u8]) -> u32 {
        let (mut now, mut before) = (0x12a3_fe2d_u32, 0x37ab_e8f9_u32);
        for byte in name {
            let mut next = before.wrapping_add(now ^ self.byte(*byte).wrapping_mul(7_152_373));
            if next & 0x8000_0000 != 0 {
                next = next.wrapping_sub(0x7fff_ffff);
            }
            (before, now) = (now, next);
        }
        now << 1
    }

    /// A part of a name as words, filled up with what is left of the name's length, which is what of it begins here.
    fn words<const N: usize>(&self, part: &[u8], len: usize, start: usize) -> [u32; N] {
        let left = u32::try_from(len.saturating_sub(start)).unwrap_or(u32::MAX);
        let pad = left | left << 8;
        let pad = pad | pad << 16;
        let mut words = [pad; N];
        for (word, bytes) in words.iter_mut().zip(part.chunks(4)) {
            *word = bytes.iter().fold(pad, |word, byte| self.byte(*byte).wrapping_add(word << 8));
        }
        words
    }
}

/// Where a part begins in its name.
fn part_start(name: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr().saturating_sub(name.as_ptr().addr())
}

fn tea(state: &mut [u32; 4], words: &[u32; 4]) {
    let [mut x, mut y, _, _] = *state;
    let [a, b, c, d] = *words;
    let mut sum = 0_u32;
    for _ in 0..16 {
        sum = sum.wrapping_add(0x9e37_79b9);
        let mix = |v: u32, k: u32, l: u32| {
            (v << 4).wrapping_add(k) ^ v.wrapping_add(sum) ^ (v >> 5).wrapping_add(l)
        };
        x = x.wrapping_add(mix(y, a, b));
        y = y.wrapping_add(mix(x, c, d));
    }
    state[0] = state[0].wrapping_add(x);
    state[1] = state[1].wrapping_add(y);
}

/// Three rounds of MD4 over eight words instead of sixteen.
fn half_md4(state: &mut [u32; 4], words: &[u32; 8]) {
    type Mix = fn(u32, u32, u32) -> u32;
    /// A round: how bits are mixed, what is added, which words in which order, and how far each is turned.
    type Round = (Mix, u32, [usize; 8], [u32; 4]);
    const ROUNDS: [Round; 3] = [
        (|x, y, z| z ^ (x & (y ^ z)), 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
        (|x, y, z| (x & y).wrapping_add((x ^ y) & z), 0x5a82_7999, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]),
        (|x, y, z| x ^ y ^ z, 0x6ed9_eba1, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]),
    ];
    let [mut a, mut b, mut c, mut d] = *state;
    for (mix, add, order, turns) in ROUNDS {
        for (word, turn) in order.iter().zip(turns.iter().cycle()) {
            let word = words.get(*word).copied().unwrap_or(0).wrapping_add(add);
            let next = a.wrapping_add(mix(b, c, d)).wrapping_add(word).rotate_left(*turn);
            (a, b, c, d) = (d, next, b, c);
        }
    }
    for (state, word) in state.iter_mut().zip([a, b, c, d]) {
        *state = state.wrapping_add(word);
    }
}
