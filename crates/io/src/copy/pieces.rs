//! Cutting a disk into pieces of work.

use super::{Options, Reflink};
use chart::{Backing, Disk, Family, Leaf, LeafPlace, Plan, Purpose, Result, Walk};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// What a worker copies at once: what its buffer holds.
pub(super) const PIECE: u64 = 1 << 20;

/// What is planned under one pin: less than a walk does by itself, since the pin is held until it is copied.
const BATCH_LEAVES: usize = 256;
const BATCH_BYTES: u64 = 1 << 30;

/// What clones must be aligned to. Larger blocks than this are refused by the file system itself.
pub(super) const CLONE_ALIGN: u64 = 4096;

/// Runs shorter than this are copied though they could be cloned: a clone costs as much as copying them.
const CLONE_MIN: u64 = 64 << 10;

/// How long a run must be to be cloned.
pub(super) fn clone_min(reflink: Reflink) -> u64 {
    if reflink == Reflink::Always { CLONE_ALIGN } else { CLONE_MIN }
}

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
    walk: Walk<'d>,
    clones: bool,
    /// Runs shorter than this are copied all the same.
    clone_min: u64,
    /// The system said that it cannot clone between these files.
    refused: bool,
    queue: VecDeque<Piece<'d>>,
}

impl<'d> Planner<'d> {
    pub(super) fn new(disk: &'d Disk, range: Range<u64>, options: &Options<'_>) -> Self {
        let clones = options.reflink != Reflink::Never;
        let walk = disk.walk(range, Purpose::Locate).in_batches(BATCH_LEAVES, BATCH_BYTES);
        let clone_min = clone_min(options.reflink);
        Planner { walk, clones, clone_min, refused: false, queue: VecDeque::new() }
    }

    /// The next piece, or none when all are given out.
    pub(super) fn next(&mut self) -> Result<Option<Piece<'d>>> {
        while self.queue.is_empty() {
            let Some(plan) = self.walk.next().transpose()? else { return Ok(None) };
            let plan = Arc::new(plan);
            for leaf in &plan.leaves {
                self.enqueue(*leaf, &plan)?;
            }
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

    /// From now on everything is copied: cloning was refused.
    pub(super) fn stop_cloning(&mut self) {
        self.clones = false;
        self.refused = true;
    }

    /// Whether cloning was refused.
    pub(super) fn is_refused(&self) -> bool {
        self.refused
    }

    /// Makes pieces of a leaf. Its source is not asked first: what can be cloned is, whatever is stored of it.
    fn enqueue(&mut self, leaf: Leaf<'d>, plan: &Arc<Plan<'d>>) -> Result<()> {
        let LeafPlace::Raw { source, offset } = leaf.place else { return cut(leaf, plan, &mut self.queue) };
        if !self.clones || leaf.len < self.clone_min {
            return cut(leaf, plan, &mut self.queue);
        }
        match source.backing() {
            Backing::File(_) => self.clone_or_cut(leaf, plan),
            Backing::Family(family) => self.by_members(family, leaf, offset, plan),
            _ => cut(leaf, plan, &mut self.queue),
        }
    }

    /// Makes pieces of what lies in several files: each of one.
    fn by_members(
        &mut self,
        family: &dyn Family,
        leaf: Leaf<'d>,
        mut offset: u64,
        plan: &Arc<Plan<'d>>,
    ) -> Result<()> {
        let mut rest = leaf;
        while rest.len > 0 {
            let end =
                family.member_at(offset).map_or(offset, |member| member.start.saturating_add(member.len));
            let part = rest.head(end.checked_sub(offset).filter(|&len| len > 0).unwrap_or(rest.len));
            self.clone_or_cut(part, plan)?;
            (rest, offset) = (rest.skip(part.len), offset.saturating_add(part.len));
        }
        Ok(())
    }

    fn clone_or_cut(&mut self, leaf: Leaf<'d>, plan: &Arc<Plan<'d>>) -> Result<()> {
        if leaf.len < self.clone_min {
            return cut(leaf, plan, &mut self.queue);
        }
        self.queue.push_back(Piece { leaf, way: Way::Clone, plan: Arc::clone(plan) });
        Ok(())
    }
}

/// Cuts a leaf into pieces that are copied, leaving out what its source holds nothing for.
fn cut<'d>(leaf: Leaf<'d>, plan: &Arc<Plan<'d>>, queue: &mut VecDeque<Piece<'d>>) -> Result<()> {
    let mut push = |leaf: Leaf<'d>| {
        let way = if leaf.data { Way::Copy } else { Way::Zero };
        queue.push_back(Piece { leaf, way, plan: Arc::clone(plan) });
        leaf.len
    };
    if !matches!(leaf.place, LeafPlace::Raw { .. }) {
        // A frame is decoded as one.
        push(leaf);
        return Ok(());
    }
    let mut rest = leaf;
    while rest.len > 0 {
        let mut run = rest;
        run.ask()?;
        rest = rest.skip(run.len);
        let most = if run.data { PIECE } else { run.len };
        while run.len > 0 {
            run = run.skip(push(run.head(most)));
        }
    }
    Ok(())
}
