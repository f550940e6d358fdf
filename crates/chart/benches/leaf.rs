//! Nanoseconds of processor time that finding a place takes: `cargo bench -p chart --bench leaf`.

use chart::{Backing, Chart, Disk, Extent, Identity, Purpose, Result, Slice, Source, SourceId, Table, Wait};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::sync::Arc;

const SIZE: u64 = 64 << 30;
const PIECE: u64 = 64 << 10;
const LOOKUPS: u64 = 4_000_000;

/// Bytes that nobody reads here.
struct Nothing(Identity);

impl Source for Nothing {
    fn name(&self) -> String {
        "nothing".into()
    }
    fn len(&self) -> u64 {
        u64::MAX
    }
    fn read_at(&self, _: u64, buf: &mut [u8], _: Wait) -> Result<()> {
        buf.fill(0);
        Ok(())
    }
    fn identity(&self) -> Identity {
        self.0.clone()
    }
    fn backing(&self) -> Backing<'_> {
        Backing::Memory
    }
}

fn slice(of: Arc<dyn Source>) -> Result<Arc<Disk>> {
    Disk::builder("slice", Arc::new(Slice::new(SourceId(0), 0, SIZE, false)?)).source(of).build()
}

/// A million extents, none of which goes on in the next.
fn table(of: Arc<dyn Source>) -> Result<Arc<Disk>> {
    let piece = |i: u64| Extent::raw(i * PIECE, PIECE, SourceId(0), SIZE - (i + 1) * PIECE);
    let table = Table::from_extents(SIZE, (0..SIZE / PIECE).map(piece))?;
    Disk::builder("table", Arc::new(table)).source(of).build()
}

/// As many extents, told by a rule at no cost. Backwards, or forwards so that each goes on in the next.
struct Pieces {
    backwards: bool,
}

impl Chart for Pieces {
    fn len(&self) -> u64 {
        SIZE
    }

    fn extent_at(&self, at: u64, want: u64, _: Wait) -> Result<Extent> {
        let start = at - at % PIECE;
        let offset = if self.backwards { SIZE - PIECE - start } else { start };
        Ok(Extent::raw(start, PIECE, SourceId(0), offset).clip(at, want))
    }
}

fn pieces(of: Arc<dyn Source>, backwards: bool) -> Result<Arc<Disk>> {
    Disk::builder("pieces", Arc::new(Pieces { backwards })).source(of).build()
}

/// What this thread has used, in nanoseconds.
fn processor_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn leaves(name: &str, disk: &Disk) -> Result<()> {
    let mut best = f64::MAX;
    for _ in 0..5 {
        let (mut state, began) = (1_u64, processor_time());
        for _ in 0..LOOKUPS / 5 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 20) & (SIZE - 4096) & !4095;
            black_box(disk.leaf(at, 4096, Wait::Never, Purpose::Locate)?);
        }
        best = best.min((processor_time() - began) / (LOOKUPS / 5) as f64);
    }
    println!("a leaf: {name:44} {best:7.1} ns");
    Ok(())
}

fn walk(name: &str, disk: &Disk) -> Result<()> {
    let mut best = [f64::MAX; 2];
    for _ in 0..5 {
        let walk = || disk.walk(0..SIZE, Purpose::Locate);
        let began = processor_time();
        for plan in walk() {
            black_box(plan?.leaves.len());
        }
        let batches = processor_time();
        walk().each(|leaf| {
            black_box(leaf.len);
            Ok(())
        })?;
        let spent = [batches - began, processor_time() - batches];
        best = std::array::from_fn(|i| best[i].min(spent[i] / (SIZE / PIECE) as f64));
    }
    println!("a walk: {name:29} batches {:6.1} ns, each {:6.1} ns an extent", best[0], best[1]);
    Ok(())
}

fn main() -> Result<()> {
    let source: Arc<dyn Source> = Arc::new(Nothing(Identity::unique()));
    let one = slice(Arc::clone(&source))?;
    let mut eight = Arc::clone(&one);
    for _ in 1..8 {
        eight = slice(eight)?;
    }
    let packed = table(Arc::clone(&source))?;
    let (apart, whole) = (pieces(Arc::clone(&source), true)?, pieces(Arc::clone(&source), false)?);
    for (name, disk) in [
        ("slice", &one),
        ("eight slices", &eight),
        ("a million by rule", &apart),
        ("a table of a million", &packed),
    ] {
        leaves(name, disk)?;
    }
    walk("a million by rule", &apart)?;
    walk("the same that are one", &whole)?;
    walk("a table of a million", &packed)
}
