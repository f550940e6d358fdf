//! The ranges of a disk whose places are being changed right now (law 7: overlapping reservations wait).

use std::sync::{Condvar, Mutex, PoisonError};

/// The ranges in flight of one disk, first come first served: a range waits for every overlapping one that came
/// before it, held or still waiting, so that a stream of small writes cannot keep a resize out for ever. There
/// are as many as there are threads at work, so a list will do.
#[derive(Default)]
pub struct InFlight {
    queue: Mutex<Queue>,
    landed: Condvar,
}

#[derive(Default)]
struct Queue {
    next: u64,
    ranges: Vec<Range>,
}

#[derive(Clone, Copy)]
struct Range {
    ticket: u64,
    start: u64,
    end: u64,
}

impl InFlight {
    /// Waits until nothing in `[start, end)` that came before is in flight, then holds it. The caller holds no
    /// pin on this disk, and no other range of it (law 9).
    pub fn hold(&self, start: u64, end: u64) -> Flight<'_> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = queue.next;
        queue.next += 1;
        queue.ranges.push(Range { ticket, start, end });
        let first = |r: &Range| r.ticket < ticket && start < r.end && r.start < end;
        while queue.ranges.iter().any(first) {
            queue = self.landed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        Flight { of: self, ticket }
    }
}

/// A held range.
#[must_use = "the range is held only while this lives"]
pub struct Flight<'a> {
    of: &'a InFlight,
    ticket: u64,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut queue = self.of.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.ranges.retain(|r| r.ticket != self.ticket);
        drop(queue);
        self.of.landed.notify_all();
    }
}
