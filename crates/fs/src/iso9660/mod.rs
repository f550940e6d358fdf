//! ISO 9660: a directory of the host as a disk that everything can read.
//!
//! Nothing of the disk is stored. Files stay where they are: they are one source, whose offsets are the positions
//! on the disk. Descriptors, path tables and directories are computed, a sector at a time, when somebody reads them;
//! what is kept for that is the order of the names, and where each sector begins. `docs/filesystems/iso9660.md`
//! says what is written where, and what each reader makes of it.
//!
//! Three things are told of every file: an identifier in d-characters, which the standard (ECMA-119) demands; its
//! own name and its attributes, by Rock Ridge; and, of files and directories, a name in UTF-16, by Joliet.

mod arrange;
mod date;
mod directories;
mod layout;
mod links;
mod names;
mod number;
mod path_table;
mod placement;
mod record;
mod rock_ridge;
mod susp;
mod synth;
#[cfg(test)]
mod tests;
mod volume;

use chart::{Disk, Result};
use io::tree::{Time, Tree};
use std::sync::Arc;

/// How a directory becomes a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What the volume is called: at most 32 bytes. The name of the directory, where it is not said.
    pub volume: Option<String>,
    /// When the volume was made. When anything in the tree was modified last, where it is not said.
    pub date: Option<Time>,
    /// Whether names are told in UTF-16 too, for Windows and for 7-Zip.
    pub joliet: bool,
    /// Whether it is told when each file was read last, if the walk has kept that. Reading changes it, and with it
    /// the disk: two disks of one directory are then not the same.
    pub accessed: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { volume: None, date: None, joliet: true, accessed: false }
    }
}

/// The directory that was walked, as an ISO 9660 disk with Rock Ridge and Joliet. No file is opened until its bytes
/// are read. The same tree and options make the same disk.
pub fn synth(tree: Arc<Tree>, options: &Options) -> Result<Arc<Disk>> {
    synth::disk(tree, options)
}
