//! Clients that mean harm: an error or a closed connection, and nobody else notices.

mod commands;
mod greetings;
mod hung;
mod known;
mod room;
mod tls;

use crate::client::Client;
use crate::support::Serving;
use chart::{Disk, Source, Wait};
use io::memory::Memory;
use io::nbd::wire::Headers;
use serve::Export;
use serve::nbd::Limits;
use std::sync::Arc;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// A raw disk in memory, all of it written.
fn disk(len: u64) -> Arc<Disk> {
    let memory = Memory::new("memory", len);
    memory.write_at(0, &vec![0x5a; len as usize], Wait::Allowed).unwrap();
    format::raw::open(Arc::new(memory), true).unwrap()
}

/// A server of 4 MiB with short limits: one export that can be written, and one, `look`, that cannot.
fn strict() -> Serving {
    let limits = Limits {
        handshake: Duration::from_millis(400),
        request: 256 << 10,
        drain: Duration::from_millis(300),
        ..Limits::default()
    };
    with_limits(limits)
}

fn with_limits(limits: Limits) -> Serving {
    let mut look = Export::new("look", disk(MIB));
    look.writable = false;
    Serving::start(vec![Export::new("disk", disk(4 * MIB)), look], limits, None)
}

/// Whatever was done: others are served, those who come anew too.
fn serves_others(serving: &Serving) {
    let began = Instant::now();
    assert!(Client::attached(&serving.socket, "disk", Headers::Structured).is_served());
    assert!(began.elapsed() < Duration::from_secs(2), "a neighbour waited for {:?}", began.elapsed());
}

/// Whether this process runs one test alone, so that its memory and descriptors are this test's.
fn is_alone() -> bool {
    let alone = std::env::var_os("NEXTEST").is_some();
    if !alone {
        eprintln!("not measured: other tests run in this process (cargo nextest gives each its own)");
    }
    alone
}

/// Bytes of memory that this process holds.
pub(crate) fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// How many descriptors and threads this process has.
pub(crate) fn held() -> (usize, usize) {
    let count = |dir: &str| std::fs::read_dir(dir).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

/// Waits until it is so.
pub(crate) fn until(what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
