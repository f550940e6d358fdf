//! Numbers that look random and come again with the same seed.

/// A generator (splitmix64): small, and the same on every machine.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Begins at `seed`.
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..n`; 0 where `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next_u64() % n }
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Fills `buf`; never with zeros, so that written bytes are told from those that were not.
    pub fn fill(&mut self, buf: &mut [u8]) {
        for chunk in buf.chunks_mut(8) {
            let bytes = (self.next_u64() | 0x0101_0101_0101_0101).to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }

    /// A range within `len` bytes, never empty: most of them up to `most` long, their ends often on a boundary
    /// of 512 or 4096.
    pub fn range(&mut self, len: u64, most: u64) -> (u64, u64) {
        let unit = [1, 512, 4096][self.below(3) as usize];
        let at = self.below(len) / unit * unit;
        let want = 1 + self.below(most.max(1));
        let want = if unit > 1 { want.next_multiple_of(unit) } else { want };
        (at, want.min(len - at))
    }
}
