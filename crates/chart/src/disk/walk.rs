//! Walking: every place of a range, one batch after the other, each under a pin of its own.

use super::plan::Look;
use super::{Disk, Leaf, Plan, Purpose};
use crate::{Result, Wait};
use std::ops::Range;

/// What is looked up under one pin, unless the walker wants less.
const BATCH_LEAVES: usize = 1024;
const BATCH_BYTES: u64 = 64 << 30;

/// A walk over a range of a disk.
///
/// There are two ways to go. *Under pins*: it is an iterator of [`Plan`]s, each true as long as it is held, for
/// whoever acts on the places. Nobody may wait for a mutator of these disks while holding one (law 9), so long
/// work keeps only the plans it is at. *Without*: [`Walk::each`] lets go of the pin before it tells anything.
///
/// Lookups are as many, and as cheap, as the leaves; one allocation is made for a batch, none for a leaf.
#[must_use = "a walk that nobody goes finds nothing"]
pub struct Walk<'d> {
    disk: &'d Disk,
    rest: Range<u64>,
    bytes: u64,
    look: Look,
}

impl Disk {
    /// A walk over a range, or over what of it the disk has when a batch is looked up.
    pub fn walk(&self, range: Range<u64>, why: Purpose) -> Walk<'_> {
        let look = Look { most: BATCH_LEAVES, wait: Wait::Allowed, why, ask: false };
        Walk { disk: self, rest: range, bytes: BATCH_BYTES, look }
    }
}

impl<'d> Walk<'d> {
    /// The same in batches of at most so many lookups and bytes. Where a batch ends, a leaf may be cut.
    pub fn in_batches(mut self, leaves: usize, bytes: u64) -> Self {
        self.look.most = leaves;
        self.bytes = bytes;
        self
    }

    /// The same, and every source is asked what of its runs it stores, so that [`Leaf::data`] is certain. A leaf
    /// ends where that changes.
    pub fn ask_sources(mut self) -> Self {
        self.look.ask = true;
        self
    }

    /// Tells every leaf in order, as long as it goes on in one place, however the batches were cut.
    ///
    /// No pin is held meanwhile: `each` may print, wait and write. What it is told was true when it was looked up;
    /// who acts on a place rather than reports it takes the batches instead.
    pub fn each(self, mut each: impl FnMut(Leaf<'d>) -> Result<()>) -> Result<()> {
        let mut last: Option<Leaf<'d>> = None;
        for plan in self {
            // A statement of its own, at whose end the pin is gone.
            let leaves = plan?.leaves;
            for leaf in leaves {
                match &mut last {
                    Some(known) if known.joins(&leaf) => known.len += leaf.len,
                    known => known.replace(leaf).map_or(Ok(()), &mut each)?,
                }
            }
        }
        last.map_or(Ok(()), each)
    }
}

impl<'d> Iterator for Walk<'d> {
    type Item = Result<Plan<'d>>;

    /// The next batch. After an error there is none.
    fn next(&mut self) -> Option<Self::Item> {
        let (at, end) = (self.rest.start, self.rest.end.min(self.disk.len()));
        if at >= end {
            return None;
        }
        let stop = at.saturating_add(self.bytes.max(1)).min(end);
        let plan = self.disk.look_up(at..stop, &self.look);
        let last = plan.as_ref().ok().and_then(|plan| plan.leaves.last());
        self.rest.start = last.map_or(self.rest.end, Leaf::end);
        Some(plan)
    }
}
