//! Law 8: what is durable when, held against every file that a crash may leave.

use super::stamp::SECTOR;
use super::{Maker, Report, Subject, Verdict, ensure, stamp, stamps};
use crate::Rng;
use crate::crash::{self, Budget, State};
use crate::source::{Memory, Recorder};
use chart::{Disk, Kind, SetMode, Source, To, Wait};
use std::collections::VecDeque;
use std::sync::Arc;

/// What became of a sector, one after the other.
#[derive(Clone, Copy)]
enum Fate {
    Written(u64),
    /// Zeroed, or cut off by shrinking: should the disk grow again, it is zeros.
    Zeroed,
    Discarded,
    /// Made again what it was after so many of its fates.
    Applied(usize),
}

/// A moment in the life of a disk.
struct Moment {
    /// How long each sector's list was.
    fates: Vec<usize>,
    /// How many lengths the disk had had.
    lens: usize,
}

/// A length that the disk came to have.
struct Length {
    sectors: u64,
    /// How many of each sector's fates are settled where the disk is found to have it: growing and shrinking leave
    /// zeros before they leave the length.
    settled: Vec<usize>,
}

/// What the disk has been through.
struct Past {
    fates: Vec<Vec<Fate>>,
    /// Its lengths, one after the other.
    lens: Vec<Length>,
    /// By mark.
    marks: Vec<Moment>,
}

impl Past {
    /// Begins with what the disk holds: zeros, or what it falls through to.
    fn of(disk: &Disk) -> Verdict<Past> {
        let sectors = disk.len() / SECTOR;
        let mut fates = Vec::new();
        for found in read(disk)? {
            fates.push(vec![found.map_or(Fate::Zeroed, Fate::Written)]);
        }
        fates.resize((sectors + GROWTH) as usize, vec![Fate::Zeroed]);
        let first = Length { sectors, settled: vec![0; fates.len()] };
        Ok(Past { fates, lens: vec![first], marks: Vec::new() })
    }

    fn len(&self) -> u64 {
        self.lens.last().map_or(0, |len| len.sectors)
    }

    fn now(&self) -> Moment {
        Moment { fates: self.fates.iter().map(Vec::len).collect(), lens: self.lens.len() }
    }

    fn note(&mut self, sectors: std::ops::Range<u64>, fate: Fate) {
        self.fates[sectors.start as usize..sectors.end as usize].iter_mut().for_each(|f| f.push(fate));
    }

    /// The disk has another length: what is behind it, or has come to it, is zeros.
    fn resized(&mut self, len: u64) {
        let old = self.len();
        let range = old.min(len)..old.max(len);
        self.note(range.clone(), Fate::Zeroed);
        let mut settled = self.lens.last().map_or(Vec::new(), |len| len.settled.clone());
        for sector in range {
            settled[sector as usize] = self.fates[sector as usize].len();
        }
        self.lens.push(Length { sectors: len, settled });
    }

    /// The disk is what it was.
    fn applied(&mut self, moment: &Moment) {
        let len = self.lens[moment.lens - 1].sectors;
        self.resized(len);
        for (sector, fates) in self.fates.iter_mut().enumerate().take(len as usize) {
            fates.push(Fate::Applied(moment.fates[sector]));
        }
    }
}

/// A disk grows by so many sectors over what it was made with.
const GROWTH: u64 = 40;

/// What each sector says of itself: nothing if it is zeros, else its sequence.
fn read(disk: &Disk) -> Verdict<Vec<Option<u64>>> {
    let mut all = vec![0; disk.len() as usize];
    disk.read_at(0, &mut all, Wait::Allowed)?;
    Ok(stamps(&all, 0)?.into_iter().map(|found| found.map(|stamp| stamp.sequence)).collect())
}

/// A workload, and what it did to every sector.
struct Work {
    subject: Subject,
    recorder: Arc<Recorder>,
    rng: Rng,
    past: Past,
    /// When each snapshot that there is was taken, oldest first.
    taken: VecDeque<Moment>,
    sequence: u64,
}

/// A random workload of `n` operations, resizing and snapshots among them, then every crash that the budget allows
/// (times [`crash::times`]): each time the disk opens, its own check finds it whole, it has a length that was flushed
/// last or came later, and so has every sector its bytes, in its own place. Returns how many there were.
pub fn crash_safe(maker: &dyn Maker, seed: u64, n: usize, budget: Budget) -> Verdict<usize> {
    let recorder = Arc::new(Recorder::new(Arc::new(Memory::new(0)))?);
    let subject = maker.create(Arc::clone(&recorder) as Arc<dyn Source>)?;
    let past = Past::of(&subject.disk)?;
    let (rng, taken) = (Rng::new(seed), VecDeque::new());
    let mut work = Work { subject, recorder, rng, past, taken, sequence: 0 };
    work.mark()?;
    for _ in 0..n {
        work.step()?;
    }
    work.mark()?;
    let Work { recorder, past, .. } = work;
    let judge = |state: &State| judge(maker, state, &past).map_err(|r| r.to_string());
    let budget = Budget { states: budget.states * crash::times(), ..budget };
    crash::check(&recorder.log(), budget, judge).map_err(|e| Report::new(format!("seed {seed}: {e}")))
}

/// Whether it was done; some disks cannot do it.
fn done(result: chart::Result<()>) -> Verdict<bool> {
    match result {
        Err(e) if matches!(e.kind(), Kind::ReadOnly | Kind::Unsupported) => Ok(false),
        result => Ok(result.map(|()| true)?),
    }
}

impl Work {
    fn mark(&mut self) -> Verdict {
        self.subject.disk.flush()?;
        self.recorder.mark(self.past.marks.len() as u64);
        self.past.marks.push(self.past.now());
        Ok(())
    }

    /// Most of it within few grains, so that what is freed is wanted again.
    fn range(&mut self) -> (u64, u64) {
        let sectors = self.past.len();
        let first = self.rng.below(sectors.min(256));
        (first, (1 + self.rng.below(24)).min(sectors - first))
    }

    fn step(&mut self) -> Verdict {
        let (first, count) = self.range();
        let (at, len, sectors) = (first * SECTOR, count * SECTOR, first..first + count);
        let disk = Arc::clone(&self.subject.disk);
        let mode = SetMode { may_unmap: true, fast_only: false };
        match self.rng.below(26) {
            0..=9 => {
                self.sequence += 1;
                let mut buf = vec![0; len as usize];
                stamp(&mut buf, at, 1, self.sequence);
                self.past.note(sectors, Fate::Written(self.sequence));
                disk.write_at(at, &buf, Wait::Allowed)?;
            }
            10..=13 => {
                self.past.note(sectors, Fate::Zeroed);
                disk.set(at, len, To::Zero, mode)?;
            }
            14..=17 => {
                // Whole grains, mostly: the others are left alone.
                self.past.note(sectors, Fate::Discarded);
                disk.set(at, len, To::Hole, mode)?;
            }
            18..=19 => drop(done(disk.fill_up(at, len).map(drop))?),
            20..=21 => self.snapshot()?,
            22 => self.resize()?,
            23 => self.apply()?,
            _ => self.mark()?,
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Verdict {
        if let Some(snapshots) = &self.subject.snapshots {
            snapshots.snapshot()?;
            self.taken.push_back(self.past.now());
            if self.rng.once_in(2) {
                snapshots.delete_oldest()?;
                self.taken.pop_front();
            }
        }
        Ok(())
    }

    fn apply(&mut self) -> Verdict {
        if let (Some(snapshots), Some(moment)) = (&self.subject.snapshots, self.taken.back())
            && done(snapshots.apply_newest())?
        {
            self.past.applied(moment);
        }
        Ok(())
    }

    /// Shrinks into what is written, or grows to more than ever; often one after the other.
    fn resize(&mut self) -> Verdict {
        let most = self.past.fates.len() as u64;
        let small = 1 + self.rng.below(256.min(most - GROWTH));
        let large = most - self.rng.below(GROWTH);
        let lens = match self.rng.below(4) {
            0 => vec![small],
            1 => vec![large],
            _ => vec![small, large],
        };
        for len in lens {
            if done(self.subject.disk.resize(len * SECTOR))? {
                self.past.resized(len);
            }
            if self.rng.once_in(2) {
                self.mark()?;
            }
        }
        Ok(())
    }
}

/// Whether a sector may hold `found`, when the first `settled` of its fates are settled.
fn may_hold(fates: &[Fate], settled: usize, found: Option<u64>) -> bool {
    let later = fates[settled..].iter().any(|f| match f {
        Fate::Written(sequence) => Some(*sequence) == found,
        Fate::Zeroed | Fate::Discarded => found.is_none(),
        Fate::Applied(then) => at_mark(&fates[..*then], found),
    });
    later || at_mark(&fates[..settled], found)
}

fn at_mark(fates: &[Fate], found: Option<u64>) -> bool {
    match fates.last() {
        None | Some(Fate::Zeroed) => found.is_none(),
        Some(Fate::Written(sequence)) => Some(*sequence) == found,
        Some(Fate::Discarded) => found.is_none() || at_mark(&fates[..fates.len() - 1], found),
        Some(Fate::Applied(then)) => at_mark(&fates[..*then], found),
    }
}

fn judge(maker: &dyn Maker, state: &State, past: &Past) -> Verdict {
    // Before the first mark the disk was not promised to exist.
    let Some(mark) = state.mark else { return Ok(()) };
    let durable = &past.marks[mark as usize];
    let source: Arc<dyn Source> = Arc::new(Memory::of(state.bytes.clone()));
    let subject = maker.open(Arc::clone(&source)).map_err(|e| Report::from(e).during("opening"))?;
    let len = subject.disk.len();
    let Some(length) = past.lens[durable.lens - 1..].iter().find(|l| l.sectors * SECTOR == len) else {
        return Err(Report::new(format!(
            "it is {len} bytes long, which was neither flushed nor asked for later"
        )));
    };
    for (sector, found) in read(&subject.disk)?.into_iter().enumerate() {
        let settled = durable.fates[sector].max(length.settled[sector]);
        ensure!(
            may_hold(&past.fates[sector], settled, found),
            "the sector at {} holds {}, which was neither settled nor written later",
            sector * 512,
            found.map_or("zeros".into(), |sequence| format!("sequence {sequence}"))
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
