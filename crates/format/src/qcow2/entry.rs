//! L2 entries: what one says about its cluster.

use super::cluster::Clusters;
use super::layout::{
    COMPRESSED_SECTOR, MAX_HOST_OFFSET, OFFSET_MASK, OFLAG_COMPRESSED, OFLAG_COPIED, OFLAG_ZERO,
};

/// An L2 entry: 64 bits, and the subcluster bitmap where entries are extended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct L2Entry {
    /// The cluster descriptor with its flags.
    pub word: u64,
    /// The subcluster allocation bitmap; 0 where there is none.
    pub bitmap: u64,
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing is here. With extended entries some subclusters may still read as zeros.
    Unallocated,
    /// Reads as zeros. A host cluster may be kept for it.
    Zero {
        /// The kept host cluster.
        kept: Option<u64>,
    },
    /// A host cluster. With extended entries the bitmap says which parts of it count.
    Standard {
        /// Where it is.
        offset: u64,
    },
    /// Compressed bytes.
    Compressed {
        /// Where they begin.
        offset: u64,
        /// At most how many there are: up to the end of the last sector they touch.
        stored_len: u64,
    },
}

/// What a subcluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subcluster {
    /// Nothing is here.
    Unallocated,
    /// Reads as zeros.
    Zero,
    /// In the host cluster.
    Allocated,
}

impl L2Entry {
    /// What it says, with the geometry `clusters`. With a data file, host offset 0 is a place like any other.
    #[inline]
    pub fn meaning(self, clusters: Clusters, data_file: bool) -> Meaning {
        if self.word & OFLAG_COMPRESSED != 0 {
            return self.compressed(clusters);
        }
        let offset = self.word & OFFSET_MASK;
        if self.word & OFLAG_ZERO != 0 && !clusters.extended_l2() {
            let kept = offset != 0 || (data_file && self.is_copied());
            return Meaning::Zero { kept: kept.then_some(offset) };
        }
        if offset == 0 && !(data_file && self.is_copied()) {
            return Meaning::Unallocated;
        }
        Meaning::Standard { offset }
    }

    fn compressed(self, clusters: Clusters) -> Meaning {
        // 62 - (cluster_bits - 8), as the specification has it.
        let x = 70u32.wrapping_sub(clusters.bits());
        let offset = self.word & 1u64.wrapping_shl(x).wrapping_sub(1) & MAX_HOST_OFFSET;
        let sectors = (self.word & !(OFLAG_COPIED | OFLAG_COMPRESSED)).wrapping_shr(x).wrapping_add(1);
        let stored_len = sectors.wrapping_mul(COMPRESSED_SECTOR).wrapping_sub(offset % COMPRESSED_SECTOR);
        Meaning::Compressed { offset, stored_len }
    }

    /// Whether the cluster's refcount is exactly one.
    #[inline]
    pub fn is_copied(self) -> bool {
        self.word & OFLAG_COPIED != 0
    }

    /// Bit x: subcluster x is allocated.
    #[inline]
    pub fn allocated(self) -> u32 {
        u32::try_from(self.bitmap & 0xffff_ffff).unwrap_or(0)
    }

    /// Bit x: subcluster x reads as zeros.
    #[inline]
    pub fn zeros(self) -> u32 {
        u32::try_from(self.bitmap.wrapping_shr(32)).unwrap_or(0)
    }

    /// What subcluster `first` of a standard or unallocated cluster is, and how many from there on are the same.
    #[inline]
    pub fn subclusters(self, first: u32) -> (Subcluster, u32) {
        let run = |same: u32| same.wrapping_shr(first).trailing_ones().clamp(1, 32);
        let (allocated, zeros) = (self.allocated(), self.zeros());
        if allocated.wrapping_shr(first) & 1 != 0 {
            (Subcluster::Allocated, run(allocated))
        } else if zeros.wrapping_shr(first) & 1 != 0 {
            (Subcluster::Zero, run(zeros))
        } else {
            // Shifting in zeros would end a run of "neither" only at the cluster's end, where the caller does.
            (Subcluster::Unallocated, run(!(allocated | zeros)))
        }
    }
}
