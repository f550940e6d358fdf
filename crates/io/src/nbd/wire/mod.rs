//! The NBD protocol as data: every number, and every message in both directions, parsed and encoded.
//!
//! Nothing here reads a socket or remembers anything. Fixed headers are parsed from arrays of their length,
//! payloads from slices whose length the caller has bounded by the constants below. Parsing is strict and does
//! not panic; what does not follow the protocol is a `Corrupt` error that says how.
//!
//! The specification is `doc/proto.md` of <https://github.com/NetworkBlockDevice/nbd>, with its extension
//! `extension-ext-header`. Names are the specification's, without the prefix `NBD_`.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

mod fields;
mod handshake;
mod numbers;
mod transmission;

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]
mod tests;

pub use fields::Fields;
pub use handshake::{
    BlockSize, EXPORT_NAME_ZEROES, ExportInfo, ExportNameReply, Go, Greeting, Listed, MetaContext, MetaQuery,
    OptionHeader, OptionReply,
};
pub use numbers::{
    AllocationState, ChunkFlags, ChunkKind, ClientFlags, Code, Command, CommandFlags, HandshakeFlags, Info,
    Opt, Rep, TransmissionFlags,
};
pub use transmission::{
    BlockStatus, Chunk, DATA_OFFSET_LEN, ErrorChunk, Headers, Hole, Reply, Request, SimpleReply,
    StatusExtent, StatusFilter,
};

/// The longest string either side may send ("Values", string length).
pub const STRING_MAX: usize = 4096;
/// The longest payload of an option or of a reply to one that is worth reading: two strings and a few numbers
/// for all that carry one name, a list of queries for those that carry many.
pub const OPTION_PAYLOAD_MAX: u32 = 64 << 10;
/// The payload of a read or write that every server and client accepts when no other size was agreed on.
pub const PAYLOAD_MAX: u32 = 32 << 20;
/// The most extents one block status chunk may hold.
pub const STATUS_EXTENTS_MAX: u32 = 1 << 20;
/// The largest minimum block size a server may ask for.
pub const MINIMUM_BLOCK_MAX: u32 = 64 << 10;
/// The port a server listens on when none is named.
pub const PORT: u16 = 10809;
/// The metadata context that tells holes from data.
pub const BASE_ALLOCATION: &str = "base:allocation";
