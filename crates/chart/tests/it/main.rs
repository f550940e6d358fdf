//! The core against the laws, and everything it is made of against a model.

mod compose;
mod depth;
mod disk;
mod epochs;
mod flight;
mod frames;
mod laws;
mod layers;
mod memory;
mod overlay;
mod slice;
mod table;
mod walk;

use chart::{Disk, Result, Slice, Source, SourceId};
use std::sync::Arc;
use testkit::Rng;
use testkit::source::Memory;

/// Random bytes in memory.
fn random(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::new(seed).fill(&mut bytes);
    bytes
}

fn memory(len: usize, seed: u64) -> Arc<dyn Source> {
    Arc::new(Memory::of(random(len, seed)))
}

/// The whole of another disk, written straight.
fn window(inner: Arc<Disk>) -> Result<Arc<Disk>> {
    let (chart, geometry) = (Slice::new(SourceId(0), 0, inner.len(), true)?, inner.geometry());
    Disk::builder("window", Arc::new(chart)).source(inner as _).straight().geometry(geometry).build()
}

fn bytes(disk: &Disk) -> Vec<u8> {
    let mut all = vec![0xa5; disk.len() as usize];
    disk.read_at(0, &mut all, chart::Wait::Allowed).unwrap();
    all
}
