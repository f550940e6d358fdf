//! The laws of charts, held against qcow2 images of every shape, with qemu-img as the judge of what crashes leave.

use chart::{Disk, Result, Source};
use format::qcow2::create::{Backing, New, create};
use format::qcow2::{Image, Needed, Options, Role};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use testkit::contract::{Load, Maker, Report, Subject, Verdict};
use testkit::crash::Budget;
use testkit::source::Memory;
use testkit::{contract, peer};

/// Images of one shape, in whatever source the contract brings.
struct Shape {
    new: New,
    /// The backing file's bytes.
    below: Option<Vec<u8>>,
    /// How many states were judged, so that the dear judge is asked about some of them.
    judged: AtomicU64,
    /// Every so many of them.
    ask_qemu: u64,
}

impl Shape {
    fn of(new: New) -> Shape {
        Shape { new: New { size: 512 << 10, ..new }, below: None, judged: AtomicU64::new(0), ask_qemu: 0 }
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

    fn asking_qemu(self, every: u64) -> Shape {
        Shape { ask_qemu: every, ..self }
    }

    fn image(&self, source: Arc<dyn Source>, writable: bool) -> Result<Arc<Image>> {
        let below = self.below.clone();
        let mut opener = move |needed: Needed<'_>| -> Result<Arc<dyn Source>> {
            assert_eq!(needed.role, Role::Backing);
            format::raw::open(Arc::new(Memory::of(below.clone().unwrap()).read_only()), false)
                .map(|disk| disk as Arc<dyn Source>)
        };
        // The smallest cache there is, so that tables come and go.
        let options = Options { writable, cache_bytes: 1, ..Options::default() };
        Image::open(source, &options, &mut opener).map(Arc::new)
    }
}

impl Maker for Shape {
    fn create(&self, source: Arc<dyn Source>) -> Result<Subject> {
        create(source.as_ref(), None, &self.new)?;
        self.open(source)
    }

    fn open(&self, source: Arc<dyn Source>) -> Result<Subject> {
        let disk: Arc<Disk> = self.image(source, true)?.disk("image")?;
        Ok(disk.into())
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

impl Shape {
    fn qemu_finds_no_corruption(&self, source: &dyn Source) -> Verdict {
        let dir = tempfile::tempdir().map_err(|e| Report::new(e.to_string()))?;
        let mut bytes = vec![0; source.len() as usize];
        source.read_at(0, &mut bytes, chart::Wait::Allowed)?;
        let path = dir.path().join("image.qcow2");
        std::fs::write(&path, bytes).map_err(|e| Report::new(e.to_string()))?;
        if let Some(below) = &self.below {
            std::fs::write(dir.path().join("below"), below).map_err(|e| Report::new(e.to_string()))?;
        }
        let output = peer::attempt("qemu-img", &["check", path.to_str().unwrap()]);
        // 0 is clean, 3 is leaks.
        match output.status.code() {
            Some(0 | 3) => Ok(()),
            code => Err(Report::new(format!(
                "qemu-img check: {code:?} {}",
                String::from_utf8_lossy(&output.stdout)
            ))),
        }
    }
}

fn shapes() -> Vec<Shape> {
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
        Shape::over(New { cluster_bits: 16, ..new }, 700_000),
    ]
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
fn many_at_once() {
    let time = Duration::from_millis(150);
    hold("many at once", |shape, seed| contract::concurrent(shape, Load { time, seed, ..Load::default() }));
}

#[test]
fn races_are_won_by_nobody() {
    hold("races", |shape, _| contract::races(shape));
}

#[test]
fn every_crash_leaves_a_whole_image() {
    let ask = if peer::require(&["qemu-img"]) { 8 } else { 0 };
    for shape in shapes() {
        let shape = shape.asking_qemu(ask);
        for seed in 1..4 {
            let budget = Budget { states: 300, seed };
            let states = contract::crash_safe(&shape, seed, 40, budget);
            let states = states.unwrap_or_else(|e| panic!("{:?}: {e}", shape.new));
            assert!(states > 60, "{states} states are too few to mean anything");
        }
    }
}
