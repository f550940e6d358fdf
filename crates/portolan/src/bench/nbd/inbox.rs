//! What comes from the server.

use chart::{Error, Result};
use io::nbd::wire::{Chunk, ChunkKind, DATA_OFFSET_LEN, ErrorChunk, Headers, Hole, Reply};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::os::fd::BorrowedFd;

/// How much is received at once: what a socket holds. More than the longest message that is not data.
const BUFFER: usize = 256 << 10;

/// How much is received at once where data is not to be: no less than any header that is followed by data.
const HEADER: usize = 64;

/// What has come and was not read yet.
pub(super) struct Inbox {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// How much is received at once.
    most: usize,
}

/// A reply or a chunk of one.
pub(super) struct Message {
    pub(super) reply: Reply,
    /// Where its data lies in the export, and how long it is, where that is said.
    pub(super) data: Option<(u64, u64)>,
}

impl Message {
    /// Whether its data is zeroes that are not sent.
    pub(super) fn is_hole(&self) -> bool {
        matches!(&self.reply, Reply::Chunk(chunk) if chunk.kind == ChunkKind::OFFSET_HOLE)
    }
}

impl Inbox {
    /// For messages and data, or hardly any data.
    pub(super) fn new(data: bool) -> Inbox {
        let most = if data { BUFFER } else { HEADER };
        Inbox { buffer: vec![0; BUFFER].into(), start: 0, end: 0, most }
    }

    fn ready(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Receives what has come; waits for it only if `wait`. Whether anything has.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>, wait: bool) -> Result<bool> {
        // Data is passed over as it comes: what is left is a part of a header, or nothing.
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let flags = if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        let until = self.buffer.len().min(self.end + self.most);
        let room = self.buffer.get_mut(self.end..until).unwrap_or_default();
        match rustix::net::recv(socket, room, flags) {
            Ok((_, 0)) => Err(Error::unavailable("the server closed the connection")),
            Ok((_, n)) => {
                self.end += n;
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(e) => {
                Err(Error::unavailable("the connection to the server broke")
                    .caused_by(std::io::Error::from(e)))
            }
        }
    }

    /// Takes up to `most` bytes of data.
    pub(super) fn data(&mut self, most: u64) -> &[u8] {
        let len = self.ready().len();
        let len = usize::try_from(most).map_or(len, |most| most.min(len));
        let piece = self.start..self.start + len;
        self.start += len;
        self.buffer.get(piece).unwrap_or_default()
    }

    /// Takes the next message, as far as data, if all of it is here.
    pub(super) fn message(&mut self, headers: Headers) -> Result<Option<Message>> {
        let ready = self.ready();
        let Some(magic) = ready.first_chunk::<4>() else { return Ok(None) };
        let len = Reply::header_len(headers, *magic)?;
        let Some((header, behind)) = ready.split_at_checked(len) else { return Ok(None) };
        let reply = Reply::parse(headers, header)?;
        let Reply::Chunk(chunk) = reply else {
            self.start += len;
            return Ok(Some(Message { reply, data: None }));
        };
        let Some(payload) = behind.get(..before_data(&chunk)?) else { return Ok(None) };
        let data = said(&chunk, payload)?;
        self.start += len + payload.len();
        Ok(Some(Message { reply, data }))
    }
}

/// How much of a chunk's payload is no data.
fn before_data(chunk: &Chunk) -> Result<usize> {
    let len = match chunk.kind {
        ChunkKind::OFFSET_DATA if chunk.len > DATA_OFFSET_LEN => DATA_OFFSET_LEN,
        ChunkKind::OFFSET_HOLE if chunk.len == Hole::LEN => Hole::LEN,
        ChunkKind::NONE if chunk.len == 0 => 0,
        kind if kind.is_error() && chunk.len <= ErrorChunk::LEN_MAX => chunk.len,
        kind => {
            let what = format!("the server sends {kind} of {} bytes, which makes no sense here", chunk.len);
            return Err(Error::corrupt(what));
        }
    };
    Ok(len as usize)
}

/// What it says of data.
fn said(chunk: &Chunk, payload: &[u8]) -> Result<Option<(u64, u64)>> {
    match chunk.kind {
        ChunkKind::OFFSET_DATA => {
            let offset = payload.first_chunk().copied().map_or(0, u64::from_be_bytes);
            Ok(Some((offset, u64::from(chunk.len - DATA_OFFSET_LEN))))
        }
        ChunkKind::OFFSET_HOLE => {
            let hole = Hole::parse(payload)?;
            Ok(Some((hole.offset, u64::from(hole.len))))
        }
        ChunkKind::NONE => Ok(None),
        kind => {
            let error = ErrorChunk::parse(kind, payload)?;
            Err(failed(error.code, &error.message))
        }
    }
}

/// The error that the server reports.
pub(super) fn failed(code: io::nbd::wire::Code, message: &str) -> Error {
    let words = if message.is_empty() { String::new() } else { format!(", saying {message:?}") };
    Error::io(format!("the server fails a request: {code}{words}"))
}
