//! Flushes of one image, one at a time and in order.

use chart::Result;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Counts flushes, so that of many who wait for one, one flush does for all. Locked before an image's writer, never
/// after it.
#[derive(Default)]
pub(crate) struct Flushes {
    /// How many have begun.
    begun: AtomicU64,
    /// The number of the last that succeeded.
    succeeded: Mutex<u64>,
}

/// No flush is under way while this lives.
#[must_use]
pub(crate) struct Between<'a> {
    _held: MutexGuard<'a, u64>,
}

impl Flushes {
    fn lock(&self) -> MutexGuard<'_, u64> {
        self.succeeded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps flushes out.
    pub(crate) fn between(&self) -> Between<'_> {
        Between { _held: self.lock() }
    }

    /// Flushes everything that was written before. Who comes while another flush is under way, and finds that a later
    /// one has succeeded, has nothing left to do.
    pub(crate) fn flush(&self, flush: impl FnOnce() -> Result<()>) -> Result<()> {
        let before = self.begun.load(Ordering::SeqCst);
        let mut succeeded = self.lock();
        if *succeeded > before {
            return Ok(());
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        flush()?;
        *succeeded = number;
        Ok(())
    }
}
