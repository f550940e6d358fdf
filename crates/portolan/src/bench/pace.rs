//! When a load ends.

use super::Load;
use crate::watch::Watch;
use chart::Result;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often whoever looks on is told, in milliseconds.
const TELL: u64 = 50;

/// What all who put the load on share.
pub(super) struct Pace<'a> {
    began: Instant,
    time: Duration,
    /// How many requests may still be begun, where they are counted.
    left: Option<AtomicU64>,
    over: AtomicBool,
    /// When it was told last how far it is, in milliseconds.
    told: AtomicU64,
    watch: Watch<'a>,
}

impl<'a> Pace<'a> {
    /// Begins now.
    pub(super) fn new(load: &Load, watch: Watch<'a>) -> Pace<'a> {
        Pace {
            began: Instant::now(),
            time: load.time,
            left: load.operations.map(AtomicU64::new),
            over: AtomicBool::new(false),
            told: AtomicU64::new(0),
            watch,
        }
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Ends it for all.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether there is time for another request, so long after the beginning.
    pub(super) fn goes_on(&self, elapsed: Duration) -> Result<bool> {
        if self.over.load(Ordering::Relaxed) || elapsed >= self.time {
            return Ok(false);
        }
        self.watch.go_on()?;
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let now = millis(elapsed);
        if self.left.is_none() && now.saturating_sub(self.told.load(Ordering::Relaxed)) >= TELL {
            self.told.store(now, Ordering::Relaxed);
            self.watch.tell(now, millis(self.time));
        }
        Ok(true)
    }

    /// Takes one request, if any is left to take.
    pub(super) fn take(&self) -> bool {
        let one = |left: u64| left.checked_sub(1);
        let taken = |left: &AtomicU64| left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one).is_ok();
        self.left.as_ref().is_none_or(taken)
    }
}
