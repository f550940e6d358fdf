use crate::{bytes, memory, random, window};
use chart::{Disk, Kind, MAX_DEPTH, Slice, Source, SourceId, Wait};
use std::sync::Arc;
use testkit::contract::{Maker, Patches};
use testkit::source::{Memory, Short};
use testkit::toy::ToyMaker;

fn ground(source: Arc<dyn Source>) -> Arc<Disk> {
    let slice = Slice::new(SourceId(0), 0, source.len(), true).unwrap();
    Disk::builder("ground", Arc::new(slice)).source(source).straight().build().unwrap()
}

/// As the whole program must do with: less than a thread has by default.
fn with_small_stack(act: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(512 << 10).spawn(act).unwrap().join().unwrap();
}

#[test]
fn as_many_as_may_be_and_not_one_more() {
    with_small_stack(|| {
        let mut disk = ground(memory(10_000, 1));
        for depth in 2..=MAX_DEPTH {
            disk = window(disk).unwrap();
            assert_eq!(disk.depth(), depth);
        }
        let refused = window(Arc::clone(&disk)).map(drop).unwrap_err();
        assert_eq!(refused.kind(), Kind::Unsupported, "{refused}");
        assert_eq!(bytes(&disk), random(10_000, 1));
        disk.write_at(5000, b"deep", Wait::Allowed).unwrap();
        disk.flush().unwrap();
        assert_eq!(bytes(&disk)[5000..5004], *b"deep");
    });
}

#[test]
fn wrappers_do_not_hide_depth() {
    let mut disk = ground(memory(1000, 1));
    for _ in 1..MAX_DEPTH {
        let wrapped = Arc::new(Short::new(disk as _, 700));
        let slice = Slice::new(SourceId(0), 0, 1000, false).unwrap();
        disk = Disk::builder("wrapped", Arc::new(slice)).source(wrapped).build().unwrap();
    }
    let wrapped = Arc::new(Short::new(Arc::clone(&disk) as _, 700));
    let slice = Slice::new(SourceId(0), 0, 1000, false).unwrap();
    let refused = Disk::builder("one more", Arc::new(slice)).source(wrapped).build().map(drop).unwrap_err();
    assert_eq!(refused.kind(), Kind::Unsupported);
    with_small_stack(move || assert_eq!(bytes(&disk), random(1000, 1)));
}

#[test]
fn a_long_chain_of_layers() {
    with_small_stack(|| {
        let mut disk = ground(memory(1 << 20, 1));
        for i in 1..MAX_DEPTH as u64 {
            let patch = Patches::new(1 << 20).hold(i * 8000, 100);
            let layer = Disk::builder("layer", Arc::new(patch)).source(memory(1 << 20, i + 1));
            disk = layer.below(disk as _).build().unwrap();
        }
        let all = bytes(&disk);
        for i in 1..MAX_DEPTH {
            let (at, from) = (i * 8000, random(1 << 20, i as u64 + 1));
            assert_eq!(all[at..at + 100], from[at..at + 100], "layer {i}");
        }
        assert_eq!(all[..8000], random(1 << 20, 1)[..8000]);
    });
}

#[test]
fn a_long_chain_of_overlays_that_allocate() {
    with_small_stack(|| {
        let mut disk: Arc<Disk> = ground(memory(100_000, 1));
        for _ in 1..MAX_DEPTH {
            let maker = ToyMaker { len: 100_000, ..ToyMaker::default().over(disk as _) };
            disk = maker.create(Arc::new(Memory::new(0))).unwrap().disk;
        }
        assert_eq!(disk.depth(), MAX_DEPTH);
        disk.write_at(5000, b"deep", Wait::Allowed).unwrap();
        let mut wanted = random(100_000, 1);
        wanted[5000..5004].copy_from_slice(b"deep");
        assert_eq!(bytes(&disk), wanted);
        assert_eq!(disk.fill_up(0, 100_000).unwrap(), 24 * 4096);
        assert_eq!(bytes(&disk), wanted);
        disk.flush().unwrap();
    });
}
