use super::*;
use std::sync::mpsc::channel;
use std::time::Duration;

#[test]
fn clients_take_turns() {
    let array: Array<(u64, u32)> = Array::new(16);
    for i in 0..3 {
        array.put(1, (1, i)).unwrap();
    }
    array.put(2, (2, 0)).unwrap();
    array.put(1, (1, 3)).unwrap();
    array.put(2, (2, 1)).unwrap();
    array.close();
    let taken: Vec<_> = std::iter::from_fn(|| array.take().map(|(_, job)| job)).collect();
    assert_eq!(taken, [(1, 0), (2, 0), (1, 1), (2, 1), (1, 2), (1, 3)]);
    assert!(array.put(1, (1, 9)).is_err());
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
    (0..50).for_each(|i| array.put(u64::from(i % 5), i).unwrap());
    proxies.finish();
    drop(done);
    let mut all: Vec<_> = heard.iter().collect();
    all.sort_unstable();
    assert_eq!(all, (0..50).collect::<Vec<_>>());
}

#[test]
fn no_client_has_all_proxies() {
    let array: Array<u32> = Array::new(4);
    (0..8).for_each(|i| array.put(1, i).unwrap());
    let taken: Vec<_> = (0..3).map(|_| array.take().unwrap()).collect();
    assert_eq!(taken, [(1, 0), (1, 1), (1, 2)]);
    // The fourth proxy is for somebody else, however many this client has in its lane.
    array.put(2, 100).unwrap();
    assert_eq!(array.take(), Some((2, 100)));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| array.take());
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished(), "a fourth proxy for one client");
        array.done(1);
        assert_eq!(waiting.join().unwrap(), Some((1, 3)));
    });
}
