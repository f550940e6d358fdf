//! A directory of the host: what is in it, and its files as one source.
//!
//! A [`Tree`] is what a walk found: names and attributes, no contents. [`Files`] are the contents of its regular
//! files, read when they are asked for, and only as long as each file is still the one that was found.
//! `docs/directories.md` says exactly what that promises.

mod beneath;
mod blocks;
mod descriptors;
mod files;
mod node;
mod opening;
mod seal;
mod starts;
#[cfg(test)]
mod tests;
mod walk;

pub use files::{Files, FilesBuilder};
pub use node::{Kind, Node, NodeId, Time};

use crate::watch::Watch;
use chart::{Error, Result, ResultExt};
use node::{Common, Listed, Record};
use rustix::fs::{Mode, OFlags};
use seal::Stamp;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most that a tree may hold: files, directories and all else.
pub const MAX_NODES: u32 = 1 << 24;
/// The most bytes that all its names, and all that its symbolic links say, may take.
pub const MAX_NAME_BYTES: u32 = 1 << 31;
/// So many directories may lie in each other.
pub const MAX_DEPTH: usize = 4096;

/// How a directory is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Stay in the file system of the root: what is mounted below is an empty directory.
    pub one_file_system: bool,
    /// Leave out what may not be read, and list it ([`Tree::skipped`]), rather than fail.
    pub skip_unreadable: bool,
    /// At most so many nodes.
    pub most_nodes: u32,
    /// Keep when each node was read last.
    pub accessed: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { one_file_system: false, skip_unreadable: false, most_nodes: MAX_NODES, accessed: false }
    }
}

/// Something that was left out.
#[derive(Debug)]
pub struct Skipped {
    /// Its path, relative to the root.
    pub path: PathBuf,
    /// Why.
    pub error: Error,
}

/// A directory and all below it, as a walk found it. Symbolic links are nodes, and never followed.
///
/// Nodes are in the order of their depth; those in one directory are neighbours, sorted by the bytes of their names.
pub struct Tree {
    root: Arc<OwnedFd>,
    path: PathBuf,
    records: Vec<Record>,
    /// By node, where that was asked for.
    accessed: Vec<Stamp>,
    commons: Vec<Common>,
    /// In the order of the nodes.
    listed: Vec<Listed>,
    names: Vec<u8>,
    skipped: Vec<Skipped>,
}

impl Tree {
    /// Walks a directory. `root` itself may be a symbolic link: it is what the user named.
    pub fn of(root: &Path, options: &Options) -> Result<Tree> {
        Tree::watched(root, options, Watch::default())
    }

    /// The same, while somebody looks on.
    pub fn watched(root: &Path, options: &Options, watch: Watch<'_>) -> Result<Tree> {
        walk::walk(open_root(root)?, root, options, watch)
    }

    /// The directory that was walked.
    pub fn root(&self) -> NodeId {
        NodeId(0)
    }

    /// What it was named as.
    pub fn root_path(&self) -> &Path {
        &self.path
    }

    /// Its descriptor: good for resolving names beneath it, and for nothing else.
    pub fn root_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// How many nodes there are, the root included.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Never: there always is a root.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// All nodes in their order.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = NodeId> + use<> {
        (0..self.records.len() as u32).map(NodeId)
    }

    fn record(&self, id: NodeId) -> &Record {
        &self.records[id.0 as usize]
    }

    fn common(&self, record: &Record) -> &Common {
        &self.commons[record.common as usize]
    }

    /// Of what kind a node is: no more than that is looked up.
    pub fn kind(&self, id: NodeId) -> Kind {
        self.common(self.record(id)).kind()
    }

    /// What a node is.
    pub fn node(&self, id: NodeId) -> Node {
        let record = self.record(id);
        let accessed = self.accessed.get(id.0 as usize).map(|stamp| stamp.time());
        Node { accessed, ..record.node(self.common(record)) }
    }

    /// What a node is called in its directory. The root has no name.
    pub fn name(&self, id: NodeId) -> &[u8] {
        self.record(id).name(&self.names)
    }

    /// The directory that a node is in; of the root, itself.
    pub fn parent(&self, id: NodeId) -> NodeId {
        let behind = self.listed.partition_point(|listed| listed.first <= id.0);
        NodeId(behind.checked_sub(1).map_or(0, |i| self.listed[i].node))
    }

    /// What is in a directory, sorted by the bytes of the names. Nothing is in what is none.
    pub fn children(
        &self,
        id: NodeId,
    ) -> impl ExactSizeIterator<Item = NodeId> + DoubleEndedIterator + use<> {
        let range = match self.listed.binary_search_by_key(&id.0, |listed| listed.node) {
            Ok(i) => {
                let next = self.listed.get(i + 1).map_or(self.records.len() as u32, |next| next.first);
                self.listed[i].first..next
            }
            Err(_) => 0..0,
        };
        range.map(NodeId)
    }

    /// What a symbolic link says; nothing of what is none.
    pub fn target(&self, id: NodeId) -> &[u8] {
        let record = self.record(id);
        if self.common(record).kind() == Kind::Symlink { record.target(&self.names) } else { &[] }
    }

    /// The path of a node, relative to the root; empty for the root.
    pub fn path(&self, id: NodeId) -> PathBuf {
        let mut bytes = Vec::new();
        self.push_path(id, &mut bytes);
        PathBuf::from(std::ffi::OsString::from_vec(bytes))
    }

    /// Its files as one source, to be laid out.
    pub fn files(self: &Arc<Tree>) -> FilesBuilder {
        FilesBuilder::of(self)
    }

    /// What could not be read and was left out.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Adds the path of a node, relative to the root.
    fn push_path(&self, mut id: NodeId, bytes: &mut Vec<u8>) {
        let mut parts = Vec::new();
        while id.0 != 0 {
            parts.push(self.name(id));
            id = self.parent(id);
        }
        for (i, part) in parts.into_iter().rev().enumerate() {
            if i > 0 {
                bytes.push(b'/');
            }
            bytes.extend(part);
        }
    }
}

/// The descriptor of a directory beneath which names are resolved.
pub fn open_root(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(std::io::Error::from).in_path(path)
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
