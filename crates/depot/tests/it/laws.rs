//! The laws of charts, held against the head of a history.

use chart::{Disk, Error, Result, Slice, Source, SourceId};
use depot::{Options, VersionId, Versions};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use testkit::contract::{self, Load, Maker, Snapshots, Subject, Verdict};
use testkit::source::{Memory, Slow};

/// Histories in memory, of one shape. They cannot be opened anew: whoever opens one finds the one there is.
#[derive(Default)]
struct Shape {
    interval: u64,
    cache_bytes: usize,
    len: u64,
    below: Option<Arc<dyn Source>>,
    /// Maps are stored in a source that takes its time for what is not at hand.
    slow_maps: bool,
    made: Mutex<Vec<(Arc<dyn Source>, Versions)>>,
}

impl Shape {
    /// Not whole blocks.
    fn of(interval: u64, cache_bytes: usize) -> Shape {
        Shape { interval, cache_bytes, len: (1 << 20) + 1536, ..Shape::default() }
    }

    fn over(self, len: u64) -> Shape {
        let mut bytes = vec![0; len as usize];
        contract::stamp(&mut bytes, 0, 0, 0);
        Shape { below: Some(Arc::new(Memory::of(bytes))), ..self }
    }

    fn slow(self) -> Shape {
        Shape { slow_maps: true, ..self }
    }

    fn options(&self) -> Options {
        let memory = Arc::new(Memory::new(0));
        let maps: Arc<dyn Source> =
            if self.slow_maps { Arc::new(Slow::new(memory, std::time::Duration::ZERO)) } else { memory };
        Options { interval: self.interval, cache_bytes: self.cache_bytes, maps: Some(maps) }
    }
}

fn raw(of: &Arc<dyn Source>, len: u64) -> Result<Arc<Disk>> {
    let len = len.min(of.len());
    let slice = Slice::new(SourceId(0), 0, len, false)?;
    Disk::builder("below", Arc::new(slice)).source(Arc::clone(of)).build()
}

/// A disk of `len` bytes over another, which may be shorter or longer.
pub(crate) fn history(
    len: u64,
    data: Arc<dyn Source>,
    below: Option<&Arc<dyn Source>>,
    options: Options,
) -> Result<Versions> {
    let Some(below) = below else { return Versions::new(len, data, options) };
    let versions = Versions::over(raw(below, u64::MAX)?, data, options)?;
    versions.head().resize(len)?;
    Ok(versions)
}

impl Maker for Shape {
    fn create(&self, source: Arc<dyn Source>) -> Result<Subject> {
        source.set_len(0)?;
        let versions = history(self.len, Arc::clone(&source), self.below.as_ref(), self.options())?;
        self.made.lock().unwrap().push((Arc::clone(&source), versions));
        self.open(source)
    }

    fn open(&self, source: Arc<dyn Source>) -> Result<Subject> {
        let made = self.made.lock().unwrap();
        let found = made.iter().rev().find(|(of, _)| Arc::ptr_eq(of, &source));
        let (_, versions) = found.ok_or_else(|| Error::not_found("no history is in this source"))?;
        let taken = Taken { versions: versions.clone(), ids: Mutex::default() };
        Ok(Subject { disk: versions.head(), snapshots: Some(Arc::new(taken)) })
    }
}

/// Versions, oldest first.
struct Taken {
    versions: Versions,
    ids: Mutex<VecDeque<VersionId>>,
}

impl Snapshots for Taken {
    fn snapshot(&self) -> Result<Arc<Disk>> {
        let id = self.versions.snapshot("taken")?;
        self.ids.lock().unwrap().push_back(id);
        self.versions.open(id)
    }

    fn delete_oldest(&self) -> Result<()> {
        let id = self.ids.lock().unwrap().pop_front();
        id.map_or(Ok(()), |id| self.versions.delete(id))
    }
}

fn shapes() -> Vec<Shape> {
    vec![
        Shape::of(4096, 0),
        Shape::of(512, 0),
        Shape::of(512, 0).slow(),
        Shape::of(4096, 1 << 20).over(2 << 20),
        Shape::of(512, 0).over(300_032).slow(),
        Shape::of(65_536, 1 << 20),
        Shape::of(16_384, 0).over(1 << 20),
    ]
}

#[track_caller]
fn kept(verdict: Verdict) {
    verdict.unwrap_or_else(|r| panic!("versions break a law: {r}"));
}

#[test]
fn random_operations() {
    for (seed, shape) in shapes().iter().enumerate() {
        kept(contract::random_ops(shape, seed as u64, 400));
        kept(contract::all_decorators(shape, seed as u64 + 50, 120));
    }
}

#[test]
fn certain_races() {
    for shape in
        [Shape::of(4096, 0), Shape::of(4096, 1 << 20).over(2 << 20), Shape::of(65_536, 0).over(700_000)]
    {
        kept(contract::races(&shape));
    }
}

#[test]
fn concurrent_load() {
    for (seed, run_sectors) in [(1, 3), (2, 24), (3, 1)] {
        let load = Load { seed, run_sectors, ..Load::default() };
        for shape in shapes() {
            kept(contract::concurrent(&shape, load));
        }
    }
}

fn window(inner: Arc<Disk>) -> Result<Arc<Disk>> {
    let chart = Slice::new(SourceId(0), 0, inner.len(), true)?;
    Disk::builder("window", Arc::new(chart)).source(inner as _).straight().build()
}

#[test]
fn flushes_and_writes_through_other_disks() {
    for outer in [&Ok as &dyn Fn(Arc<Disk>) -> Result<Arc<Disk>>, &window] {
        kept(contract::flush_reaches(&Shape::of(4096, 0), outer));
        kept(contract::writes_stay_in_their_disk(&Shape::of(4096, 0), outer));
        kept(contract::writes_stay_in_their_disk(&Shape::of(4096, 0).over(1 << 20), outer));
    }
}

#[test]
fn filling_up() {
    let stack = |data: Arc<dyn Source>, below: Arc<dyn Source>| {
        let options = Options { interval: 4096, cache_bytes: 0, maps: None };
        Ok(history(below.len(), data, Some(&below), options)?.head())
    };
    kept(contract::fill_is_void(&stack, Disk::fill_up));
}

#[test]
fn composition() {
    let shape = Shape::of(512, 0).over(1 << 20);
    let subject = shape.create(Arc::new(Memory::new(0))).unwrap();
    let mut bytes = vec![0; 9000];
    for at in [40_000, 5000, 700_123] {
        bytes.fill(at as u8);
        subject.disk.write_at(at, &bytes, chart::Wait::Allowed).unwrap();
    }
    let frozen = subject.snapshots.unwrap().snapshot().unwrap();
    subject.disk.write_at(41_000, &bytes, chart::Wait::Allowed).unwrap();
    kept(contract::composes(frozen, 6, 1));
    kept(contract::composes(Arc::clone(&subject.disk), 6, 2));
    kept(contract::associative(&subject.disk, 3));
}
