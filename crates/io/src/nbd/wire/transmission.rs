//! The transmission phase: requests and the replies to them.

use super::fields::{string_len, text};
use super::{
    AllocationState, ChunkFlags, ChunkKind, Code, Command, CommandFlags, Fields, PAYLOAD_MAX,
    STATUS_EXTENTS_MAX,
};
use chart::{Error, Result};

const REQUEST_MAGIC: u32 = 0x2560_9513;
const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
const EXTENDED_REPLY_MAGIC: u32 = 0x6e8a_278c;

/// How long the offset before the data of a [`ChunkKind::OFFSET_DATA`] chunk is.
pub const DATA_OFFSET_LEN: u32 = 8;

/// Which headers were agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Headers {
    /// Compact requests, simple replies.
    Simple,
    /// Compact requests, structured replies (simple ones where there is no payload).
    Structured,
    /// Extended requests and replies.
    Extended,
}

impl Headers {
    /// How long a request's header is.
    pub fn request_len(self) -> usize {
        if self == Headers::Extended { Request::EXTENDED_LEN } else { Request::COMPACT_LEN }
    }
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// How.
    pub flags: CommandFlags,
    /// What.
    pub command: Command,
    /// The client's mark, repeated in the reply.
    pub cookie: u64,
    /// From where on.
    pub offset: u64,
    /// For how many bytes; with [`CommandFlags::PAYLOAD_LEN`], how long the payload is.
    pub len: u64,
}

impl Request {
    /// The length of a compact one.
    pub const COMPACT_LEN: usize = 28;
    /// The length of an extended one.
    pub const EXTENDED_LEN: usize = 32;

    /// Parses a request of [`Headers::request_len`] bytes.
    pub fn parse(headers: Headers, bytes: &[u8]) -> Result<Self> {
        let mut f = Fields::of("request", bytes);
        let extended = headers == Headers::Extended;
        f.magic_u32(if extended { EXTENDED_REQUEST_MAGIC } else { REQUEST_MAGIC })?;
        let (flags, command) = (CommandFlags(f.u16()?), Command(f.u16()?));
        let (cookie, offset) = (f.u64()?, f.u64()?);
        let len = if extended { f.u64()? } else { u64::from(f.u32()?) };
        f.end()?;
        Ok(Request { flags, command, cookie, offset, len })
    }

    /// Appends it. A length that does not fit is an error.
    pub fn put(&self, headers: Headers, out: &mut Vec<u8>) -> Result<()> {
        let extended = headers == Headers::Extended;
        let magic = if extended { EXTENDED_REQUEST_MAGIC } else { REQUEST_MAGIC };
        let short = u32::try_from(self.len);
        if !extended && short.is_err() {
            return Err(Error::invalid(format!("{} bytes are too many for one NBD request", self.len)));
        }
        out.extend_from_slice(&magic.to_be_bytes());
        out.extend_from_slice(&self.flags.0.to_be_bytes());
        out.extend_from_slice(&self.command.0.to_be_bytes());
        out.extend_from_slice(&self.cookie.to_be_bytes());
        out.extend_from_slice(&self.offset.to_be_bytes());
        match short {
            Ok(len) if !extended => out.extend_from_slice(&len.to_be_bytes()),
            _ => out.extend_from_slice(&self.len.to_be_bytes()),
        }
        Ok(())
    }

    /// How many bytes of payload follow the header. The receiver bounds it.
    pub fn payload_len(&self, headers: Headers) -> u64 {
        // A write is to carry the flag too where headers are extended, but there are clients that forget it, and
        // what follows is a payload all the same.
        let flagged = headers == Headers::Extended && self.flags.has(CommandFlags::PAYLOAD_LEN);
        let has = flagged || self.command == Command::WRITE;
        if has { self.len } else { 0 }
    }
}

/// The payload of a [`Command::BLOCK_STATUS`] that names its contexts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusFilter {
    /// For how many bytes.
    pub len: u64,
    /// The contexts that are asked for.
    pub contexts: Vec<u32>,
}

impl StatusFilter {
    /// Parses it.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut f = Fields::of("block status request", payload);
        let len = f.u64()?;
        let mut contexts = Vec::new();
        while !f.is_empty() {
            contexts.push(f.u32()?);
        }
        Ok(StatusFilter { len, contexts })
    }

    /// Appends it.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.len.to_be_bytes());
        for id in &self.contexts {
            out.extend_from_slice(&id.to_be_bytes());
        }
    }
}

/// A reply without chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimpleReply {
    /// How it went.
    pub code: Code,
    /// The request's mark.
    pub cookie: u64,
}

impl SimpleReply {
    /// Its length.
    pub const LEN: usize = 16;

    /// Appends it.
    pub fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
        out.extend_from_slice(&self.code.0.to_be_bytes());
        out.extend_from_slice(&self.cookie.to_be_bytes());
    }
}

/// The header of one chunk of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Whether it is the last.
    pub flags: ChunkFlags,
    /// What its payload is.
    pub kind: ChunkKind,
    /// The request's mark.
    pub cookie: u64,
    /// The request's offset. On the wire only with extended headers.
    pub offset: u64,
    /// How long its payload is.
    pub len: u32,
}

impl Chunk {
    /// The length of a structured one.
    pub const STRUCTURED_LEN: usize = 20;
    /// The length of an extended one.
    pub const EXTENDED_LEN: usize = 32;

    /// Appends it.
    pub fn put(&self, headers: Headers, out: &mut Vec<u8>) {
        let extended = headers == Headers::Extended;
        let magic = if extended { EXTENDED_REPLY_MAGIC } else { STRUCTURED_REPLY_MAGIC };
        out.extend_from_slice(&magic.to_be_bytes());
        out.extend_from_slice(&self.flags.0.to_be_bytes());
        out.extend_from_slice(&self.kind.0.to_be_bytes());
        out.extend_from_slice(&self.cookie.to_be_bytes());
        if extended {
            out.extend_from_slice(&self.offset.to_be_bytes());
            out.extend_from_slice(&u64::from(self.len).to_be_bytes());
        } else {
            out.extend_from_slice(&self.len.to_be_bytes());
        }
    }

    /// Whether it is the last of its reply.
    pub fn is_last(&self) -> bool {
        self.flags.has(ChunkFlags::DONE)
    }
}

/// The header of a reply, of whatever kind was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The whole reply, but for a read's data.
    Simple(SimpleReply),
    /// One chunk of it.
    Chunk(Chunk),
}

impl Reply {
    /// The length of the shortest header: what may be read before [`Reply::header_len`] is asked.
    pub const SHORTEST: usize = SimpleReply::LEN;

    /// How long the header that begins with `magic` is.
    pub fn header_len(headers: Headers, magic: [u8; 4]) -> Result<usize> {
        match (headers, u32::from_be_bytes(magic)) {
            (Headers::Simple | Headers::Structured, SIMPLE_REPLY_MAGIC) => Ok(SimpleReply::LEN),
            (Headers::Structured, STRUCTURED_REPLY_MAGIC) => Ok(Chunk::STRUCTURED_LEN),
            (Headers::Extended, EXTENDED_REPLY_MAGIC) => Ok(Chunk::EXTENDED_LEN),
            (_, other) => Err(Error::corrupt(format!("NBD reply: its magic number is {other:#x}"))),
        }
    }

    /// Parses a header of [`Reply::header_len`] bytes.
    pub fn parse(headers: Headers, bytes: &[u8]) -> Result<Self> {
        let mut f = Fields::of("reply", bytes);
        let reply = match f.u32()? {
            SIMPLE_REPLY_MAGIC if headers != Headers::Extended => {
                Reply::Simple(SimpleReply { code: Code(f.u32()?), cookie: f.u64()? })
            }
            STRUCTURED_REPLY_MAGIC if headers == Headers::Structured => {
                let (flags, kind, cookie) = (ChunkFlags(f.u16()?), ChunkKind(f.u16()?), f.u64()?);
                Reply::Chunk(Chunk { flags, kind, cookie, offset: 0, len: f.u32()? })
            }
            EXTENDED_REPLY_MAGIC if headers == Headers::Extended => {
                let (flags, kind, cookie) = (ChunkFlags(f.u16()?), ChunkKind(f.u16()?), f.u64()?);
                let (offset, len) = (f.u64()?, f.u64()?);
                let len = u32::try_from(len).map_err(|_| f.wrong("its payload is longer than 4 GiB"))?;
                Reply::Chunk(Chunk { flags, kind, cookie, offset, len })
            }
            other => return Err(f.wrong(&format!("its magic number is {other:#x}"))),
        };
        f.end()?;
        Ok(reply)
    }

    /// The request's mark.
    pub fn cookie(&self) -> u64 {
        match self {
            Reply::Simple(simple) => simple.cookie,
            Reply::Chunk(chunk) => chunk.cookie,
        }
    }
}

/// The payload of a [`ChunkKind::OFFSET_HOLE`] chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Where in the export it begins.
    pub offset: u64,
    /// How long it is; never 0.
    pub len: u32,
}

impl Hole {
    /// Its length on the wire.
    pub const LEN: u32 = 12;

    /// Parses it.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut f = Fields::of("hole chunk", payload);
        let hole = Hole { offset: f.u64()?, len: f.u32()? };
        f.end()?;
        if hole.len == 0 { Err(f.wrong("it is empty")) } else { Ok(hole) }
    }

    /// Appends it.
    pub fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_be_bytes());
        out.extend_from_slice(&self.len.to_be_bytes());
    }
}

/// The payload of an error chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorChunk {
    /// What went wrong; never [`Code::OK`].
    pub code: Code,
    /// The server's words for a person; may be empty.
    pub message: String,
    /// Where, for [`ChunkKind::ERROR_OFFSET`].
    pub offset: Option<u64>,
}

impl ErrorChunk {
    /// The longest payload there is any reason to read.
    pub const LEN_MAX: u32 = 8 << 10;

    /// Parses the payload of an error chunk of any kind, unknown ones too.
    pub fn parse(kind: ChunkKind, payload: &[u8]) -> Result<Self> {
        let mut f = Fields::of("error chunk", payload);
        let code = Code(f.u32()?);
        let len = f.u16()?;
        let message = text(f.bytes(u32::from(len))?);
        if code == Code::OK {
            return Err(f.wrong("it tells of no error"));
        }
        if usize::from(len) > super::STRING_MAX {
            return Err(f.wrong("its message is longer than 4096 bytes"));
        }
        let offset = if kind == ChunkKind::ERROR_OFFSET { Some(f.u64()?) } else { None };
        if matches!(kind, ChunkKind::ERROR | ChunkKind::ERROR_OFFSET) {
            f.end()?;
        }
        Ok(ErrorChunk { code, message, offset })
    }

    /// Which kind of chunk it is sent as.
    pub fn kind(&self) -> ChunkKind {
        if self.offset.is_some() { ChunkKind::ERROR_OFFSET } else { ChunkKind::ERROR }
    }

    /// Appends it.
    pub fn put(&self, out: &mut Vec<u8>) -> Result<()> {
        let len = string_len(&self.message)?;
        let len = u16::try_from(len).map_err(|_| Error::invalid("an NBD message is too long"))?;
        out.extend_from_slice(&self.code.0.to_be_bytes());
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(self.message.as_bytes());
        if let Some(offset) = self.offset {
            out.extend_from_slice(&offset.to_be_bytes());
        }
        Ok(())
    }
}

/// One extent of a block status answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusExtent {
    /// How long it is; never 0.
    pub len: u64,
    /// What is said of it; its meaning is the context's.
    pub status: u64,
}

impl StatusExtent {
    /// What it says when its context is `base:allocation`.
    pub fn allocation(&self) -> AllocationState {
        AllocationState(self.status)
    }
}

/// The payload of a block status chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockStatus {
    /// The context it speaks for.
    pub context: u32,
    /// Consecutive extents, from the request's offset on; at least one.
    pub extents: Vec<StatusExtent>,
}

impl BlockStatus {
    /// The longest payload there is any reason to read.
    pub const LEN_MAX: u32 = 8 + 16 * STATUS_EXTENTS_MAX;

    /// Parses the payload of a [`ChunkKind::BLOCK_STATUS`] or [`ChunkKind::BLOCK_STATUS_EXT`] chunk.
    pub fn parse(kind: ChunkKind, payload: &[u8]) -> Result<Self> {
        let mut f = Fields::of("block status chunk", payload);
        let context = f.u32()?;
        let wide = kind == ChunkKind::BLOCK_STATUS_EXT;
        let count = if wide { Some(f.u32()?) } else { None };
        let mut extents = Vec::new();
        while !f.is_empty() {
            let (len, status) =
                if wide { (f.u64()?, f.u64()?) } else { (u64::from(f.u32()?), u64::from(f.u32()?)) };
            if len == 0 {
                return Err(f.wrong("an extent is empty"));
            }
            extents.push(StatusExtent { len, status });
        }
        let counted = count.is_none_or(|c| usize::try_from(c) == Ok(extents.len()));
        if extents.is_empty() || !counted {
            return Err(f.wrong("its count of extents is wrong"));
        }
        Ok(BlockStatus { context, extents })
    }

    /// Which kind of chunk it is sent as.
    pub fn kind(headers: Headers) -> ChunkKind {
        if headers == Headers::Extended { ChunkKind::BLOCK_STATUS_EXT } else { ChunkKind::BLOCK_STATUS }
    }

    /// Appends it. Lengths and statuses that do not fit into the headers agreed on are an error.
    pub fn put(&self, headers: Headers, out: &mut Vec<u8>) -> Result<()> {
        let too_large = || Error::invalid("a block status does not fit into a compact NBD reply");
        let count = u32::try_from(self.extents.len()).ok().filter(|&c| (1..=STATUS_EXTENTS_MAX).contains(&c));
        let count = count.ok_or_else(|| Error::invalid("a block status of no or too many extents"))?;
        out.extend_from_slice(&self.context.to_be_bytes());
        if headers == Headers::Extended {
            out.extend_from_slice(&count.to_be_bytes());
        }
        for e in &self.extents {
            if headers == Headers::Extended {
                out.extend_from_slice(&e.len.to_be_bytes());
                out.extend_from_slice(&e.status.to_be_bytes());
            } else {
                out.extend_from_slice(&u32::try_from(e.len).map_err(|_| too_large())?.to_be_bytes());
                out.extend_from_slice(&u32::try_from(e.status).map_err(|_| too_large())?.to_be_bytes());
            }
        }
        Ok(())
    }
}

const _: () = assert!(BlockStatus::LEN_MAX <= PAYLOAD_MAX);
