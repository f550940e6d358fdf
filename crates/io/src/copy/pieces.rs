//! Cutting a disk into pieces of work.

use super::{Options, Reflink};
use chart::{Backing, Disk, Leaf, LeafPlace, Plan, Purpose, Result, Wait};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// What a worker copies at once: what its buffer holds.
pub(super) const PIECE: u64 = 1 << 20;

/// What is planned under one pin.
const BATCH_LEAVES: usize = 256;
const BATCH_BYTES: u64 = 1 << 30;

/// Runs shorter than this are copied even where they could be cloned: a clone costs as much as copying them.
const CLONE_MIN: u64 = 64 << 10;

/// A piece of work. The plan it borrows from is kept as long as it is.
#[derive(Clone)]
pub(super) struct Piece<'d> {
    pub(super) leaf: Leaf<'d>,
    pub(super) way: Way,
    /// Keeps the leaf true.
    pub(super) plan: Arc<Plan<'d>>,
}

/// How a piece is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It reads as zeros.
    Zero,
    /// Ask the file system to share it.
    Clone,
    /// Move the bytes. At most [`PIECE`] of them.
    Copy,
}

/// Hands out pieces in order.
pub(super) struct Planner<'d> {
    disk: &'d Disk,
    at: u64,
    end: u64,
    clones: bool,
    queue: VecDeque<Piece<'d>>,
}

impl<'d> Planner<'d> {
    pub(super) fn new(disk: &'d Disk, range: Range<u64>, options: &Options<'_>) -> Self {
        let clones = options.reflink != Reflink::Never;
        Planner { disk, at: range.start, end: range.end, clones, queue: VecDeque::new() }
    }

    /// The next piece, or none when all are given out.
    pub(super) fn next(&mut self) -> Result<Option<Piece<'d>>> {
        while self.queue.is_empty() && self.at < self.end {
            self.plan_batch()?;
        }
        Ok(self.queue.pop_front())
    }

    /// Takes back a run that could not be cloned; it is copied, and nothing from that file is cloned any more.
    pub(super) fn copy_instead(&mut self, piece: &Piece<'d>) -> Result<()> {
        let mut pieces = VecDeque::new();
        cut(piece.leaf, &piece.plan, &mut pieces)?;
        while let Some(piece) = pieces.pop_back() {
            self.queue.push_front(piece);
        }
        Ok(())
    }

    /// From now on everything is copied.
    pub(super) fn stop_cloning(&mut self) {
        self.clones = false;
    }

    fn plan_batch(&mut self) -> Result<()> {
        let want = (self.end - self.at).min(BATCH_BYTES);
        let plan = self.disk.plan(self.at, want, BATCH_LEAVES, Wait::Allowed, Purpose::Locate)?;
        let plan = Arc::new(plan);
        let mut run: Option<Leaf<'d>> = None;
        for leaf in &plan.leaves {
            self.at = leaf.at + leaf.len;
            match &mut run {
                Some(run) if joins(run, leaf) => run.len += leaf.len,
                _ => {
                    if let Some(run) = run.replace(*leaf) {
                        self.enqueue(run, &plan)?;
                    }
                }
            }
        }
        run.map_or(Ok(()), |run| self.enqueue(run, &plan))
    }

    fn enqueue(&mut self, leaf: Leaf<'d>, plan: &Arc<Plan<'d>>) -> Result<()> {
        if let LeafPlace::Raw { source, .. } = leaf.place
            && self.clones
            && leaf.len >= CLONE_MIN
            && matches!(source.backing(), Backing::File(_))
        {
            self.queue.push_back(Piece { leaf, way: Way::Clone, plan: Arc::clone(plan) });
            return Ok(());
        }
        cut(leaf, plan, &mut self.queue)
    }
}

/// Whether `next` continues `run` in the same source.
fn joins(run: &Leaf<'_>, next: &Leaf<'_>) -> bool {
    match (run.place, next.place) {
        // Kept apart: what nothing is stored for may be left as it is in the sink, what is zero may not.
        (LeafPlace::Hole, LeafPlace::Hole) | (LeafPlace::Zero, LeafPlace::Zero) => true,
        (LeafPlace::Raw { source: a, offset: x }, LeafPlace::Raw { source: b, offset: y }) => {
            std::ptr::addr_eq(a, b) && x + run.len == y
        }
        _ => false,
    }
}

/// Cuts a leaf into pieces that are copied, leaving out what its source holds nothing for.
fn cut<'d>(leaf: Leaf<'d>, plan: &Arc<Plan<'d>>, queue: &mut VecDeque<Piece<'d>>) -> Result<()> {
    let mut push = |leaf, way| queue.push_back(Piece { leaf, way, plan: Arc::clone(plan) });
    let LeafPlace::Raw { source, offset } = leaf.place else {
        let zero = matches!(leaf.place, LeafPlace::Hole | LeafPlace::Zero);
        push(leaf, if zero { Way::Zero } else { Way::Copy });
        return Ok(());
    };
    let mut done = 0;
    while done < leaf.len {
        let run = source.data_at(offset + done, leaf.len - done)?;
        let end = done + run.len.clamp(1, leaf.len - done);
        while done < end {
            let len = if run.data { (end - done).min(PIECE) } else { end - done };
            let place = LeafPlace::Raw { source, offset: offset + done };
            let part = Leaf { at: leaf.at + done, len, place, ..leaf };
            push(part, if run.data { Way::Copy } else { Way::Zero });
            done += len;
        }
    }
    Ok(())
}
