//! The reference implementation of the laws: a small image format that allocates, takes snapshots, survives
//! crashes, and can have bugs planted in it to prove that the contracts find them.
//!
//! An image is a source in grains of 4 KiB. Grains 0 and 1 hold two roots, written in turns; a root names a map:
//! where each grain of the disk and of every snapshot is. A map is never changed where it is: a flush writes a
//! new one and then the other root.

mod image;
mod layout;
mod mutants;
mod space;
#[cfg(test)]
mod tests;

pub use mutants::{fill_without_reserving, flattening, same_by_source_id};

use crate::contract::{Maker, Snapshots, Subject, Verdict};
use chart::{Disk, Geometry, Result, Source};
use image::{Frozen, Image};
use std::sync::Arc;

/// The unit in which places are given.
pub const GRAIN: u64 = 4096;

/// A bug to plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Law 1: an answer speaks of more than lies in one place.
    OverClaim,
    /// Law 2: an answer from the middle of a grain names the grain's beginning.
    SplitChangesBytes,
    /// Law 3: readers and in-place writers are not counted.
    ReadersNotPinned,
    /// Law 3: what is freed is used again at once.
    ReuseAtOnce,
    /// Law 3: what is freed is used again before the map that freed it is durable.
    ReuseBeforeDurable,
    /// Law 3: a snapshot does not wait for in-place writers.
    SnapshotDoesNotDrain,
    /// Law 3: while a snapshot waits for in-place writers, others copy away what they are about to write.
    CopiesWhileDraining,
    /// Law 4: what a snapshot shares is called writable.
    WritableWhileShared,
    /// Law 7: two reservations of one grain do not wait for each other.
    ReservationsDoNotWait,
    /// Law 7: a grain that is being copied becomes writable when the snapshot that shared it goes.
    WritableWhileReserved,
    /// Law 7: a discard uncovers what lies below.
    DiscardUncovers,
    /// Law 8: a flush with no new map does not flush the source.
    FlushNotPassedDown,
    /// Law 8: the map is written before the data is durable.
    MapBeforeData,
    /// Law 9: a snapshot waits for readers while it keeps them from looking.
    DrainsUnderLock,
}

/// An open image.
pub struct Toy {
    image: Arc<Image>,
    below: Option<Arc<dyn Source>>,
}

impl Toy {
    /// Makes an image of a disk of `len` bytes.
    pub fn create(source: Arc<dyn Source>, len: u64, plan: &ToyMaker) -> Result<Arc<Self>> {
        let image = Image::create(source, len, plan.mutation)?;
        Ok(Arc::new(Toy { image: Arc::new(image), below: plan.below.clone() }))
    }

    /// Opens an image.
    pub fn open(source: Arc<dyn Source>, plan: &ToyMaker) -> Result<Arc<Self>> {
        let image = Image::open(source, plan.mutation)?;
        Ok(Arc::new(Toy { image: Arc::new(image), below: plan.below.clone() }))
    }

    /// Its one disk (law 9): to be made once.
    fn disk(&self) -> Result<Arc<Disk>> {
        let image = Arc::clone(&self.image);
        let disk = Disk::builder("toy", Arc::clone(&image) as _).image().source(Arc::clone(image.source()));
        let disk = self.below.iter().fold(disk, |d, b| d.below(Arc::clone(b)));
        let geometry = Geometry { grain: GRAIN, ..Geometry::default() };
        disk.mutator(image).geometry(geometry).build()
    }
}

impl Snapshots for Toy {
    fn snapshot(&self) -> Result<Arc<Disk>> {
        let id = self.image.snapshot();
        let chart = Frozen::new(Arc::clone(&self.image), id);
        let disk = Disk::builder("toy snapshot", Arc::new(chart)).image();
        let disk = disk.source(Arc::clone(self.image.source()));
        let disk = self.below.iter().fold(disk, |d, b| d.below(Arc::clone(b)));
        match chart::ChartMut::epochs(self.image.as_ref()) {
            Some(epochs) => disk.epochs(Arc::clone(epochs)).build(),
            None => disk.build(),
        }
    }

    fn delete_oldest(&self) -> Result<()> {
        self.image.delete_oldest();
        Ok(())
    }
}

/// Makes toys, for the contracts.
#[derive(Clone)]
pub struct ToyMaker {
    /// The bug to plant.
    pub mutation: Option<Mutation>,
    /// What they fall through to.
    pub below: Option<Arc<dyn Source>>,
    /// How long their disks are.
    pub len: u64,
}

impl Default for ToyMaker {
    fn default() -> Self {
        // Not whole grains.
        ToyMaker { mutation: None, below: None, len: (1 << 20) + 1536 }
    }
}

impl ToyMaker {
    /// With this bug.
    pub fn broken(mutation: Mutation) -> Self {
        ToyMaker { mutation: Some(mutation), ..ToyMaker::default() }
    }

    /// The same, over this.
    #[must_use]
    pub fn over(mut self, below: Arc<dyn Source>) -> Self {
        self.below = Some(below);
        self
    }
}

fn subject(toy: Arc<Toy>) -> Result<Subject> {
    Ok(Subject { disk: toy.disk()?, snapshots: Some(toy) })
}

impl Maker for ToyMaker {
    fn create(&self, source: Arc<dyn Source>) -> Result<Subject> {
        subject(Toy::create(source, self.len, self)?)
    }

    fn open(&self, source: Arc<dyn Source>) -> Result<Subject> {
        subject(Toy::open(source, self)?)
    }

    fn check(&self, source: Arc<dyn Source>) -> Verdict {
        // Opening looks at everything there is.
        Image::open(source, None).map(drop).map_err(Into::into)
    }
}
