//! The history behind all disks of it.

use super::state::{Desk, Life, State};
use crate::frozen::{Frozen, deleted};
use crate::head::Core;
use crate::limbo::{Freed, Grace};
use crate::map::{Root, View};
use crate::nodes::Nodes;
use crate::prune::Prune;
use crate::word::FIRST;
use chart::{Answer, Error, Result, ResultExt, Source, Wait};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The data source grows by so many blocks at a time.
const STEP: u64 = 64;
/// So many lots of freed space wait at a time; what is freed meanwhile is one more lot, later.
const LOTS: usize = 8;

/// The maps of all versions and heads, and what they are made of.
pub(crate) struct History {
    shift: u32,
    data: Arc<dyn Source>,
    base: Option<Arc<dyn Source>>,
    nodes: Nodes,
    /// Blocks of data from here on held zeros when the history began.
    virgin: u64,
    state: Mutex<State>,
    changed: Condvar,
}

impl History {
    pub(crate) fn new(
        interval: u64,
        data: Arc<dyn Source>,
        base: Option<Arc<dyn Source>>,
        nodes: Nodes,
    ) -> Self {
        let virgin = FIRST + data.len().div_ceil(interval);
        let (shift, state) = (interval.trailing_zeros(), Mutex::new(State::new()));
        History { shift, data, base, nodes, virgin, state, changed: Condvar::new() }
    }

    pub(crate) fn shift(&self) -> u32 {
        self.shift
    }

    pub(crate) fn data(&self) -> &Arc<dyn Source> {
        &self.data
    }

    pub(crate) fn base(&self) -> Option<&Arc<dyn Source>> {
        self.base.as_ref()
    }

    pub(crate) fn base_len(&self) -> u64 {
        self.base.as_ref().map_or(0, |base| base.len())
    }

    pub(crate) fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes all who wait for something to change.
    pub(crate) fn notify(&self) {
        self.changed.notify_all();
    }

    #[inline]
    pub(crate) fn answer(&self, view: &View, range: (u64, u64), wait: Wait) -> Result<Answer> {
        view.answer(&self.nodes, self.shift, range, wait, &mut |_| {})
    }

    /// Waits until nobody on this branch waits for writers in place: until then nobody may copy what they are about
    /// to write.
    pub(crate) fn settled(&self, branch: u32) -> Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        while state.desk(branch)?.draining > 0 {
            state = self.wait(state);
        }
        Ok(state)
    }

    /// Waits until a version is what it will be for ever.
    pub(crate) fn version(&self, number: u32) -> Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        loop {
            match state.period(number)?.life {
                Life::Frozen => return Ok(state),
                Life::Settling => state = self.wait(state),
                Life::Ghost => return Err(deleted(number)),
                Life::Live(_) => return Err(Error::not_found(format!("there is no version {number} yet"))),
            }
        }
    }

    /// Blocks of data in a row, at most `most`: the first, how many, and whether they read as zeros.
    pub(crate) fn take(&self, state: &mut State, most: u64) -> Result<(u64, u64, bool)> {
        self.reap(state);
        let unused = state.space.end();
        let (place, many) = state.space.take(most)?;
        let end = (place + many - FIRST) << self.shift;
        if self.data.len() < end {
            let grown = self.data.set_len(end.next_multiple_of(STEP << self.shift));
            if let Err(e) = grown.during(|| "making room for data of versions".into()) {
                state.space.give(place, many);
                return Err(e);
            }
        }
        Ok((place, many, place >= unused.max(self.virgin)))
    }

    /// Makes use again of what was freed and nobody is at any more.
    pub(crate) fn reap(&self, state: &mut State) {
        if !state.freed.is_empty() && state.limbo.len() < LOTS {
            let freed = std::mem::take(&mut state.freed);
            let grace = Grace::begin(&mut state.watched);
            state.limbo.push_back((grace, freed));
        }
        while state.limbo.front().is_some_and(|(grace, _)| grace.is_over()) {
            let Some((_, freed)) = state.limbo.pop_front() else { break };
            freed.blocks.iter().for_each(|&(start, len)| state.space.give(start, len));
            freed.nodes.iter().for_each(|&number| self.nodes.free(number));
        }
    }

    /// After a version went: more can be written in place, when nobody is at it in that version, and not while a copy
    /// is under way, to which a write in place would be lost.
    pub(crate) fn lower(&self, state: &mut State, branch: u32) {
        if let Some(desk) = state.desks.get_mut(&branch)
            && desk.reserved == 0
            && let Some((floor, grace)) = &desk.lower
            && grace.is_over()
        {
            desk.core.show_floor(*floor);
            desk.lower = None;
        }
    }

    /// A new branch that begins with this map.
    pub(crate) fn branch(
        &self,
        state: &mut State,
        name: &str,
        parent: u32,
        (root, len): (Root, u64),
    ) -> Result<(u32, Arc<Core>)> {
        let branch = state.next_branch;
        let number = state.begin(parent, root, len, branch)?;
        state.next_branch += 1;
        let core = Arc::new(Core::new(root, len, parent));
        state.watched.push(Arc::downgrade(core.epochs()));
        let (name, core_too) = (name.into(), Arc::clone(&core));
        let desk = Desk { name, core, number, reserved: 0, draining: 0, lower: None };
        state.desks.insert(branch, desk);
        Ok((branch, core_too))
    }

    /// Makes what a branch holds a version, and lets it go on from there; returns the version's number when nobody
    /// writes to it any more (law 3).
    pub(crate) fn freeze(&self, branch: u32, name: &str) -> Result<u32> {
        let mut state = self.lock();
        let number = state.desk(branch)?.number;
        let (root, len) = (state.period(number)?.root, state.period(number)?.len);
        let next = state.begin(number, root, len, branch)?;
        let core = self.freeze_period(&mut state, branch, next, name)?;
        core.show_floor(number);
        self.drain(state, branch, number, &core)?;
        Ok(number)
    }

    /// Makes the map of a branch that of a version; what it was becomes a version itself, whose number is returned.
    pub(crate) fn roll_back(&self, branch: u32, target: u32) -> Result<u32> {
        let mut state = self.version(target)?;
        state.desk(branch)?.draining += 1;
        // What is being written to a new place belongs to what was, and must not come into what will be.
        while state.desk(branch)?.reserved > 0 {
            state = self.wait(state);
        }
        let done = self.switch(&mut state, branch, target);
        state.desk(branch)?.draining -= 1;
        self.notify();
        let (number, core) = done?;
        self.drain(state, branch, number, &core)?;
        Ok(number)
    }

    fn switch(&self, state: &mut State, branch: u32, target: u32) -> Result<(u32, Arc<Core>)> {
        let to = state.period(target)?;
        if to.life != Life::Frozen {
            return Err(deleted(target));
        }
        let (root, len, name) = (to.root, to.len, format!("before rolling back to version {target}"));
        let number = state.desk(branch)?.number;
        let next = state.begin(target, root, len, branch)?;
        let core = self.freeze_period(state, branch, next, &name)?;
        core.switch(root, len, target);
        Ok((number, core))
    }

    /// The period that a branch writes becomes a version, and `next` is written from now on.
    fn freeze_period(&self, state: &mut State, branch: u32, next: u32, name: &str) -> Result<Arc<Core>> {
        let desk = state.desk(branch)?;
        desk.lower = None;
        let (number, core) = (std::mem::replace(&mut desk.number, next), Arc::clone(&desk.core));
        let period = state.period(number)?;
        period.life = Life::Settling;
        period.name = name.into();
        period.created = std::time::SystemTime::now();
        Ok(core)
    }

    /// Waits for those who found what can be written in place before it could not be any more.
    fn drain(&self, mut state: MutexGuard<'_, State>, branch: u32, number: u32, core: &Core) -> Result<()> {
        // Taken after the change: whoever looks from now on finds nothing writable that the version has.
        let epoch = core.epochs().now();
        state.desk(branch)?.draining += 1;
        drop(state);
        // Neither the lock nor a pin is held here (law 9).
        core.epochs().wait_over(epoch);
        let mut state = self.lock();
        state.period(number)?.life = Life::Frozen;
        state.desk(branch)?.draining -= 1;
        self.notify();
        Ok(())
    }

    /// Deletes a version.
    pub(crate) fn delete(&self, number: u32) -> Result<()> {
        let mut state = self.version(number)?;
        self.bury(&mut state, number)
    }

    /// Deletes a branch with all that only its head has.
    pub(crate) fn delete_branch(&self, branch: u32) -> Result<()> {
        let mut state = self.settled(branch)?;
        state.desk(branch)?.draining += 1;
        // And until nobody else waits who has begun to change the branch meanwhile.
        while state.desk(branch)?.reserved > 0 || state.desk(branch)?.draining > 1 {
            state = self.wait(state);
        }
        let desk = state.desk(branch)?;
        desk.draining -= 1;
        let (number, core) = (desk.number, Arc::clone(&desk.core));
        self.notify();
        // Nobody finds it any more, and then what it had is freed.
        core.set_gone(true);
        if let Err(e) = self.bury(&mut state, number) {
            core.set_gone(false);
            return Err(e);
        }
        state.desks.remove(&branch);
        Ok(())
    }

    /// Takes a period out of the history, and then whatever was only kept for its sake.
    fn bury(&self, state: &mut State, number: u32) -> Result<()> {
        let mut ghost = self.collect(state, number)?;
        while let Some(number) = ghost {
            // It is no error of the deletion that was asked for: it is tried again with the next.
            ghost = self.collect(state, number).unwrap_or_else(|_| {
                state.uncollected.insert(number);
                None
            });
        }
        let again = std::mem::take(&mut state.uncollected);
        self.collect_ghosts(state, again);
        self.reap(state);
        Ok(())
    }

    fn collect_ghosts(&self, state: &mut State, ghosts: impl IntoIterator<Item = u32>) {
        for number in ghosts {
            if self.collect(state, number).is_err() {
                state.uncollected.insert(number);
            }
        }
    }

    /// Frees what is kept of deleted versions for the sake of those that came from them, and which these have
    /// meanwhile all replaced.
    pub(crate) fn reclaim(&self) {
        let mut state = self.lock();
        let ghosts = state.periods.iter().filter(|(_, period)| period.life == Life::Ghost);
        // The youngest first: what is not in them is no reason for their parents to keep it.
        let ghosts: Vec<u32> = ghosts.map(|(&number, _)| number).rev().collect();
        self.collect_ghosts(&mut state, ghosts);
        self.reap(&mut state);
    }

    /// Frees what of a period, which nobody reads any more, none of those has that came from it. It stays, as a ghost,
    /// where these are two or more. Returns its parent where that is a ghost, of which less may be needed now.
    fn collect(&self, state: &mut State, number: u32) -> Result<Option<u32>> {
        let Some(period) = state.periods.get(&number) else { return Ok(None) };
        let (parent, many) = (period.parent, period.children.len());
        let is_ghost = state.periods.get(&parent).is_some_and(|p| p.life == Life::Ghost);
        let children: Vec<Root> =
            period.children.iter().filter_map(|c| state.periods.get(c)).map(|c| c.root).collect();
        let mut prune = Prune {
            nodes: &self.nodes,
            shared: parent,
            deep: is_ghost,
            keep: (many > 1).then_some(number),
            freed: Freed::default(),
            made: Vec::new(),
        };
        let left = prune.root(period.root, &children);
        let Prune { freed, made, .. } = prune;
        if left.is_err() {
            made.into_iter().for_each(|number| self.nodes.free(number));
        }
        let left = left?;
        // From here on nothing can fail. First nobody finds it any more, then what it had is freed.
        if let Some(frozen) = state.opened.remove(&number).and_then(|(frozen, _)| frozen.upgrade()) {
            Frozen::delete(&frozen);
        }
        if many > 1 {
            let period = state.period(number)?;
            (period.root, period.life) = (left, Life::Ghost);
        } else {
            state.remove(number);
        }
        state.freed.absorb(freed);
        Ok(is_ghost.then_some(parent))
    }
}
