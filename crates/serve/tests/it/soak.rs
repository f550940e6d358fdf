//! Hours of load, or seconds of it: memory, descriptors and threads stay where they were.
//!
//! `cargo xtask test soak --soak-seconds 3600` is an hour of it, `cargo xtask test` has two minutes, and beside other
//! tests it is seconds.

use crate::client::{Client, connect, request};
use crate::hostile::{held, resident, until};
use crate::support::Serving;
use chart::{Disk, Source, Wait};
use format::qcow2::create::{New, create};
use format::qcow2::{Image, Options};
use io::memory::Memory;
use io::nbd::wire::{BASE_ALLOCATION, Code, Command, CommandFlags, Headers, Request};
use serve::Export;
use serve::nbd::Limits;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use testkit::Rng;

const SIZE: u64 = 32 << 20;

/// Each client writes into a part of its own, so that it knows what it must read there.
const PART: u64 = 1 << 20;

const CLIENTS: u64 = 8;

/// How long, in seconds, where nobody asks for more.
const SECONDS: u64 = 8;

/// How often memory is measured.
const MEASURED: u64 = 8;

fn asked() -> Option<u64> {
    std::env::var("PORTOLAN_SOAK").ok().and_then(|s| s.parse().ok())
}

/// A qcow2 image of 64 KiB clusters over a backing disk of zeros, in a file.
fn image(dir: &Path) -> Arc<Disk> {
    let options = io::file::Options { writable: true, create_new: true, ..Default::default() };
    let file: Arc<dyn Source> = Arc::new(io::file::File::open(dir.join("image"), options).unwrap());
    create(file.as_ref(), None, &New::of(SIZE)).unwrap();
    let options = Options { writable: true, ..Options::default() };
    Arc::new(Image::open(file, &options, &mut |_| unreachable!()).unwrap()).disk("image").unwrap()
}

/// One client's life: some requests, and one of the ways to end.
fn live(serving: &Serving, who: u64, rng: &mut Rng, mine: &mut [u8], requests: &AtomicU64) {
    let headers = [Headers::Simple, Headers::Structured, Headers::Extended][rng.below(3) as usize];
    let name = ["image", "memory"][(who % 2) as usize];
    let mut client = if headers == Headers::Simple {
        Client::attached(&serving.socket, name, headers)
    } else {
        Client::with_contexts(&serving.socket, name, headers, &[BASE_ALLOCATION])
    };
    let base = who * PART;
    for _ in 0..rng.below(60) {
        let most = [4096, 70_000, 300_000][rng.below(3) as usize];
        let (at, len) = rng.range(PART, most);
        let range = at as usize..(at + len) as usize;
        match rng.below(8) {
            0..=2 => assert!(client.read(base + at, len) == mine[range], "client {who} read something else"),
            3..=4 => {
                rng.fill(&mut mine[range.clone()]);
                client.write(base + at, &mine[range]);
            }
            5 => {
                let flags =
                    [CommandFlags::NONE, CommandFlags::NO_HOLE, CommandFlags::FUA][rng.below(3) as usize];
                let zeroes = Request { flags, ..request(Command::WRITE_ZEROES, 1, base + at, len) };
                assert_eq!(client.code(&zeroes, &[]), Code::OK);
                mine[range].fill(0);
            }
            6 => {
                assert_eq!(client.code(&request(Command::FLUSH, 2, 0, 0), &[]), Code::OK);
            }
            _ if headers != Headers::Simple => {
                let answer = client.call(&request(Command::BLOCK_STATUS, 3, base, PART), &[]);
                assert_eq!((answer.code, answer.status.len()), (Code::OK, 1));
            }
            _ => assert_eq!(client.code(&request(Command::CACHE, 4, base + at, len), &[]), Code::OK),
        }
        requests.fetch_add(1, Relaxed);
    }
    match rng.below(5) {
        0 => client.leave(),
        // Gone with replies unread; what they were to say is of no interest.
        1 => {
            for cookie in 0..20 {
                client.send(&request(Command::READ, cookie, base, PART), &[]);
            }
        }
        // Gone in the midst of a request.
        2 => client.stream.write_all(&[0x25, 0x60, 0x95]).unwrap(),
        3 => drop(connect(&serving.socket)),
        _ => {}
    }
}

/// All clients, for so long.
fn load(serving: &Serving, parts: &mut [Vec<u8>], round: u64, time: Duration) -> u64 {
    let (until, requests) = (Instant::now() + time, AtomicU64::new(0));
    std::thread::scope(|scope| {
        for (who, mine) in parts.iter_mut().enumerate() {
            let requests = &requests;
            scope.spawn(move || {
                let mut rng = Rng::new(round << 8 | who as u64);
                while Instant::now() < until {
                    live(serving, who as u64, &mut rng, mine, requests);
                }
            });
        }
    });
    requests.into_inner()
}

#[test]
fn soak() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Memory::new("memory", SIZE);
    // All of it is held from the beginning, so that it does not look like growth.
    memory.write_at(0, &vec![1; SIZE as usize], Wait::Allowed).unwrap();
    let memory = format::raw::open(Arc::new(memory), true).unwrap();
    let exports = vec![Export::new("image", image(dir.path())), Export::new("memory", memory)];
    let limits = Limits { drain: Duration::from_secs(1), ..Limits::default() };
    let serving = Serving::start(exports, limits, None);
    let mut parts: Vec<Vec<u8>> =
        (0..CLIENTS).map(|who| vec![u8::from(who % 2 == 1); PART as usize]).collect();
    let time = Duration::from_millis(asked().unwrap_or(SECONDS) * 1000 / MEASURED);
    // What is taken once and kept is taken now.
    load(&serving, &mut parts, 0, time);
    let mut seen = Vec::new();
    for round in 1..MEASURED {
        let requests = load(&serving, &mut parts, round, time);
        until("clients stay", || serving.server.is_deserted());
        let (fds, threads) = held();
        println!("{requests} requests; {} KiB, {fds} descriptors, {threads} threads", resident() >> 10);
        assert!(requests > 0);
        seen.push((resident(), fds, threads));
    }
    // Whoever asks for more than seconds runs nothing beside it, nor does nextest in the same process.
    if asked().is_some() || std::env::var_os("NEXTEST").is_some() {
        let (first, last) = (seen[0], seen[seen.len() - 1]);
        // A thread is still there for a moment when its client no longer is.
        until("descriptors or threads grow", || {
            let now = held();
            now.0 <= first.1 && now.1 <= first.2
        });
        let grown = last.0.saturating_sub(first.0);
        // How many clients meet at one time varies by some MiB on a busy machine; what leaks for every request is more.
        assert!(grown < 32 << 20, "memory grows: {seen:?}");
    }
    // The last word of every client is there.
    for (who, mine) in parts.iter().enumerate() {
        let name = ["image", "memory"][who % 2];
        let mut client = Client::attached(&serving.socket, name, Headers::Simple);
        assert!(client.read(who as u64 * PART, PART) == *mine, "what client {who} wrote is not there");
    }
}
