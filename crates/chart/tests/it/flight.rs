use chart::InFlight;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use testkit::Rng;

#[test]
fn what_overlaps_waits_and_what_does_not_does_not() {
    let flights = Arc::new(InFlight::default());
    let held = flights.hold(100, 200);
    drop(flights.hold(0, 100));
    drop(flights.hold(200, u64::MAX));
    let (tell, told) = channel();
    let other = Arc::clone(&flights);
    std::thread::spawn(move || {
        let _held = other.hold(199, 201);
        tell.send(()).unwrap();
    });
    assert!(told.recv_timeout(Duration::from_millis(50)).is_err());
    drop(held);
    told.recv_timeout(Duration::from_secs(5)).unwrap();
}

#[test]
fn no_two_hold_one_unit() {
    const UNITS: u64 = 24;
    let flights = InFlight::default();
    let units: Vec<AtomicBool> = (0..UNITS).map(|_| AtomicBool::new(false)).collect();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for seed in 0..6 {
            let (flights, units) = (&flights, &units);
            scope.spawn(move || {
                let mut rng = Rng::new(seed);
                while began.elapsed() < Duration::from_millis(400) {
                    let start = rng.below(UNITS);
                    let end = start + 1 + rng.below(UNITS - start);
                    let _held = flights.hold(start, end);
                    let mine = &units[start as usize..end as usize];
                    assert!(mine.iter().all(|u| !u.swap(true, SeqCst)), "a unit was held twice");
                    if rng.once_in(4) {
                        std::thread::yield_now();
                    }
                    mine.iter().for_each(|u| u.store(false, SeqCst));
                }
            });
        }
    });
}

#[test]
fn who_wants_all_is_not_kept_out_by_many_who_want_little() {
    let flights = InFlight::default();
    let (stop, turns) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        // Between them, something is always held.
        for i in 0..4 {
            let (flights, stop, turns) = (&flights, &stop, &turns);
            scope.spawn(move || {
                let mut at = i;
                while !stop.load(SeqCst) {
                    at = (at + 3) % 8;
                    let _held = flights.hold(at, at + 2);
                    std::thread::sleep(Duration::from_millis(2));
                    turns.fetch_add(1, SeqCst);
                }
            });
        }
        while turns.load(SeqCst) < 8 {
            std::thread::yield_now();
        }
        let before = turns.load(SeqCst);
        for _ in 0..10 {
            drop(flights.hold(0, u64::MAX));
        }
        let waited = turns.load(SeqCst) - before;
        stop.store(true, SeqCst);
        // Each time it waits for those who came before, at most one turn each.
        assert!(waited <= 10 * 8, "{waited} turns went before ten");
    });
}
