use super::*;
use chart::{Extent, Source, SourceId, Table};
use io::memory::Memory;
use std::sync::Arc;
use testkit::contract::place_law;

#[test]
fn what_is_not_read_is_the_same_place() {
    // Law 6, held against what is really called.
    place_law(&|a, b, at, len| {
        assert_eq!((at, len), (0, a.len()));
        Ok(compare(a, b, &Options::default())?.read == 0)
    })
    .unwrap();
}

/// A mebibyte of a source that holds ones, from `offset` on.
fn disk(source: &Arc<Memory>, offset: u64) -> Arc<Disk> {
    let table = Table::from_extents(1 << 20, [Extent::raw(0, 1 << 20, SourceId(0), offset)]).unwrap();
    Disk::builder("disk", Arc::new(table)).source(Arc::clone(source) as _).build().unwrap()
}

#[test]
fn what_is_elsewhere_is_read_and_may_be_equal() {
    let memory = Arc::new(Memory::from_bytes("ones", &vec![1; 3 << 20]));
    let whole = |offset| disk(&memory, offset);
    let (a, b) = (whole(0), whole(1 << 20));
    let report = compare(&a, &b, &Options::default()).unwrap();
    assert_eq!((report.identical, report.read, report.skipped), (true, 1 << 20, 0));
    memory.write_at((1 << 20) + 777, &[2], Wait::Allowed).unwrap();
    let report = compare(&a, &b, &Options::default()).unwrap();
    assert_eq!(report.first_difference, Some(777));
}
