//! A load on a disk, measured: requests of one size from some threads, for a time.

mod histogram;
mod pattern;
#[cfg(test)]
mod tests;

pub use pattern::{Hot, Pattern};

use crate::watch::Watch;
use chart::{Disk, Error, Result, Wait};
use histogram::Histogram;
use pattern::Places;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The largest request.
pub const MAX_REQUEST: u64 = 64 << 20;

/// The most requests at once.
pub const MAX_DEPTH: usize = 1024;

/// What load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Where requests go.
    pub pattern: Pattern,
    /// How long each is.
    pub size: u64,
    /// How many are under way at once: each a thread of its own.
    pub depth: usize,
    /// For how long.
    pub time: Duration,
    /// For so many requests at most.
    pub operations: Option<u64>,
    /// Write rather than read. What the disk holds is lost.
    pub write: bool,
    /// Flush after so many requests of a thread.
    pub flush_every: Option<u64>,
    /// Only in the first so many bytes of the disk.
    pub within: Option<u64>,
    /// What random places begin from: the same seed asks for the same places.
    pub seed: u64,
}

impl Default for Load {
    fn default() -> Self {
        Load {
            pattern: Pattern::Random(None),
            size: 4096,
            depth: 1,
            time: Duration::from_secs(5),
            operations: None,
            write: false,
            flush_every: None,
            within: None,
            seed: 1,
        }
    }
}

/// What came out.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Outcome {
    /// Requests done.
    pub operations: u64,
    /// Bytes read or written.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Requests in a second.
    pub iops: f64,
    /// Bytes in a second.
    pub bytes_per_second: f64,
    /// How long requests took.
    pub latency: Latency,
}

/// How long requests took, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Latency {
    /// On average.
    pub mean: u64,
    /// Half took no longer.
    pub p50: u64,
    /// 90 of a hundred took no longer.
    pub p90: u64,
    /// 99 of a hundred took no longer.
    pub p99: u64,
    /// 999 of a thousand took no longer.
    pub p999: u64,
    /// None took longer.
    pub max: u64,
}

/// What the threads share.
struct Run<'a> {
    disk: &'a Disk,
    load: Load,
    places: Places,
    began: Instant,
    left: AtomicU64,
    over: AtomicBool,
    watch: Watch<'a>,
}

/// Puts a load on a disk.
pub fn bench(disk: &Disk, load: &Load, watch: Watch<'_>) -> Result<Outcome> {
    let len = load.within.unwrap_or(u64::MAX).min(disk.len());
    if load.size == 0 || load.size > MAX_REQUEST || load.size > len {
        let what = format!("requests of {} bytes on {len}: from 1 to {MAX_REQUEST} are possible", load.size);
        return Err(Error::invalid(what));
    }
    if load.depth == 0 || load.depth > MAX_DEPTH {
        return Err(Error::invalid(format!("a depth of {}: from 1 to {MAX_DEPTH} is possible", load.depth)));
    }
    let run = Run {
        disk,
        load: *load,
        places: Places::new(load.pattern, len / load.size),
        began: Instant::now(),
        left: AtomicU64::new(load.operations.unwrap_or(u64::MAX)),
        over: AtomicBool::new(false),
        watch,
    };
    let all = Mutex::new((Histogram::new(), None));
    std::thread::scope(|scope| {
        for worker in 0..load.depth {
            let (run, all) = (&run, &all);
            scope.spawn(move || {
                let done = run.work(worker as u64);
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                match done {
                    Ok(histogram) => all.0.add(&histogram),
                    Err(e) => {
                        run.over.store(true, Ordering::Relaxed);
                        all.1.get_or_insert(e);
                    }
                }
            });
        }
    });
    let (histogram, error) = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    let seconds = run.began.elapsed().as_secs_f64();
    if let Some(e) = error {
        return Err(e);
    }
    if load.write {
        disk.flush()?;
    }
    let (operations, bytes) = (histogram.count(), histogram.count() * load.size);
    Ok(Outcome {
        operations,
        bytes,
        seconds,
        iops: operations as f64 / seconds,
        bytes_per_second: bytes as f64 / seconds,
        latency: histogram.latency(),
    })
}

impl Run<'_> {
    fn work(&self, worker: u64) -> Result<Histogram> {
        let mut histogram = Histogram::new();
        let mut dice = pattern::Dice::new(self.load.seed ^ (worker + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut buffer = vec![0; self.load.size as usize];
        dice.fill(&mut buffer);
        let mut done = 0u64;
        while self.goes_on()? {
            let at = self.places.next(&mut dice) * self.load.size;
            let began = Instant::now();
            if self.load.write {
                // No two blocks are the same, so that nothing finds them alike.
                let stamp = dice.next().to_le_bytes();
                let marked = buffer.len().min(stamp.len());
                buffer[..marked].copy_from_slice(&stamp[..marked]);
                self.disk.write_at(at, &buffer, Wait::Allowed)?;
            } else {
                self.disk.read_at(at, &mut buffer, Wait::Allowed)?;
            }
            done += 1;
            if self.load.write && self.load.flush_every.is_some_and(|every| done.is_multiple_of(every.max(1)))
            {
                self.disk.flush()?;
            }
            histogram.record(began.elapsed());
        }
        Ok(histogram)
    }

    /// Takes one request, if there are any left to take.
    fn goes_on(&self) -> Result<bool> {
        let elapsed = self.began.elapsed();
        if self.over.load(Ordering::Relaxed) || elapsed >= self.load.time {
            return Ok(false);
        }
        self.watch.go_on()?;
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        if self.load.operations.is_none() {
            self.watch.tell(millis(elapsed), millis(self.load.time));
            return Ok(true);
        }
        let take = |left: u64| left.checked_sub(1);
        Ok(self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok())
    }
}
