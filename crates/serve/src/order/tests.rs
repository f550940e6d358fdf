use super::*;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

#[test]
fn spans_go_round_and_are_bounded() {
    let unit = 1u64 << UNIT_BITS;
    let stripes = |at, len| Span::of(at, len).stripes().collect::<Vec<_>>();
    assert_eq!(stripes(0, 1), [0]);
    assert_eq!(stripes(unit - 1, 2), [0, 1]);
    assert_eq!(stripes(unit * (STRIPES as u64 - 1), unit * 2), [0, STRIPES - 1]);
    assert_eq!(stripes(unit * 5, unit * STRIPES as u64), (0..STRIPES).collect::<Vec<_>>());
    assert_eq!(stripes(0, u64::MAX), (0..STRIPES).collect::<Vec<_>>());
    assert_eq!(stripes(u64::MAX, 0), [STRIPES - 1]);
}

#[test]
fn a_reader_notices_what_came_in_between() {
    let order = Order::default();
    let glance = order.glance(0, 4096).unwrap();
    assert!(order.is_same(&glance));
    drop(order.try_hold(1 << 30, 4096).unwrap());
    assert!(!order.is_same(&glance), "1 GiB apart is the same stripe");
    let glance = order.glance(0, 4096).unwrap();
    drop(order.try_hold(200 << 10, 4096).unwrap());
    assert!(order.is_same(&glance));
    let held = order.try_hold(100, 100).unwrap();
    assert!(order.glance(0, 4096).is_none() && !order.is_same(&glance));
    assert!(order.try_hold(4000, 1).is_none());
    assert!(order.try_hold(64 << 10, 1).is_some());
    // One that fails half way gives back what it had taken.
    assert!(order.try_hold(0, 128 << 10).is_none());
    assert!(order.try_hold(64 << 10, 1).is_some());
    drop(held);
    assert!(order.try_hold(0, 128 << 10).is_some());
}

#[test]
fn changes_of_overlapping_ranges_never_meet() {
    let order = Arc::new(Order::default());
    let inside: Arc<Vec<AtomicBool>> = Arc::new((0..8).map(|_| AtomicBool::new(false)).collect());
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let (order, inside) = (Arc::clone(&order), Arc::clone(&inside));
            scope.spawn(move || {
                for round in 0..2000u64 {
                    let first = (thread * 7 + round * 13) % 8;
                    let count = 1 + (round % (8 - first));
                    let _held = order.hold(first << UNIT_BITS, count << UNIT_BITS);
                    for unit in first..first + count {
                        assert!(!inside[unit as usize].swap(true, Ordering::SeqCst));
                    }
                    for unit in first..first + count {
                        inside[unit as usize].store(false, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    assert_eq!(order.waiting.load(Ordering::SeqCst), 0);
}
