//! Disk image formats: each a folder that reads, checks, creates and changes one of them.
//!
//! Every byte of an image is hostile here: no panic, no unbounded allocation, loop or recursion, whatever it
//! holds. Formats never open files themselves: what an image names is asked for.
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions
    )
)]

pub mod check;
mod emitted;
mod field;
mod flushes;
mod grain;
pub mod preallocation;
pub mod probe;
pub mod qcow2;
pub mod raw;
mod survey;
pub mod vdi;
