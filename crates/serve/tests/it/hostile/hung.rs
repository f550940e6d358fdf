//! Sources that hang, and what takes for ever: whoever does not wait for them notices nothing.

use super::{MIB, until};
use crate::client::{Client, request};
use crate::support::Serving;
use chart::{Disk, Error, Identity, Result, Source, Wait};
use io::memory::Memory;
use io::nbd::wire::{Code, Command, CommandFlags, Headers, Request};
use serve::Export;
use serve::nbd::Limits;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// A source of which nothing is at hand, and that answers when it is let go.
struct Hung {
    memory: Memory,
    free: Mutex<bool>,
    freed: Condvar,
    waiting: AtomicUsize,
    /// How many have waited at one time.
    most: AtomicUsize,
    /// How long each zeroing takes, and how many there were.
    zeroing: Duration,
    zeroed: AtomicU64,
    /// From where on zeroing is not fast.
    slow_from: u64,
}

impl Hung {
    fn new(len: u64, free: bool) -> Arc<Hung> {
        Arc::new(Hung::of(len, free))
    }

    fn of(len: u64, free: bool) -> Hung {
        Hung {
            memory: Memory::new("memory", len),
            free: Mutex::new(free),
            freed: Condvar::new(),
            waiting: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            zeroing: Duration::ZERO,
            zeroed: AtomicU64::new(0),
            slow_from: u64::MAX,
        }
    }

    fn let_go(&self) {
        *self.free.lock().unwrap() = true;
        self.freed.notify_all();
    }

    fn disk(self: &Arc<Self>) -> Arc<Disk> {
        format::raw::open(Arc::clone(self) as Arc<dyn Source>, true).unwrap()
    }
}

impl Source for Hung {
    fn name(&self) -> String {
        "hung".to_owned()
    }

    fn len(&self) -> u64 {
        self.memory.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8], wait: Wait) -> Result<()> {
        if wait == Wait::Never {
            return Err(Error::WOULD_BLOCK);
        }
        self.most.fetch_max(self.waiting.fetch_add(1, SeqCst) + 1, SeqCst);
        let free = self.free.lock().unwrap();
        drop(self.freed.wait_while(free, |free| !*free).unwrap());
        self.waiting.fetch_sub(1, SeqCst);
        self.memory.read_at(offset, buf, wait)
    }

    fn write_at(&self, offset: u64, buf: &[u8], wait: Wait) -> Result<()> {
        self.memory.write_at(offset, buf, wait)
    }

    fn zero(&self, offset: u64, len: u64, fast_only: bool) -> Result<()> {
        if fast_only && offset + len > self.slow_from {
            return Err(Error::unsupported("zeroing is slow here"));
        }
        std::thread::sleep(self.zeroing);
        self.zeroed.fetch_add(1, Relaxed);
        self.memory.zero(offset, len, false)
    }

    fn limits(&self) -> chart::Limits {
        chart::Limits { never: true, ..self.memory.limits() }
    }

    fn identity(&self) -> Identity {
        self.memory.identity()
    }
}

fn ask(client: &mut Client, requests: impl Iterator<Item = Request>) {
    let mut out = Vec::new();
    requests.for_each(|request| request.put(client.headers, &mut out).unwrap());
    client.stream.write_all(&out).unwrap();
}

/// Several clients wait for two exports that hang, with more requests than there are proxies.
#[test]
fn an_export_that_hangs_does_not_keep_others_waiting() {
    let hung = [Hung::new(MIB, false), Hung::new(MIB, false)];
    let well = Hung::new(MIB, true);
    let exports = vec![
        Export::new("one", hung[0].disk()),
        Export::new("two", hung[1].disk()),
        Export::new("well", well.disk()),
    ];
    let serving = Serving::start(exports, Limits::default(), None);
    let mut waiting = Vec::new();
    for name in ["one", "two", "one", "two", "one", "two"] {
        let mut client = Client::attached(&serving.socket, name, Headers::Structured);
        ask(&mut client, (0..100).map(|i| request(Command::READ, i, i * 4096, 4096)));
        waiting.push(client);
    }
    until("nobody waits", || hung.iter().all(|hung| hung.waiting.load(SeqCst) > 0));
    let began = Instant::now();
    for _ in 0..3 {
        let mut client = Client::attached(&serving.socket, "well", Headers::Structured);
        for i in 0..20 {
            assert_eq!(client.read(i * 4096, 4096).len(), 4096);
        }
    }
    assert!(began.elapsed() < Duration::from_secs(2), "a neighbour waited for {:?}", began.elapsed());
    let all: usize = hung.iter().map(|hung| hung.waiting.load(SeqCst)).sum();
    assert!(all < 16, "{all} proxies wait for what hangs");
    hung.iter().for_each(|hung| hung.let_go());
    for client in &mut waiting {
        client.reads.extend((0..100).map(|i| (i, (i * 4096, 4096))));
        (0..100).for_each(|_| assert_eq!(client.answer().code, Code::OK));
    }
}

/// One export alone may have all proxies; but no client.
#[test]
fn one_export_alone_keeps_no_proxy_idle() {
    let hung = Hung::new(MIB, false);
    let serving = Serving::one(hung.disk());
    let mut clients: Vec<Client> = Vec::new();
    for most in [12, 16] {
        let mut client = Client::attached(&serving.socket, "", Headers::Structured);
        ask(&mut client, (0..40).map(|i| request(Command::READ, i, i * 4096, 4096)));
        until("proxies are idle", || hung.waiting.load(SeqCst) == most);
        clients.push(client);
    }
    hung.let_go();
}

/// A terabyte's worth of zeroes, piece by piece, and nobody who waits for them.
#[test]
fn what_nobody_waits_for_is_given_up() {
    let slow = Arc::new(Hung { zeroing: Duration::from_millis(50), ..Hung::of(4096 * MIB, true) });
    let limits = Limits { drain: Duration::from_millis(200), ..Limits::default() };
    let serving = Serving::start(vec![Export::new("", slow.disk())], limits, None);
    let zeroes = |cookie| Request {
        flags: CommandFlags::NO_HOLE,
        ..request(Command::WRITE_ZEROES, cookie, 0, 4095 * MIB)
    };
    let mut gone = Client::attached(&serving.socket, "", Headers::Structured);
    ask(&mut gone, [zeroes(1)].into_iter());
    until("nothing is zeroed", || slow.zeroed.load(Relaxed) > 1);
    drop(gone);
    // Its thread hears of it when it next looks, and that the server ends.
    let mut stays = Client::attached(&serving.socket, "", Headers::Structured);
    ask(&mut stays, [zeroes(2)].into_iter());
    let began = Instant::now();
    drop(serving);
    assert!(began.elapsed() < Duration::from_secs(3), "stopping took {:?}", began.elapsed());
    assert!(slow.zeroed.load(Relaxed) < 200, "{slow:?} pieces", slow = slow.zeroed);
}

/// Fast or not at all, and not a part of it; but a terabyte of it holds nobody up.
#[test]
fn fast_zeroes_are_carried_out_in_pieces_and_never_refused_half_way() {
    let part = Arc::new(Hung { slow_from: 24 * MIB, ..Hung::of(64 * MIB, true) });
    part.memory.write_at(0, &vec![7; 64 << 20], Wait::Allowed).unwrap();
    let serving = Serving::one(part.disk());
    let mut client = Client::attached(&serving.socket, "", Headers::Structured);
    let mut fast = |at, len| {
        let flags = CommandFlags::FAST_ZERO | CommandFlags::NO_HOLE;
        let request = Request { flags, ..request(Command::WRITE_ZEROES, 1, at, len) };
        client.code(&request, &[])
    };
    assert_eq!(fast(20 * MIB, 8 * MIB), Code::ENOTSUP);
    let read = |at| {
        let mut buf = [1];
        part.memory.read_at(at, &mut buf, Wait::Allowed).unwrap();
        buf[0]
    };
    assert_eq!([20, 24, 27].map(|at| read(at * MIB)), [7; 3], "a refusal has changed something");
    // The first piece is fast, so the whole is faster than writing.
    assert_eq!(fast(8 * MIB, 40 * MIB), Code::OK);
    assert_eq!([7, 8, 20, 24, 47, 48].map(|at| read(at * MIB)), [7, 0, 0, 0, 0, 7]);
    assert!(part.zeroed.load(Relaxed) >= 3);
}

/// What all connections hold together has a limit, and nobody is shut out by it.
#[test]
fn all_connections_share_one_budget() {
    let hung = Hung::new(8 * MIB, false);
    let limits = Limits { total_bytes: MIB, ..Limits::default() };
    let serving = Serving::start(vec![Export::new("", hung.disk())], limits, None);
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = Client::attached(&serving.socket, "", Headers::Structured);
        ask(&mut client, (0..30).map(|i| request(Command::READ, i, i * 4096, 250 << 10)));
        clients.push(client);
    }
    // The first has four under way, the others one each.
    until("somebody is shut out", || hung.waiting.load(SeqCst) == 8);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(hung.most.load(SeqCst), 8);
    hung.let_go();
    for client in &mut clients {
        client.reads.extend((0..30).map(|i| (i, (i * 4096, 250 << 10))));
        (0..30).for_each(|_| assert_eq!(client.answer().code, Code::OK));
    }
}
