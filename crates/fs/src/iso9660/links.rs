//! Which names are names of one file.

use io::tree::{Kind, NodeId, Tree};
use std::collections::HashMap;

/// One of several names of a file.
#[derive(Clone, Copy)]
struct Linked {
    node: u32,
    first: u32,
    names: u32,
}

/// The files that have more than one name in the tree.
#[derive(Default)]
pub(super) struct Links(Vec<Linked>);

impl Links {
    pub(super) fn of(tree: &Tree) -> Links {
        let mut files: HashMap<(u64, u64), (u32, u32)> = HashMap::new();
        let linked = |id: NodeId| {
            let node = tree.node(id);
            (node.links > 1 && node.kind != Kind::Directory).then_some((id.0, (node.device, node.inode)))
        };
        for (id, key) in tree.nodes().filter_map(linked) {
            let (_, names) = files.entry(key).or_insert((id, 0));
            *names = names.saturating_add(1);
        }
        let known = |(node, key): (u32, (u64, u64))| {
            let &(first, names) = files.get(&key)?;
            (names > 1).then_some(Linked { node, first, names })
        };
        // Nodes come in order, and so do these.
        Links(tree.nodes().filter_map(linked).filter_map(known).collect())
    }

    fn of_node(&self, id: NodeId) -> Option<Linked> {
        let i = self.0.binary_search_by_key(&id.0, |linked| linked.node).ok()?;
        self.0.get(i).copied()
    }

    /// The first name of a file.
    pub(super) fn first(&self, id: NodeId) -> NodeId {
        self.of_node(id).map_or(id, |linked| NodeId(linked.first))
    }

    /// How many names a file has in the tree.
    pub(super) fn names(&self, id: NodeId) -> u32 {
        self.of_node(id).map_or(1, |linked| linked.names)
    }
}

/// The number that a file goes by: the same for all its names, and never 0.
pub(super) fn serial(first: NodeId) -> u32 {
    first.0.saturating_add(1)
}
