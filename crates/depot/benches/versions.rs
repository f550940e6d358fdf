//! What versions cost: a lookup, a snapshot, a deletion, a map: `cargo bench -p depot --bench versions`. No data is
//! kept, so that only maps are measured. Processor time, so that a busy machine does not count.

use chart::{Disk, Identity, Limits, Purpose, Result, Source, Wait};
use depot::{Options, VersionId, Versions};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const LOOKUPS: u64 = 4_000_000;

/// Keeps nothing but its length.
#[derive(Default)]
struct Nothing(AtomicU64);

impl Source for Nothing {
    fn name(&self) -> String {
        "nothing".into()
    }
    fn len(&self) -> u64 {
        self.0.load(Relaxed)
    }
    fn read_at(&self, _: u64, _: &mut [u8], _: Wait) -> Result<()> {
        Ok(())
    }
    fn write_at(&self, _: u64, _: &[u8], _: Wait) -> Result<()> {
        Ok(())
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.0.store(len, Relaxed);
        Ok(())
    }
    fn limits(&self) -> Limits {
        Limits { read_only: false, never: true, ..Limits::default() }
    }
    fn identity(&self) -> Identity {
        Identity::Unique(u64::MAX)
    }
}

/// What this thread has used, in nanoseconds.
fn processor_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn timed<T>(act: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let began = processor_time();
    let done = act()?;
    Ok((done, processor_time() - began))
}

/// A cheap generator of positions; `span` is a power of two.
fn next(state: &mut u64, span: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 20) & (span - 1) & !4095
}

fn look(disk: &Disk, seed: u64, span: u64, lookups: u64) -> Result<f64> {
    let mut state = seed;
    let ((), time) = timed(|| {
        for _ in 0..lookups {
            black_box(disk.answer(next(&mut state, span), 4096, Wait::Never)?);
        }
        Ok(())
    })?;
    Ok(time / lookups as f64)
}

fn measure(name: &str, disk: &Disk, span: u64) -> Result<()> {
    look(disk, 1, span, LOOKUPS / 4)?;
    for threads in [1, 2] {
        let each = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..threads).map(|seed| scope.spawn(move || look(disk, seed + 2, span, LOOKUPS))).collect();
            threads.into_iter().map(|t| t.join().expect("a thread panicked")).collect::<Result<Vec<_>>>()
        })?;
        let mean = each.iter().sum::<f64>() / each.len() as f64;
        println!("{name:44} {threads} threads {mean:8.1} ns a lookup");
    }
    Ok(())
}

fn history(len: u64, interval: u64, cache_bytes: usize) -> Result<Versions> {
    Versions::new(len, Arc::new(Nothing::default()), Options { interval, cache_bytes, maps: None })
}

fn random_write(disk: &Disk, state: &mut u64, span: u64) -> Result<()> {
    disk.write_at(next(state, span), &[1; 4096], Wait::Allowed)
}

/// A million extents, none of which goes on where another ends.
fn a_million_extents() -> Result<()> {
    const SPAN: u64 = 4 << 30;
    let versions = history(SPAN, 4096, 64 << 20)?;
    let head = versions.head();
    // An odd factor makes every block come once.
    for i in 0..SPAN / 4096 {
        let block = i.wrapping_mul(0x9e37_79b9) & (SPAN / 4096 - 1);
        head.write_at(block * 4096, &[1; 4096], Wait::Allowed)?;
    }
    measure("a head of 1 Mi scattered extents", &head, SPAN)?;
    measure("the same, over 64 MiB of it", &head, 64 << 20)?;
    let only = versions.snapshot("the only one")?;
    measure("the only version, 1 Mi extents", &*versions.open(only)?, SPAN)?;
    versions.evict()?;
    let usage = versions.usage();
    println!(
        "{:44} {:10.2} bytes an extent stored",
        "scattered",
        usage.stored_bytes as f64 / (1 << 20) as f64
    );
    let mut state = 1;
    let ids: Vec<VersionId> = (0..1000)
        .map(|_| {
            (0..10).try_for_each(|_| random_write(&head, &mut state, SPAN))?;
            versions.snapshot("one of a thousand")
        })
        .collect::<Result<_>>()?;
    for (name, i) in [("the first", 0), ("the middle", 500), ("the last", 999)] {
        measure(&format!("{name} of a thousand versions"), &*versions.open(ids[i])?, SPAN)?;
    }
    let (told, time) = timed(|| {
        let mut told = 0;
        versions.diff(ids[400], ids[600], |range| {
            told += range.end - range.start;
            Ok(())
        })?;
        Ok(told)
    })?;
    println!("{:44} {:10.1} µs for {} blocks", "a diff over 200 versions", time / 1e3, told / 4096);
    let (_, time) = timed(|| ids.iter().step_by(2).try_for_each(|&id| versions.delete(id)))?;
    println!("{:44} {:10.1} µs each", "deleting 500 versions of 10 writes", time / 500e3);
    let usage = versions.usage();
    println!("{:44} {usage:?}", "at last");
    Ok(())
}

/// A disk of 1 TiB, all of it written.
fn a_tebibyte() -> Result<()> {
    const SPAN: u64 = 1 << 40;
    let versions = history(SPAN, 64 << 10, 32 << 20)?;
    let head = versions.head();
    let buf = vec![1; 2 << 20];
    let ((), time) = timed(|| {
        (0..SPAN / buf.len() as u64)
            .try_for_each(|i| head.write_at(i * buf.len() as u64, &buf, Wait::Allowed))
    })?;
    println!("{:44} {:10.1} ns a block of 64 KiB", "writing 1 TiB in a row", time / (SPAN >> 16) as f64);
    let mut state = 7;
    for writes in [0, 1, 1000] {
        let (mut snapshots, mut after) = (0.0, 0.0);
        for _ in 0..100 {
            let (_, time) = timed(|| versions.snapshot("of 1 TiB"))?;
            snapshots += time;
            let ((), time) = timed(|| (0..writes).try_for_each(|_| random_write(&head, &mut state, SPAN)))?;
            after += time;
        }
        let name = format!("a snapshot of 1 TiB, {writes} writes between");
        let each = after / 100e3 / f64::from(writes.max(1));
        println!("{name:44} {:10.2} µs, {each:.2} µs a write after it", snapshots / 100e3);
    }
    measure("a random block of 1 TiB, 32 MiB of map cached", &head, SPAN).or_else(|e| {
        // A part of the map is not in memory.
        if e.is_would_block() { Ok(()) } else { Err(e) }
    })?;
    let (leaves, time) = timed(|| {
        let mut leaves = 0u64;
        head.walk(0..SPAN, Purpose::Locate).each(|_| {
            leaves += 1;
            Ok(())
        })?;
        Ok(leaves)
    })?;
    println!("{:44} {:10.1} ms for {leaves} extents", "a walk over 1 TiB", time / 1e6);
    versions.evict()?;
    let usage = versions.usage();
    println!("{:44} {usage:?}", "300 versions of it");
    let ids: Vec<_> = versions.list().iter().map(|v| v.id).collect();
    let (_, time) = timed(|| ids[200..].iter().try_for_each(|&id| versions.delete(id)))?;
    println!("{:44} {:10.1} µs each", "deleting 100 versions of 1000 writes", time / 100e3);
    let (_, time) = timed(|| ids[..200].iter().try_for_each(|&id| versions.delete(id)))?;
    println!("{:44} {:10.1} ms", "deleting the others", time / 1e6);
    versions.evict()?;
    let usage = versions.usage();
    let each = usage.stored_bytes as f64 / (SPAN >> 16) as f64;
    println!("{:44} {each:10.2} bytes a block stored, {usage:?}", "no versions");
    Ok(())
}

fn main() -> Result<()> {
    a_million_extents()?;
    a_tebibyte()
}
