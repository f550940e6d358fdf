use super::*;
use crate::{Chart, CodecId, Extent, Frame, Place, SourceId, Wait};
use proptest::prelude::*;

fn any_place() -> impl Strategy<Value = Place> {
    prop_oneof![
        Just(Place::Hole),
        Just(Place::Zero),
        (0..2_u16, 0..1_u64 << 62).prop_map(|(s, offset)| Place::Raw { source: SourceId(s), offset }),
        (0..2_u16, any::<u64>(), any::<u32>(), 0..1000_u32).prop_map(|(s, offset, stored_len, skip)| {
            let (source, codec) = (SourceId(s), CodecId(0));
            Frame { offset, stored_len, decoded_len: 3000, skip, source, codec }.into()
        }),
    ]
}

prop_compose! {
    fn any_written()(runs in prop::collection::vec((0..3_u64, 1..2000_u64, any_place(), any::<bool>()), 0..60),
                     tail in 0..3_u64, inode in any::<u64>()) -> Written {
        let mut table = Table::builder();
        for (gap, len, place, writable) in runs {
            let raw = matches!(place, Place::Raw { .. });
            table.push(Extent { at: table.end() + gap * 1000, len, place, writable: writable && raw }).unwrap();
        }
        let len = table.end() + tail;
        let file = SourceRecord {
            name: "disk.qcow2".into(), len: 77,
            identity: Some(Identity::File { device: 1, inode, generation: 3 }),
            modified: Some(inode / 2),
        };
        let object = SourceRecord {
            name: "http://x/y".into(), len: 0,
            identity: Some(Identity::Object { key: "k".into(), tag: "\"t\"".into() }),
            modified: None,
        };
        Written { logical_block: 4096, sources: vec![file, object], codecs: vec!["zstd".into()],
                  table: table.finish(len).unwrap() }
    }
}

fn extents(table: &Table) -> Vec<Extent> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < Chart::len(table) {
        all.push(table.extent_at(at, u64::MAX, Wait::Never).unwrap());
        at = all[all.len() - 1].end();
    }
    all
}

fn assert_same(a: &Written, b: &Written) {
    assert_eq!(extents(&a.table), extents(&b.table));
    assert_eq!(Chart::len(&a.table), Chart::len(&b.table));
    assert_eq!((&a.sources, &a.codecs, a.logical_block), (&b.sources, &b.codecs, b.logical_block));
}

proptest! {
    #[test]
    fn both_forms_come_back_as_they_were(written in any_written()) {
        assert_same(&written, &Written::from_bytes(&written.to_bytes().unwrap()).unwrap());
        assert_same(&written, &Written::from_json(&written.to_json().unwrap()).unwrap());
    }

    #[test]
    fn a_flipped_bit_or_a_cut_is_found(written in any_written(), at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut bytes = written.to_bytes().unwrap();
        let at = at.index(bytes.len());
        Written::from_bytes(&bytes[..at]).unwrap_err();
        bytes[at] ^= 1_u8 << bit;
        Written::from_bytes(&bytes).unwrap_err();
    }

    #[test]
    fn any_bytes_under_a_right_checksum_are_an_answer(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, 0, 0, 0]);
        bytes.extend(crc32c::crc32c(&body).to_le_bytes());
        bytes.extend((body.len() as u64).to_le_bytes());
        bytes.extend(body);
        if let Ok(written) = Written::from_bytes(&bytes) {
            assert_same(&written, &Written::from_bytes(&written.to_bytes().unwrap()).unwrap());
        }
    }
}

#[test]
fn a_run_costs_a_few_bytes() {
    let raw = |i: u64| Extent::raw(i * 65536, 65536, SourceId(0), (i * 7919 % 10_000) * 65536);
    let table = Table::from_extents(10_000 * 65536, (0..10_000).map(raw)).unwrap();
    let source = SourceRecord { name: "x".into(), len: u64::MAX, identity: None, modified: None };
    let written = Written { logical_block: 512, sources: vec![source], codecs: vec![], table };
    let bytes = written.to_bytes().unwrap().len();
    assert!(bytes < 12 * 10_000, "{bytes}");
}

#[test]
fn either_form_is_recognised() {
    for head in ["PORTOLAN...", "{\"portolan_chart\": 1", " \n{\n\t\"portolan_chart\""] {
        assert!(Written::probe(head.as_bytes()), "{head}");
    }
    for head in ["", "{", "portolan_chart", "[{\"portolan_chart\"", "{\"len\": 1, \"portolan_chart\": 1"] {
        assert!(!Written::probe(head.as_bytes()), "{head}");
    }
}
