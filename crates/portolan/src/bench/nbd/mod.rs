//! The load on the export of an NBD server.
//!
//! A server is measured by a client that is faster than it is, on a machine that both share: so for each connection there
//! is one thread, which goes round ([`connection`]). All that has come is received at once into one buffer, replies are
//! read where they lie and data is passed over; for each request that is done another begins, and those of one round are
//! sent at once. A round is two system calls and one look at the clock, however many requests it is of. Data that is long
//! and need not be looked at is not even copied ([`drain`]).

mod connection;
mod drain;
mod inbox;
mod outbox;
#[cfg(test)]
mod tests;

use super::pace::Pace;
use super::pattern::Places;
use super::payload::Payload;
use super::{Load, Outcome, Tally};
use crate::watch::Watch;
use chart::{Error, Result};
use connection::Connection;
use io::nbd::wire::{Headers, TransmissionFlags};
use io::nbd::{Export, Options, Transmission};
use std::time::{Duration, Instant};

/// How long a connection waits before it looks whether it is to end.
const GLANCE: Duration = Duration::from_millis(250);

/// What all connections share.
struct Run<'a> {
    load: Load,
    places: Places,
    payload: Payload,
    pace: Pace<'a>,
}

/// Puts a load on the export at `address`.
pub(super) fn bench(address: &str, load: &Load, watch: Watch<'_>) -> Result<Outcome> {
    let best = if load.structured { Headers::Structured } else { Headers::Simple };
    let options = Options { timeout: GLANCE, read_only: !load.write, ..Options::default() };
    let connect = || {
        watch.go_on()?;
        Transmission::open(address, &options, best)
    };
    let first = connect()?;
    let len = check(load, &first.export).map_err(|e| e.in_path(address))?;
    let more = (1..load.connections).map(|_| connect());
    let lines: Vec<Transmission> = std::iter::once(Ok(first)).chain(more).collect::<Result<_>>()?;
    let run = Run {
        load: *load,
        places: Places::new(load.pattern, len / load.size),
        payload: Payload::new(load),
        pace: Pace::new(load, watch),
    };
    let done = std::thread::scope(|scope| {
        let work = |(number, line): (usize, Transmission)| {
            let run = &run;
            scope.spawn(move || {
                let done = Connection::new(run, line, number as u64).and_then(Connection::work);
                if done.is_err() {
                    run.pace.end();
                }
                done
            })
        };
        let threads: Vec<_> = lines.into_iter().enumerate().map(work).collect();
        let failed = |_| Err(Error::io("a connection's thread failed"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(failed)).collect::<Result<Vec<_>>>()
    });
    let done = done.map_err(|e| e.in_path(address))?;
    let mut tally = Tally::new();
    done.iter().for_each(|(one, _)| tally.add(one));
    let began = run.pace.began();
    let last = done.iter().map(|(_, end)| *end).max().unwrap_or_else(Instant::now);
    Ok(tally.outcome(load, last.duration_since(began)))
}

/// How many bytes of the export are loaded, if it can be.
fn check(load: &Load, export: &Export) -> Result<u64> {
    let len = load.check(export.size)?;
    let (least, most) = (u64::from(export.block.minimum), u64::from(export.block.maximum));
    if load.size > most || !load.size.is_multiple_of(least.max(1)) {
        let what = format!(
            "the server takes requests of up to {most} bytes, in multiples of {least}: {} is none of them",
            load.size
        );
        return Err(Error::invalid(what));
    }
    if load.write && export.flags.has(TransmissionFlags::READ_ONLY) {
        return Err(Error::read_only("the export is read-only"));
    }
    if load.flush_every.is_some() && !export.flags.has(TransmissionFlags::SEND_FLUSH) {
        return Err(Error::unsupported("the server knows no flush"));
    }
    Ok(len)
}
