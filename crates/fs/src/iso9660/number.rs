//! Numbers between widths, without a panic.

/// A length in memory as a length on disk. Lossless wherever this builds.
#[inline]
pub(super) fn to_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// A number as an index. What does not fit indexes nothing.
#[inline]
pub(super) fn to_index(n: impl TryInto<usize>) -> usize {
    n.try_into().unwrap_or(usize::MAX)
}

/// A number that was found to fit into 32 bits, or else the largest.
#[inline]
pub(super) fn to_u32(n: impl TryInto<u32>) -> u32 {
    n.try_into().unwrap_or(u32::MAX)
}

/// A number that was found to fit into 16 bits, or else the largest.
#[inline]
pub(super) fn to_u16(n: impl TryInto<u16>) -> u16 {
    n.try_into().unwrap_or(u16::MAX)
}

/// A number that was found to fit into a byte, or else the largest.
#[inline]
pub(super) fn to_u8(n: impl TryInto<u8>) -> u8 {
    n.try_into().unwrap_or(u8::MAX)
}
