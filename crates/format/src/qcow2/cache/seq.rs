//! Reading without a lock what somebody may be changing.

use std::sync::atomic::{AtomicU32, Ordering, fence};

/// What came of looking without a lock.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Hit,
    Miss,
    Changing,
}

/// The sequence number of a seqlock: odd while what it guards changes. All of that is atomics, read and written
/// relaxed; only one at a time changes it, which is the caller's to see to.
#[derive(Default)]
pub(super) struct Seq(AtomicU32);

impl Seq {
    /// Begins to read; not while there is a change.
    #[inline]
    pub(super) fn begin(&self) -> Option<u32> {
        let seq = self.0.load(Ordering::Acquire);
        (seq & 1 == 0).then_some(seq)
    }

    /// Whether what was read since then is of one moment.
    #[inline]
    pub(super) fn is_still(&self, begun: u32) -> bool {
        fence(Ordering::Acquire);
        self.0.load(Ordering::Relaxed) == begun
    }

    /// Changes it: readers that began before find out.
    pub(super) fn change(&self, set: impl FnOnce()) {
        let seq = self.0.load(Ordering::Relaxed);
        self.0.store(seq.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        set();
        self.0.store(seq.wrapping_add(2), Ordering::Release);
    }
}
