use super::{Budget, check, states};
use crate::source::{Event, Log};
use std::collections::BTreeSet;

fn write(offset: u64, data: &[u8]) -> Event {
    Event::Write { offset, data: data.into() }
}

fn log(initial: usize, events: impl IntoIterator<Item = Event>) -> Log {
    Log { initial: vec![0; initial], events: events.into_iter().collect() }
}

#[test]
fn few_operations_are_looked_at_in_every_subset() {
    let events = [write(0, b"x"), Event::Flush, write(1, b"a"), write(2, b"b"), write(3, b"c")];
    let log = log(4, events);
    let all: Vec<_> = states(&log, Budget::default()).collect();
    let later: BTreeSet<Vec<u8>> = all.iter().filter(|s| s.boundary == 1).map(|s| s.bytes.clone()).collect();
    let wanted: BTreeSet<Vec<u8>> = (0..8)
        .map(|bits| {
            let byte = |i: usize, b: u8| if bits >> i & 1 == 1 { b } else { 0 };
            vec![b'x', byte(0, b'a'), byte(1, b'b'), byte(2, b'c')]
        })
        .collect();
    assert_eq!(later, wanted);
    let first: BTreeSet<Vec<u8>> = all.iter().filter(|s| s.boundary == 0).map(|s| s.bytes.clone()).collect();
    assert_eq!(first, BTreeSet::from([vec![0; 4], b"x\0\0\0".to_vec()]));
}

#[test]
fn of_two_writes_to_one_place_the_later_wins_if_it_survives() {
    let log = log(1, [write(0, b"1"), write(0, b"2")]);
    let all: BTreeSet<Vec<u8>> = states(&log, Budget::default()).map(|s| s.bytes).collect();
    assert_eq!(all, BTreeSet::from([vec![0], vec![b'1'], vec![b'2']]));
}

#[test]
fn a_change_of_length_may_be_missing() {
    let log = log(512, [Event::SetLen(2048), write(1024, &[7; 512]), Event::SetLen(100)]);
    let lengths: BTreeSet<usize> = states(&log, Budget::default()).map(|s| s.bytes.len()).collect();
    // Neither, grown, written past the end without, shrunk.
    assert_eq!(lengths, BTreeSet::from([100, 512, 1536, 2048]));
    let grown = states(&log, Budget::default()).find(|s| s.bytes.len() == 1536).unwrap();
    assert!(grown.bytes[512..1024].iter().all(|&b| b == 0) && grown.bytes[1024..] == [7; 512]);
}

#[test]
fn writes_tear_at_sectors() {
    let log = log(4096, [write(256, &[1; 2048])]);
    let mut torn = 0;
    for seed in 0..50 {
        for state in states(&log, Budget { states: 20, seed }) {
            let sectors: Vec<_> = (0..5).map(|i| (i * 512).max(256)..((i + 1) * 512).min(2304)).collect();
            let whole = |r: &std::ops::Range<usize>| {
                let part = &state.bytes[r.clone()];
                part.iter().all(|b| *b == part[0])
            };
            assert!(sectors.iter().all(whole), "{}", state.description);
            let there = sectors.iter().filter(|r| state.bytes[r.start] == 1).count();
            torn += usize::from(there > 0 && there < 5);
        }
    }
    assert!(torn > 20, "{torn}");
}

#[test]
fn zeroing_may_be_torn_and_stays_within_the_file() {
    let mut log = log(0, [Event::Zero { offset: 0, len: 4096 }, Event::Punch { offset: 1000, len: 100 }]);
    log.initial = vec![9; 1050];
    for state in states(&log, Budget::default()) {
        assert_eq!(state.bytes.len(), 1050);
    }
}

#[test]
fn marks_are_promises_from_then_on() {
    let events = [
        write(0, b"a"),
        Event::Flush,
        Event::Mark(1),
        write(1, b"b"),
        Event::Flush,
        write(2, b"c"),
        Event::Mark(2),
    ];
    let log = log(3, events);
    let seen: BTreeSet<_> = states(&log, Budget::default()).map(|s| (s.boundary, s.mark)).collect();
    assert_eq!(seen, BTreeSet::from([(0, None), (1, Some(1)), (2, Some(2))]));
}

#[test]
fn a_failure_is_made_small() {
    let mut events: Vec<_> = (0..60).map(|i| write(i * 512, &[1; 512])).collect();
    events.insert(10, Event::Flush);
    let log = log(60 * 512, events);
    // Wrong: the 40th without the 30th.
    let judge = |state: &super::State| {
        let there = |i: usize| state.bytes[i * 512] == 1;
        if there(40) && !there(30) { Err("map before data".to_owned()) } else { Ok(()) }
    };
    let failure = check(&log, Budget::default(), judge).unwrap_err();
    assert_eq!(failure.reason, "map before data");
    let one = failure.state.contains("only these survived:\n  30: write 0x5000+0x200")
        || failure.state.contains("all survived but:\n  20: write 0x3c00+0x200");
    assert!(one && failure.state.lines().count() == 2, "{}", failure.state);
}

#[test]
fn the_budget_bounds_long_logs() {
    let step = |i: u64| [write(i % 100 * 512, &[1; 1024]), write(i % 7 * 512, &[2; 512]), Event::Flush];
    let log = log(60_000, (0..2000).flat_map(step));
    let budget = Budget { states: 1000, seed: 3 };
    let count = check(&log, budget, |_| Ok(())).unwrap();
    assert!((200..4000).contains(&count), "{count}");
    let again: Vec<_> = states(&log, budget).map(|s| crc32c::crc32c(&s.bytes)).collect();
    let once_more: Vec<_> = states(&log, budget).map(|s| crc32c::crc32c(&s.bytes)).collect();
    assert!(again.len() == count && again == once_more, "the same seed gives the same states");
}
