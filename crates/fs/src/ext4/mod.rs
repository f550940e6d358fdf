//! ext4, and ext2 and ext3 before it: read as charts.
//!
//! A file is a table of its extents over the disk that the file system lies in, so nothing is read to find where
//! its bytes are but metadata. A file system whose journal was not replayed is read through another chart, which
//! puts the journal's blocks in the place of those they are copies of.

mod acl;
mod cache;
mod chart;
mod checksum;
mod dir;
mod extent;
mod feature;
mod group;
mod hash;
mod htree;
mod indirect;
mod inode;
mod journal;
mod layout;
mod link;
mod map;
mod superblock;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests;
mod volume;
mod xattr;

use crate::{Attribute, Entry, FileSystem, Inode, Kind, Stat};
use ::chart::{Disk, Error, Result};
use std::ops::ControlFlow;
use std::sync::Arc;
use volume::Volume;

/// A file system of the ext family.
pub struct Ext4 {
    volume: Arc<Volume>,
}

/// Whether a disk looks like a file system of the ext family.
pub fn probe(disk: &Disk) -> Result<bool> {
    superblock::probe(disk)
}

/// Opens the file system on a disk, as `e2fsck` would leave it if it only replayed the journal.
pub fn open(disk: Arc<Disk>) -> Result<Ext4> {
    let mut volume = Arc::new(Volume::open(disk)?);
    if let Some(replayed) = journal::replayed(&volume)? {
        volume = Arc::new(Volume::open(replayed)?);
    }
    let root = volume.inode(Inode(layout::ROOT_INO.into()))?;
    if root.kind != Kind::Directory {
        return Err(Error::corrupt("the root of the file system is no directory").at(root.at));
    }
    Ok(Ext4 { volume })
}

impl FileSystem for Ext4 {
    fn kind(&self) -> &'static str {
        self.volume.superblock.kind()
    }

    fn label(&self) -> String {
        self.volume.superblock.label.clone()
    }

    fn root(&self) -> Inode {
        Inode(layout::ROOT_INO.into())
    }

    fn stat(&self, inode: Inode) -> Result<Stat> {
        Ok(self.volume.stat(&self.volume.inode(inode)?))
    }

    fn list(&self, directory: Inode, each: &mut dyn FnMut(Entry<'_>) -> Result<()>) -> Result<()> {
        let node = self.volume.inode(directory)?;
        self.volume.names(&node, &mut |entry| each(entry).map(ControlFlow::Continue))
    }

    fn lookup(&self, directory: Inode, name: &[u8]) -> Result<Option<Inode>> {
        self.volume.find(&self.volume.inode(directory)?, name)
    }

    fn target(&self, link: Inode) -> Result<Vec<u8>> {
        link::target(&self.volume, &self.volume.inode(link)?)
    }

    fn attributes(&self, inode: Inode) -> Result<Vec<Attribute>> {
        xattr::all(&self.volume, &self.volume.inode(inode)?)
    }

    fn file(&self, inode: Inode) -> Result<Arc<Disk>> {
        chart::file(&self.volume, &self.volume.inode(inode)?)
    }
}
