//! Random operations against a model.

use super::{Maker, Report, Subject, Verdict, chart_agrees_with_read, chart_law, difference, ensure};
use super::{source_law, split_reads};
use crate::Rng;
use crate::source::{Failing, Memory, Op, Short, Slow};
use chart::{Kind, Result, SetMode, Source, To, Wait};
use std::sync::Arc;
use std::time::Duration;

/// Random reads, writes, zeroing, discards, filling up, resizing, flushing and reopening against a `Vec`: over
/// plain memory.
pub fn random_ops(maker: &dyn Maker, seed: u64, n: usize) -> Verdict {
    over(maker, Arc::new(Memory::new(0)), seed, n)
}

/// [`random_ops`] over every decorator: plain, short, slow, failing.
pub fn all_decorators(maker: &dyn Maker, seed: u64, n: usize) -> Verdict {
    let memory = || -> Arc<dyn Source> { Arc::new(Memory::new(0)) };
    over(maker, memory(), seed, n).map_err(|r| r.during("plain"))?;
    for piece in [512, 3000] {
        let short = Arc::new(Short::new(memory(), piece));
        over(maker, short, seed, n).map_err(|r| r.during(format!("in pieces of {piece}")))?;
    }
    let slow = Arc::new(Slow::new(memory(), Duration::ZERO));
    over(maker, slow, seed, n).map_err(|r| r.during("slow"))?;
    failing_ops(maker, seed, n).map_err(|r| r.during("failing"))
}

/// Random operations on a source of which one operation in twenty fails. What failed may be done in part; all
/// else is as it was. At the end a flush fails, and from then on none succeeds and nothing can be changed.
pub fn failing_ops(maker: &dyn Maker, seed: u64, n: usize) -> Verdict {
    let failing = Arc::new(Failing::new(Arc::new(Memory::new(0))));
    let mut run = Run::begin(maker, Arc::clone(&failing) as Arc<dyn Source>, seed)?;
    for step in 0..n {
        let ops = [Op::Read, Op::Write, Op::Zero, Op::SetLen];
        failing.fail_at_random(seed.wrapping_add(step as u64), 20, &ops);
        run.failing_step(&failing).map_err(|r| r.during(format!("seed {seed}, step {step}")))?;
    }
    failing.mend();
    run.whole()?;
    run.reopen()?;
    run.latched(&failing)
}

fn over(maker: &dyn Maker, source: Arc<dyn Source>, seed: u64, n: usize) -> Verdict {
    let mut run = Run::begin(maker, source, seed)?;
    for step in 0..n {
        run.step().map_err(|r| r.during(format!("seed {seed}, step {step}")))?;
    }
    run.whole()?;
    run.reopen()?;
    run.still()
}

/// A disk and what it must hold.
struct Run<'a> {
    maker: &'a dyn Maker,
    source: Arc<dyn Source>,
    subject: Subject,
    rng: Rng,
    model: Vec<u8>,
    /// By byte: discarded, so that it may also read as zero.
    loose: Vec<bool>,
}

impl<'a> Run<'a> {
    fn begin(maker: &'a dyn Maker, source: Arc<dyn Source>, seed: u64) -> Verdict<Self> {
        let subject = maker.create(Arc::clone(&source))?;
        let mut model = vec![0; subject.disk.len() as usize];
        subject.disk.read_at(0, &mut model, Wait::Allowed)?;
        let loose = vec![false; model.len()];
        Ok(Run { maker, source, subject, rng: Rng::new(seed), model, loose })
    }

    fn range(&mut self) -> (u64, u64) {
        let most = [2000, 20_000, 200_000][self.rng.below(3) as usize];
        self.rng.range(self.model.len() as u64, most)
    }

    /// What is refused by nature: not an error, and nothing has changed.
    fn done(result: Result<()>) -> Verdict<bool> {
        match result {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == Kind::Unsupported => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn step(&mut self) -> Verdict {
        let (at, len) = self.range();
        match self.rng.below(20) {
            0..=4 => self.read(at, len),
            5..=10 => self.write(at, len),
            11..=12 => self.zero(at, len),
            13..=14 => self.discard(at, len),
            15..=16 => self.fill_up(at, len),
            17 => Ok(self.subject.disk.flush()?),
            18 => self.resize(),
            _ if self.rng.once_in(4) => self.reopen(),
            _ => self.read(at, len),
        }
    }

    fn agrees(&self, at: u64, got: &[u8], how: &str) -> Verdict {
        if got == &self.model[at as usize..][..got.len()] {
            return Ok(());
        }
        let cells = got.iter().zip(&self.model[at as usize..]).zip(&self.loose[at as usize..]);
        let wrong = |((&g, &m), &loose): ((&u8, &u8), &bool)| g != m && !(loose && g == 0);
        if let Some(i) = cells.clone().position(wrong) {
            let count = cells.filter(|&c| wrong(c)).count();
            let (byte, wanted) = (got[i], self.model[at as usize + i]);
            let loose = if self.loose[at as usize + i] { " (discarded)" } else { "" };
            let (i, len) = (at + i as u64, got.len());
            ensure!(
                false,
                "{how} of {len} bytes at {at}: byte {i} ({i:#x}) is {byte:#04x} instead of {wanted:#04x}{loose}; \
                 {count} are wrong"
            );
        }
        Ok(())
    }

    fn read(&mut self, at: u64, len: u64) -> Verdict {
        let mut buf = vec![0xa5; len as usize];
        match self.subject.disk.read_at(at, &mut buf, Wait::Never) {
            Ok(()) => self.agrees(at, &buf, "a read that may not wait")?,
            Err(e) => ensure!(e.is_would_block(), "a read of {len} bytes at {at} with Never: {e}"),
        }
        buf.fill(0xa5);
        self.subject.disk.read_at(at, &mut buf, Wait::Allowed)?;
        self.agrees(at, &buf, "a read")
    }

    fn put(&mut self, at: u64, data: &[u8]) {
        self.model[at as usize..][..data.len()].copy_from_slice(data);
        self.loose[at as usize..][..data.len()].fill(false);
    }

    fn write(&mut self, at: u64, len: u64) -> Verdict {
        let mut data = vec![0; len as usize];
        if !self.rng.once_in(8) {
            self.rng.fill(&mut data);
        }
        let disk = &self.subject.disk;
        let early = match self.rng.below(3) {
            0 => disk.write_at(at, &data, Wait::Never),
            1 => disk.overwrite_at(at, &data),
            _ => Err(chart::Error::WOULD_BLOCK),
        };
        match early {
            Err(e) if e.is_would_block() => disk.write_at(at, &data, Wait::Allowed)?,
            done => done?,
        }
        self.put(at, &data);
        self.around(at, len)
    }

    fn around(&mut self, at: u64, len: u64) -> Verdict {
        let start = at.saturating_sub(5000);
        let end = (at + len + 5000).min(self.model.len() as u64);
        self.read(start, end - start)
    }

    fn zero(&mut self, at: u64, len: u64) -> Verdict {
        let fast_only = self.rng.once_in(3);
        let mode = SetMode { may_unmap: self.rng.once_in(2), fast_only };
        if !Self::done(self.subject.disk.set(at, len, To::Zero, mode))? {
            ensure!(fast_only, "zeroing {len} bytes at {at} is not supported, though it may be slow");
            // It says that nothing has changed, or that part of it is zero: only the first is of use to a
            // caller, but a source below may give up half-way.
            self.loose[at as usize..][..len as usize].fill(true);
            return self.around(at, len);
        }
        self.put(at, &vec![0; len as usize]);
        self.around(at, len)
    }

    fn discard(&mut self, at: u64, len: u64) -> Verdict {
        let mode = SetMode { may_unmap: true, fast_only: self.rng.once_in(2) };
        if Self::done(self.subject.disk.set(at, len, To::Hole, mode))? {
            self.loose[at as usize..][..len as usize].fill(true);
        }
        self.around(at, len)
    }

    fn fill_up(&mut self, at: u64, len: u64) -> Verdict {
        match self.subject.disk.fill_up(at, len) {
            Ok(_) => self.around(at, len),
            // There is no map that could hold it.
            Err(e) if e.kind() == Kind::ReadOnly => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn resize(&mut self) -> Verdict {
        let old = self.model.len() as u64;
        let unit = [1, 512, 65_536][self.rng.below(3) as usize];
        let len = ((old / 2 + self.rng.below(old)).min(8 << 20) / unit).max(1) * unit;
        match self.subject.disk.resize(len) {
            // Formats that count in sectors.
            Err(e) if e.kind() == Kind::Invalid && unit == 1 => return Ok(()),
            done => {
                if !Self::done(done)? {
                    return Ok(());
                }
            }
        }
        ensure!(self.subject.disk.len() == len, "resized to {len}, it is {} long", self.subject.disk.len());
        self.model.resize(len as usize, 0);
        self.loose.resize(len as usize, false);
        self.whole()
    }

    fn whole(&mut self) -> Verdict {
        let len = self.model.len() as u64;
        ensure!(self.subject.disk.len() == len, "it is {} long instead of {len}", self.subject.disk.len());
        self.read(0, len)
    }

    fn reopen(&mut self) -> Verdict {
        self.subject.disk.close()?;
        let maker = self.maker;
        maker.check(Arc::clone(&self.source)).map_err(|r| r.during("after closing"))?;
        self.subject = maker.open(Arc::clone(&self.source)).map_err(Report::from)?;
        self.whole().map_err(|r| r.during("after reopening"))
    }

    /// What holds of any disk at rest.
    fn still(&mut self) -> Verdict {
        let disk = Arc::clone(&self.subject.disk);
        chart_law(disk.as_ref())?;
        chart_agrees_with_read(&disk)?;
        split_reads(&disk, self.rng.next_u64())?;
        source_law(disk.as_ref(), self.rng.next_u64())
    }

    /// A step that may fail. What it touched is then read back: old or new, byte by byte.
    fn failing_step(&mut self, failing: &Failing) -> Verdict {
        let (at, len) = self.range();
        let mut data = vec![0; len as usize];
        let disk = Arc::clone(&self.subject.disk);
        let done = match self.rng.below(9) {
            0..=1 => {
                let mut buf = vec![0; len as usize];
                let read = disk.read_at(at, &mut buf, Wait::Allowed);
                failing.mend();
                return if read.is_ok() { self.agrees(at, &buf, "a read") } else { Ok(()) };
            }
            2..=5 => {
                self.rng.fill(&mut data);
                disk.write_at(at, &data, Wait::Allowed)
            }
            6 => disk.set(at, len, To::Zero, SetMode { may_unmap: true, fast_only: false }),
            7 => {
                self.loose[at as usize..][..len as usize].fill(true);
                // The same: failed or not, it may be done in part.
                let _ = disk.set(at, len, To::Hole, SetMode { may_unmap: true, fast_only: true });
                failing.mend();
                return self.around(at, len);
            }
            _ => {
                // It may have failed; it changes no byte either way.
                let _ = disk.fill_up(at, len);
                failing.mend();
                return self.around(at, len);
            }
        };
        failing.mend();
        match done {
            Ok(()) => self.put(at, &data),
            Err(_) => self.settle(at, &data)?,
        }
        self.around(at, len)
    }

    /// After a failed change from the model to `new`: each byte must be one of the two.
    fn settle(&mut self, at: u64, new: &[u8]) -> Verdict {
        let mut got = vec![0; new.len()];
        self.subject.disk.read_at(at, &mut got, Wait::Allowed)?;
        for (i, (&g, &n)) in got.iter().zip(new).enumerate() {
            let (old, loose) = (self.model[at as usize + i], self.loose[at as usize + i]);
            let fits = g == n || g == old || (loose && g == 0);
            ensure!(fits, "after a failed change, byte {}: {}", at + i as u64, difference(&[g], &[old]));
        }
        self.put(at, &got);
        Ok(())
    }

    fn latched(&mut self, failing: &Failing) -> Verdict {
        let (at, len) = (0, 4096);
        let mut data = vec![0; len as usize];
        self.rng.fill(&mut data);
        self.subject.disk.write_at(at, &data, Wait::Allowed)?;
        self.put(at, &data);
        failing.fail(Op::Flush, 0, Kind::Io);
        let flushed = self.subject.disk.flush();
        ensure!(failing.is_latched(), "flushing the disk after a write does not flush its source");
        ensure!(flushed.is_err(), "a flush succeeds although the source's failed");
        ensure!(self.subject.disk.flush().is_err(), "a flush succeeds after one that failed");
        let write = self.subject.disk.write_at(at, &data, Wait::Allowed);
        ensure!(write.is_err(), "a write succeeds after a failed flush");
        self.read(at, len).map_err(|r| r.during("after a failed flush"))
    }
}
