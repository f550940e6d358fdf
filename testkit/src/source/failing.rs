//! A source that fails when it is told to.

use super::lock;
use crate::Rng;
use chart::{Backing, Error, Identity, Kind, Limits, Result, Run, Source, Wait};
use std::sync::{Arc, Mutex};

/// What can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Reading.
    Read,
    /// Writing; part of it may be written all the same.
    Write,
    /// Zeroing and punching.
    Zero,
    /// Growing and shrinking.
    SetLen,
    /// Flushing. From then on it is read-only, and no flush succeeds.
    Flush,
}

/// Fails the operations it is told to, as a broken device would.
pub struct Failing {
    inner: Arc<dyn Source>,
    plan: Mutex<Plan>,
}

#[derive(Default)]
struct Plan {
    /// What is still to fail: the operation, and how many of its kind go well before.
    due: Vec<(Op, u64, Kind)>,
    /// One in so many operations of these kinds, at random.
    random: Option<(Rng, u64, Vec<Op>)>,
    failed: u64,
    latched: bool,
}

impl Failing {
    /// Nothing fails until it is told to.
    pub fn new(inner: Arc<dyn Source>) -> Self {
        Failing { inner, plan: Mutex::default() }
    }

    /// Of the operations from now on, the one after `pass` others of its kind fails.
    pub fn fail(&self, op: Op, pass: u64, kind: Kind) {
        lock(&self.plan).due.push((op, pass, kind));
    }

    /// One in `one_in` operations of these kinds fails.
    pub fn fail_at_random(&self, seed: u64, one_in: u64, ops: &[Op]) {
        lock(&self.plan).random = Some((Rng::new(seed), one_in, ops.to_vec()));
    }

    /// Nothing fails any more. A failed flush is not forgotten.
    pub fn mend(&self) {
        let mut plan = lock(&self.plan);
        plan.due.clear();
        plan.random = None;
    }

    /// How many operations failed.
    pub fn failed(&self) -> u64 {
        lock(&self.plan).failed
    }

    /// Whether a flush has failed.
    pub fn is_latched(&self) -> bool {
        lock(&self.plan).latched
    }

    /// Whether this one fails; and a number to decide how.
    fn due(&self, op: Op) -> Option<(Error, u64)> {
        let mut plan = lock(&self.plan);
        let mut kind = None;
        plan.due.retain_mut(|(due, pass, of)| {
            if *due != op || kind.is_some() {
                return true;
            }
            if *pass == 0 {
                kind = Some(*of);
                return false;
            }
            *pass -= 1;
            true
        });
        let mut chance = 0;
        if let Some((rng, one_in, ops)) = &mut plan.random
            && ops.contains(&op)
        {
            chance = rng.next_u64();
            if rng.once_in(*one_in) {
                kind = kind.or(Some(Kind::Io));
            }
        }
        let kind = kind?;
        plan.failed += 1;
        Some((Error::new(kind, format!("{}: {op:?} was told to fail", self.inner.name())), chance))
    }

    fn pass(&self, op: Op) -> Result<()> {
        self.latch()?;
        self.due(op).map_or(Ok(()), |(e, _)| Err(e))
    }

    fn latch(&self) -> Result<()> {
        if lock(&self.plan).latched { Err(self.refuse("written after a failed flush")) } else { Ok(()) }
    }
}

impl Source for Failing {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8], wait: Wait) -> Result<()> {
        if let Some((e, _)) = self.due(Op::Read) {
            return Err(e.at(offset));
        }
        self.inner.read_at(offset, buf, wait)
    }

    fn write_at(&self, offset: u64, buf: &[u8], wait: Wait) -> Result<()> {
        self.latch()?;
        let Some((e, chance)) = self.due(Op::Write) else { return self.inner.write_at(offset, buf, wait) };
        // As a device does: some of the sectors are there, and nobody knows which.
        let part = (chance as usize % (buf.len() / 512 + 1)) * 512;
        if part > 0 {
            self.inner.write_at(offset, &buf[..part], wait)?;
        }
        Err(e.at(offset))
    }

    fn zero(&self, offset: u64, len: u64, fast_only: bool) -> Result<()> {
        self.pass(Op::Zero)?;
        self.inner.zero(offset, len, fast_only)
    }

    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.pass(Op::Zero)?;
        self.inner.punch(offset, len)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.pass(Op::SetLen)?;
        self.inner.set_len(len)
    }

    fn flush(&self) -> Result<()> {
        if self.is_latched() {
            return Err(Error::io(format!("{}: an earlier flush failed", self.name())));
        }
        if let Some((e, _)) = self.due(Op::Flush) {
            lock(&self.plan).latched = true;
            return Err(e);
        }
        self.inner.flush()
    }

    fn limits(&self) -> Limits {
        let limits = self.inner.limits();
        Limits { read_only: limits.read_only || self.is_latched(), ..limits }
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
