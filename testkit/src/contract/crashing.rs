//! Law 8: what is durable when, held against every file that a crash may leave.

use super::stamp::SECTOR;
use super::{Maker, Report, Subject, Verdict, ensure, stamp, stamps};
use crate::Rng;
use crate::crash::{self, Budget, State};
use crate::source::{Memory, Recorder};
use chart::{Kind, SetMode, Source, To, Wait};
use std::sync::Arc;

/// What became of a sector, one after the other.
#[derive(Clone, Copy)]
enum Fate {
    Written(u64),
    Zeroed,
    Discarded,
}

/// A workload, and what it did to every sector.
struct Work {
    subject: Subject,
    recorder: Arc<Recorder>,
    rng: Rng,
    fates: Vec<Vec<Fate>>,
    /// By mark: how long each sector's list was.
    marks: Vec<Vec<usize>>,
    sequence: u64,
}

/// A random workload of `n` operations, then every crash that the budget allows: each time the disk opens, its
/// own check finds it whole, and every sector holds what was flushed last or what came later in the same place.
/// Returns how many there were.
pub fn crash_safe(maker: &dyn Maker, seed: u64, n: usize, budget: Budget) -> Verdict<usize> {
    let recorder = Arc::new(Recorder::new(Arc::new(Memory::new(0)))?);
    let subject = maker.create(Arc::clone(&recorder) as Arc<dyn Source>)?;
    let sectors = (subject.disk.len() / SECTOR) as usize;
    let fates = vec![Vec::new(); sectors];
    let mut work = Work { subject, recorder, rng: Rng::new(seed), fates, marks: Vec::new(), sequence: 0 };
    work.mark()?;
    for _ in 0..n {
        work.step()?;
    }
    work.mark()?;
    let Work { recorder, fates, marks, .. } = work;
    let judge = |state: &State| judge(maker, state, &fates, &marks).map_err(|r| r.to_string());
    crash::check(&recorder.log(), budget, judge).map_err(|e| Report::new(format!("seed {seed}: {e}")))
}

impl Work {
    fn mark(&mut self) -> Verdict {
        self.subject.disk.flush()?;
        self.recorder.mark(self.marks.len() as u64);
        self.marks.push(self.fates.iter().map(Vec::len).collect());
        Ok(())
    }

    /// Most of it within few grains, so that what is freed is wanted again.
    fn range(&mut self) -> (u64, u64) {
        let sectors = self.fates.len() as u64;
        let first = self.rng.below(sectors.min(256));
        (first, (1 + self.rng.below(24)).min(sectors - first))
    }

    fn note(&mut self, first: u64, count: u64, fate: Fate) {
        self.fates[first as usize..(first + count) as usize].iter_mut().for_each(|f| f.push(fate));
    }

    fn step(&mut self) -> Verdict {
        let (first, count) = self.range();
        let (at, len) = (first * SECTOR, count * SECTOR);
        let disk = Arc::clone(&self.subject.disk);
        let mode = SetMode { may_unmap: true, fast_only: false };
        match self.rng.below(12) {
            0..=4 => {
                self.sequence += 1;
                let mut buf = vec![0; len as usize];
                stamp(&mut buf, at, 1, self.sequence);
                self.note(first, count, Fate::Written(self.sequence));
                disk.write_at(at, &buf, Wait::Allowed)?;
            }
            5..=6 => {
                self.note(first, count, Fate::Zeroed);
                disk.set(at, len, To::Zero, mode)?;
            }
            7..=8 => {
                // Whole grains, mostly: the others are left alone.
                self.note(first, count, Fate::Discarded);
                disk.set(at, len, To::Hole, mode)?;
            }
            9 => match disk.fill_up(at, len) {
                Err(e) if matches!(e.kind(), Kind::ReadOnly | Kind::Unsupported) => {}
                done => drop(done?),
            },
            10 => self.snapshot()?,
            _ => self.mark()?,
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Verdict {
        if let Some(snapshots) = &self.subject.snapshots {
            snapshots.snapshot()?;
            if self.rng.once_in(2) {
                snapshots.delete_oldest()?;
            }
        }
        Ok(())
    }
}

/// Whether a sector may hold `found` (0 for zeros), when the first `durable` of its fates are durable.
fn may_hold(fates: &[Fate], durable: usize, found: u64) -> bool {
    let later = fates[durable..].iter().any(|f| match f {
        Fate::Written(sequence) => *sequence == found,
        Fate::Zeroed | Fate::Discarded => found == 0,
    });
    later || at_mark(&fates[..durable], found)
}

fn at_mark(fates: &[Fate], found: u64) -> bool {
    match fates.last() {
        None | Some(Fate::Zeroed) => found == 0,
        Some(Fate::Written(sequence)) => *sequence == found,
        Some(Fate::Discarded) => found == 0 || at_mark(&fates[..fates.len() - 1], found),
    }
}

fn judge(maker: &dyn Maker, state: &State, fates: &[Vec<Fate>], marks: &[Vec<usize>]) -> Verdict {
    // Before the first mark the disk was not promised to exist.
    let Some(mark) = state.mark else { return Ok(()) };
    let source: Arc<dyn Source> = Arc::new(Memory::of(state.bytes.clone()));
    let subject = maker.open(Arc::clone(&source)).map_err(|e| Report::from(e).during("opening"))?;
    let mut all = vec![0; fates.len() * 512];
    subject.disk.read_at(0, &mut all, Wait::Allowed)?;
    for (sector, found) in stamps(&all, 0)?.into_iter().enumerate() {
        let sequence = found.map_or(0, |s| s.sequence);
        let (fates, durable) = (&fates[sector], marks[mark as usize][sector]);
        ensure!(
            may_hold(fates, durable, sequence),
            "the sector at {} holds sequence {sequence}, which was neither flushed nor written later",
            sector * 512
        );
    }
    subject.disk.close()?;
    maker.check(source)
}

/// Law 8: after a flush of the disk, every change of its source lies before a flush of the source. `outer` may
/// put other disks on top, through which the disk is then written and flushed.
pub fn flush_reaches(maker: &dyn Maker, outer: super::Outer<'_>) -> Verdict {
    let recorder = Arc::new(Recorder::new(Arc::new(Memory::new(0)))?);
    let subject = maker.create(Arc::clone(&recorder) as Arc<dyn Source>)?;
    let disk = outer(subject.disk)?;
    let data = vec![7; 8192];
    let flushed = |what: &str| -> Verdict {
        disk.flush()?;
        ensure!(!recorder.has_unflushed(), "flushed after {what}, the source is not");
        Ok(())
    };
    disk.write_at(4096, &data, Wait::Allowed)?;
    flushed("a write to a new place")?;
    let before = recorder.count();
    disk.write_at(4096, &data, Wait::Allowed)?;
    ensure!(recorder.count() > before, "a write does not come to the source");
    flushed("a write in place")?;
    match disk.set(0, 64 << 10, To::Zero, SetMode { may_unmap: true, fast_only: false }) {
        Err(e) if e.kind() == Kind::Unsupported => {}
        done => done?,
    }
    flushed("zeroing")?;
    disk.write_at(4096, &data, Wait::Allowed)?;
    flushed("a write after zeroing")
}
