//! What all connections of a server share: memory that is kept between requests, and how much may be held at a time.

use super::limits::BATCH;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

/// Memory is asked for in multiples of this.
const STEP: usize = 64 << 10;

/// The least that a buffer holds: a batch of replies, and the one that makes it one.
const LEAST: usize = BATCH + STEP;

/// How large a buffer may stay between requests.
const LONGEST: usize = 1 << 20;

/// How much memory stays between requests, in all.
const KEPT: usize = 4 << 20;

/// What the connections of a server share.
pub(super) struct Means {
    pub(super) pool: Pool,
    pub(super) budget: Arc<Budget>,
}

impl Means {
    /// With nothing kept, and so much that may be held.
    pub(super) fn new(most: u64) -> Arc<Means> {
        let budget = Arc::new(Budget { most, held: AtomicU64::new(0) });
        Arc::new(Means { pool: Pool::default(), budget })
    }
}

/// Buffers. A connection has one only while it is at work, so that many connections need no more of them than there
/// are processors; the one that was given back last, and is in the processor's cache, is the next to be taken.
#[derive(Default)]
pub(super) struct Pool(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Pool {
    /// A buffer of at least so many bytes, which hold anything.
    pub(super) fn take(&self, len: usize) -> Vec<u8> {
        let kept = {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let found = kept.buffers.iter().rposition(|buffer| buffer.len() >= len);
            let found = found.map(|i| kept.buffers.remove(i));
            kept.bytes = kept.bytes.saturating_sub(found.as_ref().map_or(0, Vec::len));
            found
        };
        // Zeroed memory is only taken from the system when it is written to.
        kept.unwrap_or_else(|| vec![0; len.max(LEAST).next_multiple_of(STEP)])
    }

    /// Takes a buffer back. One that only a rare request needs is not kept.
    pub(super) fn give(&self, buffer: Vec<u8>) {
        if !(LEAST..=LONGEST).contains(&buffer.len()) {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = kept.bytes.saturating_add(buffer.len());
        if bytes <= KEPT {
            kept.bytes = bytes;
            kept.buffers.push(buffer);
        }
    }
}

/// How many bytes all connections may hold together for what is under way.
pub(super) struct Budget {
    most: u64,
    held: AtomicU64,
}

/// A part of that, until it is dropped.
pub(super) struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// Whether so much more may be held.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.held.load(SeqCst).saturating_add(bytes) <= self.most
    }

    /// Holds so much more, whether or not there is room.
    pub(super) fn hold(self: &Arc<Self>, bytes: u64) -> Share {
        self.held.fetch_add(bytes, SeqCst);
        Share { budget: Arc::clone(self), bytes }
    }

    /// How much is held.
    #[cfg(test)]
    pub(super) fn held(&self) -> u64 {
        self.held.load(SeqCst)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, SeqCst);
    }
}
