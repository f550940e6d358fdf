//! Which grains of the source are in use, which are free, and which will be.

use super::layout::{Map, Maps, Root};
use super::{GRAIN, Mutation};
use chart::{Epochs, Error, Result, Source};
use std::collections::{BTreeSet, VecDeque};

/// The source grows by so many grains at a time.
const STEP: u64 = 32;

/// The grains of the source.
pub(super) struct Space {
    mutation: Option<Mutation>,
    /// By grain: how many maps name it.
    refs: Vec<u32>,
    free: BTreeSet<u64>,
    /// Freed by a map that is not durable yet.
    pending: Vec<u64>,
    /// Freed durably; to be used again when the epoch is over.
    limbo: VecDeque<(u64, u64)>,
    /// Where the source was at its end when it was opened: from there on it holds zeros until something is
    /// written.
    virgin: u64,
}

impl Space {
    pub(super) fn of(
        maps: &Maps,
        root: &Root,
        source: &dyn Source,
        mutation: Option<Mutation>,
    ) -> Result<Self> {
        let virgin = source.len().div_ceil(GRAIN);
        let (refs, limbo) = (vec![1, 1], VecDeque::new());
        let mut space = Space { mutation, refs, free: BTreeSet::new(), pending: Vec::new(), limbo, virgin };
        let of_root = root.grain..root.grain + root.grains();
        let of_maps = maps.snapshots.values().map(AsRef::as_ref).chain([&maps.current]);
        let all: Vec<u64> = of_maps.flat_map(Map::places).chain(of_root).collect();
        for grain in all {
            if grain < 2 || grain >= virgin {
                return Err(Error::corrupt(format!("a map names grain {grain} of {virgin}")));
            }
            space.add_ref(grain);
        }
        space.free = (2..space.refs.len() as u64).filter(|&g| space.refs[g as usize] == 0).collect();
        Ok(space)
    }

    fn add_ref(&mut self, grain: u64) {
        let i = grain as usize;
        if self.refs.len() <= i {
            self.refs.resize(i + 1, 0);
        }
        self.refs[i] += 1;
    }

    pub(super) fn share(&mut self, map: &Map) {
        map.places().for_each(|g| self.add_ref(g));
    }

    pub(super) fn is_shared(&self, grain: u64) -> bool {
        self.refs[grain as usize] > 1
    }

    /// One map less names it. To be called after the map has changed.
    pub(super) fn release(&mut self, grain: u64, epochs: &Epochs) {
        let refs = &mut self.refs[grain as usize];
        *refs -= 1;
        if *refs > 0 {
            return;
        }
        match self.mutation {
            Some(Mutation::ReuseAtOnce) => drop(self.free.insert(grain)),
            Some(Mutation::ReuseBeforeDurable) => self.limbo.push_back((epochs.now(), grain)),
            _ => self.pending.push(grain),
        }
    }

    /// Gives back what nobody ever looked up.
    pub(super) fn give_back(&mut self, first: u64, count: u64) {
        for grain in first..first + count {
            self.refs[grain as usize] = 0;
            self.free.insert(grain);
        }
    }

    /// What the map that is being written frees.
    pub(super) fn take_pending(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.pending)
    }

    /// That map is not durable after all.
    pub(super) fn still_pending(&mut self, freed: Vec<u64>) {
        self.pending.extend(freed);
    }

    /// That map is durable.
    pub(super) fn durable(&mut self, freed: Vec<u64>, epochs: &Epochs) {
        let epoch = epochs.now();
        self.limbo.extend(freed.into_iter().map(|grain| (epoch, grain)));
    }

    /// `count` grains in a row, and whether they read as zeros.
    pub(super) fn take(&mut self, count: u64, source: &dyn Source, epochs: &Epochs) -> Result<(u64, bool)> {
        while let Some(&(epoch, grain)) = self.limbo.front()
            && epochs.is_over(epoch)
        {
            self.limbo.pop_front();
            self.free.insert(grain);
        }
        let fits = |&&first: &&u64| (first..first + count).all(|g| self.free.contains(&g));
        let found = self.free.iter().find(fits).copied();
        let first = found.unwrap_or(self.refs.len() as u64);
        let end = first + count;
        if source.len() < end * GRAIN {
            source.set_len(end.next_multiple_of(STEP) * GRAIN)?;
        }
        for grain in first..end {
            self.free.remove(&grain);
            self.add_ref(grain);
        }
        Ok((first, found.is_none() && first >= self.virgin))
    }
}
