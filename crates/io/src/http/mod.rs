//! HTTP: an object on a web server as a read-only source, read by ranges.
//!
//! The object is pinned when it is opened: by its strong `ETag`, else by its `Last-Modified`. Every answer is
//! checked against that and against the length, so bytes of two versions are never mixed: an object that changed
//! is a `Conflict`. See `docs/sources.md`.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod address;
mod answer;
mod backoff;
mod cache;
mod date;
mod digits;
mod failure;
mod fetch;
mod options;
mod ranged;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;

pub(crate) use backoff::backoff;
pub use options::Options;
pub use ranged::{Counts, Ranged};
