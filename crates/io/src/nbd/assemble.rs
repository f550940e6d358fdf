//! A reply as it comes in, chunk by chunk, checked against what was asked.

use super::wire::{
    Chunk, ChunkKind, Code, Command, DATA_OFFSET_LEN, ErrorChunk, Fields, Headers, Hole, StatusExtent,
};
use chart::{Error, Kind, Result};

/// Into how many separate pieces a read may be known at one time, while chunks come out of order.
const PIECES_MAX: usize = 4096;

/// What was asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) command: Command,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) headers: Headers,
    /// The metadata context that is wanted.
    pub(super) context: u32,
}

/// What has come of the reply so far.
#[derive(Default)]
pub(super) struct Partial {
    /// The data, where it could not be put straight where it belongs.
    pub(super) data: Option<Vec<u8>>,
    covered: Covered,
    pub(super) status: Vec<StatusExtent>,
    error: Option<Error>,
}

impl Partial {
    /// Takes note of a piece of a read that is about to be stored: where in the answer it lies.
    pub(super) fn place(&mut self, asked: &Asked, offset: u64, len: u64) -> Result<std::ops::Range<usize>> {
        if asked.command != Command::READ {
            return Err(Error::corrupt(format!("the NBD server answers {} with data", asked.command)));
        }
        let outside = || Error::corrupt("the NBD server sends data that was not asked for").at(offset);
        let start = offset.checked_sub(asked.offset).ok_or_else(outside)?;
        let end = start.checked_add(len).filter(|&end| end <= asked.len).ok_or_else(outside)?;
        self.covered.add(start, end)?;
        match (usize::try_from(start), usize::try_from(end)) {
            (Ok(start), Ok(end)) => Ok(start..end),
            _ => Err(outside()),
        }
    }

    /// Takes note of an error the server reports.
    pub(super) fn fail(&mut self, asked: &Asked, code: Code, message: &str, offset: Option<u64>) {
        let words = if message.is_empty() { String::new() } else { format!(", saying {message:?}") };
        let what = format!("the NBD server fails {} with {code}{words}", asked.command);
        let error = Error::new(kind_of(code), what).at(offset.unwrap_or(asked.offset));
        self.error.get_or_insert(error);
    }

    /// Takes in a chunk other than data, with its whole payload.
    pub(super) fn chunk(&mut self, asked: &Asked, chunk: &Chunk, payload: &[u8]) -> Result<Option<Hole>> {
        if chunk.kind.is_error() {
            let error = ErrorChunk::parse(chunk.kind, payload)?;
            self.fail(asked, error.code, &error.message, error.offset);
            return Ok(None);
        }
        match chunk.kind {
            ChunkKind::NONE if payload.is_empty() && chunk.is_last() => Ok(None),
            ChunkKind::OFFSET_HOLE => Hole::parse(payload).map(Some),
            kind if kind == super::wire::BlockStatus::kind(asked.headers)
                && asked.command == Command::BLOCK_STATUS =>
            {
                let status = super::wire::BlockStatus::parse(kind, payload)?;
                if status.context != asked.context || !self.status.is_empty() {
                    return Err(Error::corrupt(
                        "the NBD server answers for a metadata context not asked for",
                    ));
                }
                self.status = status.extents;
                Ok(None)
            }
            kind => Err(Error::corrupt(format!("the NBD server answers {} with {kind}", asked.command))),
        }
    }

    /// The whole reply is here: whether it is what was asked.
    pub(super) fn finish(self, asked: &Asked) -> Result<Partial> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let whole = match asked.command {
            Command::READ => self.covered.is(asked.len),
            Command::BLOCK_STATUS => !self.status.is_empty(),
            _ => true,
        };
        if whole {
            Ok(self)
        } else {
            Err(Error::corrupt("the NBD server's reply is incomplete").at(asked.offset))
        }
    }
}

/// The longest payload a chunk may have as an answer to `asked`; data is read piece by piece instead.
pub(super) fn payload_max(chunk: &Chunk) -> u32 {
    match chunk.kind {
        kind if kind.is_error() => ErrorChunk::LEN_MAX,
        ChunkKind::OFFSET_HOLE => Hole::LEN,
        ChunkKind::BLOCK_STATUS | ChunkKind::BLOCK_STATUS_EXT => super::wire::BlockStatus::LEN_MAX,
        _ => 0,
    }
}

/// Where a data chunk's data begins in the export, and how long it is.
pub(super) fn data_chunk(chunk: &Chunk, offset: [u8; 8]) -> Result<(u64, u64)> {
    let len = u64::from(chunk.len).checked_sub(u64::from(DATA_OFFSET_LEN)).filter(|&len| len > 0);
    let len = len.ok_or_else(|| Error::corrupt("the NBD server sends a data chunk without data"))?;
    Ok((Fields::of("data chunk", &offset).u64()?, len))
}

/// What a caller can do about a server's error.
fn kind_of(code: Code) -> Kind {
    match code {
        Code::EPERM => Kind::Denied,
        Code::EINVAL => Kind::Invalid,
        Code::ENOSPC => Kind::NoSpace,
        Code::EOVERFLOW | Code::ENOTSUP => Kind::Unsupported,
        Code::ESHUTDOWN => Kind::Unavailable,
        Code::EIO | Code::ENOMEM => Kind::Io,
        // "The client SHOULD treat an unexpected error value as if it had been EINVAL".
        _ => Kind::Invalid,
    }
}

/// Which parts of a range have come: sorted, disjoint, adjacent ones joined.
#[derive(Default)]
struct Covered(Vec<(u64, u64)>);

impl Covered {
    fn add(&mut self, start: u64, end: u64) -> Result<()> {
        let i = self.0.partition_point(|&(s, _)| s < start);
        let before = i.checked_sub(1);
        let overlaps = before.and_then(|b| self.0.get(b)).is_some_and(|&(_, e)| e > start)
            || self.0.get(i).is_some_and(|&(s, _)| s < end);
        if overlaps {
            return Err(Error::corrupt("the NBD server sends the same data twice"));
        }
        // Joined with its neighbours, so that data in order stays one piece.
        let next = self.0.get(i).filter(|&&(s, _)| s == end).map(|&(_, e)| e);
        if next.is_some() {
            self.0.remove(i);
        }
        let end = next.unwrap_or(end);
        match before.and_then(|b| self.0.get_mut(b)) {
            Some(previous) if previous.1 == start => previous.1 = end,
            _ => self.0.insert(i, (start, end)),
        }
        if self.0.len() > PIECES_MAX {
            return Err(Error::corrupt(format!(
                "the NBD server sends a read in more than {PIECES_MAX} pieces"
            )));
        }
        Ok(())
    }

    fn is(&self, len: u64) -> bool {
        len == 0 || self.0 == [(0, len)]
    }
}
