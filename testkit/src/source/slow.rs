//! A source that has to fetch what it has not read before.

use super::lock;
use chart::{Backing, Error, Identity, Limits, Result, Run, Source, Wait};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The unit in which it remembers what is at hand.
const PAGE: u64 = 4096;

/// Answers [`Wait::Never`] only for what was read once with [`Wait::Allowed`], which takes its time.
pub struct Slow {
    inner: Arc<dyn Source>,
    delay: Duration,
    warm: Mutex<BTreeSet<u64>>,
}

impl Slow {
    /// Every read of what is not at hand takes `delay`.
    pub fn new(inner: Arc<dyn Source>, delay: Duration) -> Self {
        Slow { inner, delay, warm: Mutex::default() }
    }

    /// Forgets what is at hand.
    pub fn cool(&self) {
        lock(&self.warm).clear();
    }

    fn pages(offset: u64, len: usize) -> std::ops::Range<u64> {
        if len == 0 { 0..0 } else { offset / PAGE..(offset + len as u64).div_ceil(PAGE) }
    }

    /// Whether all of it is at hand; if not, that takes time or is refused.
    fn reach(&self, offset: u64, len: usize, wait: Wait) -> Result<()> {
        chart::check_range(self.inner.len(), offset, len as u64)?;
        let cold = {
            let warm = lock(&self.warm);
            Self::pages(offset, len).any(|page| !warm.contains(&page))
        };
        if !cold {
            return Ok(());
        }
        if wait == Wait::Never {
            return Err(Error::WOULD_BLOCK);
        }
        if !self.delay.is_zero() {
            std::thread::sleep(self.delay);
        }
        Ok(())
    }
}

impl Source for Slow {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8], wait: Wait) -> Result<()> {
        self.reach(offset, buf.len(), wait)?;
        self.inner.read_at(offset, buf, wait)?;
        lock(&self.warm).extend(Self::pages(offset, buf.len()));
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8], wait: Wait) -> Result<()> {
        if wait == Wait::Never {
            self.reach(offset, buf.len(), wait)?;
        }
        self.inner.write_at(offset, buf, wait)
    }

    fn zero(&self, offset: u64, len: u64, fast_only: bool) -> Result<()> {
        self.inner.zero(offset, len, fast_only)
    }

    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.punch(offset, len)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.inner.set_len(len)
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }

    fn limits(&self) -> Limits {
        Limits { never: true, ..self.inner.limits() }
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
