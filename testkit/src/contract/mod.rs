//! The laws of `docs/laws.md`, as functions that any implementation can be handed to.
//!
//! A contract returns what it found instead of panicking, so that it can be run on something broken on purpose
//! and be expected to notice. Each is bounded in time, and random only in the way its seed says.

mod chart_law;
mod compose;
mod concurrent;
mod crashing;
mod place;
mod races;
mod random;
mod source_law;
mod stamp;
mod subject;
#[cfg(test)]
mod tests;
mod walk;

pub use chart_law::{chart_agrees_with_read, chart_law, split_reads};
pub use compose::{Patches, associative, composes};
pub use concurrent::{Load, concurrent};
pub use crashing::{crash_safe, flush_reaches};
pub use place::{Same, by_leaves, place_law};
pub use races::{
    Copier, Outer, Stack, fill_is_void, in_place_writer_keeps_its_place, no_write_lost_to_a_deleted_snapshot,
    no_write_lost_to_a_snapshot, overlapping_reservations_wait, races, reader_keeps_its_place,
    readers_look_while_a_snapshot_waits, snapshot_does_not_change, writes_stay_in_their_disk,
};
pub use random::{all_decorators, failing_ops, random_ops};
pub use source_law::source_law;
pub use stamp::{Stamp, stamp, stamps};
pub use subject::{Maker, Snapshots, Subject};
pub use walk::walk_law;

use std::fmt;

/// What a contract found wrong.
pub struct Report(String);

impl Report {
    /// A finding, in words.
    pub fn new(what: impl Into<String>) -> Self {
        Report(what.into())
    }

    /// The same, and where it was found.
    #[must_use]
    pub fn during(self, what: impl fmt::Display) -> Self {
        Report(format!("{what}: {}", self.0))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Report {}

impl From<chart::Error> for Report {
    #[track_caller]
    fn from(e: chart::Error) -> Self {
        Report(format!("an operation failed that should not: {e} ({}, {})", e.kind().name(), caller()))
    }
}

#[track_caller]
fn caller() -> &'static std::panic::Location<'static> {
    std::panic::Location::caller()
}

/// Whether a contract is kept, or what is wrong.
pub type Verdict<T = ()> = Result<T, Report>;

/// Ends the contract with a report unless the condition holds.
macro_rules! ensure {
    ($cond:expr, $($what:tt)+) => {
        if !$cond {
            return Err($crate::contract::Report::new(format!($($what)+)));
        }
    };
}
pub(crate) use ensure;

/// Whether there is nothing but zeros: by comparing arrays, which is fast in a debug build too.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|chunk| chunk == &ZEROS[..chunk.len()])
}

/// Where two arrays differ first, in words.
pub(crate) fn difference(got: &[u8], wanted: &[u8]) -> String {
    if got.len() != wanted.len() {
        return format!("{} bytes instead of {}", got.len(), wanted.len());
    }
    match got.iter().zip(wanted).position(|(g, w)| g != w) {
        Some(i) => {
            let count = got.iter().zip(wanted).filter(|(g, w)| g != w).count();
            format!("byte {i} ({i:#x}) is {:#04x} instead of {:#04x}; {count} differ", got[i], wanted[i])
        }
        None => "they are equal".into(),
    }
}
