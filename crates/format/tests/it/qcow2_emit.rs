//! Emitting qcow2 files: what comes out is what qemu-img would have made of it.

use chart::{Disk, Source, Wait};
use format::qcow2::Image;
use format::qcow2::create::New;
use format::qcow2::emit::{PackOptions, emit, pack};
use io::copy::{Options, copy};
use io::file::{File, Options as Open};
use std::path::Path;
use std::sync::Arc;
use testkit::peer;

pub(super) fn made(path: &Path, len: u64) -> File {
    let file = File::open(path, Open { create_new: true, ..Open::default() }).unwrap();
    file.set_len(len).unwrap();
    file
}

/// A disk with holes, data, and data that is not aligned to anything.
pub(super) fn sparse_disk(dir: &Path, len: u64, seed: u64) -> Arc<Disk> {
    let path = dir.join(format!("source-{seed}.raw"));
    let file = made(&path, len);
    let mut rng = testkit::Rng::new(seed);
    for _ in 0..12 {
        let (at, want) = rng.range(len, len / 10);
        let mut data = vec![0; want as usize];
        rng.fill(&mut data);
        file.write_at(at, &data, Wait::Allowed).unwrap();
    }
    drop(file);
    format::raw::open(Arc::new(File::open(path, Open::default()).unwrap()), false).unwrap()
}

fn variants(size: u64) -> Vec<New> {
    let new = New::of(size);
    vec![
        new.clone(),
        New { cluster_bits: 9, refcount_order: 6, ..new.clone() },
        New { cluster_bits: 9, refcount_order: 0, ..new.clone() },
        New { cluster_bits: 12, version: 2, ..new.clone() },
        New { cluster_bits: 21, refcount_order: 3, ..new.clone() },
        New { cluster_bits: 16, extended_l2: true, lazy_refcounts: true, ..new.clone() },
        New { cluster_bits: 14, extended_l2: true, refcount_order: 1, ..new },
    ]
}

#[test]
fn an_emitted_file_is_one_that_qemu_reads() {
    if !peer::require(&["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (seed, len) in [(1, 5 << 20), (2, (17 << 20) + 512), (3, 1 << 12)] {
        let source = sparse_disk(dir.path(), len, seed);
        let raw = dir.path().join(format!("source-{seed}.raw"));
        for (i, new) in variants(len).iter().enumerate() {
            let emitted = emit(Arc::clone(&source), new).unwrap();
            let path = dir.path().join(format!("{seed}-{i}.qcow2"));
            let report =
                copy(&emitted, &made(&path, 0), &Options { sink_reads_zero: true, ..Options::default() });
            report.unwrap();
            let (path, raw) = (path.to_str().unwrap(), raw.to_str().unwrap());
            peer::qemu_img(&["check", "-q", path]);
            peer::qemu_img(&["compare", "-q", "-f", "raw", "-F", "qcow2", raw, path]);
        }
    }
}

#[test]
fn any_part_of_an_emitted_file_reads_as_the_whole_does() {
    let dir = tempfile::tempdir().unwrap();
    let source = sparse_disk(dir.path(), (3 << 20) + 512, 9);
    for new in variants(source.len()) {
        let emitted = emit(Arc::clone(&source), &new).unwrap();
        let mut whole = vec![0; emitted.len() as usize];
        emitted.read_at(0, &mut whole, Wait::Allowed).unwrap();
        let mut rng = testkit::Rng::new(5);
        for _ in 0..300 {
            let at = rng.below(emitted.len());
            let len = (rng.below(9000) + 1).min(emitted.len() - at) as usize;
            let mut part = vec![0; len];
            emitted.read_at(at, &mut part, Wait::Allowed).unwrap();
            assert!(part == whole[at as usize..at as usize + len], "{new:?}: {len} bytes at {at}");
        }
    }
}

/// Some of it shrinks, some of it does not, some is zero.
fn mixed_disk(dir: &Path, len: u64) -> Arc<Disk> {
    let path = dir.join("mixed.raw");
    let file = made(&path, len);
    let mut rng = testkit::Rng::new(4);
    let mut at = 0;
    while at < len {
        let mut data = vec![0; (rng.below(200_000) + 1).min(len - at) as usize];
        match rng.below(4) {
            0 => data.iter_mut().for_each(|b| *b = rng.below(256) as u8),
            1 => data.iter_mut().enumerate().for_each(|(i, b)| *b = (i / 50 % 7) as u8),
            2 => file.write_at(at, &data, Wait::Allowed).unwrap(),
            _ => data.fill(rng.below(256) as u8),
        }
        if data.iter().any(|&b| b != 0) {
            file.write_at(at, &data, Wait::Allowed).unwrap();
        }
        at += data.len() as u64;
    }
    drop(file);
    format::raw::open(Arc::new(File::open(path, Open::default()).unwrap()), false).unwrap()
}

#[test]
fn a_packed_file_is_one_that_qemu_reads_and_passes_its_frames_on() {
    use format::qcow2::Compression;
    if !peer::require(&["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = mixed_disk(dir.path(), (9 << 20) + 512);
    let raw = dir.path().join("mixed.raw");
    let kinds = variants(source.len()).into_iter().filter(|new| new.refcount_order >= 3);
    let zstd = kinds.clone().filter(|new| new.version > 2);
    let zstd = zstd.map(|new| New { compression: Compression::Zstd, ..new });
    for (i, new) in kinds.chain(zstd).enumerate() {
        let path = dir.path().join(format!("{i}.qcow2"));
        let packed = pack(&source, &made(&path, 0), &new, &PackOptions::default()).unwrap();
        assert!(packed.encoded > 0 && packed.passed == 0, "{packed:?}");
        check_packed(&path, &raw);
        let image = Image::open(
            Arc::new(File::open(&path, Open::default()).unwrap()),
            &Default::default(),
            &mut |_| unreachable!(),
        );
        let again = Arc::new(image.unwrap()).disk("again").unwrap();
        let path = dir.path().join(format!("{i}-again.qcow2"));
        let repacked = pack(&again, &made(&path, 0), &new, &PackOptions::default()).unwrap();
        assert_eq!(repacked.passed + repacked.encoded, packed.encoded, "{new:?}");
        assert!(repacked.encoded == 0 || new.cluster_bits < 16, "{new:?}: {repacked:?}");
        check_packed(&path, &raw);
    }
}

fn check_packed(path: &Path, raw: &Path) {
    let (path, raw) = (path.to_str().unwrap(), raw.to_str().unwrap());
    peer::qemu_img(&["check", "-q", path]);
    peer::qemu_img(&["compare", "-q", "-f", "raw", "-F", "qcow2", raw, path]);
}
