//! The laws of charts, held against qcow2 images of every shape, with qemu-img as the judge of what crashes leave.

use crate::qcow2_data_file::{self, Part};
use chart::{Disk, Result, SetMode, Source, To, Wait};
use format::qcow2::create::{Backing, New, create};
use format::qcow2::{Image, Needed, Options, Repair, Role};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use testkit::contract::{Load, Maker, Report, Snapshots, Subject, Verdict};
use testkit::crash::{self, Budget, State};
use testkit::source::{Memory, Recorder};
use testkit::{contract, peer};

/// Images of one shape, in whatever source the contract brings.
#[derive(Clone)]
pub(super) struct Shape {
    pub(super) new: New,
    /// The backing file's bytes.
    below: Option<Vec<u8>>,
    /// Bitmaps of these granularities follow all writes.
    bitmaps: &'static [u64],
    /// How many states were judged, so that the dear judge is asked about some of them.
    judged: Arc<AtomicU64>,
    /// Every so many of them.
    ask_qemu: u64,
}

impl Shape {
    pub(super) fn of(new: New) -> Shape {
        Shape {
            new: New { size: 512 << 10, ..new },
            below: None,
            bitmaps: &[],
            judged: Arc::default(),
            ask_qemu: 0,
        }
    }

    /// Over a backing file, which may be shorter or longer.
    fn over(new: New, len: usize) -> Shape {
        let backing = Some(Backing { name: "below".into(), format: Some("raw".into()) });
        // Sectors that say where they belong, and that nobody wrote them since.
        let mut below = vec![0; len / 512 * 512];
        contract::stamp(&mut below, 0, 0, 0);
        let below = Some(below);
        Shape { below, ..Shape::of(New { backing, ..new }) }
    }

    fn with_bitmaps(self, bitmaps: &'static [u64]) -> Shape {
        Shape { bitmaps, ..self }
    }

    pub(super) fn asking_qemu(self, every: u64) -> Shape {
        Shape { ask_qemu: every, ..self }
    }

    pub(super) fn image(&self, source: Arc<dyn Source>, writable: bool) -> Result<Arc<Image>> {
        if self.new.data_file.is_some() {
            return self.image_in(&Part::both(&source)?, writable);
        }
        self.image_in(&[source], writable)
    }

    /// The image in the first of these, its data file in the other, where it has one.
    pub(super) fn image_in(&self, files: &[Arc<dyn Source>], writable: bool) -> Result<Arc<Image>> {
        let mut opener = |needed: Needed<'_>| -> Result<Arc<dyn Source>> {
            let disk = match needed.role {
                Role::Backing => {
                    format::raw::open(Arc::new(Memory::of(self.below.clone().unwrap()).read_only()), false)
                }
                Role::DataFile => format::raw::open(Arc::clone(&files[1]), writable),
            };
            disk.map(|disk| disk as Arc<dyn Source>)
        };
        // The smallest cache there is, so that tables come and go.
        let options = Options { writable, cache_bytes: 1, ..Options::default() };
        Image::open(Arc::clone(&files[0]), &options, &mut opener).map(Arc::new)
    }
}

impl Maker for Shape {
    fn create(&self, source: Arc<dyn Source>) -> Result<Subject> {
        if self.new.data_file.is_some() {
            let [image, data] = Part::both(&source)?;
            create(image.as_ref(), Some(data.as_ref()), &self.new)?;
        } else {
            create(source.as_ref(), None, &self.new)?;
        }
        for granularity in self.bitmaps {
            let image = self.image(Arc::clone(&source), true)?;
            image.bitmap_add(&format!("by {granularity}"), Some(*granularity), true)?;
        }
        self.open(source)
    }

    fn open(&self, source: Arc<dyn Source>) -> Result<Subject> {
        let image = self.image(source, true)?;
        let disk: Arc<Disk> = image.disk("image")?;
        // Refcounts of one bit cannot count a snapshot, those of two bits no third.
        let snapshots = (self.new.refcount_order > 1 && self.new.data_file.is_none())
            .then(|| Arc::new(Taken { image, names: Mutex::default() }) as Arc<dyn Snapshots>);
        Ok(Subject { disk, snapshots })
    }

    fn check(&self, source: Arc<dyn Source>) -> Verdict {
        let report = self.image(Arc::clone(&source), false)?.check()?;
        if report.corruptions > 0 {
            return Err(Report::new(format!("{:?}", report.findings)));
        }
        let number = self.judged.fetch_add(1, Ordering::Relaxed);
        if self.ask_qemu > 0 && number.is_multiple_of(self.ask_qemu) {
            self.qemu_finds_no_corruption(source.as_ref())?;
        }
        Ok(())
    }
}

/// Internal snapshots, oldest first.
struct Taken {
    image: Arc<Image>,
    names: Mutex<VecDeque<String>>,
}

impl Snapshots for Taken {
    fn snapshot(&self) -> Result<Arc<Disk>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("s{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.image.snapshot_create(&name)?;
        self.names.lock().unwrap().push_back(name.clone());
        self.image.snapshot_disk(&name)
    }

    fn delete_oldest(&self) -> Result<()> {
        let name = self.names.lock().unwrap().pop_front();
        name.map_or(Ok(()), |name| self.image.snapshot_delete(&name))
    }

    fn apply_newest(&self) -> Result<()> {
        let name = self.names.lock().unwrap().back().cloned();
        name.map_or(Ok(()), |name| self.image.snapshot_apply(&name))
    }
}

impl Shape {
    fn qemu_finds_no_corruption(&self, source: &dyn Source) -> Verdict {
        let dir = tempfile::tempdir().map_err(|e| Report::new(e.to_string()))?;
        let mut bytes = vec![0; source.len() as usize];
        source.read_at(0, &mut bytes, Wait::Allowed)?;
        let path = dir.path().join("image.qcow2");
        let mut disk = format!("driver=qcow2,file.filename={}", path.display());
        if let Some(name) = &self.new.data_file {
            let data = dir.path().join(name);
            let held = bytes.split_off(qcow2_data_file::IMAGE as usize);
            std::fs::write(&data, held).map_err(|e| Report::new(e.to_string()))?;
            disk.push_str(&format!(",data-file.driver=file,data-file.filename={}", data.display()));
        }
        std::fs::write(&path, bytes).map_err(|e| Report::new(e.to_string()))?;
        if let Some(below) = &self.below {
            std::fs::write(dir.path().join("below"), below).map_err(|e| Report::new(e.to_string()))?;
        }
        let output = peer::attempt("qemu-img", &["check", "--image-opts", &disk]);
        // 0 is clean, 3 is leaks.
        match output.status.code() {
            Some(0 | 3) => Ok(()),
            code => Err(Report::new(format!(
                "qemu-img check: {code:?} {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ))),
        }
    }
}

pub(super) fn shapes() -> Vec<Shape> {
    let new = New::of(0);
    vec![
        Shape::of(New { cluster_bits: 12, ..new.clone() }),
        Shape::of(New { cluster_bits: 9, refcount_order: 6, ..new.clone() }),
        Shape::of(New { cluster_bits: 9, version: 2, ..new.clone() }),
        Shape::of(New { cluster_bits: 10, refcount_order: 0, ..new.clone() }),
        Shape::of(New { cluster_bits: 14, extended_l2: true, ..new.clone() }),
        Shape::over(New { cluster_bits: 12, ..new.clone() }, 300_000),
        Shape::over(New { cluster_bits: 11, version: 2, ..new.clone() }, 400_000),
        Shape::over(New { cluster_bits: 14, extended_l2: true, refcount_order: 3, ..new.clone() }, 200_000),
        Shape::over(New { cluster_bits: 16, ..new.clone() }, 700_000),
        Shape::of(New { cluster_bits: 12, ..new.clone() }).with_bitmaps(&[512, 16384]),
        Shape::over(New { cluster_bits: 9, ..new }, 300_000).with_bitmaps(&[4096]),
    ]
}

/// Shapes that have little of their own, or much to write: for fewer operations and crashes.
fn further() -> Vec<Shape> {
    let new = New::of(0);
    let mut shapes = vec![
        Shape::of(New { cluster_bits: 12, lazy_refcounts: true, ..new.clone() }),
        Shape::of(New { cluster_bits: 9, refcount_order: 1, ..new.clone() }),
        Shape::of(New { cluster_bits: 10, refcount_order: 2, ..new.clone() }),
        Shape::over(New { cluster_bits: 9, refcount_order: 5, ..new.clone() }, 300_000),
        Shape::over(New { cluster_bits: 17, ..new.clone() }, 700_000),
        Shape::of(New { cluster_bits: 18, extended_l2: true, ..new }),
    ];
    shapes.extend(qcow2_data_file::shapes());
    shapes
}

fn hold(what: &str, contract: impl Fn(&Shape, u64) -> Verdict) {
    for shape in shapes() {
        for seed in 1..3 {
            contract(&shape, seed).unwrap_or_else(|e| panic!("{what}, {:?}: {e}", shape.new));
        }
    }
}

#[test]
fn random_operations_over_every_kind_of_source() {
    hold("random operations", |shape, seed| contract::all_decorators(shape, seed, 120));
}

#[test]
fn further_shapes_keep_the_laws() {
    let time = Duration::from_millis(50);
    for shape in further() {
        let kept = contract::all_decorators(&shape, 1, 80)
            .and_then(|()| contract::concurrent(&shape, Load { time, seed: 1, ..Load::default() }))
            .and_then(|()| contract::flush_reaches(&shape, &Ok));
        kept.unwrap_or_else(|e| panic!("{:?}: {e}", shape.new));
    }
}

#[test]
fn many_at_once() {
    let time = Duration::from_millis(150);
    hold("many at once", |shape, seed| contract::concurrent(shape, Load { time, seed, ..Load::default() }));
}

#[test]
fn races_are_won_by_nobody() {
    hold("races", |shape, _| contract::races(shape));
}

/// Seeds a shape is crashed with.
const SEEDS: u64 = 2;

fn crashes(shape: &Shape, seeds: u64) {
    crashes_within(300, shape, seeds);
}

fn crashes_within(states: usize, shape: &Shape, seeds: u64) {
    for seed in crash::seeds(seeds) {
        let seen = contract::crash_safe(shape, seed, 40, Budget { states, seed });
        let seen = seen.unwrap_or_else(|e| panic!("{:?}: {e}", shape.new));
        assert!(seen > states / 5, "{seen} states are too few to mean anything");
    }
}

#[test]
fn every_crash_leaves_a_whole_image() {
    let ask = if peer::require(&["qemu-img"]) { 16 } else { 0 };
    for shape in shapes() {
        crashes(&shape.asking_qemu(ask), SEEDS);
    }
}

#[test]
fn every_crash_leaves_a_whole_image_of_further_shapes() {
    let ask = if peer::require(&["qemu-img"]) { 16 } else { 0 };
    for shape in further() {
        crashes_within(150, &shape.asking_qemu(ask), 1);
    }
    // More than ten megabytes each: few are enough.
    let largest = Shape::over(New { cluster_bits: 21, ..New::of(0) }, 700_000);
    crashes_within(40, &largest.asking_qemu(ask), 1);
}

#[test]
fn qemu_finds_no_corruption_after_any_crash() {
    if peer::require(&["qemu-img"]) {
        crashes(&Shape::of(New { cluster_bits: 12, ..New::of(0) }).asking_qemu(1), 1);
    }
}

/// A disk with a snapshot, written on since: the snapshot's bytes and the disk's.
fn with_snapshot(shape: &Shape, source: &Arc<dyn Source>) -> (Arc<Image>, Vec<u8>, Vec<u8>) {
    shape.create(Arc::clone(source)).unwrap();
    let image = shape.image(Arc::clone(source), true).unwrap();
    let disk = image.disk("image").unwrap();
    let mut rng = testkit::Rng::new(8);
    let mut model = vec![0; disk.len() as usize];
    disk.read_at(0, &mut model, Wait::Allowed).unwrap();
    let mut scribble = |model: &mut Vec<u8>| {
        for _ in 0..12 {
            let (at, len) = rng.range(model.len() as u64, 60_000);
            let range = at as usize..(at + len) as usize;
            rng.fill(&mut model[range.clone()]);
            disk.write_at(at, &model[range], Wait::Allowed).unwrap();
        }
    };
    scribble(&mut model);
    image.snapshot_create("before").unwrap();
    let before = model.clone();
    scribble(&mut model);
    (image, before, model)
}

fn bytes(disk: &Disk) -> Vec<u8> {
    let mut all = vec![0; disk.len() as usize];
    disk.read_at(0, &mut all, Wait::Allowed).unwrap();
    all
}

#[test]
fn snapshots_are_taken_applied_and_deleted_as_qemu_would() {
    if !peer::require(&["qemu-img"]) {
        return;
    }
    let can = |s: &Shape| s.new.refcount_order > 0 && s.new.data_file.is_none();
    for shape in shapes().into_iter().chain(further()).filter(can) {
        let shape = shape.asking_qemu(1);
        let source: Arc<dyn Source> = Arc::new(Memory::new(0));
        let (image, before, after) = with_snapshot(&shape, &source);
        assert!(bytes(&image.snapshot_disk("before").unwrap()) == before);
        image.snapshot_create("after").unwrap();
        image.snapshot_apply("before").unwrap();
        let disk = image.disk("again").unwrap();
        assert!(bytes(&disk) == before, "{:?}", shape.new);
        disk.write_at(1000, &[9; 5000], Wait::Allowed).unwrap();
        assert!(bytes(&image.snapshot_disk("before").unwrap()) == before);
        assert!(bytes(&image.snapshot_disk("after").unwrap()) == after);
        image.snapshot_delete("before").unwrap();
        image.snapshot_apply("after").unwrap();
        assert!(bytes(&disk) == after);
        disk.write_at(77_000, &[8; 9000], Wait::Allowed).unwrap();
        image.snapshot_delete("after").unwrap();
        disk.write_at(1000, &[7; 100_000], Wait::Allowed).unwrap();
        disk.close().unwrap();
        assert!(image.check().unwrap().is_clean(), "{:?}", shape.new);
        shape.check(source).unwrap();
    }
}

#[test]
fn a_repaired_image_is_clean() {
    for shape in shapes().into_iter().filter(|s| s.new.refcount_order > 0) {
        let source: Arc<dyn Source> = Arc::new(Memory::new(0));
        let (image, before, after) = with_snapshot(&shape, &source);
        image.disk("image").unwrap().close().unwrap();
        let table = image.header().refcount_table_offset;
        drop(image);
        // Every refcount of the first block is wrong now.
        let mut block = [0; 8];
        source.read_at(table, &mut block, Wait::Allowed).unwrap();
        let scribble: Vec<u8> = (0..512).map(|i| if i % 2 == 0 { 0 } else { 3 }).collect();
        source.write_at(u64::from_be_bytes(block), &scribble, Wait::Allowed).unwrap();
        let image = shape.image(Arc::clone(&source), true).unwrap();
        assert!(image.check().unwrap().corruptions > 0);
        image.repair(Repair::All).unwrap();
        assert!(image.check().unwrap().is_clean(), "{:?}", shape.new);
        assert!(bytes(&image.disk("disk").unwrap()) == after);
        assert!(bytes(&image.snapshot_disk("before").unwrap()) == before);
    }
}

#[test]
fn flushes_reach_the_file_and_fills_are_void_where_there_is_data() {
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
    for extended_l2 in [false, true] {
        let stack = |file: Arc<dyn Source>, below: Arc<dyn Source>| {
            let backing = Some(Backing { name: "below".into(), format: Some("raw".into()) });
            let new = New { cluster_bits: 14, extended_l2, backing, ..New::of(below.len()) };
            create(file.as_ref(), None, &new)?;
            let options = Options { writable: true, ..Options::default() };
            let image = Image::open(file, &options, &mut |_| Ok(Arc::clone(&below)))?;
            Arc::new(image).disk("overlay")
        };
        contract::fill_is_void(&stack, Disk::fill_up).unwrap();
    }
}

/// Every image that may be left where `act` is interrupted: each is opened, seen by `fine` and checked.
fn interrupted(shape: &Shape, start: &[u8], act: impl Fn(&Arc<Image>), fine: impl Fn(&Arc<Image>)) -> usize {
    interrupted_within(300, shape, start, act, fine)
}

/// The same, of about so many of them.
fn interrupted_within(
    states: usize,
    shape: &Shape,
    start: &[u8],
    act: impl Fn(&Arc<Image>),
    fine: impl Fn(&Arc<Image>),
) -> usize {
    let recorder = Arc::new(Recorder::new(Arc::new(Memory::of(start.to_vec()))).unwrap());
    act(&shape.image(Arc::clone(&recorder) as Arc<dyn Source>, true).unwrap());
    let judge = |state: &State| {
        let source: Arc<dyn Source> = Arc::new(Memory::of(state.bytes.clone()));
        let image = shape.image(Arc::clone(&source), true).map_err(|e| e.to_string())?;
        catch_unwind(AssertUnwindSafe(|| fine(&image))).map_err(|_| "it is not as it should be")?;
        drop(image);
        shape.check(source).map_err(|e| e.to_string())
    };
    let budget = Budget { states: states * crash::times(), seed: 1 };
    let states = crash::check(&recorder.log(), budget, judge);
    states.unwrap_or_else(|e| panic!("{:?}: {e}", shape.new))
}

/// An image with the snapshot `before`, closed; the snapshot's bytes and the disk's.
fn prepared(shape: &Shape) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let memory = Arc::new(Memory::new(0));
    let (image, before, after) = with_snapshot(shape, &(Arc::clone(&memory) as Arc<dyn Source>));
    image.disk("image").unwrap().close().unwrap();
    (memory.bytes(), before, after)
}

/// Shapes that can have snapshots, and be resized when they do.
fn sharing() -> impl Iterator<Item = Shape> {
    shapes().into_iter().filter(|s| s.new.refcount_order > 0 && s.new.version > 2)
}

fn assert_snapshot(image: &Arc<Image>, name: &str, expected: &[u8]) {
    assert!(bytes(&image.snapshot_disk(name).unwrap()) == expected, "the snapshot {name} has changed");
}

#[test]
fn a_snapshot_that_is_interrupted_is_whole_or_not_there() {
    for shape in sharing() {
        let (start, before, after) = prepared(&shape);
        let create = |image: &Arc<Image>| drop(image.snapshot_create("new").unwrap());
        interrupted(&shape, &start, create, |image| {
            assert!(bytes(&image.disk("disk").unwrap()) == after);
            assert_snapshot(image, "before", &before);
            if image.snapshots().unwrap().iter().any(|s| s.name == "new") {
                assert_snapshot(image, "new", &after);
            }
        });
        let apply = |image: &Arc<Image>| image.snapshot_apply("before").unwrap();
        interrupted(&shape, &start, apply, |image| {
            let now = bytes(&image.disk("disk").unwrap());
            assert!(now == before || now == after, "the disk is neither");
            assert_snapshot(image, "before", &before);
        });
        let delete = |image: &Arc<Image>| image.snapshot_delete("before").unwrap();
        interrupted(&shape, &start, delete, |image| {
            assert!(bytes(&image.disk("disk").unwrap()) == after);
            if !image.snapshots().unwrap().is_empty() {
                assert_snapshot(image, "before", &before);
            }
        });
    }
}

#[test]
fn a_resize_that_is_interrupted_shows_nothing_that_was_cut_off() {
    // In the middle of a cluster, of a table's span, and at the very beginning.
    for (shape, small) in sharing().flat_map(|s| [300_032, 65_536, 512].map(|small| (s.clone(), small))) {
        let (start, before, after) = prepared(&shape);
        let old = after.len();
        let shrink = |image: &Arc<Image>| image.disk("disk").unwrap().resize(small as u64).unwrap();
        interrupted(&shape, &start, shrink, |image| {
            let disk = image.disk("disk").unwrap();
            let now = bytes(&disk);
            assert!(now.len() == old || now.len() == small, "{} bytes long", now.len());
            assert!(now == after[..now.len()]);
            // However far it came: of what was cut off nothing comes back. (Bitmaps are inconsistent after a crash, and
            // keep a disk from being resized.)
            if now.len() == small && shape.bitmaps.is_empty() {
                disk.resize(old as u64).unwrap();
                assert_grown(&disk, &after[..small]);
            }
            assert_snapshot(image, "before", &before);
        });
        let source = Arc::new(Memory::of(start));
        let image = shape.image(Arc::clone(&source) as Arc<dyn Source>, true).unwrap();
        shrink(&image);
        image.disk("disk").unwrap().close().unwrap();
        grown_whole_or_not(300, &shape, &source.bytes(), old as u64, &after[..small]);
    }
}

fn assert_grown(disk: &Disk, before: &[u8]) {
    let now = bytes(disk);
    assert!(now[..before.len()] == *before, "what was there is not");
    assert!(now[before.len()..].iter().all(|&byte| byte == 0), "it grows by something else than zeros");
}

/// Makes a disk that holds `before` longer, and interrupts that.
fn grown_whole_or_not(states: usize, shape: &Shape, start: &[u8], len: u64, before: &[u8]) {
    let snapshots = |image: &Arc<Image>| -> Vec<Vec<u8>> {
        let list = image.snapshots().unwrap();
        list.iter().map(|s| bytes(&image.snapshot_disk(&s.id).unwrap())).collect()
    };
    let source: Arc<dyn Source> = Arc::new(Memory::of(start.to_vec()));
    let old = snapshots(&shape.image(source, false).unwrap());
    let grow = |image: &Arc<Image>| image.disk("disk").unwrap().resize(len).unwrap();
    interrupted_within(states, shape, start, grow, |image| {
        let disk = image.disk("disk").unwrap();
        let now = disk.as_ref().len();
        assert!(now == before.len() as u64 || now == len, "{now} bytes long");
        assert_grown(&disk, before);
        assert!(snapshots(image) == old, "a snapshot has changed");
    });
}

/// The image with a shorter disk, and with nothing else changed: what lies behind its end is all still there.
fn cut(mut image: Vec<u8>, len: usize) -> Vec<u8> {
    image[24..32].copy_from_slice(&(len as u64).to_be_bytes());
    image
}

/// From somewhere in a cluster to somewhere in it, and to far behind it.
const GROWN: [(usize, u64); 3] = [(300_032, 300_544), (197_120, 600_064), (299_520, 333_824)];

#[test]
fn a_disk_that_grows_shows_zeros_whatever_lay_behind_its_end() {
    // Parts of subclusters too.
    let coarse = New { cluster_bits: 16, extended_l2: true, ..New::of(0) };
    for shape in shapes().into_iter().chain([Shape::over(coarse.clone(), 700_000), Shape::of(coarse)]) {
        let start = |act: &dyn Fn(&Arc<Image>)| {
            let memory = Arc::new(Memory::new(0));
            drop(shape.create(Arc::clone(&memory) as Arc<dyn Source>).unwrap());
            let image = shape.image(Arc::clone(&memory) as Arc<dyn Source>, true).unwrap();
            act(&image);
            let disk = image.disk("image").unwrap();
            let all = bytes(&disk);
            disk.close().unwrap();
            (memory.bytes(), all)
        };
        let write = |image: &Arc<Image>| {
            let mut all = vec![0; 512 << 10];
            testkit::Rng::new(5).fill(&mut all);
            image.disk("image").unwrap().write_at(0, &all, Wait::Allowed).unwrap();
        };
        let mut starts = vec![start(&|_| {}), start(&write)];
        if shape.new.refcount_order > 0 && shape.new.version > 2 {
            starts.push(start(&|image| {
                write(image);
                image.snapshot_create("shared").unwrap();
            }));
        }
        for ((image, all), (small, large)) in starts.iter().flat_map(|s| GROWN.map(|grown| (s, grown))) {
            grown_whole_or_not(40, &shape, &cut(image.clone(), small), large, &all[..small]);
        }
    }
}

#[test]
fn a_data_file_holds_the_zeros_that_a_disk_grows_by() {
    let mut all = vec![0; 512 << 10];
    testkit::Rng::new(6).fill(&mut all);
    for data_file_raw in [false, true] {
        let new = New { data_file: Some("data".into()), data_file_raw, ..New::of(all.len() as u64) };
        let open = |file: &Arc<Memory>, data: &Arc<Memory>| {
            let options = Options { writable: true, ..Options::default() };
            let mut opener = |_: Needed<'_>| Ok(Arc::clone(data) as Arc<dyn Source>);
            Arc::new(Image::open(Arc::clone(file) as Arc<dyn Source>, &options, &mut opener).unwrap())
        };
        let [file, data] = [(); 2].map(|()| Arc::new(Memory::new(0)));
        create(file.as_ref(), Some(data.as_ref()), &new).unwrap();
        let disk = open(&file, &data).disk("image").unwrap();
        disk.write_at(0, &all, Wait::Allowed).unwrap();
        disk.close().unwrap();
        for (small, large) in GROWN {
            let file = Arc::new(Memory::of(cut(file.bytes(), small)));
            let data = Arc::new(Memory::of(data.bytes()));
            let image = open(&file, &data);
            let disk = image.disk("image").unwrap();
            disk.resize(large).unwrap();
            assert_grown(&disk, &all[..small]);
            disk.close().unwrap();
            assert_eq!(image.check().unwrap().corruptions, 0);
            let stored = data.bytes();
            assert!(stored[..small] == all[..small]);
            assert!(stored[small..large as usize].iter().all(|&byte| byte == 0));
        }
    }
}

#[test]
fn a_disk_that_ends_in_a_compressed_cluster_grows() {
    if !peer::require(&["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (raw, packed) = (dir.path().join("raw"), dir.path().join("packed.qcow2"));
    let all: Vec<u8> = (0..512 << 10).map(|i: u32| (i >> 8) as u8 | 1).collect();
    std::fs::write(&raw, &all).unwrap();
    for options in ["cluster_size=64k", "cluster_size=4k,compat=0.10", "cluster_size=64k,extended_l2=on"] {
        let [from, to] = [&raw, &packed].map(|path| path.to_str().unwrap());
        peer::qemu_img(&["convert", "-q", "-c", "-f", "raw", "-O", "qcow2", "-o", options, from, to]);
        let image = std::fs::read(&packed).unwrap();
        for (small, large) in GROWN {
            grown_whole_or_not(100, &Shape::of(New::of(0)), &cut(image.clone(), small), large, &all[..small]);
        }
    }
}

#[test]
fn a_repair_that_is_interrupted_can_be_done_again() {
    for shape in sharing() {
        let (mut start, before, after) = prepared(&shape);
        let source: Arc<dyn Source> = Arc::new(Memory::of(start.clone()));
        let table = shape.image(source, false).unwrap().header().refcount_table_offset as usize;
        let block = u64::from_be_bytes(start[table..table + 8].try_into().unwrap()) as usize;
        for (i, byte) in start[block..block + 512].iter_mut().enumerate() {
            *byte = if i % 2 == 0 { 0 } else { 3 };
        }
        let repair = |image: &Arc<Image>| drop(image.repair(Repair::All).unwrap());
        interrupted(&shape, &start, repair, |image| {
            assert!(bytes(&image.disk("disk").unwrap()) == after);
            assert_snapshot(image, "before", &before);
            repair(image);
            assert!(image.check().unwrap().is_clean());
            assert!(bytes(&image.disk("disk").unwrap()) == after);
            assert_snapshot(image, "before", &before);
        });
    }
}

#[test]
fn what_takes_the_room_of_a_discard_is_not_seen_in_its_place() {
    const LEN: usize = 128 << 10;
    // Over a backing file, version 2 has no word for zeros: there a discard writes them, and gives nothing back.
    for shape in shapes().into_iter().filter(|s| s.new.version > 2 || s.below.is_none()) {
        let memory = Arc::new(Memory::new(0));
        let disk = shape.create(Arc::clone(&memory) as Arc<dyn Source>).unwrap().disk;
        let stamped = |at: usize, sequence| {
            let mut buf = vec![0; LEN];
            contract::stamp(&mut buf, at as u64, 1, sequence);
            buf
        };
        disk.write_at(0, &stamped(0, 1), Wait::Allowed).unwrap();
        disk.close().unwrap();
        let full = memory.len();
        let act = |image: &Arc<Image>| {
            let disk = image.disk("disk").unwrap();
            let mode = SetMode { may_unmap: true, fast_only: false };
            disk.set(0, LEN as u64, To::Hole, mode).unwrap();
            disk.flush().unwrap();
            disk.write_at(2 * LEN as u64, &stamped(2 * LEN, 2), Wait::Allowed).unwrap();
            disk.close().unwrap();
            let grown = image.file().len().saturating_sub(full);
            assert!(
                grown < LEN as u64,
                "the room of what was discarded is not used again: {grown} bytes more"
            );
        };
        interrupted(&shape, &memory.bytes(), act, |image| {
            let disk = image.disk("disk").unwrap();
            // Foreign and torn sectors are findings.
            let found = contract::stamps(&bytes(&disk), 0).unwrap();
            assert!(found.iter().flatten().all(|s| s.sequence < 3));
        });
    }
}

/// Makes images whose file loses every flush but each third: an order of writes that is no order.
struct Unordered(Shape);

pub(super) struct LosesFlushes {
    inner: Arc<dyn Source>,
    flushes: AtomicU64,
}

impl LosesFlushes {
    pub(super) fn new(inner: Arc<dyn Source>) -> LosesFlushes {
        LosesFlushes { inner, flushes: AtomicU64::new(0) }
    }
}

impl Source for LosesFlushes {
    fn name(&self) -> String {
        self.inner.name()
    }
    fn len(&self) -> u64 {
        self.inner.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8], wait: Wait) -> Result<()> {
        self.inner.read_at(offset, buf, wait)
    }
    fn write_at(&self, offset: u64, buf: &[u8], wait: Wait) -> Result<()> {
        self.inner.write_at(offset, buf, wait)
    }
    fn zero(&self, offset: u64, len: u64, fast_only: bool) -> Result<()> {
        self.inner.zero(offset, len, fast_only)
    }
    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.punch(offset, len)
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.inner.set_len(len)
    }
    fn flush(&self) -> Result<()> {
        let number = self.flushes.fetch_add(1, Ordering::Relaxed);
        if number % 3 == 2 { self.inner.flush() } else { Ok(()) }
    }
    fn limits(&self) -> chart::Limits {
        self.inner.limits()
    }
    fn identity(&self) -> chart::Identity {
        self.inner.identity()
    }
}

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

#[test]
fn the_crash_harness_notices_writes_out_of_order() {
    for shape in shapes() {
        let what = format!("{:?}", shape.new);
        let found = contract::crash_safe(&Unordered(shape), 1, 40, Budget { states: 400, seed: 1 });
        assert!(found.is_err(), "{what}: lost flushes were not noticed");
    }
}
