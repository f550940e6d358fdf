//! What is in the file systems of a disk: listed, read, and taken out.

pub mod extract;
pub mod listing;
mod node;
pub mod reading;

pub use node::{Inside, inside, node};
