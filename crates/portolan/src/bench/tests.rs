use super::*;
use io::memory::Memory;
use std::sync::Arc;

fn disk(len: u64) -> Arc<Disk> {
    format::raw::open(Arc::new(Memory::new("m", len)), true).unwrap()
}

#[test]
fn so_many_requests_and_no_more() {
    let disk = disk(1 << 20);
    let load = Load { operations: Some(100), write: true, depth: 3, flush_every: Some(7), ..Load::default() };
    let outcome = bench(&disk, &load, Watch::default()).unwrap();
    assert_eq!((outcome.operations, outcome.bytes), (100, 409_600));
    assert!(outcome.latency.p50 <= outcome.latency.max && outcome.iops > 0.0);
}

#[test]
fn sequential_writes_fill_the_disk() {
    let disk = disk(1 << 20);
    let load = Load { pattern: Pattern::Sequential, operations: Some(256), write: true, ..Load::default() };
    bench(&disk, &load, Watch::default()).unwrap();
    let mut all = vec![0; 1 << 20];
    disk.read_at(0, &mut all, Wait::Allowed).unwrap();
    assert!(all.chunks(4096).all(|block| block.iter().any(|&b| b != 0)));
}

#[test]
fn what_cannot_be_is_refused() {
    let disk = disk(8192);
    for load in [
        Load { size: 0, ..Load::default() },
        Load { size: 16384, ..Load::default() },
        Load { depth: 0, ..Load::default() },
        Load { within: Some(100), ..Load::default() },
    ] {
        assert!(bench(&disk, &load, Watch::default()).is_err());
    }
    let cancel = AtomicBool::new(true);
    assert!(bench(&disk, &Load::default(), Watch { cancel: Some(&cancel), progress: None }).is_err());
}
