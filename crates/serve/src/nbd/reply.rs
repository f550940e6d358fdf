//! Replies, in the headers that were agreed on.

use super::buffer::Output;
use super::failure::Failure;
use io::nbd::wire::{
    Chunk, ChunkFlags, ChunkKind, Code, Command, DATA_OFFSET_LEN, ErrorChunk, Headers, Hole, Request,
    SimpleReply,
};

/// The longest message that is worth sending.
const MESSAGE_MAX: usize = 1024;

/// Whether the reply to this request may come without a chunk.
fn is_simple(headers: Headers, command: Command) -> bool {
    match headers {
        Headers::Simple => true,
        Headers::Structured => !matches!(command, Command::READ | Command::BLOCK_STATUS),
        Headers::Extended => false,
    }
}

/// A chunk's header for this request.
pub(super) fn chunk(request: &Request, kind: ChunkKind, len: u32, last: bool) -> Chunk {
    let flags = ChunkFlags::DONE.only_if(last);
    Chunk { flags, kind, cookie: request.cookie, offset: request.offset, len }
}

/// Success, with nothing more to say.
pub(super) fn success(headers: Headers, request: &Request, out: &mut Output) {
    out.put(|head| {
        if is_simple(headers, request.command) {
            SimpleReply { code: Code::OK, cookie: request.cookie }.put(head);
        } else {
            chunk(request, ChunkKind::NONE, 0, true).put(headers, head);
        }
    });
}

/// Failure, with words where the headers have room for them.
pub(super) fn failure(headers: Headers, request: &Request, failure: &Failure, out: &mut Output) {
    out.put(|head| {
        if is_simple(headers, request.command) {
            return SimpleReply { code: failure.code, cookie: request.cookie }.put(head);
        }
        let message = cut(&failure.message.replace('\0', " "));
        let error = ErrorChunk { code: failure.code, message, offset: None };
        let mut payload = Vec::new();
        // Only a message that is too long or holds a NUL can fail, and this one is and does neither.
        if error.put(&mut payload).is_err() {
            payload.clear();
        }
        let len = u32::try_from(payload.len()).unwrap_or(0);
        chunk(request, error.kind(), len, true).put(headers, head);
        head.extend_from_slice(&payload);
    });
}

/// A message short enough to send, cut between two characters.
fn cut(message: &str) -> String {
    let mut end = message.len().min(MESSAGE_MAX);
    while !message.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    message.get(..end).unwrap_or_default().to_owned()
}

/// The header of a read's data in one piece, for simple replies.
pub(super) fn simple_data(request: &Request, out: &mut Output) {
    out.put(|head| SimpleReply { code: Code::OK, cookie: request.cookie }.put(head));
}

/// A read's reply in chunks: runs of data and holes, in order.
pub(super) struct Chunks<'o> {
    out: &'o mut Output,
    headers: Headers,
    request: &'o Request,
    /// Where the header of the chunk of data begins that is being filled, and the position of its data.
    open: Option<(usize, u64)>,
    at: u64,
    end: u64,
}

impl<'o> Chunks<'o> {
    /// Begins the reply to a read.
    pub(super) fn new(headers: Headers, request: &'o Request, out: &'o mut Output) -> Self {
        let end = request.offset.saturating_add(request.len);
        Chunks { out, headers, request, open: None, at: request.offset, end }
    }

    /// Where in the export the next byte belongs.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// How much is missing.
    pub(super) fn missing(&self) -> u64 {
        self.end.saturating_sub(self.at)
    }

    fn header_len(&self) -> usize {
        let chunk =
            if self.headers == Headers::Extended { Chunk::EXTENDED_LEN } else { Chunk::STRUCTURED_LEN };
        chunk.saturating_add(size_of::<u64>())
    }

    /// Room for the next `len` bytes of data.
    pub(super) fn data(&mut self, len: usize) -> &mut [u8] {
        if self.open.is_none() {
            self.open = Some((self.out.len(), self.at));
            self.out.room(self.header_len());
        }
        self.at = self.at.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
        self.out.room(len)
    }

    /// A hole of `len` bytes.
    pub(super) fn hole(&mut self, len: u32) {
        self.close();
        let hole = Hole { offset: self.at, len };
        self.at = self.at.saturating_add(u64::from(len));
        let chunk = chunk(self.request, ChunkKind::OFFSET_HOLE, Hole::LEN, self.at >= self.end);
        let headers = self.headers;
        self.out.put(|head| {
            chunk.put(headers, head);
            hole.put(head);
        });
    }

    /// Completes the chunk of data that is being filled, if one is.
    pub(super) fn close(&mut self) {
        let Some((from, offset)) = self.open.take() else { return };
        let len = u32::try_from(self.at.saturating_sub(offset)).unwrap_or(u32::MAX);
        let len = len.saturating_add(DATA_OFFSET_LEN);
        let chunk = chunk(self.request, ChunkKind::OFFSET_DATA, len, self.at >= self.end);
        let headers = self.headers;
        self.out.patch(from, |head| {
            chunk.put(headers, head);
            head.extend_from_slice(&offset.to_be_bytes());
        });
    }
}
