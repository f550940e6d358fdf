use crate::{bytes, memory, random};
use chart::{Chart, Disk, Overlay, Place, SourceId, Wait};
use std::sync::Arc;
use testkit::contract::{Patches, associative, chart_agrees_with_read, chart_law, composes, split_reads};

/// A layer of `len` bytes with two patches, over `below` bytes.
fn overlay(len: u64, below: Option<usize>) -> (Arc<Disk>, Vec<u8>) {
    let patches = Patches::new(len).hold(1000, 5000).hold(30_000, 9000);
    let disk = Disk::builder("overlay", Arc::new(patches)).source(memory(60_000, 1));
    let mut wanted = below.map_or_else(Vec::new, |n| random(n, 2));
    wanted.resize(len as usize, 0);
    for range in [1000..6000, 30_000..39_000] {
        let end = range.end.min(len as usize);
        wanted[range.start..end].copy_from_slice(&random(60_000, 1)[range.start..end]);
    }
    let disk = below.iter().fold(disk, |d, &n| d.below(memory(n, 2)));
    (disk.build().unwrap(), wanted)
}

#[test]
fn layers_shorter_equal_and_longer_than_what_lies_below() {
    for below in [None, Some(0), Some(1), Some(3000), Some(35_000), Some(50_000), Some(60_000)] {
        let (disk, wanted) = overlay(50_000, below);
        assert_eq!(bytes(&disk), wanted, "over {below:?}");
        chart_law(disk.as_ref()).unwrap();
        chart_agrees_with_read(&disk).unwrap();
        split_reads(&disk, 1).unwrap();
        associative(&disk, 2).unwrap();
        composes(disk, 5, 3).unwrap();
    }
}

#[test]
fn it_tells_which_layer_answered() {
    let (disk, _) = overlay(50_000, Some(40_000));
    let layer = |at| disk.answer(at, u64::MAX, Wait::Never).unwrap();
    let own: Vec<_> =
        [0, 1000, 6000, 30_000, 39_000, 40_000].map(layer).iter().map(|(e, own)| (e.len, *own)).collect();
    assert_eq!(
        own,
        [(1000, false), (5000, true), (24_000, false), (9000, true), (1000, false), (10_000, false)]
    );
    assert_eq!(layer(40_000).0.place, Place::Hole);
}

#[test]
fn what_lies_below_is_never_writable() {
    let top = Arc::new(Patches::new(10_000));
    let overlay = Overlay::new(top, Some((SourceId(0), memory(10_000, 1))));
    assert!(!overlay.extent_at(0, 10_000, Wait::Never).unwrap().writable);
}
