use super::*;
use chart::{Disk, Wait};
use io::memory::Memory;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn disk(len: u64) -> Arc<Disk> {
    format::raw::open(Arc::new(Memory::new("m", len)), true).unwrap()
}

#[test]
fn so_many_requests_and_no_more() {
    let disk = disk(1 << 20);
    let load = Load { operations: Some(100), write: true, depth: 3, flush_every: Some(7), ..Load::default() };
    let outcome = on_disk(&disk, &load, Watch::default()).unwrap();
    assert_eq!((outcome.operations, outcome.bytes), (100, 409_600));
    assert!(outcome.latency.p50 <= outcome.latency.max && outcome.iops > 0.0);
}

#[test]
fn sequential_writes_fill_the_disk() {
    let disk = disk(1 << 20);
    let load = Load { pattern: Pattern::Sequential, operations: Some(256), write: true, ..Load::default() };
    on_disk(&disk, &load, Watch::default()).unwrap();
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
        Load { connections: 0, ..Load::default() },
        Load { connections: 2, ..Load::default() },
        Load { structured: true, ..Load::default() },
    ] {
        assert!(on_disk(&disk, &load, Watch::default()).is_err());
    }
    let cancel = AtomicBool::new(true);
    assert!(on_disk(&disk, &Load::default(), Watch { cancel: Some(&cancel), progress: None }).is_err());
}

#[test]
fn what_was_written_is_known_again() {
    let disk = disk(1 << 20);
    let write = Load { pattern: Pattern::Sequential, operations: Some(256), write: true, ..Load::default() };
    on_disk(&disk, &write, Watch::default()).unwrap();
    let read = Load { operations: Some(1000), write: false, verify: true, depth: 2, ..write };
    let read = Load { pattern: Pattern::Random(None), ..read };
    on_disk(&disk, &read, Watch::default()).unwrap();
    disk.write_at(77 << 12, &[1], Wait::Allowed).unwrap();
    let error = on_disk(&disk, &Load { pattern: Pattern::Sequential, ..read }, Watch::default()).unwrap_err();
    assert_eq!((error.kind(), error.offset()), (chart::Kind::Corrupt, Some(77 << 12)));
}
