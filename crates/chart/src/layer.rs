//! Charts, and the layers they are stacked from.

use crate::{Extent, Result};
use std::sync::Arc;

/// Whether an answer may wait for a disk, a network or a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wait {
    /// It may.
    Allowed,
    /// It may not: what would block returns [`Error::WOULD_BLOCK`](crate::Error::WOULD_BLOCK).
    Never,
}

/// One driver's own answer for a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This layer holds it.
    Here(Extent),
    /// This layer holds nothing here, for so many bytes: ask the one below.
    Below {
        /// For how many bytes; never 0, at most what was asked.
        len: u64,
    },
}

impl Answer {
    /// How many bytes the answer speaks of.
    pub fn len(&self) -> u64 {
        match self {
            Answer::Here(e) => e.len,
            Answer::Below { len } => *len,
        }
    }

    /// Never: every answer speaks of at least a byte. Here for the habit of having both.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A map that may leave ranges to a layer below it.
pub trait Layer: Send + Sync {
    /// How many bytes it speaks of.
    fn len(&self) -> u64;

    /// Whether it speaks of none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its answer for the bytes from `at`, for at most `want` of them. `at < len` and `want > 0`, which the
    /// caller has checked.
    fn look(&self, at: u64, want: u64, wait: Wait) -> Result<Answer>;
}

/// A map with an answer for every byte.
pub trait Chart: Send + Sync {
    /// How many bytes it speaks of.
    fn len(&self) -> u64;

    /// Whether it speaks of none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The extent that begins at `at`, for at most `want` bytes (law 1). `at >= len` is `OutOfRange`.
    fn extent_at(&self, at: u64, want: u64, wait: Wait) -> Result<Extent>;
}

/// A chart as a layer that leaves nothing to anyone.
impl<C: Chart + ?Sized> Layer for C {
    fn len(&self) -> u64 {
        Chart::len(self)
    }

    fn look(&self, at: u64, want: u64, wait: Wait) -> Result<Answer> {
        self.extent_at(at, want, wait).map(Answer::Here)
    }
}

impl<C: Chart + ?Sized> Chart for Arc<C> {
    fn len(&self) -> u64 {
        Chart::len(&**self)
    }

    fn extent_at(&self, at: u64, want: u64, wait: Wait) -> Result<Extent> {
        (**self).extent_at(at, want, wait)
    }
}
