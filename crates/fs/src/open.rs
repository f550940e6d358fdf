//! Which file system is on a disk.

use crate::{FileSystem, ext4};
use chart::{Disk, Result};
use std::sync::Arc;

/// The file system on a disk, if there is one that is known. One that is known and damaged, or that has a feature
/// which is not understood, is an error.
pub fn open(disk: &Arc<Disk>) -> Result<Option<Arc<dyn FileSystem>>> {
    if ext4::probe(disk)? {
        return Ok(Some(Arc::new(ext4::open(Arc::clone(disk))?)));
    }
    Ok(None)
}
