//! How long work is watched, and ended early.

use chart::{Backing, Error, Identity, Limits, Result, Run, Source, Wait};
pub use io::copy::Progress;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is asked of the host at once, where it cannot be interrupted.
const STEP: u64 = 1 << 30;

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

    /// Does something to `len` bytes from `offset` on in steps, and ends between two of them if it must.
    pub(crate) fn in_steps(
        &self,
        offset: u64,
        len: u64,
        mut step: impl FnMut(u64, u64) -> Result<()>,
    ) -> Result<()> {
        let mut done = 0;
        while done < len {
            self.go_on()?;
            let now = (len - done).min(STEP);
            step(offset + done, now)?;
            done += now;
        }
        Ok(())
    }
}

/// A source that takes no more once the work is to end.
pub(crate) struct Watched<'a> {
    source: &'a dyn Source,
    watch: Watch<'a>,
}

impl<'a> Watched<'a> {
    pub(crate) fn new(source: &'a dyn Source, watch: Watch<'a>) -> Self {
        Watched { source, watch }
    }
}

impl Source for Watched<'_> {
    fn name(&self) -> String {
        self.source.name()
    }

    fn len(&self) -> u64 {
        self.source.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8], wait: Wait) -> Result<()> {
        self.source.read_at(offset, buf, wait)
    }

    fn write_at(&self, offset: u64, buf: &[u8], wait: Wait) -> Result<()> {
        self.watch.go_on()?;
        self.source.write_at(offset, buf, wait)
    }

    fn zero(&self, offset: u64, len: u64, fast_only: bool) -> Result<()> {
        self.watch.in_steps(offset, len, |at, len| self.source.zero(at, len, fast_only))
    }

    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.watch.in_steps(offset, len, |at, len| self.source.punch(at, len))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.source.set_len(len)
    }

    fn flush(&self) -> Result<()> {
        self.watch.go_on()?;
        self.source.flush()
    }

    fn limits(&self) -> Limits {
        self.source.limits()
    }

    fn data_at(&self, offset: u64, want: u64) -> Result<Run> {
        self.source.data_at(offset, want)
    }

    fn identity(&self) -> Identity {
        self.source.identity()
    }

    fn backing(&self) -> Backing<'_> {
        self.source.backing()
    }
}
