//! A version: a map that does not change any more.

use crate::map::View;
use crate::versions::History;
use chart::{Answer, Epochs, Error, Layer, Result, Wait};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A version that is being read.
pub(crate) struct Frozen {
    history: Arc<History>,
    view: View,
    /// Those who are at it, so that what it holds is not used again before they are done.
    epochs: Arc<Epochs>,
    gone: AtomicBool,
    number: u32,
}

impl Frozen {
    pub(crate) fn new(history: Arc<History>, number: u32, view: View) -> Self {
        Frozen { history, view, epochs: Arc::default(), gone: AtomicBool::new(false), number }
    }

    pub(crate) fn epochs(&self) -> &Arc<Epochs> {
        &self.epochs
    }

    /// The version is deleted. Who looks from now on finds nothing.
    pub(crate) fn delete(&self) {
        self.gone.store(true, Ordering::SeqCst);
    }

    /// How many nodes a lookup looks into.
    pub(crate) fn steps(&self, at: u64) -> Result<usize> {
        chart::check_range(self.view.len, at, 1)?;
        self.check()?;
        let (mut steps, history) = (0, &self.history);
        self.view.answer(history.nodes(), history.shift(), (at, 1), Wait::Allowed, &mut |_| steps += 1)?;
        Ok(steps)
    }

    /// Refuses a version that is deleted.
    pub(crate) fn check(&self) -> Result<()> {
        if self.gone.load(Ordering::SeqCst) { Err(deleted(self.number)) } else { Ok(()) }
    }
}

#[cold]
pub(crate) fn deleted(number: u32) -> Error {
    Error::not_found(format!("version {number} was deleted"))
}

impl Layer for Frozen {
    fn len(&self) -> u64 {
        self.view.len
    }

    fn look(&self, at: u64, want: u64, wait: Wait) -> Result<Answer> {
        self.check()?;
        let want = want.min(self.view.len.saturating_sub(at));
        self.history.answer(&self.view, (at, want), wait)
    }
}
