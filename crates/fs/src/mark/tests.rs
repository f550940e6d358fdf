use super::*;
use chart::{Slice, Source, SourceId};
use io::memory::Memory;
use std::sync::Arc;

fn marked(len: u64, marks: &[Mark]) -> Option<&'static str> {
    let memory = Arc::new(Memory::new("m", len));
    marks.iter().for_each(|(at, bytes, _)| memory.write_at(*at, bytes, Wait::Allowed).unwrap());
    let window = Slice::new(SourceId(0), 0, len, false).unwrap();
    mark(&Disk::builder("m", Arc::new(window)).source(memory).build().unwrap()).unwrap()
}

#[test]
fn each_is_found_where_it_is() {
    for one in MARKS {
        assert!(one.1.len() <= LONGEST, "{}", one.2);
        assert_eq!(marked(1 << 20, &[*one]), Some(one.2));
        // One that the disk is too short for is none.
        let len = one.0 + one.1.len() as u64;
        assert_eq!(marked(len, &[*one]), Some(one.2));
    }
    assert_eq!((marked(1 << 20, &[]), marked(0, &[])), (None, None));
}

#[test]
fn what_holds_something_is_believed_first() {
    // A swap that was encrypted later; an ISO 9660 disk that is a UDF disk too.
    assert_eq!(marked(1 << 20, &[(4086, b"SWAPSPACE2", ""), (0, b"LUKS\xba\xbe", "")]), Some("LUKS"));
    assert_eq!(marked(1 << 20, &[(32_769, b"CD001", ""), (32_768, b"JFS1", "")]), Some("jfs"));
}
