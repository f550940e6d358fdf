//! Reading: plan and execute, one leaf at a time.

use super::{Coded, Disk, LeafPlace, Purpose};
use crate::{Error, Kind, Result, Wait, check_range};
use std::sync::Arc;

/// The largest frame that is decoded, a limit on what an image can make us allocate.
const MAX_FRAME: usize = 64 << 20;

impl Disk {
    /// Reads exactly `buf.len()` bytes. With [`Wait::Never`] nothing blocks, and `buf` may be part-written when
    /// that fails.
    pub fn read_at(&self, at: u64, buf: &mut [u8], wait: Wait) -> Result<()> {
        check_range(self.len(), at, buf.len() as u64)?;
        let _pin = self.pin();
        self.read_pinned(at, buf, wait)
    }

    /// The same under a pin the caller holds.
    pub(super) fn read_pinned(&self, mut at: u64, mut buf: &mut [u8], wait: Wait) -> Result<()> {
        while !buf.is_empty() {
            let leaf = self.leaf(at, buf.len() as u64, wait, Purpose::Read);
            let leaf = leaf.map_err(|e| self.blame(at, 1, e))?;
            let (now, rest) =
                buf.split_at_mut(usize::try_from(leaf.len).unwrap_or(usize::MAX).min(buf.len()));
            leaf.place.read(now, wait).map_err(|e| self.blame(at, now.len(), e).during(self.name.clone()))?;
            at += now.len() as u64;
            buf = rest;
        }
        Ok(())
    }

    /// Out of range is what the caller asked for; but a range within the disk that leads past the end of a source
    /// (a backing file cut short, a partition larger than its disk) is the chart's fault.
    pub(super) fn blame(&self, at: u64, len: usize, e: Error) -> Error {
        if e.kind() != Kind::OutOfRange || check_range(self.len(), at, len as u64).is_err() {
            return e;
        }
        Error::corrupt(format!("{}: its chart leads past the end of what holds its bytes", self.name))
            .at(at)
            .caused_by(e)
    }
}

impl LeafPlace<'_> {
    /// Reads the first `buf.len()` bytes of the leaf.
    pub fn read(&self, buf: &mut [u8], wait: Wait) -> Result<()> {
        match self {
            LeafPlace::Hole | LeafPlace::Zero => buf.fill(0),
            LeafPlace::Raw { source, offset } => source.read_at(*offset, buf, wait)?,
            LeafPlace::Coded(coded) => {
                let decoded = coded.decoded(wait)?;
                let skip = coded.frame.skip as usize;
                let part = decoded.get(skip..).and_then(|d| d.get(..buf.len()));
                buf.copy_from_slice(part.ok_or_else(|| coded.corrupt("shorter than its extent"))?);
            }
        }
        Ok(())
    }
}

impl Coded<'_> {
    /// The whole decoded frame, from the disk's few kept ones or by decoding it.
    pub fn decoded(&self, wait: Wait) -> Result<Arc<[u8]>> {
        let (kept, generation) = self.home.frames.take(self.key());
        if let Some(frame) = kept {
            return Ok(frame);
        }
        if wait == Wait::Never {
            // Decoding is not waiting, but it would keep a connection's other requests waiting.
            return Err(Error::WOULD_BLOCK);
        }
        let mut frame: Arc<[u8]> = std::iter::repeat_n(0, self.decoded_len()?).collect();
        let out = Arc::get_mut(&mut frame).ok_or_else(|| self.corrupt("shared"))?;
        self.decode_into(out, &mut Vec::new())?;
        self.home.frames.put(self.key(), Arc::clone(&frame), generation);
        Ok(frame)
    }

    /// Decodes the whole frame into `out`, past the kept ones. `stored` is room to read into.
    pub fn decode_into(&self, out: &mut [u8], stored: &mut Vec<u8>) -> Result<()> {
        if self.stored_len() > MAX_FRAME {
            return Err(self.corrupt("larger than any frame may be"));
        }
        if self.stored_len() == 0 {
            return Err(self.corrupt("past the end of what holds it"));
        }
        stored.resize(self.stored_len(), 0);
        self.source.read_at(self.offset, stored, Wait::Allowed)?;
        self.codec.decode(stored, out).map_err(|e| e.at(self.offset).in_path(self.source.name()))
    }

    /// How many bytes it decodes to.
    pub fn decoded_len(&self) -> Result<usize> {
        let len = self.frame.decoded_len as usize;
        if len > MAX_FRAME { Err(self.corrupt("larger than any frame may be")) } else { Ok(len) }
    }

    fn corrupt(&self, what: &str) -> Error {
        let what = format!("{} frame is {what}", self.codec.name());
        Error::corrupt(what).at(self.offset).in_path(self.source.name())
    }
}
