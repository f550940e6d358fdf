use super::*;
use std::sync::mpsc::channel;
use std::time::Duration;

#[test]
fn clients_take_turns() {
    let array: Array<(u64, u32)> = Array::default();
    for i in 0..3 {
        array.put(1, (1, i)).unwrap();
    }
    array.put(2, (2, 0)).unwrap();
    array.put(1, (1, 3)).unwrap();
    array.put(2, (2, 1)).unwrap();
    array.close();
    let taken: Vec<_> = std::iter::from_fn(|| array.take()).collect();
    assert_eq!(taken, [(1, 0), (2, 0), (1, 1), (2, 1), (1, 2), (1, 3)]);
    assert!(array.put(1, (1, 9)).is_err());
}

#[test]
fn proxies_finish_what_is_in_the_array() {
    let array = Arc::new(Array::default());
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
