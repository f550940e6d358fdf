use super::*;
use crate::{Chart, CodecId, Extent, Frame, Identity, Member, Place, SourceId, Wait};
use proptest::prelude::*;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

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

fn path(bytes: Vec<u8>) -> PathBuf {
    OsString::from_vec(bytes).into()
}

/// Any bytes but those that end a name.
fn any_name() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::collection::vec(1..=255_u8, 1..6);
    name.prop_map(|name| name.into_iter().map(|b| if b == b'/' { b'%' } else { b }).collect::<Vec<u8>>())
        .prop_filter("a name", |name| !matches!(&name[..], b"." | b".."))
}

prop_compose! {
    fn any_member()(names in prop::collection::vec(any_name(), 1..4), gap in 0..3000_u64, len in 1..u64::from(u32::MAX),
                    device in 0..3_u64, inode in any::<u64>(), times in any::<[u64; 3]>(), like in 0..8) -> (u64, Member) {
        let [changed, modified, generation] = times;
        let modified = match like {
            0..3 => changed,
            3..6 => modified / 1_000_000_000 * 1_000_000_000,
            _ => modified,
        };
        let generation = if like % 2 == 0 { 0 } else { generation };
        let identity = Identity::File { device, inode, generation };
        (gap, Member { name: path(names.join(&b'/')), start: 0, len, identity, modified, changed })
    }
}

prop_compose! {
    fn any_family()(root in any_name(), members in prop::collection::vec(any_member(), 0..20), tail in 0..3_u64) -> FamilyRecord {
        let mut end = 0;
        let mut placed = Vec::new();
        for (gap, member) in members {
            let start = end + gap;
            end = start + member.len;
            placed.push(Member { start, ..member });
        }
        FamilyRecord { root: path(root), len: end + tail, members: placed }
    }
}

prop_compose! {
    fn any_written()(runs in prop::collection::vec((0..3_u64, 1..2000_u64, any_place(), any::<bool>()), 0..60),
                     tail in 0..3_u64, inode in any::<u64>(),
                     more in prop::collection::vec(prop_oneof![
                         prop::collection::vec(any::<u8>(), 0..200).prop_map(SourceRecord::Inline),
                         any_family().prop_map(SourceRecord::Family),
                     ], 0..4)) -> Written {
        let mut table = Table::builder();
        for (gap, len, place, writable) in runs {
            let raw = matches!(place, Place::Raw { .. });
            table.push(Extent { at: table.end() + gap * 1000, len, place, writable: writable && raw }).unwrap();
        }
        let len = table.end() + tail;
        let file = Outside {
            name: "disk.qcow2".into(), len: 77,
            identity: Some(Identity::File { device: 1, inode, generation: 3 }),
            modified: Some(inode / 2),
        };
        let object = Outside {
            name: "http://x/y".into(), len: 0,
            identity: Some(Identity::Object { key: "k".into(), tag: "\"t\"".into() }),
            modified: None,
        };
        let sources = [file, object].map(SourceRecord::Outside).into_iter().chain(more).collect();
        Written { logical_block: 4096, sources, codecs: vec!["zstd".into()],
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

/// A body under a header that is right.
fn headed(version: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend([version, 0, 0, 0]);
    bytes.extend(crc32c::crc32c(body).to_le_bytes());
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(body);
    bytes
}

proptest! {
    #[test]
    fn both_forms_come_back_as_they_were(written in any_written()) {
        assert_same(&written, &Written::from_bytes(&written.to_bytes().unwrap()).unwrap());
        assert_same(&written, &Written::from_json(&written.to_json().unwrap()).unwrap());
    }

    #[test]
    fn any_path_is_text_and_back(name in prop::collection::vec(any::<u8>(), 0..40)) {
        let name = super::path::of(name);
        prop_assert_eq!(super::path::from_text(&super::path::to_text(&name)).unwrap(), name);
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
    fn any_bytes_under_a_right_checksum_are_an_answer(
        body in prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..200), version in 1..3_u8,
    ) {
        let bytes = headed(version, &body);
        if let Ok(written) = Written::from_bytes(&bytes) {
            assert_same(&written, &Written::from_bytes(&written.to_bytes().unwrap()).unwrap());
        }
    }
}

#[test]
fn a_run_costs_a_few_bytes() {
    let raw = |i: u64| Extent::raw(i * 65536, 65536, SourceId(0), (i * 7919 % 10_000) * 65536);
    let table = Table::from_extents(10_000 * 65536, (0..10_000).map(raw)).unwrap();
    let source = Outside { name: "x".into(), len: u64::MAX, identity: None, modified: None };
    let sources = vec![SourceRecord::Outside(source)];
    let written = Written { logical_block: 512, sources, codecs: vec![], table };
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

fn family(members: Vec<Member>, len: u64) -> Written {
    let sources = vec![SourceRecord::Family(FamilyRecord { root: "root".into(), len, members })];
    let table = Table::from_extents(0, []).unwrap();
    Written { logical_block: 2048, sources, codecs: vec![], table }
}

fn member(name: impl Into<PathBuf>, start: u64, len: u64) -> Member {
    let identity = Identity::File { device: 5, inode: 6, generation: 7 };
    Member { name: name.into(), start, len, identity, modified: 8, changed: 9 }
}

#[test]
fn a_file_of_a_family_costs_its_name_and_what_is_new_of_its_identity() {
    // As a tree is that somebody unpacked: old whole seconds, made within milliseconds of each other.
    let now = 1_760_000_000_123_456_789;
    let one = |i: u64| {
        let changed = now + i * 61_234;
        let identity = Identity::File { device: 66_305, inode: 1_000_000 + i, generation: changed - 30_000 };
        let modified = (1_700_000_000 + i * 7919 % 10_000_000) * 1_000_000_000;
        let name = format!("usr/share/doc/package-{:03}/{:06}", i / 100, i).into();
        Member { name, start: i << 14, len: 5000 + i % 9000, identity, modified, changed }
    };
    let written = family((0..10_000).map(one).collect(), 10_000 << 14);
    let bytes = written.to_bytes().unwrap().len();
    let names = 10_000 * 6;
    println!("{} bytes a file, beside its name", (bytes - names) as f64 / 10_000.0);
    assert!(bytes < names + 24 * 10_000, "{bytes}");
}

#[test]
fn a_family_holds_only_what_lies_beneath_it_in_order() {
    for name in ["/etc/passwd", "../x", "a/../../x", "a//b", "", "a/", "./a", "a\0b"] {
        let refused = family(vec![member(name, 0, 1)], 10).to_bytes().unwrap_err();
        assert_eq!(refused.kind(), crate::Kind::Corrupt, "{name:?}");
        assert!(family(vec![member(name, 0, 1)], 10).to_json().is_err());
    }
    for (members, len) in [
        (vec![member("a", 0, 0)], 10),
        (vec![member("a", 0, 11)], 10),
        (vec![member("a", 0, 5), member("b", 4, 1)], 10),
        (vec![member("a", u64::MAX, 2)], u64::MAX),
    ] {
        assert!(family(members, len).to_bytes().is_err());
    }
    // The same, written by somebody who does not ask.
    let good = family(vec![member("ab/cd", 0, 5)], 10);
    let (bytes, json) = (good.to_bytes().unwrap(), good.to_json().unwrap());
    assert_same(&good, &Written::from_bytes(&bytes).unwrap());
    let at = bytes.windows(5).position(|w| w == b"ab/cd").unwrap();
    for name in [b"/b/cd", b"../cd", b"ab/..", b"ab//d", b"ab/c\0"] {
        let mut body = bytes[24..].to_vec();
        body[at - 24..][..5].copy_from_slice(name);
        assert_eq!(Written::from_bytes(&headed(2, &body)).unwrap_err().kind(), crate::Kind::Corrupt);
        let text = String::from_utf8_lossy(name).replace('\0', "%00");
        assert!(Written::from_json(&json.replace("ab/cd", &text)).is_err(), "{text}");
    }
}

#[test]
fn an_extent_ends_with_the_source_that_the_chart_describes() {
    for (source, len) in [
        (SourceRecord::Inline(vec![7; 100]), 100),
        (SourceRecord::Family(FamilyRecord { root: "x".into(), len: 300, members: vec![] }), 300),
    ] {
        let of = |len| {
            let table = Table::from_extents(len, [Extent::raw(0, len, SourceId(0), 0)]).unwrap();
            Written { logical_block: 512, sources: vec![source.clone()], codecs: vec![], table }
        };
        Written::from_bytes(&of(len).to_bytes().unwrap()).unwrap();
        Written::from_bytes(&of(len + 1).to_bytes().unwrap()).unwrap_err();
        Written::from_json(&of(len + 1).to_json().unwrap()).unwrap_err();
    }
}

#[test]
fn charts_of_version_1_are_read() {
    // As the last release wrote them.
    let body = b"\x80\x10\x80\x04\x01\x05a.raw\x80\x08\x01\x01\x02\x03\x01\x09\x00\x01\x06\x80\x04\x80\x04\x00\x80\x08";
    let written = Written::from_bytes(&headed(1, body)).unwrap();
    let outside = Outside {
        name: "a.raw".into(),
        len: 1024,
        identity: Some(Identity::File { device: 1, inode: 2, generation: 3 }),
        modified: Some(9),
    };
    assert_eq!(written.sources, [SourceRecord::Outside(outside.clone())]);
    let writable = Extent { writable: true, ..Extent::raw(512, 512, SourceId(0), 512) };
    assert_eq!(extents(&written.table), [Extent::zero(0, 512), writable, Extent::zero(1024, 1024)]);
    let json = r#"{"portolan_chart": 1, "len": 512, "sources": [{"name": "a.raw", "len": 1024, "modified": 9,
        "identity": {"file": {"device": 1, "inode": 2, "generation": 3}}}], "extents": []}"#;
    assert_eq!(Written::from_json(json).unwrap().sources, [SourceRecord::Outside(outside)]);
    for version in [0, 3] {
        assert_eq!(Written::from_bytes(&headed(version, body)).unwrap_err().kind(), crate::Kind::Unsupported);
    }
}

#[test]
fn json_says_what_a_source_is() {
    let bad = r#"{"portolan_chart": 2, "len": 512, "sources": [{"directory": "x"}], "extents": []}"#;
    let e = Written::from_json(bad).unwrap_err().to_string();
    assert!(e.contains("{directory, len, files}"), "{e}");
    let named = family(vec![member(path(b"a\xff%b".to_vec()), 0, 5)], 5).to_json().unwrap();
    assert!(named.contains(r#""path": "a%FF%25b""#), "{named}");
    for wrong in ["%", "%f", "%zz", "%+1"] {
        Written::from_json(&named.replace("a%FF", wrong)).unwrap_err();
    }
}
