//! The chart of a raw disk: one extent, and a mutator with no map to change.

use ::chart::{
    Answer, ChartMut, Epochs, Error, Extent, Intent, Layer, Reservation, Reserve, Result, SetMode, Source,
    SourceId, To, Wait,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The bytes of a source, as they are.
pub struct Raw {
    source: Arc<dyn Source>,
    /// Asked once: a lookup must cost nothing.
    len: AtomicU64,
    writable: bool,
}

impl Raw {
    pub(super) fn new(source: Arc<dyn Source>) -> Raw {
        Raw { len: AtomicU64::new(source.len()), writable: !source.limits().read_only, source }
    }
}

impl Layer for Raw {
    fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    fn look(&self, at: u64, want: u64, _: Wait) -> Result<Answer> {
        let len = want.min(Layer::len(self).saturating_sub(at)).max(1);
        Ok(Answer::Here(Extent { writable: self.writable, ..Extent::raw(at, len, SourceId(0), at) }))
    }
}

impl ChartMut for Raw {
    fn grain(&self) -> u64 {
        1
    }

    /// No place is ever moved: the extent of a raw disk is true for ever.
    fn epochs(&self) -> Option<&Arc<Epochs>> {
        None
    }

    fn reserve(&self, _: u64, want: u64, _: Intent) -> Result<Reserve> {
        Ok(Reserve::Already { len: want })
    }

    fn commit(&self, _: Reservation) -> Result<()> {
        Err(Error::invalid("a raw disk gives no reservations"))
    }

    fn abort(&self, _: Reservation) {}

    fn set(&self, at: u64, len: u64, to: To, mode: SetMode) -> Result<u64> {
        let unsupported = |e: &Error| e.kind() == ::chart::Kind::Unsupported;
        if mode.may_unmap || to == To::Hole {
            match self.source.punch(at, len) {
                Err(e) if unsupported(&e) && to == To::Hole => return Ok(len),
                Err(e) if unsupported(&e) => {}
                done => return done.map(|()| len),
            }
        }
        self.source.zero(at, len, mode.fast_only).map(|()| len)
    }

    fn resize(&self, len: u64) -> Result<()> {
        self.source.set_len(len)?;
        // A device stays as long as it is.
        self.len.store(self.source.len().min(len), Ordering::Release);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.source.flush()
    }
}
