use super::{Mutation, Toy, ToyMaker};
use super::{fill_without_reserving, flattening, same_by_source_id};
use crate::contract::{
    Load, Verdict, all_decorators, by_leaves, chart_law, concurrent, crash_safe, fill_is_void, flush_reaches,
    in_place_writer_keeps_its_place, no_write_lost_to_a_deleted_snapshot, no_write_lost_to_a_snapshot,
    overlapping_reservations_wait, place_law, races, random_ops, reader_keeps_its_place,
    readers_look_while_a_snapshot_waits, snapshot_does_not_change, split_reads, stamp, walk_law,
    writes_stay_in_their_disk,
};
use crate::crash::Budget;
use crate::source::Memory;
use chart::{Disk, Result, Slice, Source, SourceId};
use std::sync::Arc;
use std::time::Duration;

/// Small, so that many crashes are looked at.
const CRASHED: u64 = 160 << 10;

/// A disk over another, written straight.
fn window(inner: Arc<Disk>) -> Result<Arc<Disk>> {
    let chart = Slice::new(SourceId(0), 0, inner.len(), true)?;
    Disk::builder("window", Arc::new(chart)).source(inner as _).straight().build()
}

fn patterned(len: u64) -> Arc<dyn Source> {
    let mut bytes = vec![0; len as usize];
    stamp(&mut bytes, 0, 0, 0);
    Arc::new(Memory::of(bytes))
}

#[track_caller]
fn kept(verdict: Verdict) {
    verdict.unwrap_or_else(|r| panic!("the toy breaks a law: {r}"));
}

#[track_caller]
fn found(verdict: Verdict, words: &str) {
    let report = verdict.expect_err("the planted bug was not found").to_string();
    assert!(report.contains(words), "found, but for another reason: {report}");
}

#[test]
fn random_operations() {
    for seed in 0..6 {
        kept(random_ops(&ToyMaker::default(), seed, 400));
    }
    kept(all_decorators(&ToyMaker::default(), 7, 150));
}

#[test]
fn random_operations_over_shorter_and_longer_disks() {
    for (seed, len) in [(1, 1 << 20), (2, 300_032), (3, 2 << 20)] {
        let maker = ToyMaker::default().over(patterned(len));
        kept(all_decorators(&maker, seed, 150));
        kept(random_ops(&maker, seed, 400));
    }
}

#[test]
fn certain_races() {
    kept(races(&ToyMaker::default()));
    kept(races(&ToyMaker::default().over(patterned(2 << 20))));
}

#[test]
fn concurrent_load() {
    for (seed, run_sectors) in [(1, 3), (2, 24), (3, 1)] {
        let load = Load { seed, run_sectors, ..Load::default() };
        kept(concurrent(&ToyMaker::default(), load));
        kept(concurrent(&ToyMaker::default().over(patterned(1 << 20)), load));
    }
}

#[test]
fn crashes() {
    for seed in crate::crash::seeds(4) {
        let maker = ToyMaker { len: CRASHED, ..ToyMaker::default() };
        let states = crash_safe(&maker, seed, 60, Budget { states: 2000, seed }).unwrap();
        assert!(states > 300, "only {states} states");
    }
}

#[test]
fn flushes_and_writes_through_other_disks() {
    let twice = |inner| window(window(inner)?);
    for outer in [&Ok as &dyn Fn(Arc<Disk>) -> Result<Arc<Disk>>, &window, &twice] {
        kept(flush_reaches(&ToyMaker::default(), outer));
        kept(writes_stay_in_their_disk(&ToyMaker::default(), outer));
    }
}

fn toy_over(image: Arc<dyn Source>, below: Arc<dyn Source>) -> Result<Arc<Disk>> {
    let plan = ToyMaker { len: below.len(), ..ToyMaker::default().over(below) };
    Toy::create(image, plan.len, &plan)?.disk()
}

#[test]
fn filling_and_places() {
    kept(fill_is_void(&toy_over, Disk::fill_up));
    kept(place_law(&by_leaves));
}

/// A toy with content whose grains lie scattered: what laws 1 and 2 are held against.
fn scattered(mutation: Option<Mutation>) -> Arc<Disk> {
    let maker = ToyMaker { mutation, ..ToyMaker::default() };
    let toy = Toy::create(Arc::new(Memory::new(0)), maker.len, &maker).unwrap();
    let disk = toy.disk().unwrap();
    for grain in [9, 3, 4, 8, 5, 1] {
        let mut bytes = vec![0; 4096];
        stamp(&mut bytes, grain * 4096, 1, 1);
        disk.write_at(grain * 4096, &bytes, chart::Wait::Allowed).unwrap();
    }
    disk
}

#[test]
fn law_1_over_claim() {
    kept(chart_law(scattered(None).as_ref()));
    found(chart_law(scattered(Some(Mutation::OverClaim)).as_ref()), "claims");
}

#[test]
fn law_2_split_changes_bytes() {
    kept(split_reads(&scattered(None), 1));
    found(split_reads(&scattered(Some(Mutation::SplitChangesBytes)), 1), "alone");
    kept(walk_law(&scattered(None)));
    found(walk_law(&scattered(Some(Mutation::SplitChangesBytes))), "a walk differs");
}

#[test]
fn law_3_readers_not_pinned() {
    let maker = ToyMaker::broken(Mutation::ReadersNotPinned);
    found(reader_keeps_its_place(&maker), "foreign");
    found(in_place_writer_keeps_its_place(&maker), "foreign");
    found(snapshot_does_not_change(&maker), "a snapshot was changed");
}

#[test]
fn law_3_reuse_at_once() {
    let maker = ToyMaker::broken(Mutation::ReuseAtOnce);
    found(reader_keeps_its_place(&maker), "foreign");
    found(in_place_writer_keeps_its_place(&maker), "foreign");
}

fn crashed(mutation: Mutation) -> Verdict {
    // Bounded, and the same on every run: whether it is found is no matter of luck.
    let maker = ToyMaker { len: CRASHED, ..ToyMaker::broken(mutation) };
    (0..16).try_for_each(|seed| crash_safe(&maker, seed, 60, Budget { states: 2000, seed }).map(drop))
}

#[test]
fn law_3_reuse_before_durable() {
    found(crashed(Mutation::ReuseBeforeDurable), "crash state");
}

#[test]
fn law_3_snapshot_does_not_drain() {
    found(
        snapshot_does_not_change(&ToyMaker::broken(Mutation::SnapshotDoesNotDrain)),
        "a snapshot was changed",
    );
}

#[test]
fn law_3_copies_while_draining() {
    found(
        no_write_lost_to_a_snapshot(&ToyMaker::broken(Mutation::CopiesWhileDraining)),
        "overtaken by a snapshot",
    );
}

#[test]
fn law_4_writable_while_shared() {
    found(
        snapshot_does_not_change(&ToyMaker::broken(Mutation::WritableWhileShared)),
        "a snapshot was changed",
    );
}

#[test]
fn law_5_flattened_write() {
    found(writes_stay_in_their_disk(&ToyMaker::default(), &flattening), "changed a snapshot");
}

#[test]
fn law_6_source_ids_across_disks() {
    found(place_law(&same_by_source_id), "two sources");
}

#[test]
fn law_7_reservations_do_not_wait() {
    let maker = ToyMaker::broken(Mutation::ReservationsDoNotWait);
    found(overlapping_reservations_wait(&maker), "into one new grain");
}

#[test]
fn law_7_fill_without_reserving() {
    found(fill_is_void(&toy_over, fill_without_reserving), "undid a write");
}

#[test]
fn law_7_writable_while_reserved() {
    let maker = ToyMaker::broken(Mutation::WritableWhileReserved);
    found(no_write_lost_to_a_deleted_snapshot(&maker), "being copied");
}

#[test]
fn law_7_discard_uncovers() {
    let maker = ToyMaker::broken(Mutation::DiscardUncovers).over(patterned(1 << 20));
    found(random_ops(&maker, 1, 400), "wrong");
}

#[test]
fn law_8_flush_not_passed_down() {
    found(flush_reaches(&ToyMaker::broken(Mutation::FlushNotPassedDown), &Ok), "the source is not");
    found(crashed(Mutation::FlushNotPassedDown), "crash state");
}

#[test]
fn law_8_map_before_data() {
    found(crashed(Mutation::MapBeforeData), "crash state");
}

#[test]
fn law_9_drains_under_lock() {
    found(readers_look_while_a_snapshot_waits(&ToyMaker::broken(Mutation::DrainsUnderLock)), "deadlock");
}

#[test]
fn a_light_load_finds_what_the_certain_races_find() {
    // Not relied on: it shows that the load looks at the right things. A second is ample here.
    let load = Load { time: Duration::from_secs(5), ..Load::default() };
    found(concurrent(&ToyMaker::broken(Mutation::ReuseAtOnce), load), "");
}
