//! The end of a server under load: by a signal it loses nothing that was answered, by a crash nothing that was
//! flushed.

use super::Server;
use super::client::Client;
use crate::run::Dir;
use io::nbd::wire::{Command, CommandFlags};
use std::collections::HashMap;
use std::ops::Range;
use std::process::Command as Tool;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use testkit::Rng;

/// What the disk is written and looked at in.
const UNIT: usize = 4096;

/// How many units belong to each writer.
const UNITS: usize = 1024;

const WRITERS: usize = 4;

/// How many requests a writer has under way.
const DEPTH: u64 = 12;

/// What a unit holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Zeros,
    /// What this write put there.
    Stamp(u64),
}

impl Content {
    fn bytes(self, unit: usize) -> Vec<u8> {
        match self {
            Content::Zeros => vec![0; UNIT],
            Content::Stamp(stamp) => {
                [stamp.to_le_bytes(), (unit as u64).to_le_bytes()].concat().repeat(UNIT / 16)
            }
        }
    }

    #[track_caller]
    fn of(bytes: &[u8], unit: usize) -> Content {
        let stamp = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        let content = if bytes.iter().all(|b| *b == 0) { Content::Zeros } else { Content::Stamp(stamp) };
        assert!(
            bytes == content.bytes(unit),
            "unit {unit} holds what was never written there: {:?}",
            &bytes[..32]
        );
        content
    }
}

/// What may be found in a unit.
struct Unit {
    /// From the last that is durable to the last that was sent.
    contents: Vec<Content>,
    /// Which of them is the last that was answered.
    answered: usize,
}

impl Unit {
    fn settle(&mut self) {
        self.contents.drain(..self.answered);
        self.answered = 0;
    }
}

/// Writes to its own part of the disk until the server is gone.
struct Writer {
    client: Client,
    first: usize,
    units: Vec<Unit>,
    rng: Rng,
    stamp: u64,
    /// How often it has flushed, for whoever waits for that.
    flushes: Arc<AtomicU64>,
}

impl Writer {
    fn work(mut self) -> Vec<Unit> {
        while self.batch().is_ok() {}
        self.units
    }

    /// Some requests that do not overlap, all at once, and now and then a flush.
    fn batch(&mut self) -> std::io::Result<()> {
        let mut sent = HashMap::new();
        for _ in 0..DEPTH {
            let len = if self.rng.once_in(8) { 24 } else { 1 + self.rng.below(3) } as usize;
            let from = self.rng.below((UNITS - len) as u64) as usize;
            let range = from..from + len;
            let apart =
                |(other, _): &(Range<usize>, bool)| range.end <= other.start || other.end <= range.start;
            if sent.values().all(apart) {
                let is_lasting = self.rng.once_in(16);
                let cookie = self.change(range.clone(), is_lasting)?;
                sent.insert(cookie, (range, is_lasting));
            }
        }
        while !sent.is_empty() {
            let cookie = self.client.answer()?;
            let (range, is_lasting) = sent.remove(&cookie).unwrap();
            for unit in &mut self.units[range] {
                unit.answered = unit.contents.len() - 1;
                if is_lasting {
                    unit.settle();
                }
            }
        }
        if self.rng.once_in(4) {
            self.client.send(Command::FLUSH, CommandFlags::NONE, (0, 0), &[])?;
            self.client.answer()?;
            self.units.iter_mut().for_each(Unit::settle);
            self.flushes.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    fn change(&mut self, range: Range<usize>, is_lasting: bool) -> std::io::Result<u64> {
        self.stamp += 1;
        let zeros = self.rng.once_in(6);
        let content = if zeros { Content::Zeros } else { Content::Stamp(self.stamp) };
        // Before it is sent: of what fails half way, a part may have arrived.
        self.units[range.clone()].iter_mut().for_each(|unit| unit.contents.push(content));
        let flags = CommandFlags::FUA.only_if(is_lasting);
        let at = ((self.first + range.start) * UNIT) as u64;
        let place = (at, (range.len() * UNIT) as u64);
        if zeros {
            return self.client.send(Command::WRITE_ZEROES, flags, place, &[]);
        }
        let payload: Vec<u8> = range.flat_map(|unit| content.bytes(self.first + unit)).collect();
        self.client.send(Command::WRITE, flags, place, &payload)
    }
}

/// Writes to a disk that holds `held`, until its server is ended in this way. What every unit may hold then.
fn load<'d>(server: Server<'d>, held: &[Content], round: u64, end: fn(Server<'d>)) -> Vec<Unit> {
    let writer = |number: usize| {
        let client = Client::connect(&server.socket()).unwrap();
        assert_eq!(client.size, (WRITERS * UNITS * UNIT) as u64);
        let first = number * UNITS;
        let of = |content: &Content| Unit { contents: vec![*content], answered: 0 };
        let units = held[first..first + UNITS].iter().map(of).collect();
        let rng = Rng::new(round * 100 + number as u64);
        Writer { client, first, units, rng, stamp: round << 32, flushes: Arc::default() }
    };
    let writers: Vec<Writer> = (0..WRITERS).map(writer).collect();
    let flushes: Vec<_> = writers.iter().map(|w| Arc::clone(&w.flushes)).collect();
    std::thread::scope(|scope| {
        let writers: Vec<_> = writers.into_iter().map(|w| scope.spawn(|| w.work())).collect();
        // Until all have something to lose, and then at any moment.
        super::wait_until("a load", || flushes.iter().all(|f| f.load(Relaxed) > 4));
        std::thread::sleep(Duration::from_millis(Rng::new(round).below(100)));
        end(server);
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    })
}

/// What the disk holds, all of which must be among what it may hold.
#[track_caller]
fn judge(dir: &Dir, image: &str, units: &[Unit], allowed: fn(&Unit) -> &[Content]) -> Vec<Content> {
    dir.tool("qemu-img", &format!("convert -f {} -O raw {image} after.raw", format(image)));
    let bytes = std::fs::read(dir.join("after.raw")).unwrap();
    let found: Vec<Content> =
        bytes.chunks(UNIT).enumerate().map(|(i, bytes)| Content::of(bytes, i)).collect();
    assert_eq!(found.len(), units.len());
    for (i, (content, unit)) in found.iter().zip(units).enumerate() {
        let allowed = allowed(unit);
        assert!(allowed.contains(content), "{image}: unit {i} holds {content:?}, and not one of {allowed:?}");
    }
    found
}

fn format(image: &str) -> &str {
    image.split_once('.').unwrap().1
}

/// A disk that holds something already where it has a backing file.
fn disk(dir: &Dir, image: &str) -> Vec<Content> {
    let count = WRITERS * UNITS;
    let (len, base) = (count * UNIT, Content::Stamp(1));
    match image {
        "over.qcow2" => {
            let bytes: Vec<u8> = (0..count).flat_map(|unit| base.bytes(unit)).collect();
            std::fs::write(dir.join("base.raw"), bytes).unwrap();
            dir.tool("qemu-img", "create -q -f qcow2 -F raw -b base.raw over.qcow2");
            return vec![base; count];
        }
        "small.qcow2" => {
            dir.tool("qemu-img", &format!("create -q -f qcow2 -o cluster_size=4k small.qcow2 {len}"))
        }
        _ => dir.tool("qemu-img", &format!("create -q -f {} {image} {len}", format(image))),
    };
    vec![Content::Zeros; count]
}

/// Leaks are what a crash may leave; a damaged map is not.
#[track_caller]
fn is_sound(dir: &Dir, image: &str) {
    let checked = Tool::new("qemu-img").args(["check", image]).current_dir(dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(matches!(checked.status.code(), Some(0 | 3)), "{image}: {said}");
}

fn killed(image: &str) {
    if !testkit::peer::require(&["qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    let mut held = disk(&dir, image);
    let args = format!("-f {} {image}", format(image));
    for round in testkit::crash::seeds(3) {
        let units = load(Server::start(&dir, "s", &args), &held, round, Server::kill);
        if format(image) == "qcow2" {
            is_sound(&dir, image);
        }
        held = judge(&dir, image, &units, |unit| &unit.contents);
    }
}

#[test]
fn a_crash_loses_nothing_that_was_flushed_to_raw() {
    killed("disk.raw");
}

#[test]
fn a_crash_loses_nothing_that_was_flushed_to_qcow2() {
    killed("disk.qcow2");
}

#[test]
fn a_crash_loses_nothing_that_was_flushed_to_small_clusters() {
    killed("small.qcow2");
}

#[test]
fn a_crash_loses_nothing_that_was_flushed_to_an_overlay() {
    killed("over.qcow2");
}

#[test]
fn a_signal_loses_nothing_that_was_answered() {
    if !testkit::peer::require(&["qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    for image in ["disk.raw", "disk.qcow2", "small.qcow2", "over.qcow2"] {
        let mut held = disk(&dir, image);
        let args = format!("-f {} {image}", format(image));
        for round in testkit::crash::seeds(2) {
            let server = Server::start(&dir, "s", &args);
            let units = load(server, &held, round, |server| drop(server.end()));
            if format(image) == "qcow2" {
                dir.tool("qemu-img", &format!("check -q {image}"));
            }
            held = judge(&dir, image, &units, |unit| &unit.contents[unit.answered..]);
        }
    }
}
