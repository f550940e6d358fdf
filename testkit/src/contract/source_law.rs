//! The contract of `Source`.

use super::{Verdict, difference, ensure};
use crate::Rng;
use chart::{Kind, Result, Source, Wait};

/// A source longer than this is not read whole.
const MOST: u64 = 64 << 20;

/// How many operations are tried.
const OPS: usize = 400;

/// Reads are exact, ranges past the end are refused, and writing, zeroing, punching, resizing and flushing do
/// what they say: held against a `Vec`. Leaves the source with other content, and its length as it was.
pub fn source_law(source: &dyn Source, seed: u64) -> Verdict {
    ensure!(source.len() <= MOST, "{} is too long for this contract", source.name());
    let mut model = vec![0; source.len() as usize];
    source.read_at(0, &mut model, Wait::Allowed)?;
    let mut law = Law { source, model, rng: Rng::new(seed), align: u64::from(source.limits().align.max(1)) };
    law.past_the_end()?;
    for step in 0..OPS {
        law.step().map_err(|r| r.during(format!("{}, seed {seed}, step {step}", source.name())))?;
    }
    law.whole()?;
    law.identity()
}

struct Law<'a> {
    source: &'a dyn Source,
    model: Vec<u8>,
    rng: Rng,
    align: u64,
}

impl Law<'_> {
    fn len(&self) -> u64 {
        self.model.len() as u64
    }

    fn range(&mut self) -> (u64, u64) {
        let (at, len) = self.rng.range(self.len(), 40_000);
        let (start, end) = (at / self.align * self.align, (at + len).next_multiple_of(self.align));
        (start, end.min(self.len()) - start)
    }

    /// What would change it: refused by a read-only source, and nothing has changed then.
    fn changed(&self, done: Result<()>, what: &str) -> Verdict<bool> {
        match done {
            Ok(()) => {
                ensure!(!self.source.limits().read_only, "{what} succeeded on a read-only source");
                Ok(true)
            }
            Err(e) if e.kind() == Kind::Unsupported && what != "write" => Ok(false),
            Err(e) if e.kind() == Kind::ReadOnly && self.source.limits().read_only => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn past_the_end(&mut self) -> Verdict {
        let (s, len, a) = (self.source, self.len(), self.align);
        let mut buf = vec![0; 2 * a as usize];
        s.read_at(len, &mut [], Wait::Allowed)?;
        for at in [len.saturating_sub(a), len, len + a, u64::MAX - a + 1, u64::MAX - 2 * a + 1] {
            let read = s.read_at(at, &mut buf, Wait::Allowed).map_err(|e| e.kind());
            ensure!(read == Err(Kind::OutOfRange), "a read past the end, at {at} of {len}: {read:?}");
            if s.limits().read_only {
                continue;
            }
            let write = s.write_at(at, &buf, Wait::Allowed).map_err(|e| e.kind());
            ensure!(write == Err(Kind::OutOfRange), "a write past the end, at {at} of {len}: {write:?}");
            for (what, done) in [("zero", s.zero(at, 2 * a, false)), ("punch", s.punch(at, 2 * a))] {
                let kind = done.map_err(|e| e.kind());
                let refused = matches!(kind, Err(Kind::OutOfRange | Kind::Unsupported));
                ensure!(refused, "a {what} past the end, at {at} of {len}: {kind:?}");
            }
        }
        let data = s.data_at(len, 1).map_err(|e| e.kind());
        ensure!(data == Err(Kind::OutOfRange), "data_at the end: {data:?}");
        ensure!(s.len() == len, "it was {len} bytes long and is now {}", s.len());
        Ok(())
    }

    fn step(&mut self) -> Verdict {
        if self.len() == 0 {
            return self.resize();
        }
        match self.rng.below(10) {
            0..=2 => self.read(),
            3..=5 => self.write(),
            6 => self.zero(),
            7 => self.data(),
            8 if self.rng.once_in(4) => self.resize(),
            8 => Ok(self.source.flush()?),
            _ => self.never(),
        }
    }

    fn agrees(&self, at: u64, got: &[u8], how: &str) -> Verdict {
        let wanted = &self.model[at as usize..][..got.len()];
        ensure!(got == wanted, "{how} of {} bytes at {at}: {}", got.len(), difference(got, wanted));
        Ok(())
    }

    fn read(&mut self) -> Verdict {
        let (at, len) = self.range();
        let mut buf = vec![0xa5; len as usize];
        self.source.read_at(at, &mut buf, Wait::Allowed)?;
        self.agrees(at, &buf, "a read")
    }

    fn never(&mut self) -> Verdict {
        let (at, len) = self.range();
        let mut buf = vec![0xa5; len as usize];
        match self.source.read_at(at, &mut buf, Wait::Never) {
            Ok(()) => self.agrees(at, &buf, "a read that may not wait"),
            Err(e) if e.is_would_block() => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn write(&mut self) -> Verdict {
        let (at, len) = self.range();
        let mut buf = vec![0; len as usize];
        self.rng.fill(&mut buf);
        if self.rng.once_in(3) {
            match self.source.write_at(at, &buf, Wait::Never) {
                // Part of it may be written: the whole is to be written again.
                Err(e) if e.is_would_block() => {}
                done => {
                    self.changed(done, "write")?;
                }
            }
        }
        let done = self.source.write_at(at, &buf, Wait::Allowed);
        if self.changed(done, "write")? {
            self.model[at as usize..][..buf.len()].copy_from_slice(&buf);
        }
        self.check_around(at, len)
    }

    fn zero(&mut self) -> Verdict {
        let (at, len) = self.range();
        let (what, done) = match self.rng.below(3) {
            0 => ("fast zero", self.source.zero(at, len, true)),
            1 => ("zero", self.source.zero(at, len, false)),
            _ => ("punch", self.source.punch(at, len)),
        };
        if self.changed(done, what)? {
            self.model[at as usize..][..len as usize].fill(0);
        } else if what != "zero" {
            // Refused may mean: refused half-way. What it asked for is then done in the slow way.
            let done = self.source.zero(at, len, false);
            if self.changed(done, "zero")? {
                self.model[at as usize..][..len as usize].fill(0);
            }
        }
        self.check_around(at, len)
    }

    /// The range and a little on either side.
    fn check_around(&self, at: u64, len: u64) -> Verdict {
        let start = at.saturating_sub(2 * self.align.max(512)) / self.align * self.align;
        let end = (at + len + 2 * self.align.max(512)).min(self.len());
        let mut buf = vec![0xa5; (end - start) as usize];
        self.source.read_at(start, &mut buf, Wait::Allowed)?;
        self.agrees(start, &buf, "a read after a change")
    }

    fn data(&mut self) -> Verdict {
        let (at, len) = self.range();
        let run = self.source.data_at(at, len)?;
        ensure!(run.len > 0 && run.len <= len, "data_at {at} for {len} bytes speaks of {}", run.len);
        let zero = super::is_zero(&self.model[at as usize..][..run.len as usize]);
        ensure!(
            run.data || zero,
            "data_at {at} says nothing is stored for {} bytes, and something is",
            run.len
        );
        Ok(())
    }

    fn resize(&mut self) -> Verdict {
        let old = self.len();
        let len = (self.rng.below(old + 8192) / self.align).max(1) * self.align;
        let done = match self.source.set_len(len) {
            // Formats that count in sectors.
            Err(e) if e.kind() == Kind::Invalid && !len.is_multiple_of(512) => return Ok(()),
            done => done,
        };
        if !self.changed(done, "set_len")? {
            return Ok(());
        }
        self.model.resize(len as usize, 0);
        self.whole()?;
        self.source.set_len(old)?;
        self.model.resize(old as usize, 0);
        self.whole()
    }

    fn whole(&self) -> Verdict {
        let len = self.source.len();
        ensure!(len == self.len(), "it is {len} bytes long instead of {}", self.len());
        let mut all = vec![0xa5; len as usize];
        self.source.read_at(0, &mut all, Wait::Allowed)?;
        self.agrees(0, &all, "a read of the whole")
    }

    fn identity(&self) -> Verdict {
        let (one, two) = (self.source.identity(), self.source.identity());
        ensure!(one == two, "its identity changes: {one:?}, {two:?}");
        Ok(())
    }
}
