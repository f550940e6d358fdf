//! What is inside a disk: partition tables and file systems, read as charts; and file systems that nobody wrote,
//! synthesised over files that stay where they are.
//!
//! Nothing here reads a file's bytes to hand them on. A partition is a window of its disk, a file is a chart over
//! the disk its file system lies in, a synthesised disk is a table of computed and of host-file extents: whoever
//! wants the bytes, or only their place, asks the [`Disk`](chart::Disk) they get.
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

pub mod ext4;
mod filesystem;
pub mod iso9660;
mod mark;
mod open;
pub mod partition;
pub mod path;

pub use filesystem::{Attribute, Entry, FileSystem, Inode, Kind, Stat, Time};
pub use mark::mark;
pub use open::open;
