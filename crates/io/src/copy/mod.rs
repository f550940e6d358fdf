//! The copy engine: moves the bytes of a chart into a sink, and as few of them as it can.
//!
//! A *planner* walks the chart in batches, each under its own pin, and cuts it into pieces: zeros to leave out,
//! runs to clone, runs to copy, frames to decode. A few workers take pieces and do them; all they hold in memory
//! is a buffer each. Formats are unknown here.

mod copier;
mod pieces;
mod work;

#[cfg(test)]
mod tests;

use crate::engine::{Choice, Zeros};
use chart::{Disk, Error, Result, Source};
pub use copier::Copier;
use pieces::Planner;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use work::{Hands, Worker};

/// Whether ranges of host files are shared with the sink rather than copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reflink {
    /// Where the file system can.
    #[default]
    Auto,
    /// Never.
    Never,
    /// What is aligned must be: an error where the file system cannot.
    Always,
}

/// How a copy is done.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// Look for zeros in what is copied, and leave them out.
    pub zero_detect: bool,
    /// Whether to clone.
    pub reflink: Reflink,
    /// Where to begin: what lies before is left as it is in the sink.
    pub from: u64,
    /// Where to end, if before the end of the disk.
    pub to: Option<u64>,
    /// Which engine moves the bytes.
    pub engine: Choice,
    /// How many workers; 0 means as many as do good here.
    pub threads: usize,
    /// The sink reads as zeros throughout, so that zeros need not be written.
    pub sink_reads_zero: bool,
    /// Where the disk stores nothing the sink is left as it is: a layer goes down into the one below.
    pub keep_holes: bool,
    /// The sink is flushed when this is done, so that writing it back had better begin at once.
    pub will_flush: bool,
    /// Told now and then how far it is.
    pub progress: Option<&'a (dyn Fn(Progress) + Sync)>,
    /// When this is set, the copy ends with an error as soon as it can.
    pub cancel: Option<&'a AtomicBool>,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the disk that are done, whatever that took.
    pub done: u64,
    /// Bytes of the disk.
    pub total: u64,
}

/// What a copy did, in bytes of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Shared with the source by the file system: not moved.
    pub cloned: u64,
    /// Copied inside the kernel.
    pub offloaded: u64,
    /// Read and written.
    pub copied: u64,
    /// Of the copied: decoded on the way.
    pub decoded: u64,
    /// Written as zeros, or told to the sink to be zeros.
    pub zeroed: u64,
    /// Left out, since the sink reads as zeros there.
    pub skipped: u64,
}

impl Report {
    fn add(&mut self, other: &Report) {
        self.cloned += other.cloned;
        self.offloaded += other.offloaded;
        self.copied += other.copied;
        self.decoded += other.decoded;
        self.zeroed += other.zeroed;
        self.skipped += other.skipped;
    }

    fn total(&self) -> u64 {
        self.cloned + self.offloaded + self.copied + self.zeroed + self.skipped
    }
}

/// What the workers share.
struct Job<'a> {
    sink: &'a dyn Source,
    options: Options<'a>,
    total: u64,
    done: AtomicU64,
    failed: AtomicBool,
}

impl<'a> Job<'a> {
    fn new(sink: &'a dyn Source, options: &Options<'a>, range: &Range<u64>) -> Self {
        let (done, failed) = (AtomicU64::new(0), AtomicBool::new(false));
        Job { sink, options: *options, total: range.end - range.start, done, failed }
    }

    /// Whether to stop, because of somebody's failure or wish.
    fn is_over(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || self.is_cancelled()
    }

    fn is_cancelled(&self) -> bool {
        self.options.cancel.is_some_and(|c| c.load(Ordering::Relaxed))
    }

    /// What came of it, when nothing failed.
    fn end(&self, report: Report) -> Result<Report> {
        if self.is_cancelled() {
            return Err(Error::conflict("cancelled"));
        }
        debug_assert_eq!(report.total(), self.total);
        Ok(report)
    }

    fn zeros(&self) -> Zeros {
        match (self.options.zero_detect, self.options.sink_reads_zero) {
            (false, _) => Zeros::Copied,
            (true, false) => Zeros::Told,
            (true, true) => Zeros::LeftOut,
        }
    }

    fn advance(&self, by: u64) {
        let done = self.done.fetch_add(by, Ordering::Relaxed) + by;
        if let Some(tell) = self.options.progress {
            tell(Progress { done, total: self.total });
        }
    }
}

/// Copies all of `disk`, or the range that the options name, to the same place in `sink`, which is made long enough
/// for the whole disk if it is not. Not flushed.
pub fn copy(disk: &Disk, sink: &dyn Source, options: &Options<'_>) -> Result<Report> {
    let range = begin(disk, sink, options)?;
    let job = Job::new(sink, options, &range);
    let planner = Mutex::new(Planner::new(disk, range, options));
    let outcome = Mutex::new((Report::default(), None));
    let threads = if options.threads == 0 { default_threads() } else { options.threads };
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, 64) {
            scope.spawn(|| {
                let done = Worker::new(&job, &mut Hands::new(options.engine)).run(&planner);
                let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                match done {
                    Ok(report) => outcome.0.add(&report),
                    Err(e) => {
                        job.failed.store(true, Ordering::Relaxed);
                        outcome.1.get_or_insert(e);
                    }
                }
            });
        }
    });
    let (report, error) = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(e) = error {
        return Err(e);
    }
    job.end(report)
}

/// Makes the sink long enough. The range that is to be copied.
fn begin(disk: &Disk, sink: &dyn Source, options: &Options<'_>) -> Result<Range<u64>> {
    if sink.len() < disk.len() {
        sink.set_len(disk.len())?;
    }
    let to = options.to.unwrap_or(u64::MAX).min(disk.len());
    Ok(options.from.min(to)..to)
}

/// A worker waits more than it works, where the bytes are still to come from the disk: four for each processor.
fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(4, |n| (4 * n.get()).clamp(4, 16))
}
