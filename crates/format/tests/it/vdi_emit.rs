//! Emitting VDI files: what comes out is what qemu-img would have made of it.

use super::qcow2_emit::{made, sparse_disk};
use chart::{Source, Wait};
use format::vdi::create::{New, Preallocation};
use format::vdi::{Image, Options as Opening, Uuid, emit};
use io::copy::{Options, copy};
use io::watch::Watch;
use std::sync::Arc;
use testkit::peer;

fn variants(size: u64) -> Vec<New> {
    let new = New::of(size);
    vec![new.clone(), New { preallocation: Preallocation::Metadata, ..new }]
}

#[test]
fn an_emitted_file_is_one_that_qemu_reads() {
    if !peer::require(&["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // The last is no whole sector: QEMU rounds a raw file up, and so is its VDI.
    for (seed, len) in [(1, 5 << 20), (2, (17 << 20) + 512), (3, 1 << 12), (4, (3 << 20) + 1000)] {
        let source = sparse_disk(dir.path(), len, seed);
        let raw = dir.path().join(format!("source-{seed}.raw"));
        for (i, new) in variants(len).iter().enumerate() {
            let (emitted, tables) = emit(Arc::clone(&source), new, Watch::default()).unwrap();
            assert_eq!(tables, 1 << 20);
            let path = dir.path().join(format!("{seed}-{i}.vdi"));
            let options = Options { sink_reads_zero: true, ..Options::default() };
            copy(&emitted, &made(&path, 0), &options).unwrap();
            let (path, raw) = (path.to_str().unwrap(), raw.to_str().unwrap());
            peer::qemu_img(&["check", "-q", "-f", "vdi", path]);
            peer::qemu_img(&["compare", "-q", "-f", "raw", "-F", "vdi", raw, path]);
        }
    }
}

/// VirtualBox takes no two media with the same UUID.
#[test]
fn a_clone_has_uuids_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = sparse_disk(dir.path(), 3 << 20, 5);
    let mut seen = vec![Uuid::NULL];
    for _ in 0..3 {
        let (emitted, _) = emit(Arc::clone(&disk), &New::of(disk.len()), Watch::default()).unwrap();
        let image = Image::open(emitted as Arc<dyn Source>, &Opening::default()).map(Arc::new).unwrap();
        let head = image.header().head;
        for uuid in [image.header().uuid(), Uuid(head.uuid_last_snap)] {
            assert!(!seen.contains(&uuid), "{uuid}");
            seen.push(uuid);
        }
        // The next is a clone of this one.
        disk = image.disk("image").unwrap();
    }
}

#[test]
fn an_emitted_file_is_an_image_of_the_same_disk_in_any_block_size() {
    let dir = tempfile::tempdir().unwrap();
    let source = sparse_disk(dir.path(), (3 << 20) + 512, 9);
    let mut wanted = vec![0; source.len() as usize];
    source.read_at(0, &mut wanted, Wait::Allowed).unwrap();
    for bits in [9, 12, 16, 20, 22] {
        for new in variants(source.len()) {
            let new = New { block_bits: bits, ..new };
            let (emitted, _) = emit(Arc::clone(&source), &new, Watch::default()).unwrap();
            let file: Arc<dyn Source> = Arc::clone(&emitted) as Arc<dyn Source>;
            let image = Image::open(file, &Opening::default()).map(Arc::new).unwrap();
            assert!(image.check().unwrap().is_clean());
            let disk = image.disk("again").unwrap();
            assert!(super::vdi_laws::bytes(&disk) == wanted, "{new:?}");
            testkit::contract::split_reads(&emitted, 7).unwrap();
            testkit::contract::walk_law(&emitted).unwrap();
        }
    }
}
