//! A source that stops whoever comes by at a chosen moment, so that a race is certain rather than likely.

use super::{Op, lock};
use chart::{Backing, Identity, Limits, Result, Run, Source, Wait};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Nobody is stopped for longer, whatever the test forgot.
const PATIENCE: Duration = Duration::from_secs(20);

/// On which side of the operation to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Its place is known, nothing is done yet.
    Before,
    /// It is done, and the caller does not know it.
    After,
}

/// Stops the next operation that it is armed for.
pub struct Paused {
    inner: Arc<dyn Source>,
    armed: Mutex<Vec<(Op, When, Arc<Gate>)>>,
}

#[derive(Default)]
struct Gate {
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Gate {
    fn until(&self, patience: Duration, done: impl Fn(&(bool, bool)) -> bool) -> bool {
        let end = Instant::now() + patience;
        let mut state = lock(&self.state);
        while !done(&state) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn set(&self, change: impl Fn(&mut (bool, bool))) {
        change(&mut lock(&self.state));
        self.changed.notify_all();
    }
}

/// One who will be stopped, or is. Dropping it lets them go.
pub struct Hold(Arc<Gate>);

impl Hold {
    /// Waits until somebody stands there; whether that came about.
    pub fn reached(&self, patience: Duration) -> bool {
        self.0.until(patience, |s| s.0)
    }

    /// Lets them go.
    pub fn release(&self) {
        self.0.set(|s| s.1 = true);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.release();
    }
}

impl Paused {
    /// Stops nobody until it is armed.
    pub fn new(inner: Arc<dyn Source>) -> Self {
        Paused { inner, armed: Mutex::default() }
    }

    /// Stops the next operation of this kind, once.
    pub fn stop(&self, op: Op, when: When) -> Hold {
        let gate = Arc::new(Gate::default());
        lock(&self.armed).push((op, when, Arc::clone(&gate)));
        Hold(gate)
    }

    /// Forgets those who were not stopped yet.
    pub fn disarm(&self) {
        lock(&self.armed).clear();
    }

    fn pass(&self, op: Op, act: impl FnOnce() -> Result<()>) -> Result<()> {
        let gate = {
            let mut armed = lock(&self.armed);
            armed.iter().position(|(o, ..)| *o == op).map(|i| armed.remove(i))
        };
        let Some((_, when, gate)) = gate else { return act() };
        let stand = || {
            gate.set(|s| s.0 = true);
            gate.until(PATIENCE, |s| s.1);
        };
        if when == When::Before {
            stand();
            return act();
        }
        let done = act();
        stand();
        done
    }
}

impl Source for Paused {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8], wait: Wait) -> Result<()> {
        self.pass(Op::Read, || self.inner.read_at(offset, buf, wait))
    }

    fn write_at(&self, offset: u64, buf: &[u8], wait: Wait) -> Result<()> {
        self.pass(Op::Write, || self.inner.write_at(offset, buf, wait))
    }

    fn zero(&self, offset: u64, len: u64, fast_only: bool) -> Result<()> {
        self.pass(Op::Zero, || self.inner.zero(offset, len, fast_only))
    }

    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.pass(Op::Zero, || self.inner.punch(offset, len))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.pass(Op::SetLen, || self.inner.set_len(len))
    }

    fn flush(&self) -> Result<()> {
        self.pass(Op::Flush, || self.inner.flush())
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn data_at(&self, offset: u64, want: u64) -> Result<Run> {
        self.inner.data_at(offset, want)
    }

    fn identity(&self) -> Identity {
        self.inner.identity()
    }

    fn backing(&self) -> Backing<'_> {
        Backing::Wraps(self.inner.as_ref())
    }
}
