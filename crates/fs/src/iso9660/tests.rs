#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::arithmetic_side_effects
)]

use super::date;
use super::names::{self, Naming};
use super::rock_ridge;
use super::susp::{Continuation, Fields};
use io::tree::Time;

fn identifier(naming: Naming, name: &[u8], directory: bool, number: u32) -> Vec<u8> {
    let mut out = b"before".to_vec();
    naming.identify(name, directory, number, &mut out);
    out.split_off(6)
}

#[test]
fn a_plain_identifier_is_made_of_d_characters() {
    let file = |name: &str, number| {
        String::from_utf8(identifier(Naming::Plain, name.as_bytes(), false, number)).unwrap()
    };
    assert_eq!(file("readme.txt", 0), "README.TXT;1");
    assert_eq!(file("readme.txt", 12), "README_12.TXT;1");
    assert_eq!(file("README", 0), "README.;1");
    assert_eq!(file("a.b.c", 0), "A_B.C;1");
    assert_eq!(file(".hidden", 0), "_HIDDEN.;1");
    assert_eq!(file("name.", 0), "NAME_.;1");
    assert_eq!(file("ä b", 0), "___B.;1");
    assert_eq!(file(&"x".repeat(40), 0), format!("{}.;1", "X".repeat(30)));
    assert_eq!(file(&format!("{}.extensions", "x".repeat(40)), 0), format!("{}.EXTENSIO;1", "X".repeat(22)));
    assert_eq!(file(&"x".repeat(40), u32::MAX), format!("{}_4294967295.;1", "X".repeat(19)));
    let directory = identifier(Naming::Plain, format!("a.{}", "b".repeat(40)).as_bytes(), true, 7);
    assert_eq!(directory, format!("A_{}_7", "B".repeat(27)).as_bytes());
}

#[test]
fn a_joliet_identifier_is_cut_to_what_has_room() {
    let name = |name: &[u8], number| {
        let bytes = identifier(Naming::Joliet, name, true, number);
        let units = bytes.as_chunks::<2>().0.iter().map(|&unit| u16::from_be_bytes(unit));
        String::from_utf16(&units.collect::<Vec<_>>()).unwrap()
    };
    assert_eq!(name("größe 🗺".as_bytes(), 0), "größe 🗺");
    assert_eq!(name(b"a*b/c:d;e?f\\g\x01", 0), "a_b_c_d_e_f_g_");
    assert_eq!(name(b"\xff\xfe cut \xf0\x9f", 0), "__ cut _");
    assert_eq!(name(b"a.txt", 3), "a_3.txt");
    assert_eq!([name(b"name.", 0), name(b"...", 0), name(b"..a..", 0)], ["name_", "___", "..a__"]);
    assert_eq!([name(b"name.", 2), name(&[b'.'; 200], 0)], ["name_2_".into(), "_".repeat(103)]);
    let long = "x".repeat(120);
    assert_eq!(name(long.as_bytes(), 0), long[..103]);
    assert_eq!(name(format!("{long}.txt").as_bytes(), 0), format!("{}.txt", &long[..99]));
    assert_eq!(name(format!("{long}.txt").as_bytes(), 10), format!("{}_10.txt", &long[..96]));
    // No half of a pair is left.
    assert_eq!(name("🗺".repeat(60).as_bytes(), 0), "🗺".repeat(51));
    let file = identifier(Naming::Joliet, b"a", false, 0);
    assert_eq!(file, b"\0a\0;\x001");
}

#[test]
fn keys_put_the_dot_before_everything() {
    let key = |name: &str| {
        let mut key = Vec::new();
        Naming::Joliet.key(name.as_bytes(), false, 0, &mut key);
        key
    };
    let sorted = ["a", "a..b", "a.txt", "a b", "a-b.txt", "ab"];
    assert!(sorted.is_sorted_by(|a, b| key(a) < key(b)));
}

#[test]
fn a_volume_name_is_padded() {
    assert_eq!(&names::volume("Größe".as_bytes()), b"GR____E                         ");
    let wide = names::joliet_volume("größe".as_bytes());
    assert_eq!(wide[..12], *b"\0g\0r\0\xf6\0\xdf\0e\0 ");
    let cut = names::joliet_volume(format!("{}🗺", "x".repeat(15)).as_bytes());
    assert_eq!(cut[28..], *b"\0x\0 ");
}

#[test]
fn moments_are_told_in_utc() {
    let at = |seconds| Time { seconds, nanos: 999_999_999 };
    assert_eq!(date::short(at(0)), [70, 1, 1, 0, 0, 0, 0]);
    assert_eq!(date::short(at(951_782_399)), [100, 2, 28, 23, 59, 59, 0]);
    assert_eq!(date::short(at(951_782_400)), [100, 2, 29, 0, 0, 0, 0]);
    assert_eq!(date::short(at(-1)), [69, 12, 31, 23, 59, 59, 0]);
    assert_eq!(&date::long(at(951_868_800)), b"2000030100000099\0");
    assert_eq!(&date::long(at(i64::MIN)), b"0001010100000099\0");
    assert_eq!(&date::long(at(i64::MAX)), b"9999123123595999\0");
    let last = 5_869_583_999; // 2155-12-31 23:59:59
    assert_eq!(date::short(at(last)), [255, 12, 31, 23, 59, 59, 0]);
    assert!(date::is_short(at(last)) && !date::is_short(at(last + 1)));
    assert_eq!(date::short(at(last + 1)), date::short(at(last)));
    assert_eq!(&date::long(at(last + 1)), b"2156010100000099\0");
    assert_eq!(date::short(at(-3_000_000_000)), [0, 1, 1, 0, 0, 0, 0]);
}

#[test]
fn a_name_of_more_bytes_than_linux_reads_is_cut_there() {
    for (len, wanted) in [(1, [1, 0, 0]), (250, [250, 0, 0]), (253, [250, 3, 0]), (255, [250, 3, 2])] {
        let mut fields = Fields::default();
        rock_ridge::push_name(&vec![b'n'; len], &mut fields);
        let (record, ..) = packed(&fields, usize::MAX, 0);
        let (mut rest, mut lens) = (record.as_slice(), Vec::new());
        while let [b'N', b'M', field, 1, more, ..] = rest {
            lens.push(usize::from(*field) - 5);
            rest = &rest[usize::from(*field)..];
            assert_eq!(*more == 1, !rest.is_empty());
        }
        assert_eq!(lens, wanted.into_iter().filter(|&len| len > 0).collect::<Vec<_>>());
    }
}

/// An area, and where it is.
type Area = (u64, Vec<u8>);

/// What is in the record, all areas that fields are packed into, and where there is room behind them.
fn packed(fields: &Fields, room: usize, at: u64) -> (Vec<u8>, Vec<Area>, u64) {
    let mut continuation = Continuation { sector: 100, at };
    let (mut record, mut areas) = (Vec::new(), Vec::new());
    continuation.pack(fields, room, &mut record, |at, bytes| areas.push((at, bytes.to_vec())));
    (record, areas, continuation.at)
}

/// Where a CE field leads: sector, offset and length.
fn pointer(field: &[u8]) -> [u32; 3] {
    assert_eq!(&field[..4], b"CE\x1c\x01");
    [4, 12, 20].map(|at| u32::from_le_bytes(field[at..at + 4].try_into().unwrap()))
}

#[test]
fn fields_go_on_elsewhere_when_there_is_no_room() {
    let mut fields = Fields::default();
    fields.push(*b"AA", &[&[1; 46]]);
    fields.push(*b"BB", &[&[2; 26], &[2; 20]]);
    let (record, areas, at) = packed(&fields, 100, 7);
    assert_eq!((record.len(), areas.len(), at), (100, 0, 7));
    let (record, areas, at) = packed(&fields, 99, 7);
    assert_eq!(record.len(), 78);
    assert_eq!(pointer(&record[50..]), [100, 7, 50]);
    assert_eq!(areas[0].0, 7);
    assert_eq!(areas[0].1[..4], *b"BB\x32\x01");
    assert_eq!((areas.len(), at), (1, 57));
    // What does not fit behind the others in a sector goes to the next.
    let (record, areas, at) = packed(&fields, 99, 2000);
    assert_eq!(pointer(&record[50..]), [101, 0, 50]);
    assert_eq!((areas[0].0, at), (2048, 2098));
}

#[test]
fn a_target_of_four_kib_takes_areas_of_three_sectors_and_is_never_cut_between_names() {
    let mut fields = Fields::default();
    let target = "abcdefghi/".repeat(409);
    rock_ridge::push_target(target.as_bytes(), &mut fields);
    let (record, areas, at) = packed(&fields, 60, 5);
    assert_eq!((record.len(), areas.len()), (28, 3));
    assert_eq!(areas.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [2048, 4096, 6144]);
    assert_eq!(at, 6144 + areas[2].1.len() as u64);
    assert_eq!(pointer(&areas[0].1[areas[0].1.len() - 28..]), [102, 0, areas[1].1.len() as u32]);
    let fields = areas.iter().flat_map(|(_, bytes)| {
        let (mut rest, mut fields) = (bytes.as_slice(), Vec::new());
        while !rest.is_empty() {
            let (field, behind) = rest.split_at(rest[2].into());
            fields.push(field.to_vec());
            rest = behind;
        }
        fields
    });
    let fields: Vec<_> = fields.filter(|field| field.starts_with(b"SL")).collect();
    for (i, field) in fields.iter().enumerate() {
        let (mut rest, mut last) = (&field[5..], 0);
        while !rest.is_empty() {
            last = rest[0];
            rest = &rest[2 + usize::from(rest[1])..];
        }
        let goes_on = u8::from(i + 1 < fields.len());
        assert_eq!((field[4], last), (goes_on, goes_on), "field {i} ends within a name");
    }
}
