//! What a contract for disks is run on.

use super::Verdict;
use chart::{Disk, Error, Result, Source};
use std::sync::Arc;

/// Freezes the states of a disk.
pub trait Snapshots: Send + Sync {
    /// The state of now, as a disk that never changes.
    fn snapshot(&self) -> Result<Arc<Disk>>;

    /// Gives up the oldest one. Its disk is of no more use; what is being read from it stays true until it is read.
    fn delete_oldest(&self) -> Result<()>;

    /// Makes the disk what it was when the newest one was taken. `Unsupported` where that cannot be done.
    fn apply_newest(&self) -> Result<()> {
        Err(Error::unsupported("these snapshots cannot be applied"))
    }
}

/// A disk under test.
pub struct Subject {
    /// The disk.
    pub disk: Arc<Disk>,
    /// What freezes its states, where it can.
    pub snapshots: Option<Arc<dyn Snapshots>>,
}

impl From<Arc<Disk>> for Subject {
    fn from(disk: Arc<Disk>) -> Self {
        Subject { disk, snapshots: None }
    }
}

/// How disks of one kind are made in a source, so that the contracts can put their own sources underneath.
pub trait Maker: Sync {
    /// Makes a new disk in an empty source. Not more than 4 MiB, not less than 128 KiB; its content is zeros or
    /// what it falls through to.
    fn create(&self, source: Arc<dyn Source>) -> Result<Subject>;

    /// Opens one that is there.
    fn open(&self, source: Arc<dyn Source>) -> Result<Subject>;

    /// What else must be true of a source after the disk was flushed or the power went: a format's own check.
    fn check(&self, source: Arc<dyn Source>) -> Verdict {
        let _ = source;
        Ok(())
    }
}
