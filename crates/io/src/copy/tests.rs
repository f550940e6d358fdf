use super::*;
use crate::file::{File, Options as Open};
use crate::memory::Memory;
use chart::{CodecId, Extent, Frame, Slice, SourceId, Table, Wait};
use std::sync::Arc;

/// Not zero, and told apart by position.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 7 % 251) as u8 + 1).collect()
}

fn whole(source: Arc<dyn Source>) -> Arc<Disk> {
    let slice = Slice::new(SourceId(0), 0, source.len(), false).unwrap();
    Disk::builder("disk", Arc::new(slice)).source(source).build().unwrap()
}

fn bytes(source: &dyn Source) -> Vec<u8> {
    let mut all = vec![0; source.len() as usize];
    source.read_at(0, &mut all, Wait::Allowed).unwrap();
    all
}

/// Three megabytes and a bit: data, a hole, data; in a file.
fn sparse_file(dir: &std::path::Path) -> Arc<File> {
    let file = File::open(dir.join("source"), Open { create_new: true, ..Open::default() }).unwrap();
    file.set_len(3_500_001).unwrap();
    file.write_at(0, &pattern(1_000_000), Wait::Allowed).unwrap();
    file.write_at(2 << 20, &pattern(700_000), Wait::Allowed).unwrap();
    Arc::new(file)
}

#[test]
fn a_sparse_file_arrives_whole_and_sparse() {
    let dir = tempfile::tempdir().unwrap();
    let source = sparse_file(dir.path());
    for reflink in [Reflink::Auto, Reflink::Never] {
        let sink =
            File::open(dir.path().join(format!("{reflink:?}")), Open { create_new: true, ..Open::default() });
        let sink = sink.unwrap();
        let options = Options { reflink, sink_reads_zero: true, ..Options::default() };
        let report = copy(&whole(source.clone()), &sink, &options).unwrap();
        assert_eq!(bytes(&sink), bytes(source.as_ref()));
        assert!(!sink.data_at(1 << 20, 4096).unwrap().data, "the hole was filled: {report:?}");
        assert_eq!(report.copied, 0, "the kernel can copy between two files of one file system: {report:?}");
        assert_eq!(report.total(), 3_500_001);
    }
}

#[test]
fn zeros_overwrite_what_a_sink_held() {
    let source = Arc::new(Memory::new("source", 3 << 20));
    source.write_at(100, b"x", Wait::Allowed).unwrap();
    for zero_detect in [false, true] {
        let sink = Memory::from_bytes("sink", &pattern(3 << 20));
        let report =
            copy(&whole(source.clone()), &sink, &Options { zero_detect, ..Options::default() }).unwrap();
        assert_eq!(bytes(&sink), bytes(source.as_ref()));
        assert_eq!(report.copied, if zero_detect { 4096 } else { 64 << 10 });
    }
}

struct Repeat;

impl chart::Codec for Repeat {
    fn name(&self) -> &'static str {
        "repeat"
    }
    fn decode(&self, stored: &[u8], out: &mut [u8]) -> Result<()> {
        out.fill(stored[0]);
        Ok(())
    }
}

#[test]
fn frames_are_decoded_on_the_way() {
    let frame = |at: u64, skip| {
        let frame = Frame {
            offset: at / 4096,
            stored_len: 10,
            decoded_len: 4096,
            skip,
            source: SourceId(0),
            codec: CodecId(0),
        };
        Extent::frame(at, 4096, frame)
    };
    let table = Table::from_extents(20_000, [frame(0, 0), frame(4096, 0), frame(8192, 1000)]).unwrap();
    let disk = Disk::builder("framed", Arc::new(table))
        .source(Arc::new(Memory::from_bytes("stored", b"abc")))
        .codec(Arc::new(Repeat))
        .build()
        .unwrap();
    let sink = Memory::new("sink", 0);
    let report = copy(&disk, &sink, &Options { sink_reads_zero: true, ..Options::default() }).unwrap();
    let mut expected = vec![b'a'; 4096];
    expected.extend([b'b'; 4096]);
    expected.extend([b'c'; 3096]);
    expected.resize(20_000, 0);
    assert_eq!(bytes(&sink), expected);
    assert_eq!(report.decoded, 3096 + 8192);
}

#[test]
fn a_cancelled_copy_says_so() {
    let cancel = AtomicBool::new(true);
    let options = Options { cancel: Some(&cancel), ..Options::default() };
    let e = copy(&whole(Arc::new(Memory::new("source", 10 << 20))), &Memory::new("sink", 0), &options);
    assert!(e.unwrap_err().to_string().contains("cancelled"));
}

#[test]
fn progress_ends_at_the_total() {
    let seen = AtomicU64::new(0);
    let tell = |p: Progress| {
        assert_eq!(p.total, 5 << 20);
        seen.fetch_max(p.done, Ordering::Relaxed);
    };
    let options = Options { progress: Some(&tell), ..Options::default() };
    copy(
        &whole(Arc::new(Memory::from_bytes("source", &pattern(5 << 20)))),
        &Memory::new("sink", 0),
        &options,
    )
    .unwrap();
    assert_eq!(seen.into_inner(), 5 << 20);
}

#[test]
fn holes_leave_what_a_sink_held_where_that_is_asked_for() {
    const MB: u64 = 1 << 20;
    let raw = Extent::raw(2 * MB, MB, SourceId(0), 0);
    let runs = [Extent::hole(0, MB), Extent::zero(MB, MB), raw, Extent::hole(3 * MB, MB)];
    let table = Table::from_extents(4 << 20, runs).unwrap();
    let held = Arc::new(Memory::from_bytes("held", &pattern(1 << 20)));
    let disk = Disk::builder("layer", Arc::new(table)).source(held.clone()).build().unwrap();
    let before = vec![7; 4 << 20];
    let sink = Memory::from_bytes("sink", &before);
    let report = copy(&disk, &sink, &Options { keep_holes: true, ..Options::default() }).unwrap();
    let after = bytes(&sink);
    assert!(after[..1 << 20] == before[..1 << 20] && after[3 << 20..] == before[3 << 20..]);
    assert!(after[1 << 20..2 << 20].iter().all(|byte| *byte == 0));
    assert!(after[2 << 20..3 << 20] == bytes(held.as_ref()));
    assert_eq!((report.skipped, report.zeroed, report.copied), (2 << 20, 1 << 20, 1 << 20));
}

#[test]
fn a_copier_copies_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut copier = Copier::new(Default::default());
    let source = sparse_file(dir.path());
    let mut copied = |disk: &Disk, name: &str| {
        let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::EXCL | rustix::fs::OFlags::RDWR;
        let path = dir.path().join(name);
        let fd = rustix::fs::open(&path, flags, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        let sink = File::just_made(fd, path.clone(), disk.len());
        let report =
            copier.copy(disk, &sink, &Options { sink_reads_zero: true, ..Options::default() }).unwrap();
        assert_eq!(report.total(), disk.len());
        sink.set_len(disk.len()).unwrap();
        let mut expected = vec![0; disk.len() as usize];
        disk.read_at(0, &mut expected, Wait::Allowed).unwrap();
        assert!(std::fs::read(path).unwrap() == expected, "{name}");
        report
    };
    let window = |at, len| {
        let slice = Slice::new(SourceId(0), at, len, false).unwrap();
        Disk::builder("window", Arc::new(slice)).source(source.clone()).build().unwrap()
    };
    copied(&window(0, 0), "empty");
    assert_eq!(copied(&window(3, 5000), "small").copied, 5000);
    copied(&whole(source.clone()), "large");
    copied(&window(4096, 900_000), "aligned");
    // Holes stay holes, in small disks too.
    let table =
        Table::from_extents(9000, [Extent::raw(0, 100, SourceId(0), 7), Extent::hole(4096, 4904)]).unwrap();
    let holes = Disk::builder("holes", Arc::new(table)).source(source.clone()).build().unwrap();
    assert_eq!(copied(&holes, "holes").skipped, 8900);
}
