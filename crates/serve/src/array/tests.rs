use super::*;
use std::sync::mpsc::channel;
use std::time::Duration;

/// A client of the first export.
fn of(client: u64) -> Lane {
    Lane { client, export: 1 }
}

#[test]
fn clients_take_turns() {
    let array: Array<(u64, u32)> = Array::new(16);
    for i in 0..3 {
        array.put(of(1), (1, i)).unwrap();
    }
    array.put(of(2), (2, 0)).unwrap();
    array.put(of(1), (1, 3)).unwrap();
    array.put(of(2), (2, 1)).unwrap();
    array.close();
    let taken: Vec<_> = std::iter::from_fn(|| array.take().map(|(_, job)| job)).collect();
    assert_eq!(taken, [(1, 0), (2, 0), (1, 1), (2, 1), (1, 2), (1, 3)]);
    assert!(array.put(of(1), (1, 9)).is_err());
}

#[test]
fn proxies_finish_what_is_in_the_array() {
    let array = Arc::new(Array::new(3));
    let (done, heard) = channel();
    let proxies = Proxies::start(&array, 3, || {
        let done = done.clone();
        move |job: u32| {
            std::thread::sleep(Duration::from_millis(1));
            done.send(job).unwrap();
        }
    })
    .unwrap();
    (0..50).for_each(|i| array.put(of(u64::from(i % 5)), i).unwrap());
    proxies.finish();
    drop(done);
    let mut all: Vec<_> = heard.iter().collect();
    all.sort_unstable();
    assert_eq!(all, (0..50).collect::<Vec<_>>());
}

#[test]
fn no_client_has_all_proxies() {
    let array: Array<u32> = Array::new(4);
    (0..8).for_each(|i| array.put(of(1), i).unwrap());
    let taken: Vec<_> = (0..3).map(|_| array.take().unwrap()).collect();
    assert_eq!(taken, [(of(1), 0), (of(1), 1), (of(1), 2)]);
    // The fourth proxy is for somebody else, however many this client has in its lane.
    array.put(of(2), 100).unwrap();
    assert_eq!(array.take(), Some((of(2), 100)));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| array.take());
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished(), "a fourth proxy for one client");
        array.done(of(1));
        assert_eq!(waiting.join().unwrap(), Some((of(1), 3)));
    });
}

#[test]
fn no_export_has_all_proxies() {
    let array: Array<u64> = Array::new(8);
    array.set_several(true);
    // Four clients wait for the first export, and each has much to ask.
    (0..40).for_each(|i| array.put(of(i % 4), i).unwrap());
    let hung: Vec<_> = (0..6).map(|_| array.take().unwrap().0).collect();
    assert!((0..4).all(|client| hung.contains(&of(client))));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| (array.take(), array.take()));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished(), "a seventh proxy for one export");
        // An export that has none gets one of those that are left, and so does the next.
        let (second, third) = (Lane { client: 9, export: 2 }, Lane { client: 10, export: 3 });
        [100, 101].into_iter().for_each(|job| array.put(second, job).unwrap());
        array.put(third, 200).unwrap();
        assert_eq!(waiting.join().unwrap(), (Some((second, 100)), Some((third, 200))));
    });
    // When only one is left, nothing is kept for others.
    (0..6).for_each(|i| array.done(hung[i]));
    array.set_several(false);
    assert!((0..6).all(|_| array.take().is_some()));
}

#[test]
fn only_who_has_nothing_to_do_helps() {
    let array: Array<u32> = Array::new(4);
    assert_eq!(array.put_if_idle(of(1), 1), Err(1));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| array.take());
        while array.lock().idle == 0 {
            std::thread::yield_now();
        }
        assert_eq!(array.put_if_idle(of(1), 2), Ok(()));
        assert_eq!(waiting.join().unwrap(), Some((of(1), 2)));
    });
}
