//! The contracts, through a disk that is written straight over one that allocates: no way around the lower map.

use crate::window;
use chart::{Result, Source};
use std::sync::Arc;
use testkit::contract::{Load, Maker, Subject, all_decorators, concurrent, crash_safe, races};
use testkit::contract::{flush_reaches, writes_stay_in_their_disk};
use testkit::crash::{Budget, seeds};
use testkit::toy::ToyMaker;

struct Windowed(ToyMaker);

fn under_a_window(subject: Subject) -> Result<Subject> {
    Ok(Subject { disk: window(window(subject.disk)?)?, snapshots: subject.snapshots })
}

impl Maker for Windowed {
    fn create(&self, source: Arc<dyn Source>) -> Result<Subject> {
        under_a_window(self.0.create(source)?)
    }

    fn open(&self, source: Arc<dyn Source>) -> Result<Subject> {
        under_a_window(self.0.open(source)?)
    }
}

#[test]
fn random_operations() {
    for seed in 0..2 {
        all_decorators(&Windowed(ToyMaker::default()), seed, 120).unwrap();
    }
}

#[test]
fn certain_races() {
    races(&Windowed(ToyMaker::default())).unwrap();
}

#[test]
fn concurrent_load() {
    for seed in 0..3 {
        concurrent(&Windowed(ToyMaker::default()), Load { seed, ..Load::default() }).unwrap();
    }
}

#[test]
fn crashes() {
    let maker = Windowed(ToyMaker { len: 160 << 10, ..ToyMaker::default() });
    for seed in seeds(2) {
        crash_safe(&maker, seed, 60, Budget { states: 1000, seed }).unwrap();
    }
}

#[test]
fn flushes_and_writes() {
    flush_reaches(&Windowed(ToyMaker::default()), &window).unwrap();
    writes_stay_in_their_disk(&Windowed(ToyMaker::default()), &window).unwrap();
}
