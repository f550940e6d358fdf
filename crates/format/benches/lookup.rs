//! Nanoseconds of processor time a lookup takes in a qcow2 image whose L2 tables are in memory:
//! `cargo bench -p format --bench lookup`. Processor time, so that a busy machine does not count.

use chart::{Layer, Result, Wait};
use format::qcow2::create::{New, Preallocation, create};
use format::qcow2::{Image, Options};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::sync::Arc;

/// 64 GiB of 64 KiB clusters: 8 MiB of L2 tables, in a cache of 16 MiB.
const SIZE: u64 = 64 << 30;
const LOOKUPS: u64 = 4_000_000;

fn image(extended_l2: bool, cache_bytes: usize) -> Result<(tempfile::TempDir, Arc<Image>)> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("bench.qcow2");
    let options = io::file::Options { writable: true, create_new: true, ..Default::default() };
    let file = Arc::new(io::file::File::open(path, options)?);
    let new = New { preallocation: Preallocation::Metadata, extended_l2, ..New::of(SIZE) };
    create(file.as_ref(), None, &new)?;
    let options = Options { cache_bytes, ..Options::default() };
    let image = Image::open(file, &options, &mut |_| Err(chart::Error::invalid("nothing is needed")))?;
    Ok((dir, Arc::new(image)))
}

/// A cheap generator of positions; `span` is a power of two.
fn next(state: &mut u64, span: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 20) & (span - 1) & !4095
}

fn run(image: &Image, seed: u64, span: u64, lookups: u64) -> Result<f64> {
    let mut state = seed;
    let began = processor_time();
    for _ in 0..lookups {
        black_box(image.look(next(&mut state, span), 4096, Wait::Allowed)?);
    }
    Ok((processor_time() - began) / lookups as f64)
}

/// What this thread has used, in nanoseconds.
fn processor_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// What the memory itself costs: a word at random in as much as the tables take.
fn memory(bytes: usize) {
    let words = black_box(vec![1u64; bytes / 8]);
    let mut state = 1;
    let began = processor_time();
    for _ in 0..LOOKUPS {
        let at = next(&mut state, bytes as u64 * 512) as usize / 4096;
        // The next one waits for this one.
        state ^= words[at] - 1;
    }
    black_box(state);
    println!(
        "a word at random in {bytes:>8} bytes              {:6.1} ns",
        (processor_time() - began) / LOOKUPS as f64
    );
}

fn measure(name: &str, image: &Image, span: u64, threads: u64) -> Result<()> {
    run(image, 1, span, LOOKUPS / 4)?;
    let each = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..threads).map(|seed| scope.spawn(move || run(image, seed + 2, span, LOOKUPS))).collect();
        threads.into_iter().map(|t| t.join().expect("a thread panicked")).collect::<Result<Vec<_>>>()
    })?;
    let mean = each.iter().sum::<f64>() / each.len() as f64;
    println!("{name:40} {threads} threads  {mean:6.1} ns a lookup");
    Ok(())
}

fn main() -> Result<()> {
    memory(128 << 10);
    memory(8 << 20);
    for (name, extended_l2, cache) in [("standard L2", false, 16 << 20), ("extended L2", true, 32 << 20)] {
        let (_dir, image) = image(extended_l2, cache)?;
        for threads in [1, 2] {
            measure(&format!("{name}, all cached, over 64 GiB"), &image, SIZE, threads)?;
            measure(&format!("{name}, all cached, over 1 GiB"), &image, 1 << 30, threads)?;
        }
    }
    let (_dir, image) = image(false, 1 << 20)?;
    let each = run(&image, 9, SIZE, 200_000)?;
    println!("standard L2, an eighth cached            1 threads  {each:6.1} ns a lookup");
    let (began, mut at) = (processor_time(), 0);
    while at < SIZE {
        at += image.look(at, SIZE - at, Wait::Allowed)?.len();
    }
    let walk = (processor_time() - began) / 1e6;
    println!("a walk over all of it                    1 threads  {walk:6.1} ms");
    Ok(())
}
