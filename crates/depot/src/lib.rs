//! Versions of disks: every past state of a disk, cheaply.
//!
//! A disk is divided into *interval blocks*. A persistent map takes each block to its place in a data source; a
//! version is such a map that never changes any more. A snapshot keeps the map as it is, and from then on the first
//! change of a part of it copies that part. What versions have in common they share, data and map alike.
//!
//! [`Versions`] is the way in; `docs/versions.md` says what is promised.
#![forbid(unsafe_code)]

mod cache;
mod edit;
mod frozen;
mod head;
mod limbo;
mod map;
mod nodes;
mod packed;
mod prune;
mod space;
mod store;
mod versions;
mod word;

pub use versions::{Branch, Options, Usage, Version, VersionId, Versions};
