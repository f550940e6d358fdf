use crate::{bytes, memory, random};
use chart::{Chart, Disk, Kind, Slice, SourceId, Wait};
use std::sync::Arc;
use testkit::contract::{chart_agrees_with_read, chart_law, composes, source_law, split_reads};

#[test]
fn laws() {
    for (offset, len, writable) in [(0, 50_000, true), (777, 40_001, false), (49_999, 1, true), (5, 0, false)]
    {
        let chart = Arc::new(Slice::new(SourceId(0), offset, len, writable).unwrap());
        chart_law(chart.as_ref()).unwrap();
        let disk = Disk::builder("slice", chart).source(memory(50_000, 1));
        let disk = if writable { disk.straight() } else { disk }.build().unwrap();
        assert_eq!(bytes(&disk), random(50_000, 1)[offset as usize..][..len as usize]);
        chart_agrees_with_read(&disk).unwrap();
        split_reads(&disk, 2).unwrap();
        if len > 0 {
            source_law(disk.as_ref(), 3).unwrap();
            composes(disk, 3, 4).unwrap();
        }
    }
}

#[test]
fn a_range_that_wraps_is_refused() {
    assert_eq!(Slice::new(SourceId(0), u64::MAX, 2, false).unwrap_err().kind(), Kind::OutOfRange);
    let last = Slice::new(SourceId(0), u64::MAX - 1, 1, false).unwrap();
    assert_eq!(last.extent_at(0, u64::MAX, Wait::Never).unwrap().len, 1);
}
