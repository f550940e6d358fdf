//! Overlapping requests over several connections: every history must be linearizable, in whole requests, as
//! docs/serve.md promises.

use crate::client::{Client, hear, request};
use crate::linear::{Op, What, check};
use crate::support::Serving;
use chart::{Backing, Chart, Disk, Extent, Identity, Limits, Result, Run, Source, SourceId, Wait};
use format::qcow2::create::{New, create};
use format::qcow2::{Image, Options};
use io::memory::Memory;
use io::nbd::wire::{Code, Command, Headers, Request};
use serve::Export;
use serve::nbd::limits::PIECE;
use std::collections::HashMap;
use std::io::Write as _;
use std::net::Shutdown;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use testkit::Rng;

/// No scenario makes histories for longer.
const LONGEST: Duration = Duration::from_secs(3);

/// What one history is made of.
#[derive(Clone)]
struct Plan {
    /// Where requests begin and end: between two neighbours is a cell. All requests lie between first and last.
    cuts: Vec<u64>,
    connections: usize,
    /// How many requests a connection has under way.
    depth: usize,
    requests: usize,
    /// At most so many cells in a request.
    widest: usize,
    headers: Headers,
    /// One change in so many is a write of zeroes or a trim; 0 for none.
    zeroes: u64,
    /// Trims work in whole clusters of this size, between cuts.
    cluster: u64,
    /// A connection is cut off after so many requests, and another takes its place.
    cut_off: Option<usize>,
}

impl Plan {
    fn new(cuts: Vec<u64>) -> Plan {
        Plan {
            widest: cuts.len(),
            cuts,
            connections: 3,
            depth: 3,
            requests: 30,
            headers: Headers::Structured,
            zeroes: 4,
            cluster: 1,
            cut_off: None,
        }
    }

    /// A range of whole cells.
    fn range(&self, rng: &mut Rng) -> Range<usize> {
        let cells = self.cuts.len() - 1;
        let from = rng.below(cells as u64) as usize;
        let most = self.widest.min(cells - from) as u64;
        from..from + 1 + rng.below(most) as usize
    }

    /// The cells that a trim of these zeroes: those in whole clusters.
    fn trimmed(&self, cells: &Range<usize>) -> Range<usize> {
        let (at, end) = (self.cuts[cells.start], self.cuts[cells.end]);
        let (from, to) = (at.next_multiple_of(self.cluster), end - end % self.cluster);
        let cell_of = |at: u64| self.cuts.iter().position(|&cut| cut == at).expect("clusters begin at cuts");
        if from < to { cell_of(from)..cell_of(to) } else { cells.start..cells.start }
    }
}

/// `count` cells that begin at `at`, with lengths of at least 16 and up to `longest` bytes, on no boundary at all.
fn cuts(rng: &mut Rng, at: u64, count: usize, longest: u64) -> Vec<u64> {
    let mut cuts = vec![at];
    for _ in 0..count {
        let last = cuts[cuts.len() - 1];
        cuts.push(last + 16 + rng.below(longest - 15));
    }
    cuts
}

/// What write `id` leaves at `at`: its number and the place, in every eight bytes.
fn word(id: u32, at: u64) -> [u8; 8] {
    if id == 0 { [0; 8] } else { (u64::from(id) << 32 | (at / 8) & 0xffff_ffff).to_le_bytes() }
}

fn stamp(id: u32, at: u64, buf: &mut [u8]) {
    let mut done = 0;
    while done < buf.len() {
        let now = at + done as u64;
        let skip = (now % 8) as usize;
        let len = (8 - skip).min(buf.len() - done);
        buf[done..done + len].copy_from_slice(&word(id, now)[skip..skip + len]);
        done += len;
    }
}

/// Which write left this, all of it.
fn stamp_of(at: u64, buf: &[u8]) -> std::result::Result<u32, String> {
    let skip = (at.next_multiple_of(8) - at) as usize;
    let found = u64::from_le_bytes(buf[skip..skip + 8].try_into().unwrap());
    let id = (found >> 32) as u32;
    let mut expected = vec![0; buf.len()];
    stamp(id, at, &mut expected);
    match buf.iter().zip(&expected).position(|(a, b)| a != b) {
        None => Ok(id),
        Some(i) => Err(format!("a request was torn: byte {} is not of write {id}", at + i as u64)),
    }
}

/// A request under way.
struct Sent {
    start: u64,
    request: Request,
    cells: Range<usize>,
    id: u32,
}

/// What all connections of a history share.
struct Scene<'s> {
    plan: &'s Plan,
    socket: &'s Path,
    names: &'s [&'s str],
    clock: Instant,
    ids: AtomicU32,
    history: Mutex<Vec<Op>>,
    torn: Mutex<Vec<String>>,
}

impl Scene<'_> {
    fn now(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }

    /// One connection after another, until all requests are made.
    fn play(&self, who: usize, mut rng: Rng) {
        let mut left = self.plan.requests;
        while left > 0 {
            let now = self.plan.cut_off.map_or(left, |most| left.min(1 + rng.below(most as u64) as usize));
            self.connection(who, &mut rng, now, self.plan.cut_off.is_some());
            left -= now;
        }
    }

    fn connection(&self, who: usize, rng: &mut Rng, count: usize, cut_off: bool) {
        let client = Client::attached(self.socket, self.names[who % self.names.len()], self.plan.headers);
        let mut hearing = client.stream.try_clone().unwrap();
        let sent: Mutex<HashMap<u64, Sent>> = Mutex::default();
        let (take, give): (SyncSender<()>, Receiver<()>) = sync_channel(self.plan.depth);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..count {
                    let read_of = |cookie| sent.lock().unwrap().get(&cookie).and_then(Sent::read);
                    let heard = hear(&mut hearing, self.plan.headers, read_of);
                    let Ok(answer) = heard else {
                        assert!(cut_off, "{heard:?}");
                        break;
                    };
                    let end = self.now();
                    let of = sent.lock().unwrap().remove(&answer.cookie).expect("a reply to nothing");
                    assert_eq!(answer.code, Code::OK, "{:?}", of.request);
                    self.note(who, of, Some(end), &answer.data);
                    give.recv().unwrap();
                }
                drop(give);
            });
            self.speak(client, rng, count, &take, &sent);
        });
        // Nobody heard what became of these.
        for (_, of) in sent.into_inner().unwrap() {
            self.note(who, of, None, &[]);
        }
    }

    fn speak(
        &self,
        mut client: Client,
        rng: &mut Rng,
        count: usize,
        take: &SyncSender<()>,
        sent: &Mutex<HashMap<u64, Sent>>,
    ) {
        let mut out: Vec<u8> = Vec::new();
        for cookie in 0..count as u64 {
            match take.try_send(()) {
                Ok(()) => {}
                Err(TrySendError::Full(())) => {
                    client.stream.write_all(&out).unwrap();
                    out.clear();
                    take.send(()).unwrap();
                }
                Err(TrySendError::Disconnected(())) => return,
            }
            let (of, payload) = self.next(rng, &client, cookie);
            of.request.put(client.headers, &mut out).unwrap();
            out.extend_from_slice(&payload);
            sent.lock().unwrap().insert(cookie, of);
            // Some go alone, some together.
            if rng.once_in(2) {
                client.stream.write_all(&out).unwrap();
                out.clear();
            }
        }
        client.stream.write_all(&out).unwrap();
        if self.plan.cut_off.is_some() {
            client.stream.shutdown(Shutdown::Both).unwrap();
        }
    }

    /// The next request, and what follows it.
    fn next(&self, rng: &mut Rng, client: &Client, cookie: u64) -> (Sent, Vec<u8>) {
        let (plan, mut cells) = (self.plan, self.plan.range(rng));
        let (at, end) = (plan.cuts[cells.start], plan.cuts[cells.end]);
        let (mut id, mut payload) = (0, Vec::new());
        let request = if rng.once_in(2) {
            request(Command::READ, cookie, at, end - at)
        } else if plan.zeroes > 0 && rng.once_in(plan.zeroes) {
            let trim = rng.once_in(2);
            if trim {
                cells = plan.trimmed(&cells);
            }
            request(if trim { Command::TRIM } else { Command::WRITE_ZEROES }, cookie, at, end - at)
        } else {
            id = self.ids.fetch_add(1, Relaxed);
            payload = vec![0; (end - at) as usize];
            stamp(id, at, &mut payload);
            Request { cookie, ..client.write_request(at, end - at) }
        };
        (Sent { start: self.now(), request, cells, id }, payload)
    }

    fn note(&self, who: usize, of: Sent, end: Option<u64>, data: &[u8]) {
        let what = match of.request.command {
            Command::READ if end.is_none() => return,
            Command::READ => {
                let mut values = Vec::new();
                for cell in of.cells.clone() {
                    let (from, to) = (self.plan.cuts[cell], self.plan.cuts[cell + 1]);
                    let range = (from - of.request.offset) as usize..(to - of.request.offset) as usize;
                    match stamp_of(from, &data[range]) {
                        Ok(id) => values.push(id),
                        Err(why) => return self.torn.lock().unwrap().push(why),
                    }
                }
                What::Read(values)
            }
            _ => What::Write(of.id),
        };
        let op = Op { start: of.start, end, cells: of.cells, what, who };
        self.history.lock().unwrap().push(op);
    }
}

impl Sent {
    fn read(&self) -> Option<(u64, u64)> {
        (self.request.command == Command::READ).then_some((self.request.offset, self.request.len))
    }
}

/// One history, and whether it is linearizable. All of the disk was written by `begin`, or is zeros.
fn history(
    socket: &Path,
    names: &[&str],
    plan: &Plan,
    begin: u32,
    seed: u64,
) -> std::result::Result<(), String> {
    let scene = Scene {
        plan,
        socket,
        names,
        clock: Instant::now(),
        ids: AtomicU32::new(begin + 1),
        history: Mutex::default(),
        torn: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for who in 0..plan.connections {
            let (scene, rng) = (&scene, Rng::new(seed ^ (who as u64) << 32));
            scope.spawn(move || scene.play(who, rng));
        }
    });
    if let Some(why) = scene.torn.into_inner().unwrap().pop() {
        return Err(why);
    }
    check(&vec![begin; plan.cuts.len() - 1], &scene.history.into_inner().unwrap())
}

/// History after history, each on a part of the disk of its own, `apart` bytes from the last. Returns how many.
fn histories(
    serving: &Serving,
    rounds: u64,
    apart: u64,
    begin: u32,
    plan: impl Fn(&mut Rng, u64) -> Plan,
) -> u64 {
    let (began, mut made) = (Instant::now(), 0);
    for seed in 0..rounds {
        let mut rng = Rng::new(seed);
        let plan = plan(&mut rng, seed * apart);
        let ends = plan.cuts[plan.cuts.len() - 1] - plan.cuts[0];
        assert!(ends <= apart, "history {seed} reaches into the next");
        if let Err(why) = history(&serving.socket, &[""], &plan, begin, seed) {
            panic!("history {seed}: {why}");
        }
        made += 1;
        if began.elapsed() > LONGEST {
            break;
        }
    }
    made
}

/// A raw disk over this.
fn raw(source: Arc<dyn Source>) -> Arc<Disk> {
    format::raw::open(source, true).unwrap()
}

const HEADERS: [Headers; 3] = [Headers::Simple, Headers::Structured, Headers::Extended];

/// Small requests around the bounds of the units in which order is kept, headers in turn.
fn small(rng: &mut Rng, at: u64) -> Plan {
    let headers = HEADERS[rng.below(3) as usize];
    // The bound between two units lies in the middle of it.
    let at = at + (64 << 10) - 2048;
    Plan { headers, connections: 4, depth: 2, ..Plan::new(cuts(rng, at, 9, 700)) }
}

/// Requests of up to more than 1 MiB, over many units.
fn large(rng: &mut Rng, at: u64) -> Plan {
    let headers = HEADERS[rng.below(3) as usize];
    let plan = Plan { headers, requests: 12, ..Plan::new(cuts(rng, at, 7, 200 << 10)) };
    // Zeroes are whole in pieces only.
    let (first, last) = (plan.cuts[0], plan.cuts[plan.cuts.len() - 1]);
    let is_one_piece = first / PIECE == (last - 1) / PIECE;
    Plan { zeroes: if is_one_piece { plan.zeroes } else { 0 }, ..plan }
}

#[test]
fn memory_is_linearizable() {
    let serving = Serving::one(raw(Arc::new(Memory::new("memory", 160 << 20))));
    assert!(histories(&serving, 200, 256 << 10, 0, small) > 3);
    let counters = serving.server.counters();
    assert!(counters.at_once.load(Relaxed) > 0 && counters.proxy.load(Relaxed) > 0);
}

#[test]
fn memory_is_linearizable_for_large_requests() {
    let serving = Serving::one(raw(Arc::new(Memory::new("memory", 160 << 20))));
    assert!(histories(&serving, 100, 3 << 19, 0, large) > 3);
}

/// A file of so many bytes beside the test's other temporary files.
fn file(dir: &Path, len: u64) -> Arc<dyn Source> {
    let options = io::file::Options { writable: true, create_new: true, ..Default::default() };
    let file = io::file::File::open(dir.join("disk"), options).unwrap();
    file.set_len(len).unwrap();
    Arc::new(file)
}

#[test]
fn a_raw_file_is_linearizable() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::one(raw(file(dir.path(), 160 << 20)));
    assert!(histories(&serving, 100, 256 << 10, 0, small) > 3);
    // Behind what is written now.
    let behind = |rng: &mut Rng, at| large(rng, at + (32 << 20));
    assert!(histories(&serving, 80, 3 << 19, 0, behind) > 3);
}

/// An empty qcow2 image over a disk that write 1 has written, with small clusters, so that most writes allocate.
fn overlay(file: Arc<dyn Source>, len: u64, bits: u32) -> Arc<Disk> {
    let below = Memory::new("below", len);
    let mut all = vec![0; len as usize];
    stamp(1, 0, &mut all);
    below.write_at(0, &all, Wait::Allowed).unwrap();
    let backing = format::qcow2::create::Backing { name: "below".to_owned(), format: Some("raw".to_owned()) };
    create(file.as_ref(), None, &New { cluster_bits: bits, backing: Some(backing), ..New::of(len) }).unwrap();
    let options = Options { writable: true, ..Options::default() };
    let below: Arc<dyn Source> = Arc::new(below);
    let mut open = |_: format::qcow2::Needed<'_>| Ok(Arc::clone(&below));
    Arc::new(Image::open(file, &options, &mut open).unwrap()).disk("image").unwrap()
}

/// Adds the bounds of clusters, where trims begin and end, and takes away what would make cells too small for a
/// number.
fn on_clusters(plan: &Plan, cluster: u64) -> Plan {
    let (first, last) = (plan.cuts[0], plan.cuts[plan.cuts.len() - 1]);
    let bounds: Vec<u64> = (first.div_ceil(cluster)..=last / cluster).map(|i| i * cluster).collect();
    let far = |cut: &u64| bounds.iter().all(|bound| bound.abs_diff(*cut) >= 16);
    let mut cuts: Vec<u64> = plan.cuts.iter().copied().filter(far).chain(bounds.iter().copied()).collect();
    cuts.sort_unstable();
    Plan { widest: cuts.len(), cuts, cluster, ..plan.clone() }
}

#[test]
fn qcow2_over_a_backing_file_is_linearizable() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::one(overlay(file(dir.path(), 0), 64 << 20, 12));
    let made = histories(&serving, 100, 256 << 10, 1, |rng, at| on_clusters(&small(rng, at), 4096));
    assert!(made > 3);
}

#[test]
fn qcow2_in_memory_is_linearizable_for_large_requests() {
    let serving = Serving::one(overlay(Arc::new(Memory::new("image", 0)), 96 << 20, 16));
    let made = histories(&serving, 60, 3 << 19, 1, |rng, at| on_clusters(&large(rng, at), 64 << 10));
    assert!(made > 3);
}

#[test]
fn connections_that_are_cut_off_leave_whole_writes_or_none() {
    let serving = Serving::one(overlay(Arc::new(Memory::new("image", 0)), 64 << 20, 12));
    let plan = |rng: &mut Rng, at| Plan { zeroes: 0, cut_off: Some(6), ..small(rng, at) };
    assert!(histories(&serving, 40, 256 << 10, 1, plan) > 3);
}

/// How a source fails its users, or only keeps them waiting.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Reads and writes in pieces, with pauses: all that a source may do.
    Slowly,
    /// The second half of every other write is put off until the next.
    Torn,
    /// Every fourth read shows what was there before the last write.
    Stale,
}

/// Memory that is slow, or broken.
struct Piecemeal {
    inner: Memory,
    way: Way,
    late: Mutex<Option<(u64, Vec<u8>)>>,
    count: AtomicU32,
}

/// So many zeros, by that way.
fn piecemeal(len: u64, way: Way) -> Arc<dyn Source> {
    let inner = Memory::new("piecemeal", len);
    Arc::new(Piecemeal { inner, way, late: Mutex::default(), count: AtomicU32::new(0) })
}

impl Piecemeal {
    fn pause(&self) {
        match self.count.fetch_add(1, Relaxed) % 3 {
            0 => std::thread::sleep(Duration::from_micros(30)),
            _ => std::thread::yield_now(),
        }
    }

    fn settle(&self) -> Result<()> {
        match self.late.lock().unwrap().take() {
            Some((at, bytes)) => self.inner.write_at(at, &bytes, Wait::Allowed),
            None => Ok(()),
        }
    }
}

impl Source for Piecemeal {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8], wait: Wait) -> Result<()> {
        if self.way == Way::Slowly && wait == Wait::Allowed {
            let piece = buf.len() / 3 + 1;
            for (i, part) in buf.chunks_mut(piece).enumerate() {
                self.inner.read_at(offset + (i * piece) as u64, part, wait)?;
                self.pause();
            }
            return Ok(());
        }
        self.inner.read_at(offset, buf, wait)?;
        if self.way == Way::Stale && self.count.fetch_add(1, Relaxed).is_multiple_of(4) {
            let late = self.late.lock().unwrap();
            if let Some((at, old)) = late.as_ref() {
                let end = (at + old.len() as u64).min(offset + buf.len() as u64);
                for at_now in (*at).max(offset)..end {
                    buf[(at_now - offset) as usize] = old[(at_now - at) as usize];
                }
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8], wait: Wait) -> Result<()> {
        match self.way {
            Way::Slowly => {
                let piece = buf.len() / 3 + 1;
                for (i, part) in buf.chunks(piece).enumerate() {
                    self.inner.write_at(offset + (i * piece) as u64, part, wait)?;
                    self.pause();
                }
                Ok(())
            }
            Way::Torn => {
                self.settle()?;
                if self.count.fetch_add(1, Relaxed).is_multiple_of(2) {
                    return self.inner.write_at(offset, buf, wait);
                }
                let (now, late) = buf.split_at(buf.len() / 2);
                self.inner.write_at(offset, now, wait)?;
                *self.late.lock().unwrap() = Some((offset + now.len() as u64, late.to_vec()));
                Ok(())
            }
            Way::Stale => {
                let mut late = self.late.lock().unwrap();
                let mut old = vec![0; buf.len()];
                self.inner.read_at(offset, &mut old, wait)?;
                *late = Some((offset, old));
                self.inner.write_at(offset, buf, wait)
            }
        }
    }

    fn zero(&self, offset: u64, len: u64, fast_only: bool) -> Result<()> {
        self.settle()?;
        self.inner.zero(offset, len, fast_only)
    }

    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.settle()?;
        self.inner.punch(offset, len)
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn data_at(&self, offset: u64, want: u64) -> Result<Run> {
        self.inner.data_at(offset, want)
    }

    fn identity(&self) -> Identity {
        self.inner.identity()
    }

    fn backing(&self) -> Backing<'_> {
        Backing::Opaque
    }
}

/// The source does all it may to show one request in the midst of another: what keeps them apart is the server.
#[test]
fn a_source_that_takes_its_time_is_linearizable() {
    let serving = Serving::one(raw(piecemeal(64 << 20, Way::Slowly)));
    assert!(histories(&serving, 60, 256 << 10, 0, small) > 3);
    let behind = |rng: &mut Rng, at| large(rng, at + (16 << 20));
    assert!(histories(&serving, 30, 3 << 19, 0, behind) > 3);
    let counters = serving.server.counters();
    assert!(counters.array.load(Relaxed) > 0, "nothing had to wait");
}

/// The same where nothing is at hand before it was read once.
#[test]
fn a_source_that_has_to_fetch_is_linearizable() {
    let memory: Arc<dyn Source> = piecemeal(64 << 20, Way::Slowly);
    let slow = Arc::new(testkit::source::Slow::new(memory, Duration::from_micros(200)));
    let serving = Serving::one(raw(slow));
    assert!(histories(&serving, 60, 256 << 10, 0, small) > 0);
}

/// A map in small pieces, of which now one and now another is not at hand.
struct Forgetful {
    len: u64,
    count: AtomicU32,
}

impl Chart for Forgetful {
    fn len(&self) -> u64 {
        self.len
    }

    fn extent_at(&self, at: u64, want: u64, wait: Wait) -> Result<Extent> {
        if wait == Wait::Never && self.count.fetch_add(1, Relaxed).is_multiple_of(41) {
            return Err(chart::Error::WOULD_BLOCK);
        }
        let len = (at / 256 * 256 + 256 - at).min(want).min(self.len - at);
        Ok(Extent { writable: true, ..Extent::raw(at, len, SourceId(0), at) })
    }
}

/// A write that its connection's thread begins and cannot complete must not be seen in part.
#[test]
fn a_map_that_forgets_is_linearizable() {
    let map = Forgetful { len: 64 << 20, count: AtomicU32::new(0) };
    let source = piecemeal(64 << 20, Way::Slowly);
    let disk = Disk::builder("forgetful", Arc::new(map)).source(source).straight().build().unwrap();
    let serving = Serving::one(disk);
    let made = histories(&serving, 100, 256 << 10, 0, |rng, at| Plan { zeroes: 0, ..small(rng, at) });
    assert!(made > 0);
    let counters = serving.server.counters();
    assert!(counters.at_once.load(Relaxed) > 0 && counters.array.load(Relaxed) > 0);
}

/// Proves that what is checked above could fail: broken disks are found out, and soon.
#[test]
fn broken_disks_are_found_out() {
    for way in [Way::Torn, Way::Stale] {
        let serving = Serving::one(raw(piecemeal(64 << 20, way)));
        let found = (0..40).find(|&seed| {
            let plan = Plan { zeroes: 0, ..small(&mut Rng::new(seed), seed * (256 << 10)) };
            history(&serving.socket, &[""], &plan, 0, seed).is_err()
        });
        assert!(found.is_some(), "nobody noticed");
    }
}

/// Order is kept for each export: the same disk under two names is two, and the checker sees that nobody orders them.
#[test]
fn without_order_the_slow_disk_is_found_out() {
    let disk = raw(piecemeal(64 << 20, Way::Slowly));
    let exports = vec![Export::new("one", Arc::clone(&disk)), Export::new("two", disk)];
    let serving = Serving::start(exports, serve::nbd::Limits::default(), None);
    let found = (0..40).find(|&seed| {
        let plan = small(&mut Rng::new(seed), seed * (256 << 10));
        history(&serving.socket, &["one", "two"], &plan, 0, seed).is_err()
    });
    assert!(found.is_some(), "nobody noticed");
}
