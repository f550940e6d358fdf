//! How long work is watched, and ended early.

use crate::copy::Progress;
use chart::{Error, Result};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is asked of the host at once, where it cannot be interrupted.
const STEP: u64 = 1 << 30;

/// Who looks on while long work is done.
#[derive(Clone, Copy, Default)]
pub struct Watch<'a> {
    /// Told now and then how far it is, from any thread. Work of several parts begins each with nothing done.
    pub progress: Option<&'a (dyn Fn(Progress) + Sync)>,
    /// When this is set, the work ends with an error as soon as it can, and cleans up.
    pub cancel: Option<&'a AtomicBool>,
}

impl Watch<'_> {
    /// Tells how far it is.
    pub fn tell(&self, done: u64, total: u64) {
        if let Some(progress) = self.progress {
            progress(Progress { done, total });
        }
    }

    /// Whether the work is to end.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed))
    }

    /// An error once the work is to end.
    pub fn go_on(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::conflict("cancelled")) } else { Ok(()) }
    }

    /// Tells how far it is. An error once the work is to end.
    pub fn step(&self, done: u64, total: u64) -> Result<()> {
        self.tell(done, total);
        self.go_on()
    }

    /// Does something to `len` bytes from `offset` on in steps, and ends between two of them if it must.
    pub fn in_steps(
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

/// The same, to be kept: what an open image tells of work that takes long, whoever asked for it.
#[derive(Clone, Default)]
pub struct Onlooker {
    tell: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
    cancel: Option<Arc<AtomicBool>>,
}

impl Onlooker {
    /// Who is told by `tell`, and ends work by setting `cancel`.
    pub fn new(tell: Arc<dyn Fn(Progress) + Send + Sync>, cancel: Arc<AtomicBool>) -> Onlooker {
        Onlooker { tell: Some(tell), cancel: Some(cancel) }
    }

    /// As work is handed it.
    pub fn watch(&self) -> Watch<'_> {
        let progress = self.tell.as_deref().map(|tell| tell as &(dyn Fn(Progress) + Sync));
        Watch { progress, cancel: self.cancel.as_deref() }
    }
}

impl fmt::Debug for Onlooker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tell.is_some() { "somebody" } else { "nobody" })
    }
}
