//! The disk: a chart with its sources, and the acts on it.

mod in_place;
mod leaf;
mod plan;
mod read;
mod same;
mod source;
mod walk;
mod write;

pub use leaf::{Coded, Leaf, LeafPlace};
pub use plan::{Plan, Purpose};
pub use same::{both_at, same_place};
pub use walk::Walk;

use crate::codec::FrameCache;
use crate::{
    Backing, Chart, ChartMut, Codec, CodecId, Epochs, Error, Extent, Identity, InFlight, Layer, Overlay, Pin,
    Result, Source, SourceId, Wait,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many disks may lie on top of each other: backing chains, partitions in images in partitions.
pub const MAX_DEPTH: usize = 128;

/// What a user of a disk should know about its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The smallest unit a guest should address.
    pub logical_block: u32,
    /// The unit in which places are given (a cluster, a grain), 1 where there is none.
    pub grain: u64,
    /// Requests of this size are served best.
    pub preferred: u32,
}

impl Default for Geometry {
    fn default() -> Self {
        Geometry { logical_block: 512, grain: 1, preferred: 64 << 10 }
    }
}

/// How far a source was written, and how much of that is durable, in counts of writes. Not a flag: of two
/// flushes at a time, the second must not find it cleared by the first while that is still under way.
#[derive(Default)]
struct Soil {
    written: AtomicU64,
    flushed: AtomicU64,
}

impl Soil {
    fn flush(&self, source: &dyn Source) -> Result<()> {
        let written = self.written.load(Ordering::Acquire);
        if self.flushed.load(Ordering::Acquire) < written {
            source.flush()?;
            self.flushed.fetch_max(written, Ordering::AcqRel);
        }
        Ok(())
    }
}

/// A chart, the sources its extents name, and what changes it. A [`Source`] too, so that disks compose.
pub struct Disk {
    name: String,
    chart: Overlay,
    mutator: Option<Arc<dyn ChartMut>>,
    sources: Vec<Arc<dyn Source>>,
    /// By source: how far it was written and flushed, where no mutator looks after that.
    soil: Vec<Soil>,
    codecs: Vec<Arc<dyn Codec>>,
    /// Its own epochs, where it has some, and those of every mutable disk below.
    epochs: Vec<Arc<Epochs>>,
    /// How many of them are its own: 0 or 1.
    own: usize,
    flight: InFlight,
    frames: FrameCache,
    geometry: Geometry,
    identity: Identity,
    depth: usize,
    never: bool,
    writable: bool,
    image: bool,
}

impl Disk {
    /// Begins a disk of this chart.
    pub fn builder(name: impl Into<String>, top: Arc<dyn Layer>) -> DiskBuilder {
        DiskBuilder {
            name: name.into(),
            top,
            mutator: None,
            epochs: None,
            sources: Vec::new(),
            codecs: Vec::new(),
            below: None,
            geometry: Geometry::default(),
            writable: false,
            image: false,
        }
    }

    /// What to call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many bytes it has.
    pub fn len(&self) -> u64 {
        Chart::len(&self.chart)
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its shape.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Whether it can be written.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// How many disks lie on top of each other here, itself included.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Its sources, in the order of their ids.
    pub fn sources(&self) -> &[Arc<dyn Source>] {
        &self.sources
    }

    /// The disk its unheld ranges fall through to, where that is a disk.
    pub fn below(&self) -> Option<&Disk> {
        match self.chart.below()?.backing() {
            Backing::Disk(disk) => Some(disk),
            _ => None,
        }
    }

    /// This layer's answer, and whether it is its own rather than the layer's below.
    pub fn answer(&self, at: u64, want: u64, wait: Wait) -> Result<(Extent, bool)> {
        self.chart.answer(at, want, wait)
    }

    /// Holds this disk and every mutable one below to the places they name. For one request (law 3).
    pub fn pin(&self) -> Pin {
        Pin::on(&self.epochs)
    }

    /// Holds this disk alone: what a writer may hold while a disk below changes its own map, which may wait for
    /// every pin on that disk (law 9).
    fn pin_own(&self) -> Pin {
        Pin::on(&self.epochs[..self.own])
    }

    fn source(&self, id: SourceId) -> Result<&Arc<dyn Source>> {
        let missing = || Error::corrupt(format!("{}: an extent names source {}", self.name, id.0));
        self.sources.get(usize::from(id.0)).ok_or_else(missing)
    }

    fn codec(&self, id: CodecId) -> Result<&Arc<dyn Codec>> {
        let missing = || Error::corrupt(format!("{}: an extent names codec {}", self.name, id.0));
        self.codecs.get(usize::from(id.0)).ok_or_else(missing)
    }

    /// To be called when a write has returned, done or not: before, a flush could come in between and miss it.
    fn soil(&self, id: SourceId) {
        if let Some(soil) = self.soil.get(usize::from(id.0)) {
            soil.written.fetch_add(1, Ordering::Release);
        }
    }

    /// Flushes and leaves the image as a reader wants to find it. Dropping a disk does not.
    pub fn close(&self) -> Result<()> {
        match &self.mutator {
            Some(mutator) if self.writable => mutator.close(),
            _ => self.flush(),
        }
    }
}

impl Chart for Disk {
    fn len(&self) -> u64 {
        self.len()
    }

    fn extent_at(&self, at: u64, want: u64, wait: Wait) -> Result<Extent> {
        self.chart.extent_at(at, want, wait)
    }
}

/// Puts a disk together.
#[must_use]
pub struct DiskBuilder {
    name: String,
    top: Arc<dyn Layer>,
    mutator: Option<Arc<dyn ChartMut>>,
    epochs: Option<Arc<Epochs>>,
    sources: Vec<Arc<dyn Source>>,
    codecs: Vec<Arc<dyn Codec>>,
    below: Option<SourceId>,
    geometry: Geometry,
    writable: bool,
    image: bool,
}

impl DiskBuilder {
    /// The next source: ids are given in order, from 0.
    pub fn source(mut self, source: Arc<dyn Source>) -> Self {
        self.sources.push(source);
        self
    }

    /// The next codec: ids are given in order, from 0.
    pub fn codec(mut self, codec: Arc<dyn Codec>) -> Self {
        self.codecs.push(codec);
        self
    }

    /// The next source, which is also where ranges fall through to that the chart does not hold.
    pub fn below(mut self, source: Arc<dyn Source>) -> Self {
        self.below = Some(SourceId(u16::try_from(self.sources.len()).unwrap_or(u16::MAX)));
        self.source(source)
    }

    /// What changes the chart. Usually the same object as the chart.
    pub fn mutator(mut self, mutator: Arc<dyn ChartMut>) -> Self {
        self.mutator = Some(mutator);
        self.writable = true;
        self
    }

    /// What its readers must hold, though it has no mutator of its own: a snapshot in an image that another disk
    /// is writing, and may delete the snapshot from.
    pub fn epochs(mut self, epochs: Arc<Epochs>) -> Self {
        self.epochs = Some(epochs);
        self
    }

    /// Writes go straight to the sources; there is no map to change.
    pub fn straight(mut self) -> Self {
        self.writable = true;
        self
    }

    /// It is an image: what its own map holds is this layer's, even where the image lies in a disk that has layers
    /// itself. Without this, as in a window or a view, the layers are those of the disk behind ([`Leaf::layer`]).
    pub fn image(mut self) -> Self {
        self.image = true;
        self
    }

    /// Its shape.
    pub fn geometry(mut self, geometry: Geometry) -> Self {
        self.geometry = geometry;
        self
    }

    /// The disk.
    pub fn build(self) -> Result<Arc<Disk>> {
        // Through wrappers too: whoever locates sees through them, and must be pinned on what lies behind.
        let below: Vec<_> = self.sources.iter().filter_map(|s| plan::disk_behind(s.as_ref())).collect();
        let depth = 1 + below.iter().map(|d| d.depth).max().unwrap_or(0);
        if depth > MAX_DEPTH {
            let what = format!("{}: more than {MAX_DEPTH} disks on top of each other", self.name);
            return Err(Error::unsupported(what));
        }
        let of_mutator = self.mutator.as_ref().and_then(|m| m.epochs().cloned());
        let mut epochs: Vec<_> = of_mutator.or(self.epochs).into_iter().collect();
        let own = epochs.len();
        for disk in below {
            let new = |e: &&Arc<Epochs>| !epochs.iter().any(|known| Arc::ptr_eq(known, e));
            let new: Vec<_> = disk.epochs.iter().filter(new).cloned().collect();
            epochs.extend(new);
        }
        let below = self.below.and_then(|id| Some((id, Arc::clone(self.sources.get(usize::from(id.0))?))));
        Ok(Arc::new(Disk {
            name: self.name,
            chart: Overlay::new(self.top, below),
            mutator: self.mutator,
            soil: self.sources.iter().map(|_| Soil::default()).collect(),
            never: self.sources.iter().all(|s| s.limits().never),
            sources: self.sources,
            codecs: self.codecs,
            epochs,
            own,
            flight: InFlight::default(),
            frames: FrameCache::default(),
            geometry: self.geometry,
            identity: Identity::unique(),
            depth,
            writable: self.writable,
            image: self.image,
        }))
    }
}
