//! Internal snapshots of images that have them.

use crate::{Opened, info};
use chart::Result;
use format::qcow2;
use std::sync::Arc;

/// The snapshots of an image, as [`info`] tells of them.
pub fn list(opened: &Opened) -> Result<Vec<info::Snapshot>> {
    Ok(map(opened)?.snapshots()?.iter().map(info::snapshot).collect())
}

/// Takes a snapshot of the disk as it is. Returns its id.
pub fn take(opened: &Opened, name: &str) -> Result<String> {
    map(opened)?.snapshot_create(name)
}

/// Makes the disk what it was when the snapshot was taken. What it is now is gone, unless another snapshot holds
/// it.
pub fn apply(opened: &Opened, name: &str) -> Result<()> {
    map(opened)?.snapshot_apply(name)
}

/// Deletes a snapshot.
pub fn delete(opened: &Opened, name: &str) -> Result<()> {
    map(opened)?.snapshot_delete(name)
}

fn map(opened: &Opened) -> Result<&Arc<qcow2::Image>> {
    opened.image.qcow2("snapshots; an overlay keeps it as it is: portolan create -b")
}
