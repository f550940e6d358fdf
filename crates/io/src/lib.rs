//! Bytes in and out: the sources there are, the engines that move bytes, and the copy that plans how few to move.
//!
//! Nothing here knows a disk format. Everything speaks [`chart`]'s language.

mod aligned;
pub mod codec;
pub mod copy;
pub mod engine;
pub mod file;
pub mod generated;
pub mod http;
pub mod memory;
pub mod nbd;
pub mod replace;
pub mod tree;
pub mod watch;
