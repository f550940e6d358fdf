//! How long work is watched, and ended early.

use chart::{Error, Result};
pub use io::copy::Progress;
use std::sync::atomic::{AtomicBool, Ordering};

/// Who looks on while long work is done.
#[derive(Clone, Copy, Default)]
pub struct Watch<'a> {
    /// Told now and then how far it is, from any thread.
    pub progress: Option<&'a (dyn Fn(Progress) + Sync)>,
    /// When this is set, the work ends with an error as soon as it can, and cleans up.
    pub cancel: Option<&'a AtomicBool>,
}

impl Watch<'_> {
    /// Tells how far it is.
    pub(crate) fn tell(&self, done: u64, total: u64) {
        if let Some(progress) = self.progress {
            progress(Progress { done, total });
        }
    }

    /// Whether the work is to end.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed))
    }

    /// An error once the work is to end.
    pub(crate) fn go_on(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::conflict("cancelled")) } else { Ok(()) }
    }
}
