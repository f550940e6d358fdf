//! A source that does everything in small pieces.

use chart::{Backing, Error, Identity, Limits, Result, Run, Source, Wait};
use std::sync::Arc;

/// Does in pieces what may be done in pieces, and refuses what may be refused: large requests that may not
/// wait, fast zeroing, punching of anything but whole pieces.
pub struct Short {
    inner: Arc<dyn Source>,
    piece: u64,
}

impl Short {
    /// Pieces of `piece` bytes at most.
    pub fn new(inner: Arc<dyn Source>, piece: u64) -> Self {
        Short { inner, piece: piece.max(1) }
    }

    /// The pieces of a range, cut where a multiple of the piece is.
    fn pieces(&self, offset: u64, len: u64) -> impl Iterator<Item = (u64, u64)> {
        let (piece, end) = (self.piece, offset + len);
        let mut at = offset;
        std::iter::from_fn(move || {
            let now = (piece - at % piece).min(end - at);
            at += now;
            (now > 0).then_some((at - now, now))
        })
    }

    /// A request that may not wait must fit into one piece.
    fn admit(&self, offset: u64, len: usize, wait: Wait) -> Result<()> {
        chart::check_range(self.inner.len(), offset, len as u64)?;
        if wait == Wait::Never && len as u64 > self.piece { Err(Error::WOULD_BLOCK) } else { Ok(()) }
    }
}

impl Source for Short {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8], wait: Wait) -> Result<()> {
        self.admit(offset, buf.len(), wait)?;
        let mut rest = buf;
        for (at, len) in self.pieces(offset, rest.len() as u64) {
            let (now, behind) = rest.split_at_mut(len as usize);
            self.inner.read_at(at, now, wait)?;
            rest = behind;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8], wait: Wait) -> Result<()> {
        self.admit(offset, buf.len(), wait)?;
        if buf.is_empty() {
            return self.inner.write_at(offset, buf, wait);
        }
        for (at, len) in self.pieces(offset, buf.len() as u64) {
            self.inner.write_at(at, &buf[(at - offset) as usize..][..len as usize], wait)?;
        }
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64, fast_only: bool) -> Result<()> {
        chart::check_range(self.inner.len(), offset, len)?;
        if fast_only {
            return Err(Error::unsupported(format!("{} cannot zero without writing", self.name())));
        }
        if len == 0 {
            return self.inner.zero(offset, 0, false);
        }
        self.pieces(offset, len).try_for_each(|(at, len)| self.inner.zero(at, len, false))
    }

    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        chart::check_range(self.inner.len(), offset, len)?;
        if !offset.is_multiple_of(self.piece) || !len.is_multiple_of(self.piece) {
            return Err(Error::unsupported(format!("{} punches whole pieces only", self.name())));
        }
        self.inner.punch(offset, len)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.inner.set_len(len)
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }

    fn limits(&self) -> Limits {
        Limits { preferred: u32::try_from(self.piece).unwrap_or(u32::MAX), ..self.inner.limits() }
    }

    fn data_at(&self, offset: u64, want: u64) -> Result<Run> {
        self.inner.data_at(offset, want.min(self.piece))
    }

    fn identity(&self) -> Identity {
        self.inner.identity()
    }

    fn backing(&self) -> Backing<'_> {
        Backing::Wraps(self.inner.as_ref())
    }
}
