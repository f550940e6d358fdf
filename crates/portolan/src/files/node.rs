//! What a SPEC names in a file system.

use super::listing::{self, Partitions};
use crate::spec::{Spec, Step};
use crate::{Found, Node, Options, find};
use chart::Result;

/// What there is to see in a disk.
pub enum Inside {
    /// It is divided into these.
    Partitions(Partitions),
    /// A directory or a file: of a disk with a file system, its root.
    Node(Node),
}

/// What there is to see where a SPEC leads. A file system on the whole disk counts for more than what may be left of
/// a partition table in front of it.
pub fn inside(spec: &Spec, options: &Options) -> Result<Inside> {
    if let Found::Disk(opened) = find(spec, options)?
        && fs::open(&opened.disk).map_err(|e| e.in_path(opened.image.name()))?.is_none()
        && let Some(partitions) = listing::partitions(&opened)?
    {
        return Ok(Inside::Partitions(partitions));
    }
    node(spec, options).map(Inside::Node)
}

/// What a SPEC names in a file system: of a disk that has one, its root.
pub fn node(spec: &Spec, options: &Options) -> Result<Node> {
    if let Found::Node(node) = find(spec, options)? {
        return Ok(node);
    }
    let mut root = spec.clone();
    root.steps.push(Step::Path("/".into()));
    match find(&root, options)? {
        Found::Node(node) => Ok(node),
        Found::Disk(_) => Err(chart::Error::invalid("is no directory").in_path(root.to_string())),
    }
}
