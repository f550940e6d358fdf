//! What one client can hold: memory, time, descriptors, threads.

use super::{MIB, disk, held, is_alone, resident, serves_others, until, with_limits};
use crate::client::{Client, connect, request};
use crate::support::Serving;
use chart::{Disk, Source, Table, Wait};
use io::memory::Memory;
use io::nbd::wire::{BASE_ALLOCATION, Code, Command, Headers, Request};
use serve::Export;
use serve::nbd::Limits;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use testkit::source::Slow;

/// Many requests in one piece, as one batch for the server.
fn flood(client: &mut Client, requests: impl Iterator<Item = Request>) {
    let mut out = Vec::new();
    requests.for_each(|request| request.put(client.headers, &mut out).unwrap());
    client.stream.write_all(&out).unwrap();
}

/// How long a neighbour's reads take at most, one after another.
fn slowest_read(serving: &Serving, name: &str) -> Duration {
    let mut client = Client::attached(&serving.socket, name, Headers::Structured);
    let mut slowest = Duration::ZERO;
    for i in 0..200 {
        let began = Instant::now();
        assert_eq!(client.read(i % 8 * 4096, 4096).len(), 4096);
        slowest = slowest.max(began.elapsed());
    }
    slowest
}

fn tight() -> Limits {
    Limits {
        request: MIB as u32,
        in_flight_bytes: 4 * MIB,
        drain: Duration::from_millis(300),
        ..Limits::default()
    }
}

/// What `tight` promises of each connection: see docs/serve.md.
const SHARE: u64 = 6 * MIB;

/// Memory that comes and goes with threads, allocators and the test itself.
const SLACK: u64 = 24 * MIB;

/// Asks for 400 MiB and reads nothing, `count` times over.
fn stalls(source: Arc<dyn Source>, headers: Headers, count: u64) {
    let serving =
        Serving::start(vec![Export::new("", format::raw::open(source, true).unwrap())], tight(), None);
    slowest_read(&serving, "");
    let before = resident();
    let mut stalled = Vec::new();
    for _ in 0..count {
        let mut client = Client::attached(&serving.socket, "", headers);
        flood(&mut client, (0..400).map(|i| request(Command::READ, i, i % 4 * MIB, MIB)));
        stalled.push(client);
    }
    std::thread::sleep(Duration::from_millis(500));
    let slowest = slowest_read(&serving, "");
    assert!(slowest < Duration::from_secs(1), "a neighbour waited for {slowest:?}");
    if is_alone() {
        let grown = resident().saturating_sub(before);
        assert!(grown < count * SHARE + SLACK, "{} MiB for {count} clients that read nothing", grown / MIB);
    }
    // They are not lost: whoever reads on gets all of it.
    let mut client = stalled.pop().unwrap();
    for i in 0..400 {
        client.reads.insert(i, (i % 4 * MIB, MIB));
    }
    for _ in 0..400 {
        let answer = client.answer();
        assert_eq!((answer.code, answer.data.len() as u64), (Code::OK, MIB));
    }
    let began = Instant::now();
    drop(serving);
    assert!(began.elapsed() < Duration::from_secs(3), "stopping took {:?}", began.elapsed());
    drop(stalled);
}

fn written(len: u64) -> Memory {
    let memory = Memory::new("memory", len);
    memory.write_at(0, &vec![0x5a; len as usize], Wait::Allowed).unwrap();
    memory
}

#[test]
fn whoever_reads_nothing_costs_a_share_of_memory_and_no_neighbour() {
    stalls(Arc::new(written(4 * MIB)), Headers::Simple, 4);
}

#[test]
fn the_same_through_the_proxies() {
    let slow = Slow::new(Arc::new(written(4 * MIB)), Duration::from_micros(100));
    stalls(Arc::new(NeverWarm(slow)), Headers::Extended, 4);
}

/// Has nothing at hand, ever.
struct NeverWarm(Slow);

impl Source for NeverWarm {
    fn name(&self) -> String {
        self.0.name()
    }

    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8], wait: Wait) -> chart::Result<()> {
        self.0.cool();
        self.0.read_at(offset, buf, wait)
    }

    fn write_at(&self, offset: u64, buf: &[u8], wait: Wait) -> chart::Result<()> {
        self.0.write_at(offset, buf, wait)
    }

    fn limits(&self) -> chart::Limits {
        self.0.limits()
    }

    fn identity(&self) -> chart::Identity {
        self.0.identity()
    }
}

/// Announces much, and sends little of it: costs what it sends.
#[test]
fn whoever_stops_in_a_payload_costs_what_was_sent() {
    let serving = with_limits(Limits::default());
    slowest_read(&serving, "disk");
    let before = resident();
    let mut stopped = Vec::new();
    for _ in 0..8 {
        let mut client = Client::attached(&serving.socket, "disk", Headers::Structured);
        let write = client.write_request(0, 32 * MIB);
        client.send(&write, &[1; 1000]);
        stopped.push(client);
    }
    std::thread::sleep(Duration::from_millis(200));
    serves_others(&serving);
    if is_alone() {
        let grown = resident().saturating_sub(before);
        assert!(grown < SLACK, "{} MiB for 8 clients that sent 1000 bytes", grown / MIB);
    }
}

/// A disk on which every other 4 KiB is a hole, in a chart.
fn fragmented(len: u64) -> Arc<Disk> {
    let memory: Arc<dyn Source> = Arc::new(written(len));
    let mut table = Table::builder();
    for at in (0..len).step_by(8192) {
        table.push(chart::Extent::raw(at, 4096, chart::SourceId(0), at)).unwrap();
    }
    let table = table.finish(len).unwrap();
    Disk::builder("fragmented", Arc::new(table)).source(memory).build().unwrap()
}

/// Asks for the longest block status again and again, and reads nothing.
#[test]
fn whoever_reads_no_block_status_costs_a_share_too() {
    let limits = Limits { in_flight_bytes: 4 * MIB, ..Limits::default() };
    let serving = Serving::start(vec![Export::new("", fragmented(64 * MIB))], limits, None);
    let names = [BASE_ALLOCATION, "qemu:allocation-depth"];
    let before = resident();
    let mut client = Client::with_contexts(&serving.socket, "", Headers::Extended, &names);
    flood(&mut client, (0..1000).map(|i| request(Command::BLOCK_STATUS, i, 0, 64 * MIB)));
    std::thread::sleep(Duration::from_millis(1500));
    let slowest = slowest_read(&serving, "");
    assert!(slowest < Duration::from_secs(1), "a neighbour waited for {slowest:?}");
    if is_alone() {
        let grown = resident().saturating_sub(before);
        assert!(grown < SHARE + SLACK, "{} MiB for block status that nobody reads", grown / MIB);
    }
    let answer = client.answer();
    assert_eq!((answer.code, answer.status.len()), (Code::OK, 2));
    assert!(answer.status.iter().all(|s| s.extents.len() <= serve::nbd::limits::STATUS_EXTENTS));
}

/// A thousand slow requests of one client do not delay a neighbour's by more than a few.
#[test]
fn slow_requests_of_one_client_take_turns_with_those_of_others() {
    let slow = Slow::new(Arc::new(written(8 * MIB)), Duration::from_millis(20));
    let disk = format::raw::open(Arc::new(NeverWarm(slow)), true).unwrap();
    let serving = Serving::one(disk);
    let mut greedy = Client::attached(&serving.socket, "", Headers::Structured);
    flood(&mut greedy, (0..1000).map(|i| request(Command::READ, i, i * 4096, 4096)));
    std::thread::sleep(Duration::from_millis(50));
    let mut modest = Client::attached(&serving.socket, "", Headers::Structured);
    let began = Instant::now();
    for i in 0..5 {
        modest.read(i * 4096, 4096);
    }
    let took = began.elapsed();
    assert!(took < Duration::from_millis(5 * 80), "five reads took {took:?}");
}

#[test]
fn too_many_connections_are_turned_away_and_there_is_room_again() {
    let serving = with_limits(Limits { connections: 4, ..Limits::default() });
    let mut first: Vec<Client> =
        (0..4).map(|_| Client::attached(&serving.socket, "disk", Headers::Simple)).collect();
    for _ in 0..20 {
        Client::over(connect(&serving.socket)).hears_the_end();
    }
    assert!(first.iter_mut().all(Client::is_served));
    assert_eq!(serving.server.counters().turned_away.load(Relaxed), 20);
    drop(first.pop());
    until("no room again", || serving.server.counters().connections.load(Relaxed) < 4);
    assert!(Client::attached(&serving.socket, "disk", Headers::Simple).is_served());
}

/// However clients come and go, nothing of them stays.
#[test]
fn clients_that_come_and_go_leave_nothing_behind() {
    let serving = with_limits(Limits::default());
    let come_and_go = |round: usize| {
        for i in 0..round {
            let mut client = match i % 6 {
                0 => Client::over(connect(&serving.socket)),
                1 => Client::greeted(&serving.socket),
                _ => Client::attached(&serving.socket, "disk", Headers::Structured),
            };
            match i % 6 {
                // Gone with requests under way, in the midst of one, with replies unread, or politely.
                2 => flood(&mut client, (0..50).map(|i| request(Command::FLUSH, i, 0, 0))),
                3 => {
                    let write = client.write_request(0, 100 << 10);
                    client.send(&write, &[0x5a; 5000]);
                }
                4 => flood(&mut client, (0..50).map(|i| request(Command::READ, i, 0, 64 << 10))),
                5 => client.leave(),
                _ => {}
            }
        }
        until("clients stay", || serving.server.is_deserted());
    };
    come_and_go(60);
    std::thread::sleep(Duration::from_millis(100));
    let (before, memory) = (held(), resident());
    come_and_go(600);
    if is_alone() {
        until("descriptors or threads stay", || {
            let now = held();
            now.0 <= before.0 && now.1 <= before.1
        });
        let grown = resident().saturating_sub(memory);
        assert!(grown < 8 * MIB, "{} KiB grown over 600 clients", grown >> 10);
    }
    serves_others(&serving);
}

/// Sends a request to read, begins a long payload, and reads the reply before it sends the rest: what libnbd does
/// when a reply comes while it sends.
#[test]
fn replies_come_while_a_payload_is_under_way() {
    let slow = Slow::new(Arc::new(written(4 * MIB)), Duration::from_millis(50));
    let disk = format::raw::open(Arc::new(NeverWarm(slow)), true).unwrap();
    let serving = Serving::one(disk);
    let mut client = Client::attached(&serving.socket, "", Headers::Structured);
    // Longer than what sockets hold.
    client.send(&request(Command::READ, 1, 0, 4 * MIB), &[]);
    let write = client.write_request(0, 2 * MIB);
    client.send(&write, &vec![1; MIB as usize]);
    let answer = client.answer();
    assert_eq!((answer.cookie, answer.data.len() as u64), (1, 4 * MIB));
    client.stream.write_all(&vec![1; MIB as usize]).unwrap();
    assert_eq!(client.answer().code, Code::OK);
}

/// The server ends in bounded time, whatever its clients are at, and however many come meanwhile.
#[test]
fn it_ends_while_clients_hold_on() {
    let limits = Limits { drain: Duration::from_millis(300), ..Limits::default() };
    let serving = Serving::start(vec![Export::new("disk", disk(4 * MIB))], limits, None);
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..10 {
        clients.push(Client::over(connect(&serving.socket)));
        clients.push(Client::greeted(&serving.socket));
        let mut client = Client::attached(&serving.socket, "disk", Headers::Structured);
        flood(&mut client, (0..100).map(|i| request(Command::READ, i, 0, MIB)));
        clients.push(client);
        let mut client = Client::attached(&serving.socket, "disk", Headers::Structured);
        let write = client.write_request(0, 10 * MIB);
        client.send(&write, &[1; 1000]);
        clients.push(client);
        clients.push(Client::attached(&serving.socket, "disk", Headers::Extended));
    }
    let socket = serving.socket.clone();
    let coming = std::thread::spawn(move || {
        // Until nobody listens.
        while std::os::unix::net::UnixStream::connect(&socket).is_ok() {
            std::thread::sleep(Duration::from_micros(200));
        }
    });
    std::thread::sleep(Duration::from_millis(50));
    let began = Instant::now();
    drop(serving);
    assert!(began.elapsed() < Duration::from_secs(3), "stopping took {:?}", began.elapsed());
    coming.join().unwrap();
    clients.iter_mut().for_each(Client::hears_the_end);
}
