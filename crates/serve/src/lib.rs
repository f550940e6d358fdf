//! Disks offered to others: over NBD, and over whatever comes to carry requests for a disk.
//!
//! A request takes one path, whatever brought it. What is at hand is answered at once, on the thread that heard the
//! request ([`chart::Wait::Never`]); what would block goes into the request [`mod@array`] and is carried out by one of a
//! few *proxies*, so that nothing at hand ever waits for what is not. [`order`] keeps overlapping requests apart,
//! [`export`] is what is served, [`counters`] tell which step of the path each request took.
//!
//! This crate sees charts and sources only: it knows no image format.
#![forbid(unsafe_code)]

pub mod array;
pub mod counters;
pub mod export;
pub mod nbd;
pub mod order;

pub use counters::Counters;
pub use export::{Dirt, Export};
