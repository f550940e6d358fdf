//! Symbolic links: short ones are in the inode, in place of block numbers.

use super::chart;
use super::inode::Node;
use super::volume::Volume;
use crate::Kind;
use ::chart::{Error, Result, Wait};
use std::sync::Arc;

/// No target is longer, in any system that could follow it.
const MAX_TARGET_LEN: u64 = 4096;

/// Where a symbolic link leads.
pub(super) fn target(volume: &Arc<Volume>, node: &Node) -> Result<Vec<u8>> {
    if node.kind != Kind::Symlink {
        return Err(Error::invalid(format!("inode {} is no symbolic link", node.number)));
    }
    node.readable()?;
    let wrong = |what: &str| Error::corrupt(format!("symbolic link {} {what}", node.number)).at(node.at);
    if node.len == 0 || node.len > MAX_TARGET_LEN {
        return Err(wrong("is of an impossible length"));
    }
    let mut target = vec![0; usize::try_from(node.len).unwrap_or(0)];
    match node.raw.block.get(..target.len()) {
        // The last byte is the end of the string.
        Some(stored) if !node.is_inline() && target.len() < node.raw.block.len() => {
            target.copy_from_slice(stored);
        }
        _ => chart::content(volume, node)?.read_at(0, &mut target, Wait::Allowed)?,
    }
    if target.contains(&0) {
        return Err(wrong("has a NUL in it"));
    }
    Ok(target)
}
