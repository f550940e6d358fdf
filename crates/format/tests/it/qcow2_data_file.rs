//! Images whose data is in a file of its own: two files, of which a crash may leave any two states.

use crate::qcow2_laws::Shape;
use chart::{Disk, Error, Identity, Limits, Result, Run, SetMode, Source, To, Wait, check_range};
use format::qcow2::create::New;
use std::sync::Arc;
use testkit::crash::{self, Budget, State};
use testkit::source::{Event, Log, Memory, Recorder};
use testkit::{Rng, contract, peer};

/// So much of a source that holds two files is the image, which is as long as this and no longer, as on a device.
pub(super) const IMAGE: u64 = 1 << 20;

/// One of two files in one source.
pub(super) struct Part {
    both: Arc<dyn Source>,
    /// The data file, which is behind the image and has any length.
    is_data: bool,
    flush: Box<dyn Fn() -> Result<()> + Send + Sync>,
    identity: Identity,
}

impl Part {
    /// The image and the data file in one source, which is flushed where one of them is.
    pub(super) fn both(source: &Arc<dyn Source>) -> Result<[Arc<dyn Source>; 2]> {
        if source.len() < IMAGE {
            source.set_len(IMAGE)?;
        }
        Ok([false, true].map(|is_data| {
            let both = Arc::clone(source);
            Part::of(source, is_data, move || both.flush())
        }))
    }

    fn of(
        both: &Arc<dyn Source>,
        is_data: bool,
        flush: impl Fn() -> Result<()> + Send + Sync + 'static,
    ) -> Arc<dyn Source> {
        let (both, flush) = (Arc::clone(both), Box::new(flush));
        Arc::new(Part { both, is_data, flush, identity: Identity::unique() })
    }

    fn start(&self) -> u64 {
        if self.is_data { IMAGE } else { 0 }
    }

    fn within(&self, offset: u64, len: u64) -> Result<u64> {
        check_range(self.len(), offset, len)?;
        Ok(self.start() + offset)
    }
}

impl Source for Part {
    fn name(&self) -> String {
        if self.is_data { "data" } else { "image" }.to_owned()
    }

    fn len(&self) -> u64 {
        if self.is_data { self.both.len() - IMAGE } else { IMAGE }
    }

    fn read_at(&self, offset: u64, buf: &mut [u8], wait: Wait) -> Result<()> {
        self.both.read_at(self.within(offset, buf.len() as u64)?, buf, wait)
    }

    fn write_at(&self, offset: u64, buf: &[u8], wait: Wait) -> Result<()> {
        self.both.write_at(self.within(offset, buf.len() as u64)?, buf, wait)
    }

    fn zero(&self, offset: u64, len: u64, fast_only: bool) -> Result<()> {
        self.both.zero(self.within(offset, len)?, len, fast_only)
    }

    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.both.punch(self.within(offset, len)?, len)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        match self.is_data {
            true => self.both.set_len(IMAGE + len),
            false if len <= IMAGE => Ok(()),
            false => Err(Error::no_space("the device is full")),
        }
    }

    fn flush(&self) -> Result<()> {
        (self.flush)()
    }

    fn limits(&self) -> Limits {
        self.both.limits()
    }

    fn data_at(&self, offset: u64, want: u64) -> Result<Run> {
        let want = want.min(self.len().saturating_sub(offset));
        self.both.data_at(self.within(offset, 1)?, want)
    }

    fn identity(&self) -> Identity {
        self.identity.clone()
    }
}

/// Images with a data file; of the last, that is a raw image of the disk too.
pub(super) fn shapes() -> [Shape; 3] {
    let new = New { data_file: Some("data".into()), cluster_bits: 12, ..New::of(0) };
    [
        Shape::of(new.clone()),
        Shape::of(New { cluster_bits: 14, extended_l2: true, ..new.clone() }),
        Shape::of(New { data_file_raw: true, ..new }),
    ]
}

/// One file of two is durable: which of them a mark stands for.
const DURABLE: [u64; 2] = [0, 1];

/// Whether something happened to the data file.
fn is_data(event: &Event) -> bool {
    match event {
        Event::Write { offset, .. } | Event::Zero { offset, .. } | Event::Punch { offset, .. } => {
            *offset >= IMAGE
        }
        Event::SetLen(_) => true,
        Event::Flush | Event::Mark(_) => unreachable!(),
    }
}

fn happen(bytes: &Memory, event: &Event) {
    match event {
        Event::Write { offset, data } => bytes.write_at(*offset, data, Wait::Allowed),
        Event::Zero { offset, len } | Event::Punch { offset, len } => bytes.zero(*offset, *len, false),
        Event::SetLen(len) => bytes.set_len(*len),
        Event::Flush | Event::Mark(_) => Ok(()),
    }
    .unwrap();
}

/// What a sector may hold: what it held when the disk was flushed last, and what it got since.
struct Sectors(Vec<Vec<u8>>);

const SECTOR: u64 = 512;

impl Sectors {
    fn put(&mut self, at: u64, len: u64, byte: u8) {
        self.0[(at / SECTOR) as usize..((at + len) / SECTOR) as usize].iter_mut().for_each(|s| s.push(byte));
    }

    fn flushed(&mut self) {
        self.0.iter_mut().for_each(|s| drop(s.drain(..s.len() - 1)));
    }

    fn allow(&self, disk: &Disk) -> Result<(), String> {
        let mut all = vec![0; disk.len() as usize];
        disk.read_at(0, &mut all, Wait::Allowed).map_err(|e| e.to_string())?;
        for (number, (found, may)) in all.chunks(SECTOR as usize).zip(&self.0).enumerate() {
            if !may.contains(&found[0]) || found.iter().any(|byte| *byte != found[0]) {
                return Err(format!("sector {number} holds {}, and may hold {may:?}", found[0]));
            }
        }
        Ok(())
    }
}

/// A workload on an image and its data file, each of which is made durable for itself, if at all, and after each of its
/// steps the states of both that a crash may leave. Returns how many there were.
fn crashes(shape: &Shape, seed: u64, states: usize, flushes: [bool; 2]) -> usize {
    let memory: Arc<dyn Source> = Arc::new(Memory::new(0));
    drop(contract::Maker::create(shape, Arc::clone(&memory)).unwrap());
    let recorder = Arc::new(Recorder::new(memory).unwrap());
    let both = Arc::clone(&recorder) as Arc<dyn Source>;
    let parts = DURABLE.map(|which| {
        let marks = Arc::clone(&recorder);
        Part::of(&both, which == 1, move || {
            if flushes[which as usize] {
                marks.mark(which);
            }
            Ok(())
        })
    });
    let disk = shape.image_in(&parts, true).unwrap().disk("disk").unwrap();
    let durable = Memory::of(recorder.log().initial);
    let mut sectors = Sectors(vec![vec![0]; (disk.len() / SECTOR) as usize]);
    let (mut rng, mut seen, mut pending, mut count) = (Rng::new(seed), 0, Vec::new(), 0);
    for step in 1..60_u8 {
        let (first, len) = (rng.below(200), 1 + rng.below(24));
        let (at, len) = (first * SECTOR, len * SECTOR);
        let mode = SetMode { may_unmap: true, fast_only: false };
        let is_flush = rng.once_in(4);
        match rng.below(6) {
            _ if is_flush => disk.flush().unwrap(),
            0 => {
                sectors.put(at, len, 0);
                disk.set(at, len, To::Zero, mode).unwrap();
            }
            1 => {
                // Whole grains: the others are left alone, and any of it may be.
                let kept: Vec<_> = sectors.0.iter().map(|s| s[s.len() - 1]).collect();
                sectors.put(at, len, 0);
                disk.set(at, len, To::Hole, mode).unwrap();
                let mut now = vec![0; disk.len() as usize];
                disk.read_at(0, &mut now, Wait::Allowed).unwrap();
                for (number, (may, kept)) in sectors.0.iter_mut().zip(kept).enumerate() {
                    let found = now[number * SECTOR as usize];
                    assert!(found == 0 || found == kept);
                    may.push(found);
                }
            }
            _ => {
                sectors.put(at, len, step);
                disk.write_at(at, &vec![step; len as usize], Wait::Allowed).unwrap();
            }
        }
        let judge = |state: &State| {
            let source: Arc<dyn Source> = Arc::new(Memory::of(state.bytes.clone()));
            let subject = contract::Maker::open(shape, Arc::clone(&source)).map_err(|e| e.to_string())?;
            sectors.allow(&subject.disk)?;
            subject.disk.close().map_err(|e| e.to_string())?;
            contract::Maker::check(shape, source).map_err(|e| e.to_string())
        };
        for event in recorder.since(seen) {
            seen += 1;
            let Event::Mark(which) = event else {
                pending.push(event);
                continue;
            };
            let log = Log { initial: durable.bytes(), events: pending.clone() };
            let budget = Budget { states, seed: seed + seen as u64 };
            let judged = crash::check(&log, budget, judge);
            count += judged.unwrap_or_else(|e| panic!("{:?}, seed {seed}, step {step}: {e}", shape.new));
            let (done, rest) = pending.into_iter().partition(|event| is_data(event) == (which == 1));
            pending = rest;
            let done: Vec<Event> = done;
            done.iter().for_each(|event| happen(&durable, event));
        }
        if is_flush {
            sectors.flushed();
        }
    }
    count
}

#[test]
fn any_two_files_that_a_crash_leaves_are_a_whole_image() {
    let ask = if peer::require(&["qemu-img"]) { 16 } else { 0 };
    for shape in shapes() {
        let count: usize =
            crash::seeds(2).map(|seed| crashes(&shape.clone().asking_qemu(ask), seed, 24, [true; 2])).sum();
        assert!(count > 200, "{count} states are too few to mean anything");
    }
}

/// That one of the two is not made durable is not taken for what a crash may leave.
#[test]
fn a_file_that_is_not_flushed_is_noticed() {
    for flushes in [[true, false], [false, true]] {
        let noticed = std::panic::catch_unwind(|| crashes(&shapes()[0], 1, 24, flushes));
        assert!(noticed.is_err(), "{flushes:?}: nobody noticed");
    }
}
