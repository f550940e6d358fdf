use chart::{Epochs, Pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

fn pin(epochs: &Arc<Epochs>) -> Pin {
    Pin::on(std::slice::from_ref(epochs))
}

#[test]
fn an_epoch_is_over_when_all_who_looked_before_are_gone() {
    let epochs = Arc::new(Epochs::default());
    assert!(epochs.is_over(epochs.now()));
    let early = pin(&epochs);
    let changed = epochs.now();
    assert!(!epochs.is_over(changed));
    let late = pin(&epochs);
    drop(early);
    assert!(epochs.is_over(changed), "who looked after the change does not count");
    assert!(!epochs.is_over(epochs.now()));
    drop(late);
    assert!(epochs.is_over(epochs.now()));
}

#[test]
fn one_long_pin_holds_all_later_epochs_and_stops_nobody() {
    let epochs = Arc::new(Epochs::default());
    let long = pin(&epochs);
    let mut changes = Vec::new();
    for _ in 0..100 {
        let changed = epochs.now();
        assert!(!epochs.is_over(changed));
        changes.push(changed);
        drop(pin(&epochs));
    }
    drop(long);
    assert!(changes.into_iter().all(|changed| epochs.is_over(changed)));
}

#[test]
fn waiting_ends_with_the_last_pin() {
    let epochs = Arc::new(Epochs::default());
    let pins: Vec<_> = (0..4).map(|_| pin(&epochs)).collect();
    let (tell, told) = channel();
    let waiter = Arc::clone(&epochs);
    std::thread::spawn(move || {
        waiter.wait_over(waiter.now());
        tell.send(()).unwrap();
    });
    for pin in pins {
        assert!(told.recv_timeout(Duration::from_millis(20)).is_err());
        drop(pin);
    }
    told.recv_timeout(Duration::from_secs(5)).unwrap();
}

#[test]
fn a_pin_on_many_holds_all_of_them() {
    let all: Vec<Arc<Epochs>> = (0..5).map(|_| Arc::default()).collect();
    let held = Pin::on(&all);
    assert!(all.iter().all(|e| !e.is_over(e.now())));
    drop(held);
    assert!(all.iter().all(|e| e.is_over(e.now())));
    drop(Pin::on(&[]));
}

/// Places that a reader finds through one atomic word, without any lock: what a lock-free map does. A place is
/// scribbled on as soon as the epochs allow it.
struct Places {
    epochs: Arc<Epochs>,
    current: AtomicUsize,
    cells: Vec<AtomicU64>,
    stop: AtomicBool,
}

impl Places {
    fn read(&self) -> u64 {
        let mut rounds = 0;
        while !self.stop.load(Relaxed) {
            let _pin = pin(&self.epochs);
            let place = self.current.load(SeqCst);
            for _ in 0..rounds % 50 {
                // Relaxed: if the epochs order nothing, nothing does.
                assert_eq!(self.cells[place].load(Relaxed), place as u64, "a place changed under a pin");
            }
            rounds += 1;
        }
        rounds
    }

    fn change(&self, time: Duration, wait: bool) -> u64 {
        let (began, mut changes) = (Instant::now(), 0);
        let mut free: Vec<usize> = (1..self.cells.len()).collect();
        let mut limbo: Vec<(u64, usize)> = Vec::new();
        while began.elapsed() < time {
            if let Some(next) = free.pop() {
                self.cells[next].store(next as u64, Relaxed);
                let old = self.current.swap(next, SeqCst);
                limbo.push((self.epochs.now(), old));
                changes += 1;
            } else if wait {
                self.epochs.wait_over(limbo[0].0);
            }
            limbo.retain(|&(epoch, place)| {
                let over = self.epochs.is_over(epoch);
                if over {
                    self.cells[place].store(u64::MAX, Relaxed);
                    free.push(place);
                }
                !over
            });
        }
        self.stop.store(true, Relaxed);
        changes
    }
}

#[test]
fn no_place_changes_under_a_pin() {
    for (cells, wait) in [(3, false), (3, true), (40, false)] {
        let all = (0..cells).map(|i| AtomicU64::new(i as u64)).collect();
        let (current, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let places = Places { epochs: Arc::default(), current, cells: all, stop };
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..4).map(|_| scope.spawn(|| places.read())).collect();
            let changes = places.change(Duration::from_millis(300), wait);
            let reads: u64 = readers.into_iter().map(|r| r.join().unwrap()).sum();
            assert!(changes > 10 && reads > 10, "{changes} changes, {reads} reads");
        });
    }
}
