use chart::{Chart, CodecId, Disk, Extent, Frame, Kind, Place, SourceId, Table, Wait};
use proptest::prelude::*;
use std::sync::Arc;
use testkit::contract::{chart_agrees_with_read, chart_law, composes, split_reads};

/// The naive table: a list, searched from the front.
struct Naive(u64, Vec<Extent>);

impl Naive {
    /// The place of one byte, and whether it can be written.
    fn byte(&self, at: u64) -> (Place, bool) {
        let found = self.1.iter().find(|e| e.at <= at && at < e.end());
        found.map_or((Place::Zero, false), |e| (e.place.skip(at - e.at), e.writable && !e.place.is_zero()))
    }

    /// Where something may change: only there a run may end.
    fn edges(&self) -> Vec<u64> {
        self.1.iter().flat_map(|e| [e.at, e.end()]).chain([self.0]).collect()
    }
}

fn places() -> impl Strategy<Value = Place> {
    let offset = prop_oneof![0u64..1 << 20, (1 << 48) - 100..(1u64 << 48) + 100];
    let source = prop_oneof![0u16..4, 8190u16..8194];
    let frame = (0u64..1 << 30, 1u32..5000).prop_map(|(offset, stored_len)| {
        let (source, codec) = (SourceId(1), CodecId(0));
        Frame { offset, stored_len, decoded_len: 100_000, skip: 7, source, codec }.into()
    });
    prop_oneof![
        1 => Just(Place::Hole),
        1 => Just(Place::Zero),
        4 => (source, offset).prop_map(|(s, offset)| Place::Raw { source: SourceId(s), offset }),
        1 => frame,
    ]
}

fn extents() -> impl Strategy<Value = (u64, Vec<Extent>)> {
    // Gaps of 0 are likely, and so are extents that continue the one before.
    let one = (prop_oneof![Just(0u64), 0u64..5000], 1u64..9000, places(), any::<bool>(), 0u8..4);
    (prop::collection::vec(one, 0..40), 0u64..3000).prop_map(|(list, tail)| {
        let mut extents: Vec<Extent> = Vec::new();
        let mut end = 0;
        for (gap, len, place, writable, like) in list {
            let (mut at, mut next) = (end + gap, (place, writable));
            if let (0, Some(last)) = (like, extents.last()) {
                (at, next) = (end, (last.place.skip(last.len), last.writable));
            }
            // A frame holds a hundred thousand bytes, of which some lie before.
            let len = match next.0.as_frame() {
                Some(frame) => len.min(u64::from(frame.decoded_len.saturating_sub(frame.skip))),
                None => len,
            };
            if len > 0 {
                extents.push(Extent { at, len, place: next.0, writable: next.1 });
                end = at + len;
            }
        }
        (end + tail, extents)
    })
}

proptest! {
    #[test]
    fn answers_as_a_list_would((len, extents) in extents()) {
        let table = Table::from_extents(len, extents.iter().copied()).unwrap();
        let naive = Naive(len, extents);
        prop_assert_eq!(Chart::len(&table), len);
        prop_assert!(table.runs() <= 2 * naive.1.len() + 1);
        if let Err(report) = chart_law(&table) {
            return Err(TestCaseError::fail(report.to_string()));
        }
        let edges = naive.edges();
        for at in edges.iter().flat_map(|e| [e.saturating_sub(1), *e, e + 1]).filter(|&at| at < len) {
            let answer = table.extent_at(at, u64::MAX, Wait::Never).unwrap();
            for by in [0, answer.len / 2, answer.len - 1] {
                let place = (answer.place.skip(by), answer.writable);
                prop_assert_eq!(place, naive.byte(at + by), "byte {} of {:?}", at + by, answer);
            }
            prop_assert!(edges.contains(&answer.end()), "{:?} ends where nothing changes", answer);
        }
    }
}

#[test]
fn overlapping_and_overlong_extents_are_refused() {
    let hole = |at, len| Extent::hole(at, len);
    let kind =
        |len, list: &[Extent]| Table::from_extents(len, list.iter().copied()).map(drop).map_err(|e| e.kind());
    assert_eq!(kind(10, &[hole(0, 5), hole(4, 1)]), Err(Kind::Invalid));
    assert_eq!(kind(4, &[hole(0, 5)]), Err(Kind::OutOfRange));
    assert_eq!(kind(u64::MAX, &[hole(u64::MAX - 1, 2)]), Err(Kind::OutOfRange));
    assert_eq!(kind(u64::MAX, &[hole(0, 0), hole(0, 5), hole(5, 0)]), Ok(()));
    assert_eq!(kind(0, &[]), Ok(()));
    chart_law(&Table::from_extents(0, []).unwrap()).unwrap();
}

#[test]
fn what_continues_is_one_run() {
    let piece = |i: u64| Extent::raw(i * 512, 512, SourceId(3), 9000 + i * 512);
    let table = Table::from_extents(1 << 20, (0..2048).map(piece)).unwrap();
    assert_eq!(table.runs(), 1);
}

#[test]
fn disks_of_tables() {
    let piece = |i: u64| Extent::raw(i * 3000, 1 + i * 90, SourceId((i % 2) as u16), (30 - i) * 3000);
    let table = Table::from_extents(100_000, (0..30).map(piece)).unwrap();
    let disk = Disk::builder("table", Arc::new(table));
    let disk = disk.source(crate::memory(100_000, 1)).source(crate::memory(100_000, 2)).build().unwrap();
    chart_agrees_with_read(&disk).unwrap();
    split_reads(&disk, 1).unwrap();
    for seed in 0..4 {
        composes(Arc::clone(&disk), 6, seed).unwrap();
    }
}
