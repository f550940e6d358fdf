//! Counting: whether what is in use is what anyone names.

use super::{History, Versions};
use crate::map::Part;
use crate::packed::FANOUT;
use chart::{Error, Result};
use std::collections::BTreeSet;

/// What maps name.
#[derive(Default)]
struct Named {
    nodes: BTreeSet<u64>,
    blocks: BTreeSet<u64>,
}

impl Named {
    fn add(&mut self, history: &History, part: Part) -> Result<()> {
        let value = part.word.value();
        if !part.word.refers() {
            return Ok(());
        }
        if part.level == 0 {
            self.blocks.insert(value);
        } else if self.nodes.insert(value) {
            let page = part.expand(history.nodes(), part.level)?;
            (0..FANOUT).try_for_each(|i| self.add(history, part.child(&page, part.level, i)))?;
        }
        Ok(())
    }
}

impl Versions {
    /// Goes through all maps and compares what they name with what is in use: nothing is lost, and nothing in use is
    /// free. To be called when nobody writes or reads. It remembers every place there is: for tests, and for doubts.
    pub fn audit(&self) -> Result<()> {
        self.reclaim();
        let mut state = self.history().lock();
        self.history().reap(&mut state);
        let mut named = Named::default();
        for period in state.periods.values() {
            named.add(self.history(), period.root.into())?;
        }
        let in_use = (self.history().nodes().store().nodes(), state.space.used());
        let found = (named.nodes.len() as u64, named.blocks.len() as u64);
        if in_use != found {
            let what = format!("(nodes, blocks) in use are {in_use:?}, of which {found:?} are named");
            return Err(Error::corrupt(what));
        }
        Ok(())
    }
}
