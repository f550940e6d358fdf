//! The space that a new image takes before anything is written to it.

use crate::field::{to_index, to_u64};
use chart::{Result, Source, Wait};

/// Tables and zeros are written in pieces of about this.
const PIECE: u64 = 1 << 20;

/// What space a new image takes before anything is written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Preallocation {
    /// None: only what its tables need.
    #[default]
    Off,
    /// Every cluster has its place in the file, which stays sparse.
    Metadata,
    /// And that place is reserved.
    Falloc,
    /// And written with zeros.
    Full,
}

/// Gives a range the space that was asked for. It reads as zeros already.
pub(crate) fn reserve(source: &dyn Source, offset: u64, len: u64, how: Preallocation) -> Result<()> {
    match how {
        Preallocation::Off | Preallocation::Metadata => Ok(()),
        _ if len == 0 => Ok(()),
        Preallocation::Falloc => source.zero(offset, len, true).map_err(|e| {
            e.during("reserving space (preallocation=falloc); metadata and full need less of the host")
        }),
        Preallocation::Full => write_pieces(source, offset, len, |_, piece| piece.fill(0)),
    }
}

/// Writes `len` bytes at `offset` in pieces, each made by `make` from how far in it begins.
pub(crate) fn write_pieces(
    source: &dyn Source,
    offset: u64,
    len: u64,
    mut make: impl FnMut(u64, &mut [u8]),
) -> Result<()> {
    let mut piece = vec![0; to_index(len.min(PIECE))];
    let mut done = 0u64;
    while done < len {
        let now = to_index(len.saturating_sub(done).min(PIECE));
        let Some(piece) = piece.get_mut(..now) else { break };
        make(done, piece);
        source.write_at(offset.saturating_add(done), piece, Wait::Allowed)?;
        done = done.saturating_add(to_u64(now));
    }
    Ok(())
}
