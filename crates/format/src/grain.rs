//! The arithmetic of grains: clusters, blocks, whatever a format calls the unit in which it gives places.

/// A unit of a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grain {
    bits: u32,
}

impl Grain {
    /// `1 << bits` bytes; the caller has bounded `bits`.
    pub(crate) const fn new(bits: u32) -> Grain {
        Grain { bits }
    }

    /// The number of bits that address a byte in it.
    #[inline]
    pub(crate) fn bits(self) -> u32 {
        self.bits
    }

    /// How many bytes it has.
    #[inline]
    pub(crate) fn size(self) -> u64 {
        1u64.wrapping_shl(self.bits)
    }

    #[inline]
    fn mask(self) -> u64 {
        self.size().wrapping_sub(1)
    }

    /// How far into its grain an offset is.
    #[inline]
    pub(crate) fn within(self, offset: u64) -> u64 {
        offset & self.mask()
    }

    /// Where the grain of an offset starts.
    #[inline]
    pub(crate) fn start(self, offset: u64) -> u64 {
        offset & !self.mask()
    }

    /// The number of the grain that holds an offset.
    #[inline]
    pub(crate) fn index(self, offset: u64) -> u64 {
        offset.wrapping_shr(self.bits)
    }

    /// Where the grain of that number starts; `None` past the end of all offsets.
    #[inline]
    pub(crate) fn offset(self, index: u64) -> Option<u64> {
        index.checked_mul(self.size())
    }

    /// How many grains `len` bytes take.
    #[inline]
    pub(crate) fn count(self, len: u64) -> u64 {
        self.index(len).saturating_add(u64::from(self.within(len) != 0))
    }

    /// `len` rounded up to whole grains, saturating.
    #[inline]
    pub(crate) fn round_up(self, len: u64) -> u64 {
        self.count(len).saturating_mul(self.size())
    }
}
