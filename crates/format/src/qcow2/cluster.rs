//! Cluster arithmetic: the one place that shifts and masks by the image's geometry.

use super::layout::{MAX_CLUSTER_BITS, MIN_CLUSTER_BITS, MIN_EXTENDED_L2_CLUSTER_BITS, SUBCLUSTERS};
use crate::grain::Grain;
use chart::{Error, Result};

/// The geometry of an image: its cluster size and the width of its L2 entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clusters {
    grain: Grain,
    extended_l2: bool,
}

impl Clusters {
    /// Clusters of `1 << bits` bytes; with `extended_l2`, of 32 subclusters each.
    pub fn new(bits: u32, extended_l2: bool) -> Result<Self> {
        if !(MIN_CLUSTER_BITS..=MAX_CLUSTER_BITS).contains(&bits) {
            let what = format!(
                "clusters of 2^{bits} bytes; supported are 2^{MIN_CLUSTER_BITS} to 2^{MAX_CLUSTER_BITS}"
            );
            return Err(Error::unsupported(what));
        }
        if extended_l2 && bits < MIN_EXTENDED_L2_CLUSTER_BITS {
            let what = format!("extended L2 entries need clusters of 16384 bytes or more, not 2^{bits}");
            return Err(Error::unsupported(what));
        }
        Ok(Clusters { grain: Grain::new(bits), extended_l2 })
    }

    /// The number of bits that address a byte in a cluster.
    #[inline]
    pub fn bits(self) -> u32 {
        self.grain.bits()
    }

    /// A cluster as a unit of places.
    #[inline]
    pub(crate) fn grain(self) -> Grain {
        self.grain
    }

    /// Whether L2 entries have 128 bits and clusters have subclusters.
    #[inline]
    pub fn extended_l2(self) -> bool {
        self.extended_l2
    }

    /// Bytes in a cluster.
    #[inline]
    pub fn size(self) -> u64 {
        self.grain.size()
    }

    /// How far into its cluster an offset is.
    #[inline]
    pub fn within(self, offset: u64) -> u64 {
        self.grain.within(offset)
    }

    /// Where the cluster of an offset starts.
    #[inline]
    pub fn start(self, offset: u64) -> u64 {
        self.grain.start(offset)
    }

    /// The number of the cluster that holds an offset.
    #[inline]
    pub fn index(self, offset: u64) -> u64 {
        self.grain.index(offset)
    }

    /// Where a cluster of that number starts; `None` past the end of all offsets.
    #[inline]
    pub fn offset(self, index: u64) -> Option<u64> {
        self.grain.offset(index)
    }

    /// How many clusters `len` bytes take.
    #[inline]
    pub fn count(self, len: u64) -> u64 {
        self.grain.count(len)
    }

    /// `len` rounded up to whole clusters, saturating.
    #[inline]
    pub fn round_up(self, len: u64) -> u64 {
        self.grain.round_up(len)
    }

    /// 64-bit words in an L2 entry.
    #[inline]
    pub fn entry_words(self) -> u64 {
        if self.extended_l2 { 2 } else { 1 }
    }

    /// The number of bits that index an L2 table.
    #[inline]
    fn l2_bits(self) -> u32 {
        self.bits().wrapping_sub(if self.extended_l2 { 4 } else { 3 })
    }

    /// Entries in an L2 table.
    #[inline]
    pub fn l2_entries(self) -> u64 {
        1u64.wrapping_shl(self.l2_bits())
    }

    /// Bytes of the disk that one L2 table maps.
    #[inline]
    pub fn l2_span(self) -> u64 {
        1u64.wrapping_shl(self.bits().wrapping_add(self.l2_bits()))
    }

    /// The L1 entry that a position of the disk goes through.
    #[inline]
    pub fn l1_index(self, at: u64) -> u64 {
        at.wrapping_shr(self.bits().wrapping_add(self.l2_bits()))
    }

    /// The entry of its L2 table that a position of the disk goes through.
    #[inline]
    pub fn l2_index(self, at: u64) -> u64 {
        self.index(at) & self.l2_entries().wrapping_sub(1)
    }

    /// How many L1 entries a disk of `size` bytes needs.
    #[inline]
    pub fn l1_entries(self, size: u64) -> u64 {
        let whole = self.l1_index(size);
        whole.saturating_add(u64::from(size & self.l2_span().wrapping_sub(1) != 0))
    }

    /// Bytes in a subcluster; a cluster, where there are none.
    #[inline]
    pub fn subcluster_size(self) -> u64 {
        if self.extended_l2 { self.size() / SUBCLUSTERS } else { self.size() }
    }

    /// The subcluster of its cluster that holds an offset.
    #[inline]
    pub fn subcluster(self, offset: u64) -> u32 {
        let bits = self.bits().wrapping_sub(if self.extended_l2 { 5 } else { 0 });
        u32::try_from(self.within(offset).wrapping_shr(bits)).unwrap_or(0)
    }
}
