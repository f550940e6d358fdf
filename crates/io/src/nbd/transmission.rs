//! A connection past its handshake, for who speaks the protocol himself.

use super::Options;
use super::handshake::{self, Export};
use super::uri::Uri;
use super::wire::Headers;
use chart::{Error, Result};
use std::os::fd::OwnedFd;

/// An export that is ready for requests, and the socket they go through.
#[derive(Debug)]
pub struct Transmission {
    /// The next byte sent through it begins a request, the next received a reply.
    pub socket: OwnedFd,
    /// What the server says of the export.
    pub export: Export,
}

impl Transmission {
    /// Connects to the export that `uri` names, and agrees on headers no better than `best`, without metadata
    /// contexts. The socket waits no longer than [`Options::timeout`] at a time. Not under TLS, which is more than a
    /// socket.
    pub fn open(uri: &str, options: &Options, best: Headers) -> Result<Self> {
        let uri = Uri::parse(uri)?;
        if uri.tls {
            return Err(Error::unsupported("there is no plain socket under TLS").in_path(uri.to_string()));
        }
        let name = || uri.to_string();
        let ready = handshake::open_plainly(&uri, options, best).map_err(|e| e.in_path(name()))?;
        if ready.inbox.has_more() {
            return Err(Error::corrupt("the NBD server replies before it was asked").in_path(name()));
        }
        Ok(Transmission { socket: ready.link.into_socket().into(), export: ready.export })
    }
}
