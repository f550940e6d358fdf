//! What goes to the server.

use chart::{Error, Result};
use io::nbd::wire::{Headers, Request};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::BorrowedFd;

/// How many pieces one call can send.
const PIECES: usize = 1024;

/// Requests that were not sent yet.
pub(super) struct Outbox {
    /// Headers, and what belongs to one request alone.
    heads: Vec<u8>,
    /// Where in them the first part that was not sent begins.
    first: usize,
    parts: VecDeque<Part>,
    /// How much of the first part was sent.
    sent: usize,
}

/// A part of what is sent.
#[derive(Clone, Copy)]
enum Part {
    /// So many bytes of the heads.
    Heads(usize),
    /// The body that all writes share.
    Body,
}

impl Outbox {
    pub(super) fn new() -> Outbox {
        Outbox { heads: Vec::new(), first: 0, parts: VecDeque::new(), sent: 0 }
    }

    /// Appends a request, and the beginning of its payload; `body` if the shared body follows.
    pub(super) fn put(
        &mut self,
        request: &Request,
        headers: Headers,
        beginning: &[u8],
        body: bool,
    ) -> Result<()> {
        let before = self.heads.len();
        request.put(headers, &mut self.heads)?;
        self.heads.extend_from_slice(beginning);
        let len = self.heads.len() - before;
        match self.parts.back_mut() {
            Some(Part::Heads(part)) => *part += len,
            _ => self.parts.push_back(Part::Heads(len)),
        }
        if body {
            self.parts.push_back(Part::Body);
        }
        Ok(())
    }

    /// Sends as much as there is room for. Whether that was all.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>, body: &[u8]) -> Result<bool> {
        while !self.parts.is_empty() {
            let sent = {
                let pieces = self.pieces(body);
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                rustix::net::sendmsg(socket, &pieces, &mut SendAncillaryBuffer::default(), flags)
            };
            match sent {
                Ok(sent) => self.advance(sent, body.len()),
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(e) => {
                    let what = "the connection to the server broke";
                    return Err(Error::unavailable(what).caused_by(std::io::Error::from(e)));
                }
            }
        }
        Ok(true)
    }

    fn pieces<'a>(&'a self, body: &'a [u8]) -> Vec<IoSlice<'a>> {
        let mut heads = self.heads.get(self.first..).unwrap_or_default();
        let mut sent = self.sent;
        let mut pieces = Vec::with_capacity(self.parts.len().min(PIECES));
        for part in self.parts.iter().take(PIECES) {
            let whole = match *part {
                Part::Heads(len) => {
                    let (part, rest) = heads.split_at(len.min(heads.len()));
                    heads = rest;
                    part
                }
                Part::Body => body,
            };
            pieces.push(IoSlice::new(whole.get(sent..).unwrap_or_default()));
            sent = 0;
        }
        pieces
    }

    /// Takes note that `n` bytes more were sent.
    fn advance(&mut self, n: usize, body: usize) {
        self.sent += n;
        while let Some(part) = self.parts.front() {
            let (len, heads) = match *part {
                Part::Heads(len) => (len, len),
                Part::Body => (body, 0),
            };
            if self.sent < len {
                return;
            }
            self.sent -= len;
            self.first += heads;
            self.parts.pop_front();
        }
        self.heads.clear();
        self.first = 0;
    }
}
