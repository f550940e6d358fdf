use super::{RUNS, Run, Runs};
use crate::qcow2::cache::seq::Found;
use std::sync::atomic::{AtomicBool, Ordering};

const CLUSTER: u64 = 65_536;

fn run(words: &[u64]) -> Option<Run> {
    Run::of(words.iter().copied(), CLUSTER)
}

fn peek(runs: &Runs, slice: u64, word: u64) -> Option<u64> {
    let mut out = [0];
    (runs.peek(slice, CLUSTER, word, &mut out) == Found::Hit).then(|| out[0])
}

#[test]
fn a_run_says_what_its_words_said() {
    const HIGH: u64 = 1 << 63;
    for words in [[0; 4], [7; 4], [HIGH, HIGH + CLUSTER, HIGH + 2 * CLUSTER, HIGH + 3 * CLUSTER]] {
        let run = run(&words).unwrap();
        assert_eq!(run.words(0).take(4).collect::<Vec<_>>(), words);
        assert_eq!(run.words(2).take(2).collect::<Vec<_>>(), words[2..]);
    }
    let top = u64::MAX - CLUSTER + 1;
    assert_eq!(run(&[top, 0, CLUSTER]).unwrap().words(1).next(), Some(0));
    for words in [[0, 0, 1], [0, CLUSTER, CLUSTER], [2 * CLUSTER, CLUSTER, 0], [0, 8, 16]] {
        assert_eq!(run(&words), None, "{words:?}");
    }
}

#[test]
fn what_is_used_stays() {
    let runs = Runs::default();
    let slice = |i: u64| (i + 1) * 4096;
    for i in 0..RUNS as u64 {
        runs.keep(slice(i), run(&[i, i]).unwrap());
    }
    runs.keep(slice(99), run(&[0, CLUSTER]).unwrap());
    assert_eq!(peek(&runs, slice(99), 3), Some(3 * CLUSTER));
    let held = (0..RUNS as u64).filter(|&i| peek(&runs, slice(i), 3) == Some(i)).count();
    assert_eq!(held, RUNS - 1);
    runs.keep(slice(98), run(&[5, 5]).unwrap());
    assert_eq!((peek(&runs, slice(99), 1), peek(&runs, slice(98), 1)), (Some(CLUSTER), Some(5)));
    runs.keep(slice(98), run(&[5, 5 + CLUSTER]).unwrap());
    assert_eq!(peek(&runs, slice(98), 1), Some(5 + CLUSTER));
    runs.forget(slice(98));
    assert_eq!((peek(&runs, slice(98), 1), peek(&runs, slice(99), 0)), (None, Some(0)));
    runs.clear();
    assert_eq!(peek(&runs, slice(99), 0), None);
}

#[test]
fn readers_never_see_half_of_a_run() {
    let (runs, done) = (Runs::default(), AtomicBool::new(false));
    let (runs, done) = (&runs, &done);
    // Two slices take turns in one place; the first words of one are odd, and only the other goes up.
    let (same, rising) = (4096, 8192);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(move || {
                let mut looks = 0u64;
                while !done.load(Ordering::Relaxed) || looks < 1000 {
                    let (slice, odd, step) =
                        if looks.is_multiple_of(2) { (same, 1, 0) } else { (rising, 0, CLUSTER) };
                    let mut out = [0; 2];
                    if runs.peek(slice, CLUSTER, 9, &mut out) == Found::Hit {
                        assert_eq!((out[0] % 2, out[1] - out[0]), (odd, step));
                    }
                    looks += 1;
                }
            });
        }
        for n in 0..50_000 {
            runs.forget(rising);
            runs.keep(same, run(&[2 * n + 1, 2 * n + 1]).unwrap());
            runs.forget(same);
            runs.keep(rising, run(&[2 * n, 2 * n + CLUSTER]).unwrap());
        }
        done.store(true, Ordering::Relaxed);
    });
}
