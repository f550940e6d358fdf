//! Law 2: composition is associative, in bytes.

use super::{Verdict, chart_agrees_with_read, chart_law, difference, ensure, split_reads};
use crate::Rng;
use crate::source::Memory;
use chart::{Answer, Disk, Extent, Layer, Result, Slice, SourceId, Table, Wait};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A layer that holds some ranges and leaves the others to what lies below.
#[derive(Clone, Default)]
pub struct Patches {
    len: u64,
    /// By beginning: how long, and where in source 0.
    held: BTreeMap<u64, (u64, u64)>,
}

impl Patches {
    /// A layer of `len` bytes that holds nothing yet.
    pub fn new(len: u64) -> Self {
        Patches { len, held: BTreeMap::new() }
    }

    /// Holds `[at, at + len)`, at the same position of source 0. Ranges must not overlap.
    #[must_use]
    pub fn hold(mut self, at: u64, len: u64) -> Self {
        self.held.insert(at, (len, at));
        self
    }
}

impl Layer for Patches {
    fn len(&self) -> u64 {
        self.len
    }

    fn look(&self, at: u64, want: u64, _: Wait) -> Result<Answer> {
        if let Some((&start, &(len, offset))) = self.held.range(..=at).next_back()
            && at < start + len
        {
            return Ok(Answer::Here(Extent::raw(start, len, SourceId(0), offset).clip(at, want)));
        }
        let next = self.held.range(at..).next().map_or(self.len, |(&start, _)| start);
        Ok(Answer::Below { len: want.min(next - at) })
    }
}

fn bytes(disk: &Disk) -> Verdict<Vec<u8>> {
    let mut all = vec![0xa5; disk.len() as usize];
    disk.read_at(0, &mut all, Wait::Allowed)?;
    Ok(all)
}

fn slice(of: &Arc<Disk>, at: u64, len: u64) -> Result<Arc<Disk>> {
    let chart = Arc::new(Slice::new(SourceId(0), at, len, false)?);
    Disk::builder("slice", chart).source(Arc::clone(of) as _).build()
}

/// Some ranges of a new disk of random length hold random bytes, the others what `of` holds.
fn patched(of: &Arc<Disk>, model: &[u8], rng: &mut Rng) -> Result<(Arc<Disk>, Vec<u8>)> {
    let len = (model.len() as u64 / 2 + rng.below(model.len() as u64)).max(1);
    let mut new = model.to_vec();
    new.resize(len as usize, 0);
    let mut held = vec![0; len as usize];
    rng.fill(&mut held);
    let (mut patches, mut at) = (Patches::new(len), 0);
    while at < len {
        at += rng.below(20_000);
        let now = (1 + rng.below(9000)).min(len.saturating_sub(at));
        if now > 0 {
            patches = patches.hold(at, now);
            new[at as usize..][..now as usize].copy_from_slice(&held[at as usize..][..now as usize]);
        }
        at += now + 1;
    }
    let top = Disk::builder("patches", Arc::new(patches)).source(Arc::new(Memory::of(held)));
    Ok((top.below(Arc::clone(of) as _).build()?, new))
}

/// Pieces of `of` in another order, with gaps between them.
fn shuffled(of: &Arc<Disk>, model: &[u8], rng: &mut Rng) -> Result<(Arc<Disk>, Vec<u8>)> {
    let (mut extents, mut new) = (Vec::new(), Vec::new());
    for _ in 0..1 + rng.below(20) {
        let (from, len) = rng.range(model.len() as u64, 30_000);
        new.resize(new.len() + rng.below(3) as usize * 700, 0);
        extents.push(Extent::raw(new.len() as u64, len, SourceId(0), from));
        new.extend_from_slice(&model[from as usize..][..len as usize]);
    }
    let table = Table::from_extents(new.len() as u64, extents)?;
    Ok((Disk::builder("table", Arc::new(table)).source(Arc::clone(of) as _).build()?, new))
}

/// Stacks `levels` random operators on `disk` (not empty, at most a few MiB, not changing), and holds each disk
/// on the way against a model and the laws.
pub fn composes(disk: Arc<Disk>, levels: usize, seed: u64) -> Verdict {
    let mut rng = Rng::new(seed);
    let mut model = bytes(&disk)?;
    let mut disk = disk;
    for level in 0..levels {
        let here = |r: super::Report| r.during(format!("seed {seed}, level {level}"));
        (disk, model) = match rng.below(3) {
            0 => {
                let (at, len) = rng.range(model.len() as u64, model.len() as u64);
                (slice(&disk, at, len)?, model[at as usize..][..len as usize].to_vec())
            }
            1 => patched(&disk, &model, &mut rng)?,
            _ => shuffled(&disk, &model, &mut rng)?,
        };
        let got = bytes(&disk).map_err(here)?;
        ensure!(got == model, "seed {seed}, level {level}: {}", difference(&got, &model));
        chart_law(disk.as_ref()).map_err(here)?;
        chart_agrees_with_read(&disk).map_err(here)?;
        split_reads(&disk, rng.next_u64()).map_err(here)?;
    }
    Ok(())
}

/// However three operators are grouped, the bytes are the same.
pub fn associative(disk: &Arc<Disk>, seed: u64) -> Verdict {
    let mut rng = Rng::new(seed);
    let len = disk.len();
    for _ in 0..8 {
        // A slice of a slice is a slice.
        let (a, a_len) = rng.range(len, len);
        let (b, b_len) = rng.range(a_len, a_len);
        let nested = bytes(slice(&slice(disk, a, a_len)?, b, b_len)?.as_ref())?;
        let direct = bytes(slice(disk, a + b, b_len)?.as_ref())?;
        ensure!(nested == direct, "seed {seed}, a slice of a slice: {}", difference(&nested, &direct));
        overlays(disk, &mut rng).map_err(|r| r.during(format!("seed {seed}")))?;
    }
    Ok(())
}

/// A slice of an overlay is an overlay of slices; two layers over a disk are one merged layer over it.
fn overlays(disk: &Arc<Disk>, rng: &mut Rng) -> Verdict {
    let len = disk.len();
    let mut held = vec![0; len as usize];
    rng.fill(&mut held);
    let memory = Arc::new(Memory::of(held));
    let layer = |patches: Patches, over: &Arc<Disk>| {
        let top = Disk::builder("layer", Arc::new(patches)).source(Arc::clone(&memory) as _);
        top.below(Arc::clone(over) as _).build()
    };
    let unit = (len / 8).max(1);
    let (mut upper, mut lower, mut merged) = (Patches::new(len), Patches::new(len), Patches::new(len));
    for i in 0..len / unit {
        let which = rng.below(4);
        upper = if which == 1 { upper.hold(i * unit, unit) } else { upper };
        lower = if which == 2 { lower.hold(i * unit, unit) } else { lower };
        merged = if which == 1 || which == 2 { merged.hold(i * unit, unit) } else { merged };
    }
    let stacked = layer(upper.clone(), &layer(lower, disk)?)?;
    let one = layer(merged, disk)?;
    let (got, wanted) = (bytes(&stacked)?, bytes(&one)?);
    ensure!(got == wanted, "two layers and one merged: {}", difference(&got, &wanted));

    let (at, cut) = rng.range(len, len);
    let mut moved = Patches::new(cut);
    for (&start, &(held, _)) in &upper.held {
        let (from, to) = (start.max(at), (start + held).min(at + cut));
        if from < to {
            moved.held.insert(from - at, (to - from, from));
        }
    }
    let slice_of_overlay = bytes(slice(&layer(upper, disk)?, at, cut)?.as_ref())?;
    let overlay_of_slice = bytes(layer(moved, &slice(disk, at, cut)?)?.as_ref())?;
    ensure!(
        slice_of_overlay == overlay_of_slice,
        "a slice of an overlay and an overlay of a slice: {}",
        difference(&slice_of_overlay, &overlay_of_slice)
    );
    Ok(())
}
