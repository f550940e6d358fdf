//! The NBD server.
//!
//! [`server`] holds what is served and the threads; [`listen`] is where clients come from; `handshake` agrees with
//! a client on an export and makes a `session` of it; `talk` is one connection's thread, which parses requests in
//! batches and answers at once what is at hand; `act` carries a request out, there or on a proxy; `reply` and
//! `status` say how it went; `conn` is what a connection's thread and the proxies share, `means` what all connections do.
//!
//! What is promised of overlapping requests: a read and a write are whole. Every history of reads and writes, over
//! any number of connections, is one in which each happened at one moment between its request and its reply. Trims
//! and writes of zeroes are whole in pieces ([`limits::PIECE`]).
//!
//! The specification is `doc/proto.md` of <https://github.com/NetworkBlockDevice/nbd>; names are the
//! specification's.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

mod act;
mod buffer;
mod conn;
mod failure;
mod handshake;
pub mod limits;
pub mod listen;
mod means;
mod notices;
mod parting;
mod reply;
pub mod server;
mod session;
mod status;
mod talk;
pub mod tls;

pub use limits::Limits;
pub use listen::Listener;
pub use notices::{Notice, Severity};
pub use server::{Config, Server};

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]
mod tests;
