//! Encoded runs and the few that are kept decoded.

use crate::{Result, SourceId};
use std::sync::{Arc, Mutex, PoisonError};

/// How an encoded run becomes bytes.
pub trait Codec: Send + Sync {
    /// Its name, as a person would say it: `zlib`, `zstd`.
    fn name(&self) -> &'static str;

    /// Decodes `stored`, which may have foreign bytes behind its end, to exactly `out.len()` bytes.
    fn decode(&self, stored: &[u8], out: &mut [u8]) -> Result<()>;
}

/// At most so many bytes of decoded frames are kept for a disk.
const KEPT_BYTES: usize = 4 << 20;

/// The frames of a disk that were decoded last.
#[derive(Default)]
pub(crate) struct FrameCache(Mutex<Kept>);

/// Where a frame is stored.
type Key = (SourceId, u64);

#[derive(Default)]
struct Kept {
    generation: u64,
    bytes: usize,
    /// Least recently used first.
    frames: Vec<(Key, Arc<[u8]>)>,
}

impl FrameCache {
    /// The frame at `key`, if it is kept; and the generation to hand to [`FrameCache::put`].
    pub(crate) fn take(&self, key: Key) -> (Option<Arc<[u8]>>, u64) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(i) = kept.frames.iter().position(|(k, _)| *k == key) else { return (None, kept.generation) };
        let frame = kept.frames.remove(i);
        let bytes = Arc::clone(&frame.1);
        kept.frames.push(frame);
        (Some(bytes), kept.generation)
    }

    /// Keeps a frame that was read in `generation`, unless the cache was cleared since.
    pub(crate) fn put(&self, key: Key, frame: Arc<[u8]>, generation: u64) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.generation != generation || frame.len() > KEPT_BYTES {
            return;
        }
        kept.bytes += frame.len();
        kept.frames.push((key, frame));
        while kept.bytes > KEPT_BYTES {
            let (_, old) = kept.frames.remove(0);
            kept.bytes -= old.len();
        }
    }

    /// Forgets everything: places may be given to other frames from now on.
    pub(crate) fn clear(&self) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.generation += 1;
        kept.bytes = 0;
        kept.frames.clear();
    }
}
