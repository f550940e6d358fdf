//! What other NBD servers have been found vulnerable to, by its name in the CVE list. Those that concern clients, and
//! those that a language with bounds checks rules out wherever they are, are here too where a server can be asked
//! the same.

use super::{MIB, disk, held, is_alone, resident, serves_others, strict, until};
use crate::client::{Client, connect, request};
use crate::support::Serving;
use chart::{Disk, Error, Result, Source, Wait};
use io::nbd::wire::{
    BASE_ALLOCATION, Code, Command, CommandFlags, Go, Headers, Opt, OptionHeader, Rep, Request,
};
use serve::Export;
use serve::nbd::Limits;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// nbd-server, a buffer on the stack overflowed by a request longer than it.
#[test]
fn cve_2011_0530_long_requests() {
    let serving = strict();
    for headers in [Headers::Simple, Headers::Extended] {
        let mut client = Client::attached(&serving.socket, "disk", headers);
        for len in [(256 << 10) - 1, 256 << 10] {
            client.write(1, &vec![0x5a; len as usize]);
            assert_eq!(client.read(1, len), vec![0x5a; len as usize]);
        }
        for len in [(256 << 10) + 1, 1 << 20, u64::from(u32::MAX)] {
            assert_eq!(client.code(&request(Command::READ, 1, 0, len), &[]), Code::EINVAL);
        }
    }
}

/// nbd-server, the root process ended when a client left during the negotiation or asked for an unknown export.
#[test]
fn cve_2013_7441_leaving_during_the_negotiation() {
    let serving = strict();
    for have in 0..20 {
        let mut client = Client::greeted(&serving.socket);
        let mut out = Vec::new();
        OptionHeader::put(Opt::EXPORT_NAME, b"disk", &mut out).unwrap();
        client.stream.write_all(&out[..have]).unwrap();
    }
    let mut client = Client::greeted(&serving.socket);
    client.option(Opt::EXPORT_NAME, b"nobody");
    client.hears_the_end();
    serves_others(&serving);
}

/// QEMU, an assertion failed when a client sent what was not expected during the negotiation.
#[test]
fn cve_2017_7539_the_unexpected_during_the_negotiation() {
    let serving = strict();
    let mut rng = testkit::Rng::new(7539);
    for _ in 0..200 {
        let mut stream = connect(&serving.socket);
        let mut bytes = vec![0; rng.below(300) as usize];
        rng.fill(&mut bytes);
        if rng.once_in(2) {
            // Past the flags, and past an option's magic.
            let head = [&[0, 0, 0, 3][..], b"IHAVEOPT"].concat();
            let _ = stream.write_all(&head);
        }
        let _ = stream.write_all(&bytes);
    }
    serves_others(&serving);
}

/// QEMU, a crash when a client left before it had negotiated anything.
#[test]
fn cve_2017_9524_a_port_scan() {
    let serving = strict();
    for i in 0..200 {
        let stream = connect(&serving.socket);
        if i % 2 == 0 {
            stream.shutdown(Shutdown::Both).unwrap();
        }
    }
    until("they stay", || serving.server.is_deserted());
    serves_others(&serving);
}

/// QEMU, a SIGPIPE when a client left while it was answered.
#[test]
fn cve_2017_10664_leaving_while_it_is_answered() {
    let serving = strict();
    for i in 0..100u64 {
        let mut client = Client::attached(&serving.socket, "disk", Headers::Structured);
        for cookie in 0..8 {
            client.send(&request(Command::READ, cookie, 0, 256 << 10), &[]);
        }
        if i % 2 == 0 {
            client.stream.read_exact(&mut [0; 5]).unwrap();
        }
        client.stream.shutdown(Shutdown::Both).unwrap();
    }
    until("they stay", || serving.server.is_deserted());
    serves_others(&serving);
}

/// QEMU, the stack smashed by the name of an export that was longer than expected; and CVE-2020-10761, an assertion
/// on the length of the error message that repeats such a name.
#[test]
fn cve_2017_15118_and_cve_2020_10761_long_export_names() {
    let serving = strict();
    for len in [255, 256, 257, 3000, 4000, 4095, 4096, 4097, 60_000] {
        let name = "a".repeat(len);
        for option in [Opt::GO, Opt::INFO] {
            let mut client = Client::greeted(&serving.socket);
            let mut payload = (len as u32).to_be_bytes().to_vec();
            payload.extend_from_slice(name.as_bytes());
            payload.extend_from_slice(&[0, 0]);
            client.option(option, &payload);
            let (_, reply, words) = client.heard().unwrap();
            assert_eq!(reply, if len <= 4096 { Rep::ERR_UNKNOWN } else { Rep::ERR_INVALID });
            assert!(words.len() <= 4096, "{} bytes of message", words.len());
            client.go("disk");
        }
        let mut client = Client::greeted(&serving.socket);
        client.agree(Headers::Structured);
        let mut payload = (len as u32).to_be_bytes().to_vec();
        payload.extend_from_slice(name.as_bytes());
        payload.extend_from_slice(&[0; 4]);
        assert!(client.ask(Opt::SET_META_CONTEXT, &payload).is_error());
        let mut client = Client::greeted(&serving.socket);
        client.option(Opt::EXPORT_NAME, name.as_bytes());
        client.hears_the_end();
    }
}

/// QEMU, busy for ever with a flood of long options.
#[test]
fn cve_2017_15119_a_flood_of_long_options() {
    let serving = strict();
    let began = Instant::now();
    for option in [Opt(0x1234), Opt::LIST, Opt::INFO] {
        let mut client = Client::greeted(&serving.socket);
        let mut out = Vec::new();
        OptionHeader::put(option, &vec![0xff; 64 << 10], &mut out).unwrap();
        let speaking = std::thread::spawn({
            let mut stream = client.stream.try_clone().unwrap();
            move || (0..100_000).take_while(|_| stream.write_all(&out).is_ok()).count()
        });
        client.hears_the_end();
        drop(client);
        let heard = speaking.join().unwrap();
        assert!(heard <= serve::nbd::limits::OPTIONS + 64, "{heard} options were heard");
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    serves_others(&serving);
}

/// A source that counts how often it is asked for anything.
struct Counted {
    inner: io::memory::Memory,
    asked: AtomicUsize,
}

impl Source for Counted {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8], wait: Wait) -> Result<()> {
        self.asked.fetch_add(1, Relaxed);
        self.inner.read_at(offset, buf, wait)
    }

    fn flush(&self) -> Result<()> {
        self.asked.fetch_add(1, Relaxed);
        Ok(())
    }

    fn limits(&self) -> chart::Limits {
        chart::Limits { read_only: false, ..self.inner.limits() }
    }

    fn identity(&self) -> chart::Identity {
        self.inner.identity()
    }
}

/// nbdkit, what lies behind an export was opened before the client had chosen it: cheap for the client, dear for
/// the server. Here, what lies behind is touched by requests only, and costs a client nothing before.
#[test]
fn cve_2019_14850_nothing_is_touched_before_an_export_is_chosen() {
    let inner = io::memory::Memory::new("counted", MIB);
    let counted = Arc::new(Counted { inner, asked: AtomicUsize::new(0) });
    let source: Arc<dyn Source> = Arc::<Counted>::clone(&counted);
    let serving = Serving::one(format::raw::open(source, true).unwrap());
    let threads = held().1;
    for _ in 0..50 {
        let mut client = Client::greeted(&serving.socket);
        client.agree(Headers::Structured);
        assert_eq!(client.ask(Opt::LIST, &[]), Rep::ACK);
        let mut info = Vec::new();
        Go::default().put(&mut info).unwrap();
        assert_eq!(client.ask(Opt::INFO, &info), Rep::ACK);
        client.contexts(Opt::LIST_META_CONTEXT, "", &[]);
        client.go("");
    }
    until("they stay", || serving.server.is_deserted());
    assert_eq!(counted.asked.load(Relaxed), 0);
    if is_alone() {
        until("threads stay", || held().1 <= threads);
    }
}

/// nbdkit, an assertion failed when a client asked in an unusual order: information first, then nothing, or the same
/// again, or another export.
#[test]
fn cve_2019_14851_options_in_an_unusual_order() {
    let serving = strict();
    let mut rng = testkit::Rng::new(14851);
    let names = ["disk", "look", "nobody", ""];
    for _ in 0..100 {
        let mut client = Client::greeted(&serving.socket);
        for _ in 0..rng.below(12) {
            let name = names[rng.below(4) as usize];
            let mut payload = Vec::new();
            Go { name: name.to_owned(), infos: Vec::new() }.put(&mut payload).unwrap();
            let mut query = payload.clone();
            query.extend_from_slice(&[0, 0]);
            match rng.below(6) {
                0 => client.ask(Opt::STRUCTURED_REPLY, &[]),
                1 => client.ask(Opt::LIST, &[]),
                2 => client.ask(Opt::LIST_META_CONTEXT, &query),
                3 => client.ask(Opt::SET_META_CONTEXT, &query),
                4 => client.ask(Opt::STARTTLS, &[]),
                _ => client.ask(Opt::INFO, &payload),
            };
        }
        if rng.once_in(3) {
            assert_eq!(client.ask(Opt::ABORT, &[]), Rep::ACK);
        } else if rng.once_in(2) {
            client.go("disk");
        }
    }
    serves_others(&serving);
}

/// nbd-server, a name's length near the end of 32 bits overflowed to a buffer of none; and CVE-2022-26496, a long
/// name overflowed a buffer on the stack.
#[test]
fn cve_2022_26495_name_lengths_near_the_end_of_32_bits() {
    let serving = strict();
    let before = resident();
    for claimed in [u32::MAX, u32::MAX - 1, u32::MAX - 3, u32::MAX - 7, 0x7fff_ffff, 0x8000_0000, 1025, 4097]
    {
        for option in [Opt::GO, Opt::INFO, Opt::SET_META_CONTEXT, Opt::LIST_META_CONTEXT] {
            let mut client = Client::greeted(&serving.socket);
            client.agree(Headers::Structured);
            let mut payload = claimed.to_be_bytes().to_vec();
            payload.resize(4 + 5000, b'a');
            assert_eq!(client.ask(option, &payload), Rep::ERR_INVALID, "{option} {claimed:#x}");
            client.go("disk");
        }
        // The option's own length.
        let mut client = Client::greeted(&serving.socket);
        let mut out = Vec::new();
        OptionHeader::put(Opt::GO, &[], &mut out).unwrap();
        out[12..].copy_from_slice(&claimed.to_be_bytes());
        client.stream.write_all(&out).unwrap();
        if claimed > 64 << 10 {
            assert_eq!(client.outcome(Opt::GO), Rep::ERR_TOO_BIG);
        }
    }
    if is_alone() {
        assert!(resident().saturating_sub(before) < 16 * MIB);
    }
    serves_others(&serving);
}

/// QEMU, a crash when the server was stopped while clients held sockets open, and no room for others while some had
/// not negotiated.
#[test]
fn cve_2024_7409_stopping_while_clients_hold_on() {
    for _ in 0..10 {
        let limits = Limits { drain: Duration::from_millis(100), ..Limits::default() };
        let serving = Serving::start(vec![Export::new("disk", disk(MIB))], limits, None);
        let socket = serving.socket.clone();
        let coming: Vec<_> = (0..3)
            .map(|_| {
                let socket = socket.clone();
                std::thread::spawn(move || {
                    let mut kept = Vec::new();
                    while let Ok(mut stream) = std::os::unix::net::UnixStream::connect(&socket) {
                        let _ = stream.write_all(&[0, 0, 0, 3]);
                        kept.push(stream);
                        std::thread::sleep(Duration::from_micros(500));
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(20));
        let began = Instant::now();
        drop(serving);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        coming.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// nbdkit, an assertion failed when block status was asked of the longest range there is and the answer was longer;
/// and CVE-2025-47712, when rounding such a range overflowed.
#[test]
fn cve_2025_47711_block_status_of_the_longest_ranges() {
    let size = (1u64 << 33) + 1;
    let dir = tempfile::tempdir().unwrap();
    let options = io::file::Options { writable: true, create_new: true, ..Default::default() };
    let file = io::file::File::open(dir.path().join("disk"), options).unwrap();
    file.set_len(size).unwrap();
    let serving = Serving::one(format::raw::open(Arc::new(file), true).unwrap());
    for headers in [Headers::Structured, Headers::Extended] {
        let mut client = Client::with_contexts(&serving.socket, "", headers, &[BASE_ALLOCATION]);
        let mut lengths =
            vec![1, 511, u64::from(u32::MAX) - 511, u64::from(u32::MAX) - 1, u64::from(u32::MAX)];
        if headers == Headers::Extended {
            lengths.extend([1 << 32, (1 << 32) + 1, size]);
        }
        for len in lengths {
            for offset in [0, 1, size - len] {
                for flags in [CommandFlags::NONE, CommandFlags::REQ_ONE] {
                    let asked = Request { flags, ..request(Command::BLOCK_STATUS, 1, offset, len) };
                    let answer = client.call(&asked, &[]);
                    if offset + len > size {
                        assert_eq!(answer.code, Code::EINVAL);
                        continue;
                    }
                    let told: u64 = answer.status[0].extents.iter().map(|e| e.len).sum();
                    assert!(answer.code == Code::OK && told > 0 && told <= len, "{told} of {len}");
                }
            }
        }
    }
}

/// A source whose errors say much.
struct Verbose;

impl Source for Verbose {
    fn name(&self) -> String {
        "verbose\0\n\x1b[31m".repeat(2000)
    }

    fn len(&self) -> u64 {
        MIB
    }

    fn read_at(&self, _: u64, _: &mut [u8], _: Wait) -> Result<()> {
        Err(Error::io("é\0".repeat(20_000)).in_path(self.name()))
    }

    fn identity(&self) -> chart::Identity {
        chart::Identity::Unique(1)
    }
}

/// The class of CVE-2020-10761 past the handshake: messages longer than the protocol allows.
#[test]
fn long_messages_of_disks_are_cut() {
    let disk: Arc<Disk> = format::raw::open(Arc::new(Verbose), false).unwrap();
    let serving = Serving::one(disk);
    for headers in [Headers::Simple, Headers::Structured, Headers::Extended] {
        let mut client = Client::attached(&serving.socket, "", headers);
        for _ in 0..3 {
            assert_eq!(client.code(&request(Command::READ, 1, 0, 512), &[]), Code::EIO);
        }
        assert_eq!(client.code(&request(Command::READ, 1, MIB, 512), &[]), Code::EINVAL);
    }
}
