//! What a history is made of: periods, branches, space.

use crate::frozen::{Frozen, deleted};
use crate::head::{Core, branch_deleted};
use crate::limbo::{Freed, Grace};
use crate::map::Root;
use crate::space::Space;
use crate::word::BIRTHS;
use chart::{Disk, Epochs, Error, Kind, Result};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

/// What a period is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It is being written: the head of this branch.
    Live(u32),
    /// Writers who had found their place before it was frozen are not done yet.
    Settling,
    /// A version.
    Frozen,
    /// A version that was deleted, kept for what two or more that came from it have in common.
    Ghost,
}

/// From the moment on at which a head begins with the map of its parent, to that at which it becomes a version; and
/// then that version. Its number is the birth of all that is written in it.
pub(crate) struct Period {
    pub(crate) parent: u32,
    pub(crate) children: Vec<u32>,
    pub(crate) root: Root,
    pub(crate) len: u64,
    pub(crate) life: Life,
    pub(crate) name: String,
    pub(crate) created: SystemTime,
}

/// A branch, as its mutator sees it.
pub(crate) struct Desk {
    pub(crate) name: String,
    pub(crate) core: Arc<Core>,
    /// The period that is being written.
    pub(crate) number: u32,
    /// Reservations that are neither committed nor aborted.
    pub(crate) reserved: usize,
    /// Who waits for writers in place: until then nothing is reserved.
    pub(crate) draining: usize,
    /// A version went: what is born later than this can be written in place, once nobody is at it in that version.
    pub(crate) lower: Option<(u32, Grace)>,
}

/// All of a history that its one lock guards.
pub(crate) struct State {
    /// The last number that was given to a period.
    pub(crate) counter: u32,
    pub(crate) periods: BTreeMap<u32, Period>,
    pub(crate) next_branch: u32,
    pub(crate) desks: BTreeMap<u32, Desk>,
    pub(crate) space: Space,
    /// What nothing names any more, since the last of `limbo` was begun.
    pub(crate) freed: Freed,
    pub(crate) limbo: VecDeque<(Grace, Freed)>,
    /// All who may be at what is freed.
    pub(crate) watched: Vec<Weak<Epochs>>,
    pub(crate) opened: BTreeMap<u32, (Weak<Frozen>, Weak<Disk>)>,
    /// Ghosts that have more than their children need, since that could not be found out.
    pub(crate) uncollected: BTreeSet<u32>,
}

impl State {
    pub(crate) fn new() -> Self {
        State {
            counter: 0,
            periods: BTreeMap::new(),
            next_branch: 0,
            desks: BTreeMap::new(),
            space: Space::new("interval blocks of data"),
            freed: Freed::default(),
            limbo: VecDeque::new(),
            watched: Vec::new(),
            opened: BTreeMap::new(),
            uncollected: BTreeSet::new(),
        }
    }

    pub(crate) fn desk(&mut self, branch: u32) -> Result<&mut Desk> {
        self.desks.get_mut(&branch).ok_or_else(branch_deleted)
    }

    pub(crate) fn period(&mut self, number: u32) -> Result<&mut Period> {
        self.periods.get_mut(&number).ok_or_else(|| deleted(number))
    }

    /// The period that a branch writes, and up to which birth what it holds belongs to others, too.
    pub(crate) fn writing(&mut self, branch: u32) -> Result<(u32, u32)> {
        let number = self.desk(branch)?.number;
        Ok((number, self.period(number)?.parent))
    }

    /// A new period that begins with this one's map, or with nothing.
    pub(crate) fn begin(&mut self, parent: u32, root: Root, len: u64, branch: u32) -> Result<u32> {
        if self.counter + 1 >= BIRTHS {
            return Err(Error::new(
                Kind::NoSpace,
                format!("a history holds at most {BIRTHS} versions, ever"),
            ));
        }
        self.counter += 1;
        let number = self.counter;
        let (name, created) = (String::new(), SystemTime::now());
        let life = Life::Live(branch);
        let period = Period { parent, children: Vec::new(), root, len, life, name, created };
        self.periods.insert(number, period);
        if let Some(parent) = self.periods.get_mut(&parent) {
            parent.children.push(number);
        }
        Ok(number)
    }

    /// The nearest version that this one came from and that is still there.
    pub(crate) fn ancestor(&self, number: u32) -> Option<u32> {
        let mut at = self.periods.get(&number)?.parent;
        loop {
            let period = self.periods.get(&at)?;
            if matches!(period.life, Life::Frozen | Life::Settling) {
                return Some(at);
            }
            at = period.parent;
        }
    }

    /// Takes a period out of the tree, which has one child at most.
    pub(crate) fn remove(&mut self, number: u32) {
        let Some(period) = self.periods.remove(&number) else { return };
        if let Some(parent) = self.periods.get_mut(&period.parent) {
            parent.children.retain(|&child| child != number);
            parent.children.extend(&period.children);
        }
        for child in period.children {
            let Some(child) = self.periods.get_mut(&child) else { continue };
            child.parent = period.parent;
            if let Life::Live(branch) = child.life
                && let Some(desk) = self.desks.get_mut(&branch)
            {
                desk.lower = Some((period.parent, Grace::begin(&mut self.watched)));
            }
        }
    }
}
