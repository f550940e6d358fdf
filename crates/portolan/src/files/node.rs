//! What a SPEC names in a file system.

use super::listing::{self, Partitions};
use crate::spec::{Spec, Step};
use crate::{Found, Node, Opened, Options, find};
use chart::{Error, Remedy, Result};
use fs::partition;

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
    {
        not_extended(&opened)?;
        if let Some(partitions) = listing::partitions(&opened)? {
            return Ok(Inside::Partitions(partitions));
        }
    }
    node(spec, options).map(Inside::Node)
}

/// Refuses an extended partition: a chain of records begins there that looks like a table, and what they lead to has
/// other numbers.
fn not_extended(opened: &Opened) -> Result<()> {
    let (Some(Step::Partition(number)), Some(whole)) = (opened.image.spec.steps.last(), &opened.image.within)
    else {
        return Ok(());
    };
    let table = partition::read(whole.disk())?;
    let found = table.as_ref().and_then(|table| table.find(*number));
    if !found.is_some_and(|found| found.kind.is_extended()) {
        return Ok(());
    }
    let what = format!("is extended: what is in it are partitions of {} from #5 on", whole.name());
    Err(Error::invalid(what).in_path(opened.image.name()).with_remedy(Remedy::ChoosePartition))
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
        Found::Disk(_) => Err(Error::invalid("is no directory").in_path(root.to_string())),
    }
}
