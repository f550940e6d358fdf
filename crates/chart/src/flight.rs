//! The ranges of a disk whose places are being changed right now (law 7: overlapping reservations wait).

use std::sync::{Condvar, Mutex, PoisonError};

/// The ranges in flight of one disk. There are as many as there are threads at work, so a list will do.
#[derive(Default)]
pub struct InFlight {
    ranges: Mutex<Vec<(u64, u64)>>,
    landed: Condvar,
}

impl InFlight {
    /// Waits until nothing in `[start, end)` is in flight, then holds it. The caller holds no pin (law 9).
    pub fn hold(&self, start: u64, end: u64) -> Flight<'_> {
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        while ranges.iter().any(|&(s, e)| start < e && s < end) {
            ranges = self.landed.wait(ranges).unwrap_or_else(PoisonError::into_inner);
        }
        ranges.push((start, end));
        Flight { of: self, start, end }
    }
}

/// A held range.
#[must_use = "the range is held only while this lives"]
pub struct Flight<'a> {
    of: &'a InFlight,
    start: u64,
    end: u64,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut ranges = self.of.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(i) = ranges.iter().position(|&r| r == (self.start, self.end)) {
            ranges.swap_remove(i);
        }
        drop(ranges);
        self.of.landed.notify_all();
    }
}
