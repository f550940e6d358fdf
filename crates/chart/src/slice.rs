//! Slice: a range of a source as a disk of its own.

use crate::{Chart, Error, Extent, Result, SourceId, Wait};

/// `len` bytes of a source from `offset` on. A partition, a window, a file's tail.
#[derive(Clone, Debug)]
pub struct Slice {
    source: SourceId,
    offset: u64,
    len: u64,
    writable: bool,
}

impl Slice {
    /// The window `[offset, offset + len)` of `source`. The caller has checked that the source is long enough.
    pub fn new(source: SourceId, offset: u64, len: u64, writable: bool) -> Result<Self> {
        if offset.checked_add(len).is_none() {
            return Err(Error::out_of_range(format!("{len} bytes from byte {offset} on")));
        }
        Ok(Slice { source, offset, len, writable })
    }
}

impl Chart for Slice {
    fn len(&self) -> u64 {
        self.len
    }

    fn extent_at(&self, at: u64, want: u64, _: Wait) -> Result<Extent> {
        if at >= self.len {
            return Err(Error::out_of_range(format!("byte {at} of a slice of {}", self.len)));
        }
        let len = want.min(self.len - at).max(1);
        Ok(Extent { writable: self.writable, ..Extent::raw(at, len, self.source, self.offset + at) })
    }
}
