use crate::{memory, random};
use chart::{
    Answer, Disk, Error, Extent, Kind, Layer, LeafPlace, Purpose, Result, Slice, Source, SourceId, Wait, Walk,
};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use testkit::contract::{Maker, Patches, Subject, walk_law};
use testkit::source::{Memory, Short};
use testkit::toy::ToyMaker;

/// How long one may take who is not to wait for anybody.
const SOON: Duration = Duration::from_secs(10);

/// How long to look whether somebody waits who should.
const MOMENT: Duration = Duration::from_millis(150);

fn whole(source: Arc<dyn Source>) -> Arc<Disk> {
    let slice = Slice::new(SourceId(0), 0, source.len(), false).unwrap();
    Disk::builder("whole", Arc::new(slice)).source(source).build().unwrap()
}

fn runs(walk: Walk<'_>) -> Vec<(u64, u64, bool)> {
    let mut runs = Vec::new();
    walk.each(|leaf| {
        runs.push((leaf.at, leaf.len, leaf.data));
        Ok(())
    })
    .unwrap();
    runs
}

/// A toy with some grains held and some not.
fn toy() -> Subject {
    let subject = ToyMaker::default().create(Arc::new(Memory::new(0))).unwrap();
    for grain in [1, 3, 5, 6, 9, 8] {
        subject.disk.write_at(grain * 4096, &random(4096, grain), Wait::Allowed).unwrap();
    }
    subject
}

#[test]
fn it_tells_the_same_however_it_is_cut() {
    walk_law(&toy().disk).unwrap();
    let top = Arc::new(Patches::new(100_000).hold(1000, 3000).hold(4000, 50).hold(70_000, 20_000));
    let layer = Disk::builder("layer", top).source(memory(100_000, 1));
    walk_law(&layer.below(toy().disk as _).build().unwrap()).unwrap();
    walk_law(&whole(memory(0, 1))).unwrap();
}

#[test]
fn sources_say_what_they_store_if_they_are_asked() {
    let source: Arc<dyn Source> = Arc::new(Memory::new(100_000));
    source.write_at(8192, &[1; 4096], Wait::Allowed).unwrap();
    for source in [Arc::clone(&source), Arc::new(Short::new(source, 700))] {
        let disk = whole(source);
        for (leaves, bytes) in [(1, 4096), (2, u64::MAX), (1000, 5000), (1000, u64::MAX)] {
            let walk = || disk.walk(0..u64::MAX, Purpose::Read).in_batches(leaves, bytes);
            assert_eq!(runs(walk()), [(0, 100_000, true)]);
            let wanted = [(0, 8192, false), (8192, 4096, true), (12_288, 87_712, false)];
            assert_eq!(runs(walk().ask_sources()), wanted);
        }
        let part = disk.walk(9000..20_000, Purpose::Locate).ask_sources();
        assert_eq!(runs(part), [(9000, 3288, true), (12_288, 7712, false)]);
    }
}

#[test]
fn batches_are_bounded() {
    let patches = (0..100).fold(Patches::new(100_000), |p, i| p.hold(i * 1000, 500));
    let disk = Disk::builder("patches", Arc::new(patches)).source(memory(100_000, 1)).build().unwrap();
    for (leaves, bytes, batches) in
        [(7, u64::MAX, 29), (1, u64::MAX, 200), (1000, 50_000, 2), (0, 0, 100_000)]
    {
        let walk = disk.walk(0..100_000, Purpose::Locate).in_batches(leaves, bytes);
        let plans: Vec<_> = walk.map(Result::unwrap).collect();
        assert_eq!(plans.len(), batches);
        assert!(plans.iter().all(|plan| plan.leaves.len() <= leaves.max(1)));
    }
}

/// What a thread comes to, if it does.
fn start<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        // Nobody listens any more where the test has failed.
        let _ = tell.send(act());
    });
    told
}

#[test]
fn whoever_is_told_may_wait_for_a_mutator() {
    let Subject { disk, snapshots } = toy();
    let snapshots = snapshots.unwrap();
    // A snapshot returns only when every older pin is gone.
    let walked = start(move || {
        let mut count = 0;
        let walk = disk.walk(0..disk.len(), Purpose::Locate).in_batches(2, u64::MAX);
        walk.each(|leaf| {
            count += 1;
            snapshots.snapshot()?;
            disk.write_at(leaf.at, &[7; 512], Wait::Allowed)
        })
        .unwrap();
        count
    });
    assert!(walked.recv_timeout(SOON).expect("a walk holds a pin: a deadlock") > 5);
}

#[test]
fn a_batch_is_held_as_long_as_it_is_kept_and_the_next_is_not_yet() {
    let Subject { disk, snapshots } = toy();
    let mut walk = disk.walk(0..disk.len(), Purpose::Locate).in_batches(1, u64::MAX);
    let plan = walk.next().unwrap().unwrap();
    let snapshots = snapshots.unwrap();
    let waits = start(move || snapshots.snapshot().map(drop));
    assert!(waits.recv_timeout(MOMENT).is_err(), "a batch is not pinned");
    drop(plan);
    waits.recv_timeout(SOON).expect("a walk is pinned between batches").unwrap();
    assert_eq!(walk.next().unwrap().unwrap().leaves[0].at, 4096);
}

#[test]
fn a_disk_that_shrinks_ends_it() {
    let disk = toy().disk;
    let mut walk = disk.walk(0..u64::MAX, Purpose::Locate).in_batches(3, u64::MAX);
    let _ = walk.next().unwrap().unwrap();
    disk.resize(8192).unwrap();
    assert!(walk.next().is_none());
}

/// A map that ends in the middle of a disk.
struct Torn;

impl Layer for Torn {
    fn len(&self) -> u64 {
        10_000
    }
    fn look(&self, at: u64, want: u64, _: Wait) -> Result<Answer> {
        match 5000_u64.saturating_sub(at) {
            0 => Err(Error::corrupt("torn").at(at)),
            rest => Ok(Answer::Here(Extent::zero(at, want.min(rest).min(1000)))),
        }
    }
}

#[test]
fn an_error_ends_it() {
    let disk = Disk::builder("torn", Arc::new(Torn)).build().unwrap();
    let walk = || disk.walk(0..u64::MAX, Purpose::Read).in_batches(2, u64::MAX);
    let batches: Vec<_> = walk().map(|plan| plan.map(|p| p.leaves[0].len).map_err(|e| e.kind())).collect();
    assert_eq!(batches, [Ok(2000), Ok(2000), Err(Kind::Corrupt)]);
    let mut told = 0;
    let torn = walk().each(|_| {
        told += 1;
        Ok(())
    });
    assert_eq!((torn.map_err(|e| e.kind()), told), (Err(Kind::Corrupt), 0));
    let enough = disk.walk(0..3000, Purpose::Read).each(|_| Err(Error::conflict("enough")));
    assert_eq!(enough.map_err(|e| e.kind()), Err(Kind::Conflict));
}

#[test]
fn a_leaf_is_cut_where_it_is_asked_to_be() {
    let disk = whole(memory(1000, 1));
    let leaf = disk.leaf(100, 800, Wait::Never, Purpose::Locate).unwrap();
    let (head, rest) = (leaf.head(300), leaf.skip(300));
    assert_eq!((head.at, head.end(), rest.at, rest.end()), (100, 400, 400, 900));
    assert!(head.joins(&rest) && !rest.joins(&head) && !head.joins(&rest.skip(1)));
    assert!(matches!(rest.place, LeafPlace::Raw { offset: 400, .. }));
    assert_eq!(leaf.skip(1000).len, 0);
}
