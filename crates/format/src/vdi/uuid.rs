//! What tells images apart.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

/// A UUID as VDI stores it: its first three numbers are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// Of nothing.
    pub const NULL: Uuid = Uuid([0; 16]);

    /// One that nothing else has: version 4, made of the keys that the standard library draws for its hash maps.
    pub fn fresh() -> Uuid {
        let half = |salt: u64| RandomState::new().hash_one(salt);
        let random = u128::from(half(1)).wrapping_shl(64) | u128::from(half(2));
        let mut bytes = random.to_le_bytes();
        // The version is the top of the third number, the variant that of the byte behind it.
        bytes[7] = bytes[7] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Uuid(bytes)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f2, g, h, i, j, rest @ ..] = self.0;
        let first = u32::from_le_bytes([a, b, c, d]);
        let (second, third) = (u16::from_le_bytes([e, f2]), u16::from_le_bytes([g, h]));
        write!(f, "{first:08x}-{second:04x}-{third:04x}-{i:02x}{j:02x}-")?;
        rest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
