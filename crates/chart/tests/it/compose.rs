use crate::{memory, window};
use chart::{Disk, Slice, SourceId};
use std::sync::Arc;
use testkit::contract::{Maker, all_decorators, associative, by_leaves, composes, place_law};
use testkit::source::Memory;
use testkit::toy::ToyMaker;

#[test]
fn towers_of_everything_over_a_file_and_over_a_changing_disk() {
    let slice = Arc::new(Slice::new(SourceId(0), 0, 200_000, false).unwrap());
    let plain = Disk::builder("plain", slice).source(memory(200_000, 1)).build().unwrap();
    let toy = ToyMaker::default().create(Arc::new(Memory::new(0))).unwrap().disk;
    for at in [5000, 100_000, 40_000, 60_000] {
        toy.write_at(at, &crate::random(20_000, at), chart::Wait::Allowed).unwrap();
    }
    for disk in [plain, toy] {
        for seed in 0..6 {
            composes(Arc::clone(&disk), 5, seed).unwrap_or_else(|r| panic!("{}: {r}", disk.name()));
        }
        associative(&disk, 5).unwrap();
    }
}

#[test]
fn places_are_the_same_by_identity() {
    place_law(&by_leaves).unwrap();
}

#[test]
fn a_toy_in_a_window_on_a_toy() {
    // An image in a partition of an image.
    struct Nested;
    impl Maker for Nested {
        fn create(&self, source: Arc<dyn chart::Source>) -> chart::Result<testkit::contract::Subject> {
            let outer = ToyMaker { len: 3 << 20, ..ToyMaker::default() }.create(source)?.disk;
            let small = ToyMaker { len: 300_032, ..ToyMaker::default() };
            small.create(outer as _)
        }
        fn open(&self, source: Arc<dyn chart::Source>) -> chart::Result<testkit::contract::Subject> {
            let outer = ToyMaker::default().open(source)?.disk;
            ToyMaker::default().open(outer as _)
        }
    }
    for seed in 0..2 {
        all_decorators(&Nested, seed, 100).unwrap();
    }
    testkit::contract::races(&Nested).unwrap();
    testkit::contract::flush_reaches(&Nested, &window).unwrap();
}
