use super::scale::Scale;
use super::survey::Empty;
use proptest::prelude::*;

fn hole((start, end): (u64, u64)) -> Empty {
    Empty { start, end, zeros: false }
}

#[test]
fn an_honest_scale_where_there_is_no_need_of_another() {
    let scale = Scale::new(1000, &[hole((100, 400))], 100.0);
    assert_eq!(scale.parts.len(), 1);
    assert!((scale.x(500) - 50.0).abs() < 1e-9);
    assert_eq!(scale.at(50.0), 500);
}

#[test]
fn long_holes_leave_room_for_the_rest() {
    let scale = Scale::new(1_000_000, &[hole((1000, 999_000))], 1000.0);
    assert!(scale.x(1000) > 300.0, "{}", scale.x(1000));
    assert!((scale.x(1_000_000) - 1000.0).abs() < 1e-6);
}

#[test]
fn an_empty_disk_and_one_of_nothing_but_a_hole() {
    assert_eq!(Scale::new(0, &[], 100.0).x(0), 0.0);
    assert!((Scale::new(10, &[hole((0, 10))], 100.0).x(5) - 50.0).abs() < 1e-9);
}

proptest! {
    #[test]
    fn positions_grow_with_addresses_and_lead_back(
        cuts in proptest::collection::btree_set(1u64..1 << 40, 0..20),
        at in proptest::collection::btree_set(0u64..1 << 40, 1..50),
    ) {
        let cuts: Vec<u64> = cuts.into_iter().collect();
        let holes: Vec<_> = cuts.as_chunks::<2>().0.iter().map(|[a, b]| hole((*a, *b))).collect();
        let scale = Scale::new(1 << 40, &holes, 960.0);
        let mut last = -1.0;
        for at in at {
            let x = scale.x(at);
            prop_assert!(x >= last && (0.0..=960.0001).contains(&x));
            last = x;
        }
        prop_assert!((scale.x(1 << 40) - 960.0).abs() < 1e-6);
    }
}
