//! Copying one disk after the other on one thread.

use super::pieces::{Planner, clone_min};
use super::work::{Hands, OFFLOAD_MIN, Worker};
use super::{Job, Options, Reflink, Report, begin};
use crate::engine::Choice;
use chart::{Disk, LeafPlace, Purpose, Result, Source, Wait};
use std::sync::Mutex;

/// What is shorter is read whole and written with one write, unless it may be cloned or the kernel may copy it.
const SMALL: u64 = 1 << 20;
/// In how many places that may lie.
const SMALL_LEAVES: usize = 64;

/// Copies many disks, each on the thread that asks: for files, most of which are so small that threads would take
/// longer to start than to do the work. What copying takes is made once.
pub struct Copier {
    hands: Hands,
    room: Vec<u8>,
    /// The system has not said yet that it cannot clone between two such files.
    clones: bool,
}

impl Copier {
    /// A copier that moves bytes by this engine.
    pub fn new(engine: Choice) -> Self {
        Copier { hands: Hands::new(engine), room: Vec::new(), clones: true }
    }

    /// Copies as [`copy`](super::copy()) does, whatever the options say of threads and of the engine. Where one
    /// sink cannot share ranges with what it is copied from, others are not asked.
    pub fn copy(&mut self, disk: &Disk, sink: &dyn Source, options: &Options<'_>) -> Result<Report> {
        let mut options = *options;
        if options.reflink == Reflink::Auto && !self.clones {
            options.reflink = Reflink::Never;
        }
        let range = begin(disk, sink, &options)?;
        if range == (0..disk.len())
            && let Some(report) = self.copy_small(disk, sink, &options)?
        {
            return Ok(report);
        }
        let job = Job::new(sink, &options, &range);
        let planner = Mutex::new(Planner::new(disk, range, &options));
        let report = Worker::new(&job, &mut self.hands).run(&planner)?;
        let planner = planner.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.clones &= !planner.is_refused();
        job.end(report)
    }

    /// Copies a small disk that is all data with one write; not, if it is none.
    fn copy_small(
        &mut self,
        disk: &Disk,
        sink: &dyn Source,
        options: &Options<'_>,
    ) -> Result<Option<Report>> {
        let most = match options.reflink {
            Reflink::Never if self.hands.offloads() => OFFLOAD_MIN,
            Reflink::Never => SMALL,
            reflink => clone_min(reflink),
        };
        if disk.len() >= most || options.zero_detect {
            return Ok(None);
        }
        let plan = disk.plan(0, disk.len(), SMALL_LEAVES, Wait::Allowed, Purpose::Read)?;
        let stored = |place: &LeafPlace<'_>| matches!(place, LeafPlace::Raw { .. } | LeafPlace::Coded(_));
        let covered: u64 = plan.leaves.iter().filter(|leaf| stored(&leaf.place)).map(|leaf| leaf.len).sum();
        if covered < disk.len() {
            return Ok(None);
        }
        let len = disk.len() as usize;
        if self.room.len() < len {
            self.room.resize(SMALL as usize, 0);
        }
        let mut decoded = 0;
        for leaf in &plan.leaves {
            let (from, to) = (leaf.at as usize, leaf.end() as usize);
            leaf.place.read(&mut self.room[from..to], Wait::Allowed)?;
            decoded += if matches!(leaf.place, LeafPlace::Coded(_)) { leaf.len } else { 0 };
        }
        sink.write_at(0, &self.room[..len], Wait::Allowed)?;
        if let Some(tell) = options.progress {
            tell(super::Progress { done: disk.len(), total: disk.len() });
        }
        Ok(Some(Report { copied: disk.len(), decoded, ..Report::default() }))
    }
}
