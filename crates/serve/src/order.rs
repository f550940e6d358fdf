//! The order of overlapping requests: each is as if it happened at one moment, whole.
//!
//! The disk is cut into units, and every unit belongs to one of a fixed number of *stripes*, so that the memory
//! this takes does not grow with the disk. A stripe is a counter: odd while a change is under way, and higher after
//! it. Whoever changes bytes holds the stripes of its range; whoever reads looks at the counters before and after,
//! and has to read again where they differ. So reading writes to no shared memory, and readers, which are the most,
//! never keep anybody waiting.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How many stripes there are. Ranges that share one by chance wait for each other in vain: at 32 changes at a time
/// that happens to one in 32.
const STRIPES: usize = 1024;

/// The unit in which the disk is dealt out to stripes: 64 KiB.
const UNIT_BITS: u32 = 16;

/// The order of the requests to one disk.
pub struct Order {
    stripes: Box<[AtomicU64]>,
    waiting: AtomicU32,
    door: Mutex<()>,
    opened: Condvar,
}

impl Default for Order {
    fn default() -> Self {
        Order {
            stripes: (0..STRIPES).map(|_| AtomicU64::new(0)).collect(),
            waiting: AtomicU32::new(0),
            door: Mutex::new(()),
            opened: Condvar::new(),
        }
    }
}

/// The stripes of one range, lowest first: two runs, since the units go round.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    low: Range<usize>,
    high: Range<usize>,
}

impl Span {
    fn of(at: u64, len: u64) -> Span {
        let whole = STRIPES as u64;
        let (first, last) = (at >> UNIT_BITS, at.saturating_add(len.max(1) - 1) >> UNIT_BITS);
        if last - first >= whole - 1 {
            return Span { low: 0..STRIPES, high: 0..0 };
        }
        let (from, to) = ((first % whole) as usize, (last % whole) as usize);
        if from <= to {
            Span { low: from..to + 1, high: 0..0 }
        } else {
            Span { low: 0..to + 1, high: from..STRIPES }
        }
    }

    fn stripes(&self) -> impl Iterator<Item = usize> + use<> {
        self.low.clone().chain(self.high.clone())
    }
}

/// What a reader saw before it read.
pub struct Glance {
    span: Span,
    sum: u64,
}

/// Keeps every other change, and every reader, off a range until it is dropped.
#[must_use]
pub struct Held<'o> {
    order: &'o Order,
    span: Span,
}

impl Order {
    /// Looks before reading; `None` while a change is under way there.
    pub fn glance(&self, at: u64, len: u64) -> Option<Glance> {
        let span = Span::of(at, len);
        let sum = self.sum(&span, Ordering::Acquire)?;
        Some(Glance { span, sum })
    }

    /// Whether nothing changed since: what was read in between is of one moment.
    pub fn is_same(&self, glance: &Glance) -> bool {
        fence(Ordering::Acquire);
        // Counters only grow: equal sums are equal counters.
        self.sum(&glance.span, Ordering::Relaxed) == Some(glance.sum)
    }

    fn sum(&self, span: &Span, ordering: Ordering) -> Option<u64> {
        let mut sum = 0u64;
        for i in span.stripes() {
            let count = self.stripes[i].load(ordering);
            if count % 2 == 1 {
                return None;
            }
            sum = sum.wrapping_add(count);
        }
        Some(sum)
    }

    /// Takes a range for a change, if that needs no waiting.
    pub fn try_hold(&self, at: u64, len: u64) -> Option<Held<'_>> {
        let span = Span::of(at, len);
        for (taken, i) in span.stripes().enumerate() {
            if !self.take(i) {
                span.stripes().take(taken).for_each(|i| self.give(i));
                self.wake();
                return None;
            }
        }
        Some(Held { order: self, span })
    }

    /// Takes a range for a change, waiting for whoever holds part of it. Only for threads that hold nothing yet:
    /// stripes are taken lowest first, so that two who wait never wait for each other.
    pub fn hold(&self, at: u64, len: u64) -> Held<'_> {
        let span = Span::of(at, len);
        span.stripes().for_each(|i| self.take_waiting(i));
        Held { order: self, span }
    }

    fn take(&self, i: usize) -> bool {
        let stripe = &self.stripes[i];
        let count = stripe.load(Ordering::Relaxed);
        let free = count.is_multiple_of(2);
        let taken =
            free && stripe.compare_exchange(count, count + 1, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        // What is changed from now on is seen by nobody who has not seen the odd count.
        fence(Ordering::Release);
        taken
    }

    fn take_waiting(&self, i: usize) {
        if self.take(i) {
            return;
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        while !self.take(i) {
            // The time-out only bounds the cost of a wake-up that came between the try and the wait.
            let waited = self.opened.wait_timeout(door, Duration::from_millis(1));
            door = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(door);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    fn give(&self, i: usize) {
        self.stripes[i].fetch_add(1, Ordering::SeqCst);
    }

    fn wake(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            drop(self.door.lock().unwrap_or_else(PoisonError::into_inner));
            self.opened.notify_all();
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.span.stripes().for_each(|i| self.order.give(i));
        self.order.wake();
    }
}

#[cfg(test)]
mod tests;
