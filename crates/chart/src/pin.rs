//! Pins: what keeps an extent true while it is used (law 3).
//!
//! A mutable disk counts who looks into it in *epochs*. Whoever looks up extents enters the current epoch and
//! leaves it when done. Space that a map change frees belongs to the epoch of that change; it may be given out
//! again when that epoch is closed and nobody is left in it or in an older one.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How many epochs may be open at once. When all are, a new one begins only when the oldest empties.
const OPEN: usize = 8;

/// The counters of one mutable disk.
pub struct Epochs {
    now: AtomicU64,
    inside: [AtomicU32; OPEN],
    waiters: AtomicU32,
    door: Mutex<()>,
    left: Condvar,
}

impl Default for Epochs {
    fn default() -> Self {
        Epochs {
            // Not 0, so that "OPEN epochs ago" is always a number.
            now: AtomicU64::new(OPEN as u64),
            inside: Default::default(),
            waiters: AtomicU32::new(0),
            door: Mutex::new(()),
            left: Condvar::new(),
        }
    }
}

impl Epochs {
    fn counter(&self, epoch: u64) -> &AtomicU32 {
        &self.inside[(epoch % OPEN as u64) as usize]
    }

    fn enter(&self) -> u64 {
        loop {
            let epoch = self.now.load(SeqCst);
            self.counter(epoch).fetch_add(1, SeqCst);
            // An epoch that closed between the two lines may have been found empty: not ours to be in.
            if self.now.load(SeqCst) == epoch {
                return epoch;
            }
            self.leave(epoch);
        }
    }

    fn leave(&self, epoch: u64) {
        if self.counter(epoch).fetch_sub(1, SeqCst) == 1 && self.waiters.load(SeqCst) > 0 {
            drop(self.door.lock().unwrap_or_else(PoisonError::into_inner));
            self.left.notify_all();
        }
    }

    /// The epoch that what is freed *now* belongs to. Take it after the map has changed.
    pub fn now(&self) -> u64 {
        // A write of what it reads, not a load: so whoever sees a later epoch sees the changed map too, even
        // where the map is read without a lock.
        self.now.fetch_add(0, SeqCst)
    }

    /// Closes the current epoch if it is `epoch` and a counter is free for the next.
    fn close(&self, epoch: u64) {
        if self.counter(epoch + 1).load(SeqCst) == 0 {
            let _ = self.now.compare_exchange(epoch, epoch + 1, SeqCst, SeqCst);
        }
    }

    /// Whether nobody who looked before the change of `epoch` is still at it. Closes that epoch as a first step.
    pub fn is_over(&self, epoch: u64) -> bool {
        let now = self.now.load(SeqCst);
        if now <= epoch {
            self.close(now);
        }
        let now = self.now.load(SeqCst);
        let oldest = now.saturating_sub(OPEN as u64 - 1);
        now > epoch && (oldest..=epoch).all(|e| self.counter(e).load(SeqCst) == 0)
    }

    /// Waits until [`Epochs::is_over`]. The caller must hold no pin on this disk (law 9).
    pub fn wait_over(&self, epoch: u64) {
        if self.is_over(epoch) {
            return;
        }
        self.waiters.fetch_add(1, SeqCst);
        let mut door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        while !self.is_over(epoch) {
            // The time-out only bounds the cost of a wake-up that came between the check and the wait.
            let waited = self.left.wait_timeout(door, Duration::from_millis(1));
            door = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(door);
        self.waiters.fetch_sub(1, SeqCst);
    }
}

/// Holds every mutable disk it was taken on, and below, to the places they named. Owned, cheap, for one request.
#[must_use = "an extent is true only while the pin it was looked up under is held"]
#[derive(Default)]
pub struct Pin {
    first: Option<(Arc<Epochs>, u64)>,
    more: Vec<(Arc<Epochs>, u64)>,
}

impl Pin {
    /// Enters all of them.
    pub fn on(disks: &[Arc<Epochs>]) -> Pin {
        let hold = |e: &Arc<Epochs>| (Arc::clone(e), e.enter());
        match disks {
            [] => Pin::default(),
            [one] => Pin { first: Some(hold(one)), more: Vec::new() },
            [one, rest @ ..] => Pin { first: Some(hold(one)), more: rest.iter().map(hold).collect() },
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        for (epochs, epoch) in self.first.take().into_iter().chain(self.more.drain(..)) {
            epochs.leave(epoch);
        }
    }
}
