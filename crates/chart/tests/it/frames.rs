use crate::{bytes, random};
use chart::{
    Codec, CodecId, Disk, Error, Extent, Frame, Kind, LeafPlace, Purpose, Result, Slice, Source, SourceId,
    Table, Wait,
};
use std::sync::Arc;
use testkit::contract::{chart_agrees_with_read, chart_law, composes, split_reads};
use testkit::source::Memory;

/// Length, then the bytes turned round and changed: small enough to see through, and nothing like the plain bytes.
struct Turned;

fn encode(bytes: &[u8]) -> Vec<u8> {
    let mut out = (bytes.len() as u32).to_le_bytes().to_vec();
    out.extend(bytes.iter().rev().map(|b| b ^ 0x5a));
    out
}

impl Codec for Turned {
    fn name(&self) -> &'static str {
        "turned"
    }

    fn decode(&self, stored: &[u8], out: &mut [u8]) -> Result<()> {
        let corrupt = || Error::corrupt("the frame has another length");
        let (head, rest) = stored.split_first_chunk::<4>().ok_or_else(corrupt)?;
        if u32::from_le_bytes(*head) as usize != out.len() {
            return Err(corrupt());
        }
        let body = rest.get(..out.len()).ok_or_else(corrupt)?;
        out.iter_mut().zip(body.iter().rev()).for_each(|(o, b)| *o = b ^ 0x5a);
        Ok(())
    }
}

const FRAME: usize = 10_000;

fn frame(offset: u64, stored_len: u32, skip: u32) -> Frame {
    let (source, codec) = (SourceId(0), CodecId(0));
    Frame { offset, stored_len, decoded_len: FRAME as u32, skip, source, codec }
}

/// Twenty frames packed one behind the other, each charted in two extents in the wrong order, with raw and zero
/// runs between them. `stored_len` is generous.
fn packed() -> (Vec<u8>, Vec<Extent>, Vec<u8>) {
    let (mut file, mut extents, mut wanted) = (b"head".to_vec(), Vec::new(), Vec::new());
    for i in 0..20 {
        let plain = random(FRAME, i);
        let f = |skip| frame(file.len() as u64, FRAME as u32 + 700, skip);
        let at = wanted.len() as u64;
        extents.push(Extent::frame(at, 100_000, f(4000)));
        extents.push(Extent::frame(at + 6000, 4000, f(0)));
        extents.push(Extent::raw(at + 10_000, 4, SourceId(0), 0));
        wanted.extend_from_slice(&plain[4000..]);
        wanted.extend_from_slice(&plain[..4000]);
        wanted.extend_from_slice(b"head");
        wanted.resize(wanted.len() + 500, 0);
        file.extend(encode(&plain));
    }
    (file, extents, wanted)
}

fn disk_of(source: Arc<dyn Source>, len: usize, extents: Vec<Extent>) -> Arc<Disk> {
    let table = Table::from_extents(len as u64, extents).unwrap();
    Disk::builder("frames", Arc::new(table)).source(source).codec(Arc::new(Turned)).build().unwrap()
}

/// Cuts a source into pieces of so many bytes, as a disk.
fn pieces(file: Vec<u8>, size: u64) -> Arc<Disk> {
    let len = file.len() as u64;
    let piece = |i: u64| Extent::raw(i * size, size.min(len - i * size), SourceId((i % 2) as u16), i * size);
    let table = Table::from_extents(len, (0..len.div_ceil(size)).map(piece)).unwrap();
    let memory: Arc<dyn Source> = Arc::new(Memory::of(file));
    Disk::builder("pieces", Arc::new(table)).source(Arc::clone(&memory)).source(memory).build().unwrap()
}

#[test]
fn frames_read_right_however_they_are_stored() {
    let (file, extents, wanted) = packed();
    let below: Vec<Arc<dyn Source>> = vec![
        Arc::new(Memory::of(file.clone())),
        pieces(file.clone(), 1 << 30),
        pieces(file.clone(), 64_000),
        pieces(file, 777),
    ];
    for source in below {
        let disk = disk_of(source, wanted.len(), extents.clone());
        assert_eq!(bytes(&disk), wanted);
        chart_law(disk.as_ref()).unwrap();
        chart_agrees_with_read(&disk).unwrap();
        split_reads(&disk, 1).unwrap();
        composes(disk, 2, 2).unwrap();
    }
}

#[test]
fn a_frame_is_handed_down_only_where_it_lies_in_one_piece() {
    let (file, extents, wanted) = packed();
    for (size, whole) in [(1 << 30, true), (777, false)] {
        let inner = pieces(file.clone(), size);
        let (leaf, own) = (inner.sources()[0].identity(), Source::identity(inner.as_ref()));
        let disk = disk_of(inner, wanted.len(), extents.clone());
        let plan = disk.plan(0, 6000, 8, Wait::Allowed, Purpose::Locate).unwrap();
        let LeafPlace::Coded(coded) = &plan.leaves[0].place else { panic!("no frame") };
        assert_eq!(coded.source.identity(), if whole { leaf } else { own });
    }
}

#[test]
fn a_frame_ends_where_a_disk_on_the_way_does() {
    let (file, ..) = packed();
    let end = 4 + 4 + FRAME as u64;
    let slice = Slice::new(SourceId(0), 0, end, false).unwrap();
    let inner = Disk::builder("slice", Arc::new(slice)).source(Arc::new(Memory::of(file))).build().unwrap();
    let disk = disk_of(inner, FRAME, vec![Extent::frame(0, FRAME as u64, frame(4, 60_000, 0))]);
    let plan = disk.plan(0, 10, 1, Wait::Allowed, Purpose::Locate).unwrap();
    let LeafPlace::Coded(coded) = &plan.leaves[0].place else { panic!("no frame") };
    // What lies behind the slice in the file is none of the slice's.
    assert_eq!((coded.stored_len() as u64, coded.frame.stored_len.into()), (end - 4, end - 4));
    assert_eq!(bytes(&disk), random(FRAME, 0));
}

#[test]
fn what_is_decoded_is_kept_and_then_at_hand() {
    let (file, extents, wanted) = packed();
    let disk = disk_of(Arc::new(Memory::of(file)), wanted.len(), extents);
    let mut buf = [0; 100];
    assert!(disk.read_at(0, &mut buf, Wait::Never).unwrap_err().is_would_block());
    disk.read_at(0, &mut buf, Wait::Allowed).unwrap();
    disk.read_at(200, &mut buf, Wait::Never).unwrap();
    assert_eq!(buf, wanted[200..300]);
}

#[test]
fn a_bad_frame_is_an_error_that_hurts_no_other() {
    let good = encode(&random(FRAME, 1));
    let mut file = good.clone();
    file.extend(encode(&random(5, 2)));
    let second = good.len() as u64;
    let past = file.len() as u64 + 100;
    let giant = Frame { decoded_len: u32::MAX, ..frame(0, 100, 0) };
    let foreign = Frame { codec: CodecId(9), ..frame(0, 100, 0) };
    let bad = [frame(second, 50, 0), frame(past, 50, 0), giant, foreign, frame(0, 3, 0)];
    let sound = frame(0, 70_000, 0);
    let at = |i: usize| i as u64 * 20_000;
    let list = bad.iter().chain([&sound]).enumerate();
    let extents = list.map(|(i, f)| Extent::frame(at(i), FRAME as u64, *f)).collect();
    let disk = disk_of(Arc::new(Memory::of(file)), 200_000, extents);
    for i in 0..bad.len() {
        let error = disk.read_at(at(i), &mut [0; 10], Wait::Allowed).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "frame {i}: {error}");
    }
    let mut buf = vec![0; FRAME];
    disk.read_at(at(bad.len()), &mut buf, Wait::Allowed).unwrap();
    assert_eq!(buf, random(FRAME, 1));
}
