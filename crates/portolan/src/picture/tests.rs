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

#[test]
fn the_longest_holes_go_until_what_is_left_is_seen() {
    // Two that hide everything, and one that hides the rest then.
    let holes = vec![
        hole((1000, 501_000)),
        hole((502_000, 990_000)),
        hole((991_000, 999_000)),
        hole((999_100, 999_110)),
    ];
    let shortened = super::survey::to_shorten(1_000_000, holes);
    let starts: Vec<_> = shortened.iter().map(|run| run.start).collect();
    assert_eq!(starts, [1000, 502_000, 991_000]);
}

#[test]
fn ticks_tell_what_is_there() {
    let told = |scale: &Scale| scale.ticks().iter().map(|(at, _)| crate::size::show(*at)).collect::<Vec<_>>();
    let even = Scale::new(64 << 20, &[], 960.0);
    assert_eq!(
        told(&even),
        ["0 B", "8 MiB", "16 MiB", "24 MiB", "32 MiB", "40 MiB", "48 MiB", "56 MiB", "64 MiB"]
    );
    // What no few digits tell is told by where it begins; nothing is told twice.
    let (a, b) = ((1 << 40) - (3 << 20) - 5, 1 << 40);
    let far = Scale::new(b, &[hole((4 << 20, a))], 960.0);
    let told = told(&far);
    assert_eq!((told.first().unwrap().as_str(), told.last().unwrap().as_str()), ("0 B", "1 TiB"));
    assert!(told.windows(2).all(|two| two[0] != two[1]), "{told:?}");
    assert!(told.contains(&"2 MiB".to_owned()), "{told:?}");
    assert_eq!(Scale::new(0, &[], 960.0).ticks().len(), 1);
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
        let ticks = scale.ticks();
        prop_assert!(ticks.len() <= 13 && ticks.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 < two[1].1));
        prop_assert!(ticks.iter().all(|(at, x)| (scale.x(*at) - x).abs() < 1e-6));
    }
}
