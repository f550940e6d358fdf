//! Many at once: readers, in-place writers, allocating writers, discards, fills, flushes and snapshots.

use super::stamp::SECTOR;
use super::{Maker, Report, Snapshots, Stamp, Verdict, ensure, stamp, stamps};
use crate::Rng;
use crate::source::{Memory, lock};
use chart::{Disk, Kind, SetMode, Source, To, Wait};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Stretches of this length are, in turns, never and often discarded.
const ZONE: u64 = 96 << 10;

/// How long it may take to come to an end before that is a deadlock.
const PATIENCE: Duration = Duration::from_secs(20);

/// How much happens at a time, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// For how long.
    pub time: Duration,
    /// How many write.
    pub writers: u32,
    /// How many read.
    pub readers: u32,
    /// Sectors that lie so close together have one writer: smaller than a grain, so that grains are shared.
    pub run_sectors: u64,
    /// What all the randomness comes from.
    pub seed: u64,
}

impl Default for Load {
    fn default() -> Self {
        Load { time: Duration::from_millis(500), writers: 3, readers: 2, run_sectors: 3, seed: 1 }
    }
}

/// What a thread does again and again.
type Act = Box<dyn Fn(&State, &mut Rng) -> Verdict + Send>;

struct State {
    disk: Arc<Disk>,
    load: Load,
    /// By sector: the sequence that was written last, begun and done.
    begun: Vec<AtomicU64>,
    done: Vec<AtomicU64>,
    stop: AtomicBool,
    found: Mutex<Option<Report>>,
}

/// Readers, writers, discards, fills, flushes and snapshots at once, on sectors that say of themselves where they
/// belong: no sector is foreign, torn, lost, or older than one that was there before; no snapshot changes.
pub fn concurrent(maker: &dyn Maker, load: Load) -> Verdict {
    let source: Arc<dyn Source> = Arc::new(Memory::new(0));
    let subject = maker.create(Arc::clone(&source))?;
    let sectors = subject.disk.len() / SECTOR;
    let count = || (0..sectors).map(|_| AtomicU64::new(0)).collect();
    let state = Arc::new(State {
        disk: subject.disk,
        load,
        begun: count(),
        done: count(),
        stop: AtomicBool::new(false),
        found: Mutex::default(),
    });
    state.prepare()?;
    state.run(subject.snapshots)?;
    state.end(maker, &source)
}

impl State {
    /// What does not read as zeros is written over, so that all there is says where it belongs.
    fn prepare(&self) -> Verdict {
        let mut all = vec![0; self.disk.len() as usize / 512 * 512];
        self.disk.read_at(0, &mut all, Wait::Allowed)?;
        if stamps(&all, 0).is_err() {
            stamp(&mut all, 0, 0, 0);
            self.disk.write_at(0, &all, Wait::Allowed)?;
        }
        Ok(())
    }

    fn run(self: &Arc<Self>, snapshots: Option<Arc<dyn Snapshots>>) -> Verdict {
        let (tell, ended) = channel();
        let mut threads = 0;
        let mut start = |name: String, act: Act| {
            threads += 1;
            self.spawn(name, threads, act, tell.clone());
        };
        for writer in 0..self.load.writers {
            start(format!("writer {writer}"), Box::new(move |s, rng| s.write(writer, rng)));
        }
        for reader in 0..self.load.readers {
            start(format!("reader {reader}"), Box::new(State::read));
        }
        start("discards".into(), Box::new(State::discard));
        start("fills".into(), Box::new(State::fill));
        start("flushes".into(), Box::new(State::flush));
        if let Some(snapshots) = snapshots {
            let kept = Mutex::default();
            start("snapshots".into(), Box::new(move |s, _| s.snapshot(snapshots.as_ref(), &kept)));
        }
        let began = Instant::now();
        while began.elapsed() < self.load.time && lock(&self.found).is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.stop.store(true, SeqCst);
        let deadline = Instant::now() + PATIENCE;
        for _ in 0..threads {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(ended.recv_timeout(left).is_ok(), "somebody waits for ever: a deadlock");
        }
        lock(&self.found).take().map_or(Ok(()), Err)
    }

    fn spawn(self: &Arc<Self>, name: String, number: u64, act: Act, tell: Sender<()>) {
        let state = Arc::clone(self);
        std::thread::spawn(move || {
            let mut rng = Rng::new(state.load.seed ^ number << 32);
            while !state.stop.load(SeqCst) {
                if let Err(report) = act(&state, &mut rng) {
                    lock(&state.found).get_or_insert(report.during(&name));
                    state.stop.store(true, SeqCst);
                }
            }
            drop(act);
            // Nobody listens any more where another thread hangs.
            let _ = tell.send(());
        });
    }

    fn owner(&self, sector: u64) -> u32 {
        (sector / self.load.run_sectors % u64::from(self.load.writers)) as u32
    }

    fn is_discarded(at: u64) -> bool {
        at / ZONE % 2 == 1
    }

    /// One run of this writer's.
    fn write(&self, writer: u32, rng: &mut Rng) -> Verdict {
        let sectors = self.begun.len() as u64;
        let (run, writers) = (self.load.run_sectors, u64::from(self.load.writers));
        let turn = rng.below(sectors / run / writers);
        let start = (turn * writers + u64::from(writer)) * run;
        let first = start + rng.below(run);
        let last = (first + 1 + rng.below(start + run - first)).min(start + run).min(sectors);
        let range = first as usize..last as usize;
        let sequence = 1 + range.clone().map(|s| self.begun[s].load(SeqCst)).max().unwrap_or(0);
        let mut buf = vec![0; range.len() * 512];
        stamp(&mut buf, first * SECTOR, writer, sequence);
        range.clone().for_each(|s| self.begun[s].store(sequence, SeqCst));
        self.disk.write_at(first * SECTOR, &buf, Wait::Allowed)?;
        range.for_each(|s| self.done[s].store(sequence, SeqCst));
        Ok(())
    }

    fn read(&self, rng: &mut Rng) -> Verdict {
        let sectors = self.begun.len() as u64;
        let first = rng.below(sectors);
        let count = (1 + rng.below(64)).min(sectors - first);
        let range = first as usize..(first + count) as usize;
        let floor: Vec<u64> = self.done[range.clone()].iter().map(|s| s.load(SeqCst)).collect();
        let mut buf = vec![0; count as usize * 512];
        let wait = if rng.once_in(4) { Wait::Never } else { Wait::Allowed };
        match self.disk.read_at(first * SECTOR, &mut buf, wait) {
            Err(e) if e.is_would_block() && wait == Wait::Never => return Ok(()),
            done => done?,
        }
        self.judge(first, &buf, &floor)
    }

    /// Whether these sectors are what they may be: at least as new as `floor`, at most as new as what was begun.
    fn judge(&self, first: u64, buf: &[u8], floor: &[u64]) -> Verdict {
        for (i, found) in stamps(buf, first * SECTOR)?.into_iter().enumerate() {
            let sector = first + i as u64;
            let (at, floor) = (sector * SECTOR, floor[i]);
            let ceiling = self.begun[sector as usize].load(SeqCst);
            let Some(Stamp { writer, sequence, .. }) = found else {
                let may = floor == 0 || Self::is_discarded(at);
                ensure!(
                    may,
                    "the sector at {at} reads as zeros; sequence {floor} was written and never discarded"
                );
                continue;
            };
            let owner = self.owner(sector);
            ensure!(sequence == 0 || writer == owner, "the sector at {at} of {owner} is {found:?}");
            ensure!(sequence <= ceiling, "the sector at {at} is from the future: {sequence} of {ceiling}");
            let new = sequence >= floor || Self::is_discarded(at);
            ensure!(new, "the sector at {at} holds sequence {sequence}; {floor} was written: a lost write");
        }
        Ok(())
    }

    /// A range that may be discarded.
    fn discard(&self, rng: &mut Rng) -> Verdict {
        let len = self.disk.len();
        let zones = len / ZONE / 2;
        let start = (rng.below(zones.max(1)) * 2 + 1) * ZONE;
        if start >= len {
            return Ok(());
        }
        let (at, want) = rng.range(ZONE.min(len - start), ZONE);
        let (to, may_unmap) = if rng.once_in(2) { (To::Hole, true) } else { (To::Zero, rng.once_in(2)) };
        // Whole sectors: half a sector of zeros would look torn.
        let (from, until) = ((start + at).next_multiple_of(512), (start + at + want) / 512 * 512);
        if from < until {
            match self.disk.set(from, until - from, to, SetMode { may_unmap, fast_only: false }) {
                Err(e) if e.kind() == Kind::Unsupported => {}
                done => done?,
            }
        }
        std::thread::sleep(Duration::from_micros(200));
        Ok(())
    }

    fn fill(&self, rng: &mut Rng) -> Verdict {
        let (at, len) = rng.range(self.disk.len(), 100_000);
        match self.disk.fill_up(at, len) {
            Err(e) if matches!(e.kind(), Kind::ReadOnly | Kind::Unsupported) => {}
            done => {
                done?;
            }
        }
        std::thread::sleep(Duration::from_micros(200));
        Ok(())
    }

    fn flush(&self, _: &mut Rng) -> Verdict {
        self.disk.flush()?;
        std::thread::sleep(Duration::from_micros(500));
        Ok(())
    }

    fn snapshot(&self, snapshots: &dyn Snapshots, kept: &Mutex<VecDeque<(Arc<Disk>, u32)>>) -> Verdict {
        let mut kept = lock(kept);
        let floor: Vec<u64> = self.done.iter().map(|s| s.load(SeqCst)).collect();
        let snapshot = snapshots.snapshot()?;
        let mut all = vec![0; self.begun.len() * 512];
        snapshot.read_at(0, &mut all, Wait::Allowed)?;
        self.judge(0, &all, &floor).map_err(|r| r.during("in a snapshot"))?;
        kept.push_back((snapshot, crc32c::crc32c(&all)));
        for (i, (snapshot, sum)) in kept.iter().enumerate() {
            snapshot.read_at(0, &mut all, Wait::Allowed)?;
            ensure!(crc32c::crc32c(&all) == *sum, "snapshot {i} of {} has changed", kept.len());
        }
        if kept.len() > 3 {
            snapshots.delete_oldest()?;
            kept.pop_front();
        }
        Ok(())
    }

    /// At rest, nothing that was written is missing; nor after reopening.
    fn end(&self, maker: &dyn Maker, source: &Arc<dyn Source>) -> Verdict {
        let floor: Vec<u64> = self.done.iter().map(|s| s.load(SeqCst)).collect();
        let mut all = vec![0; self.begun.len() * 512];
        self.disk.read_at(0, &mut all, Wait::Allowed)?;
        self.judge(0, &all, &floor).map_err(|r| r.during("at the end"))?;
        self.disk.close()?;
        maker.check(Arc::clone(source))?;
        let again = maker.open(Arc::clone(source))?;
        let mut reopened = vec![0; all.len()];
        again.disk.read_at(0, &mut reopened, Wait::Allowed)?;
        ensure!(reopened == all, "after reopening: {}", super::difference(&reopened, &all));
        Ok(())
    }
}
