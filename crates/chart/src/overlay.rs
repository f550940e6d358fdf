//! Overlay: what a layer does not hold is found in the one below.

use crate::{Answer, Chart, Error, Extent, Layer, Place, Result, Source, SourceId, Wait};
use std::sync::Arc;

/// A layer over another disk. The layer's extents name the same disk's sources; what it leaves falls through to
/// the source `below`, at the same position, or to nothing where there is none or it ends.
pub struct Overlay {
    top: Arc<dyn Layer>,
    below: Option<(SourceId, Arc<dyn Source>)>,
}

impl Overlay {
    /// Stacks `top` over `below`.
    pub fn new(top: Arc<dyn Layer>, below: Option<(SourceId, Arc<dyn Source>)>) -> Self {
        Overlay { top, below }
    }

    /// The upper layer.
    pub fn top(&self) -> &Arc<dyn Layer> {
        &self.top
    }

    /// The source underneath.
    pub fn below(&self) -> Option<&Arc<dyn Source>> {
        self.below.as_ref().map(|(_, s)| s)
    }

    fn fall_through(&self, at: u64, len: u64) -> Extent {
        // Asked once: what lies below may shrink meanwhile.
        let held = self.below.as_ref().map(|(source, below)| (*source, below.len().saturating_sub(at)));
        match held {
            Some((source, rest)) if rest > 0 => Extent::raw(at, len.min(rest), source, at),
            _ => Extent::hole(at, len),
        }
    }

    /// Which layer answers: the extent, and whether it is the upper layer's own.
    pub fn answer(&self, at: u64, want: u64, wait: Wait) -> Result<(Extent, bool)> {
        let len = self.top.len();
        if at >= len {
            return Err(Error::out_of_range(format!("byte {at} of a disk of {len}")));
        }
        Ok(match self.top.look(at, want.min(len - at).max(1), wait)? {
            Answer::Here(extent) => (extent, true),
            Answer::Below { len } => (self.fall_through(at, len), false),
        })
    }
}

impl Chart for Overlay {
    fn len(&self) -> u64 {
        self.top.len()
    }

    fn extent_at(&self, at: u64, want: u64, wait: Wait) -> Result<Extent> {
        let (extent, own) = self.answer(at, want, wait)?;
        debug_assert!(own || !extent.writable || matches!(extent.place, Place::Raw { .. }));
        Ok(extent)
    }
}
