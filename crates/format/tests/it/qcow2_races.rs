//! Races with a flush that has let go of the writer, and with a write in place that has begun.

use super::qcow2_laws::{Shape, shapes};
use chart::{Disk, Kind, Result, SetMode, Slice, Source, SourceId, To, Wait};
use format::qcow2::Image;
use format::qcow2::create::New;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use testkit::contract::{self, Maker};
use testkit::crash::{self, Budget, State};
use testkit::source::{Failing, Hold, Memory, Op, Paused, Recorder, When};
use testkit::{Rng, peer};

const SECTOR: u64 = 512;

/// How long one may take who is not to wait for anybody.
const SOON: Duration = Duration::from_secs(10);

/// How long to look whether somebody waits.
const MOMENT: Duration = Duration::from_millis(300);

const SET: SetMode = SetMode { may_unmap: true, fast_only: false };

/// What a thread is doing.
struct Task<T>(Receiver<T>);

fn start<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> Task<T> {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        // Nobody listens any more once the test has given up waiting.
        let _ = tell.send(act());
    });
    Task(told)
}

impl<T> Task<T> {
    fn within(&self, time: Duration) -> Option<T> {
        self.0.recv_timeout(time).ok()
    }

    fn end(&self, what: &str) -> T {
        self.within(SOON).unwrap_or_else(|| panic!("{what} waits for ever: a deadlock"))
    }
}

/// Stops the operation that comes after `pass` others of its kind.
fn stop(paused: &Paused, op: Op, pass: usize, when: When) -> Hold {
    (0..pass).for_each(|_| drop(paused.stop(op, when)));
    paused.stop(op, when)
}

/// What became of a sector: the sequence it was written with, or zeros.
#[derive(Clone, Copy)]
struct Fate {
    to: Option<u64>,
    /// Else it may be as it was before as well.
    sure: bool,
}

/// Sectors in groups, so far apart, so that they lie in many tables.
#[derive(Clone, Copy)]
struct Field {
    groups: u64,
    group: u64,
    stride: u64,
}

impl Field {
    fn sectors(self) -> impl Iterator<Item = u64> {
        (0..self.groups).flat_map(move |g| (0..self.group).map(move |i| g * self.stride + i))
    }

    fn pick(self, rng: &mut Rng) -> std::ops::Range<u64> {
        let first = rng.below(self.group);
        let count = (1 + rng.below(24)).min(self.group - first);
        let start = rng.below(self.groups) * self.stride + first;
        start..start + count
    }
}

/// A disk and what its sectors have been through.
struct Life {
    disk: Arc<Disk>,
    field: Field,
    rng: Rng,
    sequence: u64,
    fates: BTreeMap<u64, Vec<Fate>>,
    /// How many operations failed.
    failed: u64,
}

fn sequence_at(disk: &Disk, sector: u64) -> std::result::Result<Option<u64>, String> {
    let mut buf = [0; SECTOR as usize];
    disk.read_at(sector * SECTOR, &mut buf, Wait::Allowed).map_err(|e| e.to_string())?;
    // Foreign and torn ones are findings.
    let found = contract::stamps(&buf, sector * SECTOR).map_err(|e| e.to_string())?;
    Ok(found[0].map(|stamp| stamp.sequence))
}

impl Life {
    fn of(disk: Arc<Disk>, field: Field, seed: u64) -> Life {
        let first = |s| (s, vec![Fate { to: sequence_at(&disk, s).unwrap(), sure: true }]);
        let fates = field.sectors().map(first).collect();
        Life { disk, field, rng: Rng::new(seed), sequence: 100, fates, failed: 0 }
    }

    fn step(&mut self) {
        let sectors = self.field.pick(&mut self.rng);
        let (at, len) = (sectors.start * SECTOR, (sectors.end - sectors.start) * SECTOR);
        let (to, done) = match self.rng.below(20) {
            0..=10 => {
                self.sequence += 1;
                let mut buf = vec![0; len as usize];
                contract::stamp(&mut buf, at, 1, self.sequence);
                (Some(Some(self.sequence)), self.disk.write_at(at, &buf, Wait::Allowed))
            }
            11..=13 => (Some(None), self.disk.set(at, len, To::Zero, SET)),
            // Whole grains, mostly: the others are left alone.
            14..=17 => (Some(None), self.disk.set(at, len, To::Hole, SET)),
            _ => (None, self.disk.fill_up(at, len).map(drop)),
        };
        let kept = match &done {
            Ok(()) => to.is_some_and(|to| to.is_none()),
            Err(e) => {
                self.failed += u64::from(e.kind() == Kind::Io);
                assert!(matches!(e.kind(), Kind::Io | Kind::Unsupported), "{e}");
                true
            }
        };
        for sector in sectors {
            let fates = self.fates.get_mut(&sector).unwrap();
            fates.extend(to.map(|to| Fate { to, sure: !kept }));
        }
    }

    fn now(&self) -> BTreeMap<u64, usize> {
        self.fates.iter().map(|(sector, fates)| (*sector, fates.len())).collect()
    }

    /// Whether a disk may be this one, when so many of each sector's fates are settled.
    fn may_be(&self, disk: &Disk, settled: &BTreeMap<u64, usize>) -> std::result::Result<(), String> {
        for (&sector, fates) in &self.fates {
            let found = sequence_at(disk, sector)?;
            let (old, new) = fates.split_at(settled[&sector]);
            let last_sure = old.iter().rposition(|f| f.sure).unwrap_or(0);
            if !old[last_sure..].iter().chain(new).any(|f| f.to == found) {
                return Err(format!(
                    "the sector at {} holds {found:?}, which was neither settled nor written later",
                    sector * SECTOR
                ));
            }
        }
        Ok(())
    }
}

/// The bytes of an image, closed, with stamped sectors all over and a snapshot that shares them.
fn prepared(shape: &Shape, field: Field) -> Vec<u8> {
    let memory = Arc::new(Memory::new(0));
    drop(shape.create(Arc::clone(&memory) as Arc<dyn Source>).unwrap());
    let image = shape.image(Arc::clone(&memory) as Arc<dyn Source>, true).unwrap();
    let disk = image.disk("image").unwrap();
    for group in (0..field.groups).filter(|g| g % 4 < 3) {
        let at = group * field.stride * SECTOR;
        let mut buf = vec![0; (field.group / 2 * SECTOR) as usize];
        contract::stamp(&mut buf, at, 1, 1);
        disk.write_at(at, &buf, Wait::Allowed).unwrap();
    }
    if shape.new.refcount_order > 0 {
        image.snapshot_create("shared").unwrap();
    }
    disk.close().unwrap();
    memory.bytes()
}

/// An open image, a file that can be stopped and told to fail, and what is promised of it.
struct Stage {
    paused: Arc<Paused>,
    failing: Arc<Failing>,
    recorder: Arc<Recorder>,
    image: Arc<Image>,
    life: Life,
    marks: Vec<BTreeMap<u64, usize>>,
    /// How often somebody wrote while a flush was held.
    overtaken: usize,
}

impl Stage {
    fn new(shape: &Shape, field: Field, seed: u64) -> Stage {
        let memory = Arc::new(Memory::of(prepared(shape, field)));
        let recorder = Arc::new(Recorder::new(memory).unwrap());
        let failing = Arc::new(Failing::new(Arc::clone(&recorder) as Arc<dyn Source>));
        let paused = Arc::new(Paused::new(Arc::clone(&failing) as Arc<dyn Source>));
        let image = shape.image(Arc::clone(&paused) as Arc<dyn Source>, true).unwrap();
        let life = Life::of(image.disk("image").unwrap(), field, seed);
        let marks = vec![life.now()];
        recorder.mark(0);
        Stage { paused, failing, recorder, image, life, marks, overtaken: 0 }
    }

    fn flush(&self) -> Task<Result<()>> {
        let disk = Arc::clone(&self.life.disk);
        start(move || disk.flush())
    }

    /// What was done before `settled` is promised from now on.
    fn mark(&mut self, settled: BTreeMap<u64, usize>) {
        self.recorder.mark(self.marks.len() as u64);
        self.marks.push(settled);
    }

    /// Operations; a flush that is held before or after its so-manieth flush of the file; meanwhile more operations,
    /// one write of which may fail, and perhaps another flush, which comes too late for the first.
    fn round(mut self, steps: usize, (pass, when): (usize, When), fail: Option<u64>) -> Stage {
        (0..steps).for_each(|_| self.life.step());
        let before = self.life.now();
        let hold = stop(&self.paused, Op::Flush, pass, when);
        let flush = self.flush();
        if !hold.reached(MOMENT) {
            // There was nothing to link.
            hold.release();
            flush.end("the flush").unwrap();
            self.paused.disarm();
            self.mark(before);
            return self;
        }
        if let Some(pass) = fail {
            self.failing.fail(Op::Write, pass, Kind::Io);
        }
        let mut life = self.life;
        let others = start(move || {
            (0..steps).for_each(|_| life.step());
            life
        });
        // Where refcounts get a new root, the writer is not let go of.
        let early = others.within(MOMENT);
        self.overtaken += usize::from(early.is_some());
        if early.is_some() {
            self.failing.mend();
        }
        let later = early.as_ref().map(|life| {
            let disk = Arc::clone(&life.disk);
            start(move || disk.flush())
        });
        hold.release();
        let flushed = flush.end("the flush");
        self.life = early.unwrap_or_else(|| others.end("the writer"));
        self.failing.mend();
        self.paused.disarm();
        match flushed {
            Ok(()) => self.mark(before),
            Err(e) => assert!(fail.is_some(), "the flush: {e}"),
        }
        if let Some(later) = later {
            later.end("the later flush").unwrap();
            let now = self.life.now();
            self.mark(now);
        }
        self
    }

    /// What is flushed is what is seen, here and in the file.
    fn settle(&mut self, shape: &Shape) {
        self.life.disk.flush().unwrap();
        let now = self.life.now();
        self.life.may_be(&self.life.disk, &now).unwrap();
        self.mark(now);
        let mut stored = vec![0; self.recorder.len() as usize];
        self.recorder.read_at(0, &mut stored, Wait::Allowed).unwrap();
        let image = shape.image(Arc::new(Memory::of(stored)), false).unwrap();
        let disk = image.disk("again").unwrap();
        for sector in self.life.field.sectors() {
            let [here, there] = [&self.life.disk, &disk].map(|disk| sequence_at(disk, sector).unwrap());
            assert!(here == there, "the sector at {}: {here:?}, stored {there:?}", sector * SECTOR);
        }
        assert_eq!(image.check().unwrap().corruptions, 0);
    }

    /// Whatever a crash leaves, at any moment of all this.
    fn crash(&self, shape: &Shape, budget: Budget) -> usize {
        let judge = |state: &State| {
            let source: Arc<dyn Source> = Arc::new(Memory::of(state.bytes.clone()));
            let image = shape.image(Arc::clone(&source), true).map_err(|e| e.to_string())?;
            let disk = image.disk("crashed").map_err(|e| e.to_string())?;
            self.life.may_be(&disk, &self.marks[state.mark.unwrap_or(0) as usize])?;
            if shape.new.refcount_order > 0 {
                let snapshot = image.snapshot_disk("shared").map_err(|e| e.to_string())?;
                for (&sector, fates) in &self.life.fates {
                    let (found, first) = (sequence_at(&snapshot, sector)?, fates[0].to);
                    if found != first {
                        return Err(format!(
                            "sector {sector} of the snapshot: {found:?} instead of {first:?}"
                        ));
                    }
                }
            }
            drop((disk, image));
            shape.check(source).map_err(|e| e.to_string())
        };
        let budget = Budget { states: budget.states * crash::times(), ..budget };
        crash::check(&self.recorder.log(), budget, judge).unwrap_or_else(|e| panic!("{:?}: {e}", shape.new))
    }
}

/// The places at which a flush is held.
const HELD: [(usize, When); 4] = [(0, When::Before), (0, When::After), (1, When::Before), (1, When::After)];

/// Small clusters in a row, and tables so many that not all are in memory at once.
fn fields() -> Vec<(Shape, Field)> {
    let row = Field { groups: 4, group: 96, stride: 96 };
    let mut all: Vec<_> = shapes().into_iter().map(|shape| (shape, row)).collect();
    for (cluster_bits, groups, span) in [(12, 40, 4096), (9, 200, 64)] {
        let mut shape = Shape::of(New { cluster_bits, ..New::of(0) });
        shape.new.size = groups * span * SECTOR;
        all.push((shape, Field { groups, group: 8, stride: span }));
    }
    all
}

#[test]
fn what_is_written_while_a_flush_lets_go_of_the_writer_is_safe_from_crashes() {
    let ask = if peer::require(&["qemu-img"]) { 16 } else { 0 };
    let mut overtaken = 0;
    for (shape, field) in fields() {
        let shape = shape.asking_qemu(ask);
        for seed in crash::seeds(1) {
            let mut stage = Stage::new(&shape, field, seed);
            for held in HELD {
                stage = stage.round(10 + field.groups as usize / 4, held, None);
            }
            stage.settle(&shape);
            overtaken += stage.overtaken;
            let states = stage.crash(&shape, Budget { states: 300, seed });
            assert!(states > 60, "{states} states are too few to mean anything");
            stage.life.disk.close().unwrap();
            assert!(stage.image.check().unwrap().is_clean(), "{:?}", shape.new);
        }
    }
    assert!(overtaken > 20, "only {overtaken} flushes were overtaken");
}

#[test]
fn a_flush_does_not_undo_what_others_linked_before_they_failed() {
    let ask = if peer::require(&["qemu-img"]) { 64 } else { 0 };
    let (mut overtaken, mut failed) = (0, 0);
    for (shape, field) in fields().into_iter().filter(|(_, field)| field.groups > 10) {
        let shape = shape.asking_qemu(ask);
        for seed in crash::seeds(8) {
            let mut stage = Stage::new(&shape, field, seed);
            let steps = 10 + field.groups as usize / 2;
            for (i, held) in (0..).zip(HELD) {
                // Data, tables and refcounts are written in turns: each comes to fail with some seed.
                stage = stage.round(steps, held, Some(seed * 5 + i * 3));
            }
            stage.settle(&shape);
            overtaken += stage.overtaken;
            failed += stage.life.failed;
            stage.crash(&shape, Budget { states: 60, seed });
            stage.life.disk.close().unwrap();
            assert_eq!(stage.image.check().unwrap().corruptions, 0, "{:?}", shape.new);
        }
    }
    assert!(overtaken > 20 && failed > 20, "{overtaken} overtaken, {failed} failed");
}

/// The whole of a disk, written straight.
fn window(inner: Arc<Disk>) -> Arc<Disk> {
    let slice = Slice::new(SourceId(0), 0, inner.len(), true).unwrap();
    Disk::builder("window", Arc::new(slice)).source(inner).straight().build().unwrap()
}

/// What makes an image not writable in place for a while, or for good.
type Disturb = fn(&Arc<Image>, &Disk) -> Result<()>;

const DISTURB: [(&str, Disturb); 6] = [
    ("a snapshot", |image, _| image.snapshot_create("new").map(drop)),
    ("turning it off", |image, _| {
        image.set_in_place(false);
        Ok(())
    }),
    ("a new bitmap", |image, _| image.bitmap_add("new", None, true)),
    ("closing", |_, disk| disk.close()),
    ("cutting off", |_, disk| disk.resize(64 << 10)),
    ("a discard", |_, disk| {
        disk.set(0, 128 << 10, To::Hole, SET)?;
        disk.flush()?;
        for at in (128..512).step_by(16).map(|kib| kib << 10) {
            write(disk, at, 16 << 10, 3)?;
            disk.flush()?;
        }
        Ok(())
    }),
];

fn stamped(at: u64, len: u64, sequence: u64) -> Vec<u8> {
    let mut buf = vec![0; len as usize];
    contract::stamp(&mut buf, at, 1, sequence);
    buf
}

fn write(disk: &Disk, at: u64, len: u64, sequence: u64) -> Result<()> {
    disk.write_at(at, &stamped(at, len, sequence), Wait::Allowed)
}

/// What the sectors are, as long as they are in their place.
fn sequences(disk: &Disk) -> Vec<Option<u64>> {
    let mut all = vec![0; disk.len() as usize];
    disk.read_at(0, &mut all, Wait::Allowed).unwrap();
    contract::stamps(&all, 0).unwrap().into_iter().map(|found| found.map(|s| s.sequence)).collect()
}

/// Two stretches of 64 KiB, of which the later lies first in the file, are written in place as one.
fn overwrite_disturbed(shape: &Shape, depth: usize, pass: usize, (what, disturb): (&str, Disturb)) {
    const PART: u64 = 64 << 10;
    let memory: Arc<dyn Source> = Arc::new(Memory::new(0));
    let paused = Arc::new(Paused::new(Arc::clone(&memory)));
    drop(shape.create(Arc::clone(&paused) as Arc<dyn Source>).unwrap());
    let image = shape.image(Arc::clone(&paused) as Arc<dyn Source>, true).unwrap();
    let inner = image.disk("image").unwrap();
    [PART, 0].into_iter().for_each(|at| write(&inner, at, PART, 1).unwrap());
    inner.flush().unwrap();
    let outer = (0..depth).fold(Arc::clone(&inner), |disk, _| window(disk));
    let hold = stop(&paused, Op::Write, pass, When::Before);
    let disk = Arc::clone(&outer);
    let overwrite = start(move || disk.overwrite_at(0, &stamped(0, 2 * PART, 2)));
    assert!(hold.reached(SOON), "{what}: there is no write {pass} in place");
    let other = {
        let (image, inner) = (Arc::clone(&image), Arc::clone(&inner));
        start(move || disturb(&image, &inner))
    };
    let early = other.within(MOMENT / 6);
    // Who comes now finds its place or does not, and waits for nobody.
    let disk = Arc::clone(&outer);
    let second = start(move || disk.overwrite_at(PART, &stamped(PART, PART, 2))).end("a second overwrite");
    if let Err(e) = second {
        // What is cut off is nowhere.
        assert!(e.kind() == Kind::WouldBlock || what == "cutting off", "{what}, depth {depth}: {e}");
    }
    hold.release();
    let done = overwrite.end("the overwrite");
    done.unwrap_or_else(|e| panic!("{what}, write {pass}, depth {depth}: {e}, half way"));
    early.unwrap_or_else(|| other.end(what)).unwrap();
    let found = sequences(&inner);
    let mut seen = found.iter().take(2 * (PART / SECTOR) as usize);
    match what {
        // It may have come later, or be there twice: only nobody else's bytes.
        "a discard" => assert!(seen.all(|s| s.is_none_or(|s| s < 3)), "{what}"),
        "cutting off" => assert_eq!(found, [Some(2); 128]),
        _ => assert!(seen.all(|s| *s == Some(2)), "{what}, write {pass}, depth {depth}: torn"),
    }
    if what == "a snapshot" {
        let snapshot = sequences(&image.snapshot_disk("new").unwrap());
        assert!(snapshot == found, "the snapshot was taken in the middle of a write");
    }
    inner.close().unwrap();
    assert!(image.check().unwrap().is_clean(), "{what}");
}

#[test]
fn a_write_in_place_that_has_begun_is_carried_through() {
    let can = |shape: &Shape| shape.new.version > 2 && shape.new.refcount_order > 0;
    for shape in shapes().into_iter().filter(can) {
        for disturb in DISTURB {
            for (depth, pass) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 1)] {
                overwrite_disturbed(&shape, depth, pass, disturb);
            }
        }
    }
}

/// Where a flush is stopped while a snapshot is asked for: with the writer, at a write, and without it.
const STOPPED: [(Op, usize); 4] = [(Op::Write, 0), (Op::Flush, 0), (Op::Write, 3), (Op::Flush, 1)];

#[test]
fn a_snapshot_comes_before_or_after_a_flush() {
    const PART: u64 = 64 << 10;
    // Where discards give room back.
    let can = |shape: &Shape| shape.new.version > 2 && shape.new.refcount_order > 0;
    for (shape, (op, pass)) in
        shapes().into_iter().filter(can).flat_map(|s| STOPPED.map(|at| (s.clone(), at)))
    {
        let memory: Arc<dyn Source> = Arc::new(Memory::new(0));
        let paused = Arc::new(Paused::new(Arc::clone(&memory)));
        drop(shape.create(Arc::clone(&paused) as Arc<dyn Source>).unwrap());
        let image = shape.image(Arc::clone(&paused) as Arc<dyn Source>, true).unwrap();
        let disk = image.disk("image").unwrap();
        write(&disk, 0, 6 * PART, 1).unwrap();
        image.snapshot_create("one").unwrap();
        let one = sequences(&disk);
        // Own clusters that are let go of, shared ones, and those that take the place of both.
        write(&disk, PART, 3 * PART, 2).unwrap();
        disk.flush().unwrap();
        disk.set(PART, PART, To::Hole, SET).unwrap();
        disk.set(5 * PART, PART, To::Zero, SET).unwrap();
        write(&disk, 4 * PART + 1024, 2048, 3).unwrap();
        let (hold, flushing) = (stop(&paused, op, pass, When::Before), Arc::clone(&disk));
        let flush = start(move || flushing.flush());
        let reached = hold.reached(MOMENT);
        let (taking, two) = (Arc::clone(&image), sequences_if(reached && op == Op::Flush, &disk));
        let snapshot = start(move || taking.snapshot_create("two").map(drop));
        let early = snapshot.within(MOMENT / 4);
        // This may come before the snapshot or after it.
        let writing = Arc::clone(&disk);
        let writer = start(move || write(&writing, 7 * PART, PART, 4));
        let written = writer.within(MOMENT / 4);
        hold.release();
        flush.end("the flush").unwrap();
        early.unwrap_or_else(|| snapshot.end("the snapshot")).unwrap();
        written.unwrap_or_else(|| writer.end("the writer")).unwrap();
        paused.disarm();
        let taken = sequences(&image.snapshot_disk("two").unwrap());
        let before = 7 * (PART / SECTOR) as usize;
        assert!(two.is_none_or(|two| two[..before] == taken[..before]), "not what was there: {op:?} {pass}");
        for at in (0..8).map(|i| i * PART) {
            write(&disk, at, PART, 5 + at).unwrap();
            disk.flush().unwrap();
        }
        disk.close().unwrap();
        assert!(image.check().unwrap().is_clean(), "{:?}, {op:?} {pass}", shape.new);
        assert!(sequences(&image.snapshot_disk("one").unwrap()) == one, "one: {op:?} {pass}");
        assert!(sequences(&image.snapshot_disk("two").unwrap()) == taken, "two: {op:?} {pass}");
        drop((disk, image));
        shape.asking_qemu(u64::from(peer::require(&["qemu-img"]))).check(memory).unwrap();
    }
}

fn sequences_if(can: bool, disk: &Disk) -> Option<Vec<Option<u64>>> {
    can.then(|| sequences(disk))
}
