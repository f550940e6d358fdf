//! The load on a disk: as many threads as the depth says, each with one request at a time.

use super::pace::Pace;
use super::pattern::{Dice, Places};
use super::payload::Payload;
use super::{Load, Outcome, Tally};
use crate::watch::Watch;
use chart::{Disk, Error, Result, Wait};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What the threads share.
struct Run<'a> {
    disk: &'a Disk,
    load: Load,
    places: Places,
    payload: Payload,
    pace: Pace<'a>,
}

/// Puts a load on a disk that is open.
pub fn on_disk(disk: &Disk, load: &Load, watch: Watch<'_>) -> Result<Outcome> {
    let len = load.check(disk.len())?;
    if load.connections > 1 || load.structured {
        return Err(Error::invalid(
            "connections and their replies can be chosen only for the export of an NBD server",
        ));
    }
    let run = Run {
        disk,
        load: *load,
        places: Places::new(load.pattern, len / load.size),
        payload: Payload::new(load),
        pace: Pace::new(load, watch),
    };
    let all = Mutex::new((Tally::new(), None));
    std::thread::scope(|scope| {
        for worker in 0..load.depth {
            let (run, all) = (&run, &all);
            scope.spawn(move || {
                let done = run.work(worker as u64);
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                match done {
                    Ok(tally) => all.0.add(&tally),
                    Err(e) => {
                        run.pace.end();
                        all.1.get_or_insert(e);
                    }
                }
            });
        }
    });
    let (tally, error) = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    let took = run.pace.elapsed();
    if let Some(e) = error {
        return Err(e);
    }
    if load.write {
        disk.flush()?;
    }
    Ok(tally.outcome(load, took))
}

impl Run<'_> {
    fn work(&self, worker: u64) -> Result<Tally> {
        let mut tally = Tally::new();
        let mut dice = Dice::of_worker(self.load.seed, worker);
        let mut buffer = self.payload.block();
        while self.pace.goes_on(self.pace.elapsed())? && self.pace.take() {
            let at = self.places.next(&mut dice) * self.load.size;
            let began = Instant::now();
            if self.load.write {
                self.payload.mark(at, &mut buffer);
                self.disk.write_at(at, &buffer, Wait::Allowed)?;
            } else {
                self.disk.read_at(at, &mut buffer, Wait::Allowed)?;
                self.payload.check(at, 0, &buffer)?;
            }
            let done = tally.histogram.count() + 1;
            if self.load.write && self.load.flush_every.is_some_and(|every| done.is_multiple_of(every.max(1)))
            {
                self.disk.flush()?;
                tally.flushes += 1;
            }
            tally.histogram.record(began.elapsed());
        }
        Ok(tally)
    }
}
