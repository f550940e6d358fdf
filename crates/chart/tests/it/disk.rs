//! What the disk itself must get right, whatever its chart.

use crate::{bytes, random, window};
use chart::{
    Answer, ChartMut, Disk, Epochs, Intent, Kind, Layer, LeafPlace, Purpose, Reservation, Reserve, Result,
    SetMode, Slice, Source, SourceId, To, Wait,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;
use testkit::contract::Maker;
use testkit::source::{Failing, Memory, Op, Paused, Recorder, Short, When};
use testkit::toy::ToyMaker;

const SOON: Duration = Duration::from_secs(10);

fn straight(source: Arc<dyn Source>) -> Arc<Disk> {
    let slice = Slice::new(SourceId(0), 0, source.len(), true).unwrap();
    Disk::builder("straight", Arc::new(slice)).source(source).straight().build().unwrap()
}

#[test]
fn a_flush_does_not_trust_one_that_is_still_under_way() {
    let recorder = Arc::new(Recorder::new(Arc::new(Memory::new(8192))).unwrap());
    let paused = Arc::new(Paused::new(Arc::clone(&recorder) as _));
    let disk = straight(Arc::clone(&paused) as _);
    disk.write_at(0, b"one", Wait::Allowed).unwrap();
    let hold = paused.stop(Op::Flush, When::Before);
    let first = Arc::clone(&disk);
    let thread = std::thread::spawn(move || first.flush());
    assert!(hold.reached(SOON));
    disk.flush().unwrap();
    assert!(!recorder.has_unflushed(), "the second flush returned before anything was flushed");
    hold.release();
    thread.join().unwrap().unwrap();
}

#[test]
fn a_flush_during_a_write_does_not_hide_it_from_the_next() {
    let recorder = Arc::new(Recorder::new(Arc::new(Memory::new(8192))).unwrap());
    let paused = Arc::new(Paused::new(Arc::clone(&recorder) as _));
    let disk = straight(Arc::clone(&paused) as _);
    disk.write_at(4096, b"before", Wait::Allowed).unwrap();
    let hold = paused.stop(Op::Write, When::Before);
    let writer = Arc::clone(&disk);
    let thread = std::thread::spawn(move || writer.write_at(0, b"one", Wait::Allowed));
    assert!(hold.reached(SOON));
    disk.flush().unwrap();
    hold.release();
    thread.join().unwrap().unwrap();
    assert!(recorder.has_unflushed());
    disk.flush().unwrap();
    assert!(!recorder.has_unflushed(), "a write that was under way during a flush was never flushed");
}

#[test]
fn a_failed_flush_is_tried_again_and_fails_again() {
    let failing = Arc::new(Failing::new(Arc::new(Memory::new(8192))));
    let disk = window(straight(Arc::clone(&failing) as _)).unwrap();
    disk.write_at(0, b"one", Wait::Allowed).unwrap();
    failing.fail(Op::Flush, 0, Kind::Io);
    disk.flush().unwrap_err();
    disk.flush().unwrap_err();
    assert_eq!(disk.write_at(0, b"two", Wait::Allowed).unwrap_err().kind(), Kind::ReadOnly);
}

#[test]
fn a_write_that_waited_for_a_shrink_is_past_the_end() {
    let paused = Arc::new(Paused::new(Arc::new(Memory::new(0))));
    let disk = ToyMaker::default().create(Arc::clone(&paused) as _).unwrap().disk;
    let last = disk.as_ref().len() - 512;
    let hold = paused.stop(Op::Write, When::Before);
    let start = |act: fn(&Disk, u64) -> Result<()>| {
        let disk = Arc::clone(&disk);
        let thread = std::thread::spawn(move || act(&disk, last));
        // Time enough to come to where it waits; if not, nothing is proven, and nothing fails.
        std::thread::sleep(Duration::from_millis(80));
        thread
    };
    // The first holds the grain, the resize waits for it, the others wait for the resize.
    let first = start(|disk, last| disk.write_at(last, &[1; 512], Wait::Allowed));
    assert!(hold.reached(SOON));
    let shrink = start(|disk, _| disk.resize(4096));
    let write = start(|disk, last| disk.write_at(last, &[2; 512], Wait::Allowed));
    let zero = start(|disk, last| disk.set(last - 8192, 8192, To::Zero, SetMode::default()));
    let fill = start(|disk, last| disk.fill_up(last, 512).map(drop));
    hold.release();
    first.join().unwrap().unwrap();
    shrink.join().unwrap().unwrap();
    for late in [write, zero, fill] {
        assert_eq!(late.join().expect("no panic").map_err(|e| e.kind()), Err(Kind::OutOfRange));
    }
    assert_eq!(disk.as_ref().len(), 4096);
}

#[test]
fn what_a_disk_grows_by_reads_as_zeros() {
    let below: Arc<dyn Source> = Arc::new(Memory::of(random(1 << 20, 1)));
    let disk = ToyMaker { len: 300_000, ..ToyMaker::default().over(below) };
    let disk = disk.create(Arc::new(Memory::new(0))).unwrap().disk;
    disk.write_at(290_000, &[7; 10_000], Wait::Allowed).unwrap();
    disk.resize(295_001).unwrap();
    disk.resize(2 << 20).unwrap();
    let all = bytes(&disk);
    assert_eq!(all[..290_000], random(1 << 20, 1)[..290_000]);
    assert_eq!(all[290_000..295_001], [7; 5001]);
    assert!(all[295_001..].iter().all(|&b| b == 0));
}

#[test]
fn a_disk_that_grows_changes_no_snapshot() {
    let subject = ToyMaker { len: 300_000, ..ToyMaker::default() }.create(Arc::new(Memory::new(0))).unwrap();
    let disk = subject.disk;
    disk.write_at(0, &random(300_000, 1), Wait::Allowed).unwrap();
    let frozen = subject.snapshots.unwrap().snapshot().unwrap();
    disk.resize(295_001).unwrap();
    disk.resize(300_000).unwrap();
    let all = bytes(&disk);
    assert_eq!(all[..295_001], random(300_000, 1)[..295_001]);
    assert!(all[295_001..].iter().all(|&b| b == 0));
    assert_eq!(bytes(&frozen), random(300_000, 1));
}

#[test]
fn pins_reach_through_wrappers() {
    let toy = ToyMaker::default().create(Arc::new(Memory::new(0))).unwrap().disk;
    toy.write_at(0, &[1; 4096], Wait::Allowed).unwrap();
    let wrapped = Arc::new(Short::new(Arc::clone(&toy) as _, 1000));
    let slice = Slice::new(SourceId(0), 0, 8192, false).unwrap();
    let outer = Disk::builder("outer", Arc::new(slice)).source(wrapped).build().unwrap();
    let plan = outer.plan(0, 4096, 8, Wait::Allowed, Purpose::Locate).unwrap();
    // Freed, made durable, and everything else written: nothing of it may come to lie where the plan points.
    toy.set(0, 4096, To::Hole, SetMode { may_unmap: true, fast_only: false }).unwrap();
    for at in 1..100 {
        toy.flush().unwrap();
        toy.write_at(at * 4096, &[2; 4096], Wait::Allowed).unwrap();
    }
    let leaf = plan.leaves[0];
    let LeafPlace::Raw { source, offset } = leaf.place else { panic!("not raw") };
    let mut found = vec![0; leaf.len as usize];
    source.read_at(offset, &mut found, Wait::Allowed).unwrap();
    assert!(found.iter().all(|&b| b == 1));
}

#[test]
fn a_leaf_is_writable_only_if_every_disk_on_the_way_is() {
    let slice = || Arc::new(Slice::new(SourceId(0), 0, 4096, true).unwrap());
    let inner = Disk::builder("read-only", slice()).source(Arc::new(Memory::new(4096))).build().unwrap();
    let outer = Disk::builder("outer", slice()).source(inner).straight().build().unwrap();
    let leaf = outer.leaf(0, 4096, Wait::Never, Purpose::Locate).unwrap();
    assert!(!leaf.writable);
    let both = window(straight(Arc::new(Memory::new(4096)))).unwrap();
    assert!(both.leaf(0, 4096, Wait::Never, Purpose::Locate).unwrap().writable);
}

/// A mutator that reserves what it should not.
struct Wrong {
    at: u64,
    len: u64,
    aborted: AtomicU32,
}

impl Layer for Wrong {
    fn len(&self) -> u64 {
        1 << 20
    }
    fn look(&self, _: u64, want: u64, _: Wait) -> Result<Answer> {
        Ok(Answer::Below { len: want })
    }
}

impl ChartMut for Wrong {
    fn grain(&self) -> u64 {
        4096
    }
    fn epochs(&self) -> Option<&Arc<Epochs>> {
        None
    }
    fn reserve(&self, _: u64, _: u64, _: Intent) -> Result<Reserve> {
        let Wrong { at, len, .. } = *self;
        let source = SourceId(0);
        Ok(Reserve::Ready(Reservation { at, len, source, offset: 0, zeroed: true, token: 0 }))
    }
    fn commit(&self, _: Reservation) -> Result<()> {
        panic!("committed what was never right")
    }
    fn abort(&self, _: Reservation) {
        self.aborted.fetch_add(1, SeqCst);
    }
    fn set(&self, _: u64, len: u64, _: To, _: SetMode) -> Result<u64> {
        Ok(len)
    }
    fn resize(&self, _: u64) -> Result<()> {
        Ok(())
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn a_reservation_that_does_not_fit_is_given_back() {
    // Before, behind, around, beside, empty, wrapping.
    for (at, len) in [(0, 4096), (12_288, 4096), (4096, 8192), (8192, 512), (8192, 0), (8192, u64::MAX)] {
        let wrong = Arc::new(Wrong { at, len, aborted: AtomicU32::new(0) });
        let disk = Disk::builder("wrong", Arc::clone(&wrong) as _).source(Arc::new(Memory::new(1 << 20)));
        let disk = disk.mutator(Arc::clone(&wrong) as _).build().unwrap();
        let error = disk.write_at(9000, &[1; 100], Wait::Allowed).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        assert_eq!(disk.fill_up(9000, 100).unwrap_err().kind(), Kind::Invalid);
        assert_eq!(wrong.aborted.load(SeqCst), 2);
    }
}

#[test]
fn a_failed_fill_gives_the_reservation_back() {
    let image = Arc::new(Failing::new(Arc::new(Memory::new(0))));
    let below = Arc::new(Failing::new(Arc::new(Memory::of(random(100_000, 1)))));
    let maker = ToyMaker { len: 100_000, ..ToyMaker::default().over(Arc::clone(&below) as _) };
    let disk = maker.create(Arc::clone(&image) as _).unwrap().disk;
    for (failing, op) in [(&below, Op::Read), (&image, Op::Write)] {
        failing.fail(op, 0, Kind::Io);
        assert_eq!(disk.write_at(5000, b"x", Wait::Allowed).unwrap_err().kind(), Kind::Io);
        assert_eq!(bytes(&disk), random(100_000, 1));
    }
    disk.write_at(5000, b"x", Wait::Allowed).unwrap();
    assert_eq!(bytes(&disk)[5000], b'x');
}

#[test]
fn zeroing_that_must_be_fast_changes_nothing_where_it_cannot() {
    let disk = ToyMaker::default().create(Arc::new(Memory::new(0))).unwrap().disk;
    disk.write_at(0, &[1; 20_000], Wait::Allowed).unwrap();
    let fast = SetMode { may_unmap: true, fast_only: true };
    let refused = disk.set(100, 15_000, To::Zero, fast).unwrap_err();
    assert_eq!(refused.kind(), Kind::Unsupported);
    assert_eq!(bytes(&disk)[..20_000], [1; 20_000]);
    // Where the ends are zeros already, nothing is in the way.
    disk.set(0, 4096, To::Zero, fast).unwrap();
    disk.set(100, 8092, To::Zero, fast).unwrap();
    assert_eq!(bytes(&disk)[..8192], [0; 8192]);
}

#[test]
fn nothing_that_may_wait_says_it_would_block() {
    // Every request comes while another thread keeps the toy's lock busy.
    let disk = ToyMaker::default().create(Arc::new(Memory::new(0))).unwrap().disk;
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let disk = &disk;
            scope.spawn(move || {
                for i in 0..300u64 {
                    let at = (i * 7919 + thread * 104_729) % (disk.as_ref().len() - 4096);
                    disk.write_at(at, &[1; 700], Wait::Allowed).unwrap();
                    disk.read_at(at, &mut [0; 4000], Wait::Allowed).unwrap();
                    disk.data_at(at, 5000).unwrap();
                    disk.answer(at, 5000, Wait::Allowed).unwrap();
                    disk.set(at, 1000, To::Zero, SetMode::default()).unwrap();
                }
            });
        }
    });
}

#[test]
fn an_overwrite_reserves_nothing_below_either() {
    let recorder = Arc::new(Recorder::new(Arc::new(Memory::new(0))).unwrap());
    let toy = ToyMaker::default().create(Arc::clone(&recorder) as _).unwrap().disk;
    let disk = window(window(toy).unwrap()).unwrap();
    let before = recorder.count();
    assert!(disk.overwrite_at(5000, b"new").unwrap_err().is_would_block());
    assert_eq!(recorder.count(), before, "an overwrite allocated");
    disk.write_at(5000, b"new", Wait::Allowed).unwrap();
    disk.overwrite_at(5000, b"old").unwrap();
    assert_eq!(bytes(&disk)[5000..5003], *b"old");
}

#[test]
fn a_chart_that_leads_past_the_end_of_its_source_is_corrupt() {
    let short: Vec<Arc<dyn Source>> =
        vec![Arc::new(Memory::new(5000)), straight(Arc::new(Memory::new(5000))), Arc::new(Memory::new(0))];
    for source in short {
        let slice = Arc::new(Slice::new(SourceId(0), 0, 8192, true).unwrap());
        let disk = Disk::builder("cut", slice).source(source).straight().build().unwrap();
        let kind = |e: chart::Error| e.kind();
        assert_eq!(disk.read_at(4096, &mut [0; 4096], Wait::Allowed).map_err(kind), Err(Kind::Corrupt));
        assert_eq!(disk.read_at(6000, &mut [0; 1], Wait::Never).map_err(kind), Err(Kind::Corrupt));
        assert_eq!(disk.write_at(6000, &[0; 1], Wait::Allowed).map_err(kind), Err(Kind::Corrupt));
        // But what is past the disk's own end is the caller's.
        assert_eq!(disk.read_at(8000, &mut [0; 193], Wait::Allowed).map_err(kind), Err(Kind::OutOfRange));
    }
}

/// A disk of almost 4 GiB in grains of 3000 bytes.
struct Odd(std::sync::Mutex<u64>);

const ODD: u64 = 3000;

impl Layer for Odd {
    fn len(&self) -> u64 {
        (4 << 30) - 5
    }
    fn look(&self, _: u64, want: u64, _: Wait) -> Result<Answer> {
        Ok(Answer::Below { len: want })
    }
}

impl ChartMut for Odd {
    fn grain(&self) -> u64 {
        ODD
    }
    fn epochs(&self) -> Option<&Arc<Epochs>> {
        None
    }
    fn reserve(&self, at: u64, _: u64, _: Intent) -> Result<Reserve> {
        panic!("nothing needs a place at {at}")
    }
    fn commit(&self, _: Reservation) -> Result<()> {
        Ok(())
    }
    fn abort(&self, _: Reservation) {}
    fn set(&self, at: u64, len: u64, _: To, _: SetMode) -> Result<u64> {
        let end = at + len;
        assert!(at.is_multiple_of(ODD) && (end.is_multiple_of(ODD) || end == Layer::len(self)), "{at}+{len}");
        *self.0.lock().unwrap() += len;
        Ok(len)
    }
    fn resize(&self, _: u64) -> Result<()> {
        Ok(())
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn grains_that_are_no_power_of_two_are_set_whole() {
    let odd = Arc::new(Odd(std::sync::Mutex::new(0)));
    let disk = Disk::builder("odd", Arc::clone(&odd) as _).mutator(Arc::clone(&odd) as _).build().unwrap();
    let len = disk.as_ref().len();
    for (at, want) in [(0, len), (1, len - 2), (2999, 6002), (3000, 3000), (100, 200), (len - 7, 7)] {
        *odd.0.lock().unwrap() = 0;
        disk.set(at, want, To::Zero, SetMode::default()).unwrap();
        let set = *odd.0.lock().unwrap();
        let first = at.next_multiple_of(ODD);
        let end = if at + want == len { len } else { (at + want) / ODD * ODD };
        assert_eq!(set, end.saturating_sub(first), "{at}+{want}");
    }
}
