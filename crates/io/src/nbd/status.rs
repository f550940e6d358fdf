//! The last block status answer, kept until something is written.

use super::wire::{AllocationState, StatusExtent};
use chart::Run;
use std::sync::{Mutex, PoisonError};

/// At most so many runs are kept; a longer answer is asked for again from there on.
const RUNS_MAX: usize = 64 << 10;

/// What one answer said, and how often it has become stale.
#[derive(Default)]
pub(super) struct StatusCache(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    generation: u64,
    start: u64,
    /// Where each run ends, and whether it holds data. Neighbours differ.
    runs: Vec<(u64, bool)>,
}

impl StatusCache {
    /// The run at `offset`, for at most `want` bytes.
    pub(super) fn look(&self, offset: u64, want: u64) -> Option<Run> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if offset < kept.start {
            return None;
        }
        let i = kept.runs.partition_point(|&(end, _)| end <= offset);
        let &(end, data) = kept.runs.get(i)?;
        Some(Run { len: (end - offset).min(want), data })
    }

    /// To be handed to [`StatusCache::keep`]; taken before asking.
    pub(super) fn generation(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).generation
    }

    /// Something is being, or has been, written.
    pub(super) fn forget(&self) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.generation += 1;
        kept.runs.clear();
    }

    /// Keeps an answer, unless something was written since it was asked for.
    pub(super) fn keep(&self, generation: u64, start: u64, runs: Vec<(u64, bool)>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.generation == generation {
            (kept.start, kept.runs) = (start, runs);
        }
    }
}

/// An answer's extents as runs that end at most at `len`, the size of the export.
pub(super) fn runs(start: u64, len: u64, extents: &[StatusExtent]) -> Vec<(u64, bool)> {
    let mut runs: Vec<(u64, bool)> = Vec::new();
    let mut end = start;
    for extent in extents {
        if end >= len || runs.len() >= RUNS_MAX {
            break;
        }
        end = end.saturating_add(extent.len).min(len);
        // A hole that does not promise to read as zeroes has to be read.
        let data = !extent.allocation().has(AllocationState::ZERO);
        match runs.last_mut() {
            Some((last, same)) if *same == data => *last = end,
            _ => runs.push((end, data)),
        }
    }
    runs
}
