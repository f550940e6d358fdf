//! In what order things stand: directories as the path table has them, and the entries of each by their identifiers.

use super::names::{KEY_MOST, Naming};
use super::number::{to_index, to_u16, to_u32};
use chart::{Error, Result};
use io::tree::{Kind, MAX_NODES, NodeId, Tree};

/// It is worth a look whether a directory with so many names is sorted already.
const LARGE: usize = 4096;

/// A directory, by its number in the path table less one.
#[derive(Clone, Copy)]
pub(super) struct Directory {
    pub(super) node: NodeId,
    /// The number of the one it is in; of the root, its own.
    pub(super) parent: u32,
    /// Its first entry, among all.
    pub(super) first: u32,
    /// The sector it begins with, among those of all directories and of what is continued behind them.
    pub(super) sector: u32,
    /// The same, among the sectors of records alone.
    pub(super) start: u32,
    /// How many directories are in it.
    pub(super) directories: u32,
}

/// Everything in a tree that one way of naming shows, in order.
pub(super) struct Arrangement {
    pub(super) naming: Naming,
    /// In the order of their depth, of their parents' numbers, of their identifiers (6.9.1).
    pub(super) directories: Vec<Directory>,
    /// The entries of all directories, one directory behind the other.
    pub(super) entries: Vec<NodeId>,
    /// The nodes that have a number to be told from their neighbours by, and that number; by node.
    numbers: Vec<(NodeId, u32)>,
    /// The number of each directory, by node.
    by_node: Vec<(NodeId, u32)>,
}

impl Arrangement {
    pub(super) fn of(tree: &Tree, naming: Naming) -> Result<Arrangement> {
        let root = Directory { node: tree.root(), parent: 0, first: 0, sector: 0, start: 0, directories: 0 };
        let mut all = Arrangement {
            naming,
            directories: vec![root],
            entries: Vec::with_capacity(tree.len()),
            numbers: Vec::new(),
            by_node: Vec::new(),
        };
        let (mut sorter, mut next) = (Sorter::default(), 0);
        while let Some(directory) = all.directories.get(to_index(next)).map(|directory| directory.node) {
            if tree.children(directory).len() >= LARGE && sorter.is_sorted(tree, naming, directory) {
                all.add(tree, next, shown(tree, naming, directory).map(|(id, _)| (id, 0)));
            } else {
                sorter.sort(tree, naming, directory)?;
                all.add(tree, next, sorter.keys.iter().map(|key| (NodeId(key.node), key.number)));
            }
            next = next.saturating_add(1);
        }
        all.numbers.sort_unstable();
        all.by_node = (0..).zip(&all.directories).map(|(number, d)| (d.node, number)).collect();
        all.by_node.sort_unstable();
        Ok(all)
    }

    /// Takes over what is in the directory of this number, sorted, and the numbers that tell them from each other.
    fn add(&mut self, tree: &Tree, number: u32, sorted: impl Iterator<Item = (NodeId, u32)>) {
        let first = to_u32(self.entries.len());
        let before = self.directories.len();
        for (id, mark) in sorted {
            self.entries.push(id);
            if mark > 0 {
                self.numbers.push((id, mark));
            }
            if tree.kind(id) == Kind::Directory {
                self.directories.push(Directory {
                    node: id,
                    parent: number,
                    first: 0,
                    sector: 0,
                    start: 0,
                    directories: 0,
                });
            }
        }
        let inside = to_u32(self.directories.len().saturating_sub(before));
        if let Some(directory) = self.directories.get_mut(to_index(number)) {
            (directory.first, directory.directories) = (first, inside);
        }
    }

    /// One behind the last entry of a directory.
    pub(super) fn end(&self, directory: u32) -> u32 {
        let next = self.directories.get(to_index(directory).saturating_add(1));
        next.map_or_else(|| to_u32(self.entries.len()), |next| next.first)
    }

    /// The number of the directory that a node is.
    pub(super) fn number_of(&self, id: NodeId) -> Option<u32> {
        let i = self.by_node.binary_search_by_key(&id, |&(node, _)| node).ok()?;
        self.by_node.get(i).map(|&(_, number)| number)
    }

    /// Adds the identifier of a node.
    pub(super) fn identify(&self, tree: &Tree, id: NodeId, directory: bool, out: &mut Vec<u8>) {
        let number = self.numbers.binary_search_by_key(&id, |&(node, _)| node).ok();
        let number = number.and_then(|i| self.numbers.get(i)).map_or(0, |&(_, number)| number);
        self.naming.identify(tree.name(id), directory, number, out);
    }
}

/// What a way of naming shows of a directory, in the order of their own names, and whether each is a directory.
/// Joliet knows only files and directories.
fn shown(tree: &Tree, naming: Naming, directory: NodeId) -> impl Iterator<Item = (NodeId, bool)> {
    let kinds = tree.children(directory).map(|id| (id, tree.kind(id)));
    let all = naming == Naming::Plain;
    kinds
        .filter(move |(_, kind)| all || matches!(kind, Kind::File | Kind::Directory))
        .map(|(id, kind)| (id, kind == Kind::Directory))
}

/// A node and where what it is sorted by lies.
#[derive(Clone, Copy)]
struct Key {
    /// The first bytes of the key: mostly they decide.
    head: u64,
    at: u32,
    node: u32,
    number: u32,
    len: u16,
}

impl Key {
    fn of<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        bytes.get(to_index(self.at)..).and_then(|key| key.get(..self.len.into())).unwrap_or_default()
    }
}

/// Sorts what is in one directory.
#[derive(Default)]
struct Sorter {
    /// All keys, one behind the other: as many nodes as there may be have fewer than 4 GiB of them.
    bytes: Vec<u8>,
    keys: Vec<Key>,
}

const _: () = assert!(MAX_NODES <= 1 << 24 && KEY_MOST < 1 << 8);

impl Sorter {
    /// Whether what is in a directory stands in the order of its identifiers already, no two the same. Then it need
    /// not be sorted, and no key be kept.
    fn is_sorted(&mut self, tree: &Tree, naming: Naming, directory: NodeId) -> bool {
        let (mut last, mut key) = (std::mem::take(&mut self.bytes), Vec::new());
        last.clear();
        let sorted = shown(tree, naming, directory).all(|(id, is_directory)| {
            key.clear();
            naming.key(tree.name(id), is_directory, 0, &mut key);
            std::mem::swap(&mut last, &mut key);
            key < last
        });
        self.bytes = last;
        sorted
    }

    fn sort(&mut self, tree: &Tree, naming: Naming, directory: NodeId) -> Result<()> {
        self.bytes.clear();
        self.keys.clear();
        for (id, is_directory) in shown(tree, naming, directory) {
            self.push(tree, naming, id, 0, is_directory);
        }
        self.order();
        let mut twins = self.take_twins();
        if twins.is_empty() {
            return Ok(());
        }
        self.number(tree, naming, &mut twins)?;
        self.order();
        Ok(())
    }

    fn push(&mut self, tree: &Tree, naming: Naming, id: NodeId, number: u32, directory: bool) {
        let at = self.bytes.len();
        naming.key(tree.name(id), directory, number, &mut self.bytes);
        let key = self.bytes.get(at..).unwrap_or_default();
        self.keys.push(Key { head: head(key), at: to_u32(at), len: to_u16(key.len()), node: id.0, number });
    }

    fn order(&mut self) {
        let bytes = &self.bytes;
        let full = |key: &Key| key.of(bytes);
        self.keys.sort_unstable_by(|a, b| {
            a.head.cmp(&b.head).then_with(|| full(a).cmp(full(b))).then_with(|| a.node.cmp(&b.node))
        });
    }

    fn full(&self, key: &Key) -> &[u8] {
        key.of(&self.bytes)
    }

    /// Takes out all that have the same key as one before them.
    fn take_twins(&mut self) -> Vec<u32> {
        let same = |pair: &[Key]| match pair {
            [a, b] => a.head == b.head && self.full(a) == self.full(b),
            _ => false,
        };
        let twin: Vec<bool> = std::iter::once(false).chain(self.keys.windows(2).map(same)).collect();
        if !twin.contains(&true) {
            return Vec::new();
        }
        let mut twins = Vec::new();
        let mut is_twin = twin.into_iter();
        self.keys.retain(|key| {
            let is_twin = is_twin.next().unwrap_or(false);
            if is_twin {
                twins.push(key.node);
            }
            !is_twin
        });
        twins
    }

    /// Gives each of these a number with which it has a key of its own. Each number is used once, so that no two of
    /// them can meet again; and each is passed over at most once, for the sake of a name that looks numbered.
    fn number(&mut self, tree: &Tree, naming: Naming, twins: &mut [u32]) -> Result<()> {
        twins.sort_unstable();
        let (natural, mut number, mut key) = (self.keys.len(), 0_u32, Vec::new());
        for &twin in twins.iter() {
            let id = NodeId(twin);
            let directory = tree.kind(id) == Kind::Directory;
            loop {
                number = number.checked_add(1).ok_or_else(|| {
                    Error::unsupported("too many names in one directory look the same").in_path(tree.path(id))
                })?;
                key.clear();
                naming.key(tree.name(id), directory, number, &mut key);
                let taken = self.keys.get(..natural).unwrap_or_default();
                if taken.binary_search_by(|other| self.full(other).cmp(&key)).is_err() {
                    break;
                }
            }
            self.push(tree, naming, id, number, directory);
        }
        Ok(())
    }
}

/// The first eight bytes, so that they compare as the bytes do.
fn head(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    for (to, &from) in bytes.iter_mut().zip(key) {
        *to = from;
    }
    u64::from_be_bytes(bytes)
}
