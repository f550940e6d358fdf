//! What is freed, until nobody can be at it any more (law 3).

use chart::Epochs;
use std::sync::{Arc, Weak};

/// A moment, and all who may still be at what was looked up before it.
#[derive(Default)]
pub(crate) struct Grace(Vec<(Weak<Epochs>, u64)>);

impl Grace {
    /// From now on, for those who look into these disks. To be made after the map has changed.
    pub(crate) fn begin(watched: &mut Vec<Weak<Epochs>>) -> Self {
        watched.retain(|epochs| epochs.strong_count() > 0);
        let now = |weak: &Weak<Epochs>| weak.upgrade().map(|epochs| (Weak::clone(weak), epochs.now()));
        Grace(watched.iter().filter_map(now).collect())
    }

    /// Whether nobody is left. A pin keeps its epochs alive: where they are gone, so is everybody.
    pub(crate) fn is_over(&self) -> bool {
        let over = |(epochs, epoch): &(Weak<Epochs>, u64)| {
            Weak::upgrade(epochs).is_none_or(|epochs: Arc<Epochs>| epochs.is_over(*epoch))
        };
        self.0.iter().all(over)
    }
}

/// Blocks of data and nodes of maps that nothing names any more.
#[derive(Default)]
pub(crate) struct Freed {
    /// Runs of blocks of data.
    pub(crate) blocks: Vec<(u64, u64)>,
    /// Numbers of nodes.
    pub(crate) nodes: Vec<u64>,
}

impl Freed {
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.nodes.is_empty()
    }

    /// One more block.
    pub(crate) fn block(&mut self, block: u64) {
        match self.blocks.last_mut() {
            Some((start, len)) if *start + *len == block => *len += 1,
            _ => self.blocks.push((block, 1)),
        }
    }

    /// All of these too.
    pub(crate) fn absorb(&mut self, other: Freed) {
        self.blocks.extend(other.blocks);
        self.nodes.extend(other.nodes);
    }
}
