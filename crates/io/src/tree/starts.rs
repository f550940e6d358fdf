//! Where files begin, in order.

/// Positions in ascending order: four bytes each, if all are multiples of a unit by which 32 bits count them.
pub(super) enum Starts {
    /// Each times two to this power.
    Units(u32, Box<[u32]>),
    /// As they are.
    Bytes(Box<[u64]>),
}

impl Starts {
    pub(super) fn of(list: Vec<u64>) -> Starts {
        let unit = list.iter().fold(0, |all, &start| all | start).trailing_zeros() % u64::BITS;
        if list.last().is_some_and(|last| last >> unit > u32::MAX.into()) {
            return Starts::Bytes(list.into_boxed_slice());
        }
        Starts::Units(unit, list.iter().map(|&start| (start >> unit) as u32).collect())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Starts::Units(_, list) => list.len(),
            Starts::Bytes(list) => list.len(),
        }
    }

    pub(super) fn at(&self, i: usize) -> u64 {
        match self {
            Starts::Units(unit, list) => u64::from(list[i]) << unit,
            Starts::Bytes(list) => list[i],
        }
    }

    /// How many there are up to this one.
    pub(super) fn up_to(&self, offset: u64) -> usize {
        match self {
            Starts::Units(unit, list) => list.partition_point(|&start| u64::from(start) <= offset >> unit),
            Starts::Bytes(list) => list.partition_point(|&start| start <= offset),
        }
    }
}
