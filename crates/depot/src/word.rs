//! Words: what a node of the map says of one position.

/// Bits of a value.
pub(crate) const VALUE_BITS: u32 = 36;
/// Bits of a birth.
pub(crate) const BIRTH_BITS: u32 = 28;
/// One more than the largest value: a limit on places, and on nodes.
pub(crate) const VALUES: u64 = 1 << VALUE_BITS;
/// One more than the largest birth: a limit on the versions that a history ever has.
pub(crate) const BIRTHS: u32 = 1 << BIRTH_BITS;
/// The first value that is a place or a node.
pub(crate) const FIRST: u64 = 2;
/// The value of what reads as zeros.
const ZERO: u64 = 1;

/// A value and the version in which it was born, in eight bytes, so that a reader without a lock sees both or
/// neither. In a leaf the value is a place: a block of the data source. Above, it is the number of a node. What
/// holds nothing, or only zeros, has neither: it is said at once for all that lies below the word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Word(u64);

impl Word {
    /// Nothing is held here: what lies below the history is seen.
    pub(crate) const BELOW: Word = Word(0);

    /// A place or a node.
    pub(crate) fn new(value: u64, birth: u32) -> Self {
        debug_assert!(value < VALUES && birth < BIRTHS);
        Word(u64::from(birth) << VALUE_BITS | value)
    }

    /// Zeros.
    pub(crate) fn zero(birth: u32) -> Self {
        Word::new(ZERO, birth)
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Word(bits)
    }

    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    pub(crate) fn value(self) -> u64 {
        self.0 & (VALUES - 1)
    }

    pub(crate) fn birth(self) -> u32 {
        (self.0 >> VALUE_BITS) as u32
    }

    pub(crate) fn is_below(self) -> bool {
        self.value() == 0
    }

    /// Whether the value is a place or a node.
    pub(crate) fn refers(self) -> bool {
        self.value() >= FIRST
    }

    /// Whether the two say the same of their position.
    pub(crate) fn same(self, other: Word) -> bool {
        self.value() == other.value()
    }
}
