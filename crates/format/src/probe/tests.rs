use super::*;
use io::memory::Memory;

fn marked(len: usize, at: usize, mark: &[u8]) -> Option<Mark> {
    let mut bytes = vec![0xf6; len];
    bytes[at..at + mark.len()].copy_from_slice(mark);
    probe(&Memory::from_bytes("x", &bytes)).unwrap()
}

#[test]
fn every_mark_is_seen_where_it_belongs_and_only_there() {
    for &(at, mark, name) in HEAD {
        assert_eq!(marked(4096, at, mark), Some(Mark::Foreign(name)), "{name}");
        assert_eq!(marked(at + mark.len(), at, mark), Some(Mark::Foreign(name)), "{name}: nothing behind it");
        assert_eq!(marked(4096, at + 1, mark), None, "{name}");
    }
    for &(at, mark, name) in FOOT {
        assert_eq!(marked(4096, 4096 - 512 + at, mark), Some(Mark::Foreign(name)), "{name}");
        assert_eq!(marked(4096, 2048, mark), None, "{name}");
    }
    assert_eq!(marked(512, 0, b"QFI\xfb"), Some(Mark::Qcow2));
    // What stands before it is a text that differs from program to program.
    assert_eq!(marked(512, 64, b"\x7f\x10\xda\xbe"), Some(Mark::Vdi));
    assert_eq!(marked(512, 0, b"{\"portolan_chart\": 1"), Some(Mark::Chart));
}

#[test]
fn what_bears_no_mark_says_nothing() {
    for len in [0, 1, 3, 511, 512, 513, 1 << 20] {
        assert_eq!(probe(&Memory::from_bytes("x", &vec![0; len])).unwrap(), None, "{len}");
    }
    assert_eq!(of_head(b"KDM"), None);
}
