//! What versions are called by.

use chart::{Error, Result};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;

/// A version, for good. Written as sixteen hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionId(u64);

impl VersionId {
    pub(super) fn new(nonce: u32, number: u32) -> Self {
        VersionId(u64::from(nonce) << 32 | u64::from(number))
    }

    /// Its number in the history with this nonce, if it is of that history.
    pub(super) fn number_in(self, nonce: u32) -> Option<u32> {
        (self.0 >> 32 == u64::from(nonce)).then_some(self.0 as u32)
    }
}

/// What tells one history from another.
pub(super) fn nonce() -> u32 {
    // The keys of a hasher are the randomness that needs no one else.
    RandomState::new().hash_one(std::process::id()) as u32
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for VersionId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let id = if digits { u64::from_str_radix(text, 16).ok() } else { None };
        id.map(VersionId)
            .ok_or_else(|| Error::invalid(format!("{text} is no version's id: sixteen hexadecimal digits")))
    }
}
