//! The laws of charts, held against VDI images of every shape, with qemu-img as the judge of what crashes leave.

use super::qcow2_laws::LosesFlushes;
use chart::{Disk, Result, SetMode, Source, To, Wait};
use format::vdi::create::{New, Preallocation, create};
use format::vdi::{Image, Options};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use testkit::contract::{Load, Maker, Report, Subject, Verdict};
use testkit::crash::{self, Budget, State};
use testkit::source::{Memory, Recorder};
use testkit::{contract, peer};

/// Images of one shape, in whatever source the contract brings.
#[derive(Clone)]
pub(super) struct Shape {
    pub(super) new: New,
    /// How many states were judged, so that the dear judge is asked about some of them.
    judged: Arc<AtomicU64>,
    /// Every so many of them.
    ask_qemu: u64,
}

impl Shape {
    pub(super) fn of(new: New) -> Shape {
        Shape { new, judged: Arc::default(), ask_qemu: 0 }
    }

    fn asking_qemu(self, every: u64) -> Shape {
        Shape { ask_qemu: every, ..self }
    }
}

pub(super) fn image(source: &Arc<dyn Source>) -> Result<Arc<Image>> {
    Image::open(Arc::clone(source), &Options { writable: true, ..Options::default() }).map(Arc::new)
}

impl Maker for Shape {
    fn create(&self, source: Arc<dyn Source>) -> Result<Subject> {
        create(source.as_ref(), &self.new)?;
        self.open(source)
    }

    fn open(&self, source: Arc<dyn Source>) -> Result<Subject> {
        image(&source)?.disk("image").map(Subject::from)
    }

    fn check(&self, source: Arc<dyn Source>) -> Verdict {
        let report = Image::open(Arc::clone(&source), &Options::default())?.check()?;
        if report.corruptions > 0 {
            return Err(Report::new(format!("{:?}", report.findings)));
        }
        let number = self.judged.fetch_add(1, Ordering::Relaxed);
        if self.ask_qemu > 0 && number.is_multiple_of(self.ask_qemu) {
            qemu_finds_no_corruption(source.as_ref(), true)?;
        }
        Ok(())
    }
}

/// Asks qemu-img, which calls it an error when the header counts more blocks than the map names. That a crash may
/// leave, and nothing else.
fn qemu_finds_no_corruption(source: &dyn Source, crashed: bool) -> Verdict {
    let dir = tempfile::tempdir().map_err(|e| Report::new(e.to_string()))?;
    let mut bytes = vec![0; source.len() as usize];
    source.read_at(0, &mut bytes, Wait::Allowed)?;
    let path = dir.path().join("image.vdi");
    std::fs::write(&path, bytes).map_err(|e| Report::new(e.to_string()))?;
    let output = peer::attempt("qemu-img", &["check", "-f", "vdi", path.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let wrong = said.lines().filter(|line| !(crashed && counts_too_many(line))).count();
    if output.status.code() == Some(0) || wrong == 0 && output.status.code() == Some(2) {
        return Ok(());
    }
    Err(Report::new(format!("qemu-img check: {:?} {said}", output.status.code())))
}

/// "allocated blocks mismatch, is 2, should be 3": the first number is the map's, the second the header's.
fn counts_too_many(line: &str) -> bool {
    let numbers: Vec<u64> =
        line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    line.contains("allocated blocks mismatch") && matches!(numbers[..], [is, should] if is < should)
}

pub(super) fn shapes() -> Vec<Shape> {
    let small = New { block_bits: 12, ..New::of(512 << 10) };
    vec![
        Shape::of(small.clone()),
        Shape::of(New { block_bits: 9, ..small.clone() }),
        // The disk ends inside its last block.
        Shape::of(New { block_bits: 16, ..New::of((512 << 10) + 1536) }),
        Shape::of(New { block_bits: 13, preallocation: Preallocation::Metadata, ..small }),
        Shape::of(New::of((3 << 20) + 512)),
    ]
}

fn hold(what: &str, contract: impl Fn(&Shape, u64) -> Verdict) {
    for shape in shapes() {
        for seed in 1..4 {
            contract(&shape, seed).unwrap_or_else(|e| panic!("{what}, {:?}: {e}", shape.new));
        }
    }
}

#[test]
fn random_operations_over_every_kind_of_source() {
    hold("random operations", |shape, seed| contract::all_decorators(shape, seed, 120));
}

#[test]
fn many_at_once() {
    let time = Duration::from_millis(150);
    hold("many at once", |shape, seed| contract::concurrent(shape, Load { time, seed, ..Load::default() }));
}

#[test]
fn an_image_may_be_closed_while_others_write() {
    for (shape, block) in dynamic().filter(|(shape, _)| shape.new.size > 1 << 19) {
        let source: Arc<dyn Source> = Arc::new(Memory::new(0));
        let disk = shape.create(Arc::clone(&source)).unwrap().disk;
        let until = std::time::Instant::now() + Duration::from_millis(400);
        std::thread::scope(|scope| {
            for worker in 0..3_u64 {
                let disk = &disk;
                scope.spawn(move || {
                    let mut rng = testkit::Rng::new(worker);
                    let mut sequence = 1;
                    while std::time::Instant::now() < until {
                        let sectors = disk.len() / 512;
                        let first = rng.below(sectors);
                        let at = first * 512;
                        let len = 512 * (1 + rng.below(3 * block / 512)).min(sectors - first);
                        let mode = SetMode { may_unmap: true, fast_only: false };
                        match rng.below(4) {
                            0 => disk.set(at, len, To::Hole, mode).unwrap(),
                            1 => disk.set(at, len, To::Zero, mode).unwrap(),
                            _ => disk.write_at(at, &stamped(at, len, sequence), Wait::Allowed).unwrap(),
                        }
                        sequence += 1;
                    }
                });
            }
            scope.spawn(|| {
                while std::time::Instant::now() < until {
                    disk.close().unwrap();
                    contract::stamps(&bytes(&disk)[..disk.len() as usize / 512 * 512], 0).unwrap();
                }
            });
        });
        let before = bytes(&disk);
        disk.close().unwrap();
        assert!(bytes(&disk) == before);
        let report = image(&source).unwrap().check().unwrap();
        assert!(report.is_clean(), "{:?}", report.findings);
        let again = image(&source).unwrap().disk("again").unwrap();
        assert!(bytes(&again) == before);
    }
}

#[test]
fn races_are_won_by_nobody() {
    // The contract needs four grains.
    let four = |shape: &Shape| shape.new.size >= 4 << shape.new.block_bits;
    for shape in shapes().into_iter().filter(four).chain([Shape::of(New::of(4 << 20))]) {
        contract::races(&shape).unwrap_or_else(|e| panic!("{:?}: {e}", shape.new));
    }
}

#[test]
fn answers_keep_the_law_and_compose() {
    hold("composing", |shape, seed| {
        let source: Arc<dyn Source> = Arc::new(Memory::new(0));
        let disk = shape.create(source)?.disk;
        let mut rng = testkit::Rng::new(seed);
        for _ in 0..20 {
            let (at, len) = rng.range(disk.len(), 40_000);
            let mut data = vec![0; len as usize];
            rng.fill(&mut data);
            disk.write_at(at, &data, Wait::Allowed)?;
            let (at, len) = rng.range(disk.len(), 70_000);
            let to = if rng.once_in(2) { To::Hole } else { To::Zero };
            disk.set(at, len, to, SetMode { may_unmap: true, fast_only: false })?;
        }
        contract::chart_law(disk.as_ref())?;
        contract::chart_agrees_with_read(&disk)?;
        contract::split_reads(&disk, seed)?;
        contract::walk_law(&disk)?;
        contract::associative(&disk, seed)?;
        contract::composes(disk, 3, seed)
    });
}

/// Seeds a shape is crashed with.
const SEEDS: u64 = 3;

fn crashes(shape: &Shape, seeds: u64, states: usize) {
    for seed in crash::seeds(seeds) {
        let found = contract::crash_safe(shape, seed, 40, Budget { states, seed });
        let found = found.unwrap_or_else(|e| panic!("{:?}: {e}", shape.new));
        assert!(found > 40, "{found} states are too few to mean anything");
    }
}

#[test]
fn every_crash_leaves_a_whole_image() {
    for shape in shapes() {
        crashes(&shape, SEEDS, 300);
    }
}

#[test]
fn qemu_finds_no_corruption_after_any_crash() {
    if peer::require(&["qemu-img"]) {
        crashes(&Shape::of(New::of((3 << 20) + 512)).asking_qemu(2), 2, 200);
    }
}

#[test]
fn flushes_reach_the_file_and_writes_stay_in_their_disk() {
    let window = |inner: Arc<Disk>| {
        let slice = chart::Slice::new(chart::SourceId(0), 0, inner.len(), true)?;
        Disk::builder("window", Arc::new(slice)).source(inner).straight().build()
    };
    hold("outer disks", |shape, _| {
        for outer in [&Ok as &dyn Fn(Arc<Disk>) -> Result<Arc<Disk>>, &window] {
            contract::flush_reaches(shape, outer)?;
            contract::writes_stay_in_their_disk(shape, outer)?;
        }
        Ok(())
    });
}

pub(super) fn bytes(disk: &Disk) -> Vec<u8> {
    let mut all = vec![0; disk.len() as usize];
    disk.read_at(0, &mut all, Wait::Allowed).unwrap();
    all
}

/// Every image that may be left where `act` is interrupted: each is opened, seen by `fine` and checked.
fn interrupted(shape: &Shape, start: &[u8], act: impl Fn(&Arc<Image>), fine: impl Fn(&Arc<Image>)) {
    let recorder = Arc::new(Recorder::new(Arc::new(Memory::of(start.to_vec()))).unwrap());
    act(&image(&(Arc::clone(&recorder) as Arc<dyn Source>)).unwrap());
    let judge = |state: &State| {
        let source: Arc<dyn Source> = Arc::new(Memory::of(state.bytes.clone()));
        let image = image(&source).map_err(|e| e.to_string())?;
        catch_unwind(AssertUnwindSafe(|| fine(&image))).map_err(|_| "it is not as it should be")?;
        drop(image);
        shape.check(source).map_err(|e| e.to_string())
    };
    let budget = Budget { states: 200 * crash::times(), seed: 1 };
    let states = crash::check(&recorder.log(), budget, judge);
    states.unwrap_or_else(|e| panic!("{:?}: {e}", shape.new));
}

fn stamped(at: u64, len: u64, sequence: u64) -> Vec<u8> {
    let mut buf = vec![0; len as usize];
    contract::stamp(&mut buf, at, 1, sequence);
    buf
}

/// Dynamic shapes, and the length of some of their blocks.
fn dynamic() -> impl Iterator<Item = (Shape, u64)> {
    let dynamic = |shape: &Shape| shape.new.preallocation == Preallocation::Off;
    shapes().into_iter().filter(dynamic).map(|shape| {
        let block = 1_u64 << shape.new.block_bits;
        (shape, block.max(32 << 10))
    })
}

#[test]
fn what_takes_the_room_of_a_discard_is_not_seen_in_its_place() {
    for (shape, len) in dynamic() {
        let memory = Arc::new(Memory::new(0));
        let disk = shape.create(Arc::clone(&memory) as Arc<dyn Source>).unwrap().disk;
        disk.write_at(0, &stamped(0, len, 1), Wait::Allowed).unwrap();
        disk.close().unwrap();
        let full = memory.len();
        let act = |image: &Arc<Image>| {
            let disk = image.disk("disk").unwrap();
            let mode = SetMode { may_unmap: true, fast_only: false };
            disk.set(0, len, To::Hole, mode).unwrap();
            disk.flush().unwrap();
            disk.write_at(2 * len, &stamped(2 * len, len, 2), Wait::Allowed).unwrap();
            disk.close().unwrap();
            assert!(image.file().len() <= full, "the room of what was discarded is not used again");
        };
        interrupted(&shape, &memory.bytes(), act, |image| {
            // Foreign and torn sectors are findings.
            let found = contract::stamps(&bytes(&image.disk("disk").unwrap()), 0).unwrap();
            assert!(found.iter().flatten().all(|s| s.sequence < 3));
        });
    }
}

#[test]
fn a_block_that_is_written_again_before_its_discard_is_durable_holds_its_own_bytes() {
    for (shape, len) in dynamic() {
        let memory = Arc::new(Memory::new(0));
        let disk = shape.create(Arc::clone(&memory) as Arc<dyn Source>).unwrap().disk;
        let all = disk.len() / 512 * 512;
        disk.write_at(0, &stamped(0, all, 1), Wait::Allowed).unwrap();
        disk.close().unwrap();
        let act = |image: &Arc<Image>| {
            let disk = image.disk("disk").unwrap();
            let mode = SetMode { may_unmap: true, fast_only: false };
            disk.set(0, 2 * len, To::Zero, mode).unwrap();
            // The image is full: there is no other room than that.
            disk.write_at(512, &stamped(512, 1024, 2), Wait::Allowed).unwrap();
            disk.write_at(len, &stamped(len, len, 2), Wait::Allowed).unwrap();
            disk.flush().unwrap();
            disk.close().unwrap();
        };
        interrupted(&shape, &memory.bytes(), act, |image| {
            let found = contract::stamps(&bytes(&image.disk("disk").unwrap()), 0).unwrap();
            assert!(found.iter().flatten().all(|s| s.sequence < 3));
        });
        let image = image(&(memory as Arc<dyn Source>)).unwrap();
        act(&image);
        let mut wanted = stamped(0, all, 1);
        wanted[..2 * len as usize].fill(0);
        wanted[512..1536].copy_from_slice(&stamped(512, 1024, 2));
        wanted[len as usize..2 * len as usize].copy_from_slice(&stamped(len, len, 2));
        assert!(bytes(&image.disk("again").unwrap())[..all as usize] == wanted);
        assert!(image.check().unwrap().is_clean());
    }
}

#[test]
fn a_closed_image_is_dense_whatever_was_discarded() {
    let qemu = peer::require(&["qemu-img"]);
    for (shape, _) in dynamic() {
        let block = 1_u64 << shape.new.block_bits;
        for seed in 1..6 {
            let memory = Arc::new(Memory::new(0));
            let source = Arc::clone(&memory) as Arc<dyn Source>;
            create(source.as_ref(), &shape.new).unwrap();
            let mut model = vec![0; shape.new.size as usize];
            let mut rng = testkit::Rng::new(seed);
            for _ in 0..3 {
                let image = image(&source).unwrap();
                let disk = image.disk("disk").unwrap();
                for _ in 0..20 {
                    let (at, len) = rng.range(disk.len(), 3 * block);
                    let range = at as usize..(at + len) as usize;
                    match rng.below(3) {
                        0 => {
                            let mode = SetMode { may_unmap: true, fast_only: false };
                            disk.set(at, len, To::Zero, mode).unwrap();
                            model[range].fill(0);
                        }
                        1 => disk.flush().unwrap(),
                        _ => {
                            rng.fill(&mut model[range.clone()]);
                            disk.write_at(at, &model[range], Wait::Allowed).unwrap();
                        }
                    }
                }
                disk.close().unwrap();
                let report = image.check().unwrap();
                assert!(report.is_clean(), "{:?}", report.findings);
                assert!(bytes(&disk) == model);
            }
            let read = Image::open(Arc::clone(&source), &Options::default()).map(Arc::new).unwrap();
            let report = read.check().unwrap();
            assert!(report.is_clean(), "{:?}", report.findings);
            assert_eq!(report.image_end_offset, source.len());
            assert_eq!(u64::from(read.header().head.blocks_allocated.get()), report.allocated_clusters);
            if qemu && shape.new.block_bits == 20 {
                qemu_finds_no_corruption(source.as_ref(), false).unwrap();
            }
        }
    }
}

#[test]
fn a_disk_that_is_resized_keeps_what_it_has_and_shows_zeros_behind() {
    for (shape, _) in dynamic() {
        let memory = Arc::new(Memory::new(0));
        let disk = shape.create(Arc::clone(&memory) as Arc<dyn Source>).unwrap().disk;
        let all = shape.new.size / 512 * 512;
        // Backwards, so that what is cut off comes first in the file.
        let block = (1_u64 << shape.new.block_bits).max(4096);
        for at in (0..all).step_by(block as usize).collect::<Vec<_>>().into_iter().rev() {
            disk.write_at(at, &stamped(at, block.min(all - at), 1), Wait::Allowed).unwrap();
        }
        disk.close().unwrap();
        let (small, large) = (all / 2 / 512 * 512 - 512, all + 70_000 / 512 * 512);
        let act = |image: &Arc<Image>| {
            let disk = image.disk("disk").unwrap();
            disk.resize(small).unwrap();
            disk.resize(large).unwrap();
            disk.close().unwrap();
        };
        interrupted(&shape, &memory.bytes(), act, |image| {
            let found = contract::stamps(&bytes(&image.disk("disk").unwrap()), 0).unwrap();
            assert!(found.len() as u64 >= small / 512);
            assert!(found[..(small / 512) as usize].iter().all(Option::is_some));
            if image.size() != all {
                assert!(found[(small / 512) as usize..].iter().all(Option::is_none));
            }
        });
    }
}

#[test]
fn a_disk_grows_over_its_first_blocks_whole_or_not_at_all() {
    // A map of one full sector right before the blocks, as QEMU makes them.
    let shape = Shape::of(New { block_bits: 12, ..New::of(128 << 12) });
    let memory = Arc::new(Memory::new(0));
    let source = Arc::clone(&memory) as Arc<dyn Source>;
    create(source.as_ref(), &shape.new).unwrap();
    source.write_at(0x158, &1024_u32.to_le_bytes(), Wait::Allowed).unwrap();
    let disk = image(&source).unwrap().disk("disk").unwrap();
    let written = 100 << 12;
    for at in (0..written).step_by(4096).collect::<Vec<_>>().into_iter().rev() {
        disk.write_at(at, &stamped(at, 4096, 1), Wait::Allowed).unwrap();
    }
    disk.close().unwrap();
    let large = 3000 << 12;
    let act = |image: &Arc<Image>| {
        let disk = image.disk("disk").unwrap();
        disk.set(0, 8192, To::Hole, SetMode { may_unmap: true, fast_only: false }).unwrap();
        disk.resize(large).unwrap();
        disk.write_at(large - 4096, &stamped(large - 4096, 4096, 2), Wait::Allowed).unwrap();
        disk.close().unwrap();
    };
    interrupted(&shape, &memory.bytes(), act, |image| {
        assert!([128 << 12, large].contains(&image.size()));
        let found = contract::stamps(&bytes(&image.disk("disk").unwrap()), 0).unwrap();
        assert!(found[16..(written / 512) as usize].iter().all(Option::is_some));
        assert!(found[(written / 512) as usize..].iter().flatten().all(|s| s.sequence == 2));
    });
    let grown = image(&source).unwrap();
    act(&grown);
    assert!(grown.check().unwrap().is_clean());
    let again = image(&source).unwrap();
    assert!(again.check().unwrap().is_clean());
    assert!(bytes(&again.disk("again").unwrap()) == bytes(&grown.disk("grown").unwrap()));
}

/// Makes images whose file loses flushes: an order of writes that is no order.
#[test]
fn the_crash_harness_notices_writes_out_of_order() {
    for (shape, _) in dynamic() {
        let found = contract::crash_safe(&Unordered(shape.clone()), 1, 60, Budget { states: 400, seed: 1 });
        assert!(found.is_err(), "{:?}: lost flushes were not noticed", shape.new);
    }
}

struct Unordered(Shape);

impl Maker for Unordered {
    fn create(&self, source: Arc<dyn Source>) -> Result<Subject> {
        self.0.create(Arc::new(LosesFlushes::new(source)))
    }

    fn open(&self, source: Arc<dyn Source>) -> Result<Subject> {
        self.0.open(source)
    }

    fn check(&self, source: Arc<dyn Source>) -> Verdict {
        self.0.check(source)
    }
}
