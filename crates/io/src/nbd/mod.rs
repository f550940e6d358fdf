//! NBD: the protocol as data, and a client that makes any export a source.
//!
//! [`wire`] is used by both sides. [`Client`] is one export of one server, over one connection; [`Transmission`] is
//! the same connection for who speaks the protocol himself.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod assemble;
mod client;
mod connection;
mod handshake;
mod link;
mod socket;
mod source;
mod status;
mod tls;
mod transmission;
mod unsent;
mod uri;
pub mod wire;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;

pub use client::{Client, Options, list};
pub use handshake::Export;
pub use transmission::Transmission;
pub use unsent::unsent;
pub use uri::{Endpoint, Uri};
