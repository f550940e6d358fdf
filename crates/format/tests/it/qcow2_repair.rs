//! Images that must be repaired before they are written.

use crate::qcow2::{KIB, MIB, arg, converted, create, same_check};
use crate::qcow2_bitmaps::{open, open_file};
use chart::{Kind, Source, Wait};
use format::qcow2::{Image, Needed, Options, Repair};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use testkit::peer;
use testkit::source::{Failing, Memory, Op};

fn for_repair(path: &Path) -> Arc<Image> {
    let folder = path.parent().unwrap().to_path_buf();
    let mut opener = |needed: Needed<'_>| Ok(open_file(&folder.join(needed.name), true));
    let options = Options { writable: true, repair: true, ..Options::default() };
    Image::open(open_file(path, true), &options, &mut opener).map(Arc::new).unwrap()
}

fn refused(path: &Path) {
    let options = Options { writable: true, alone: true, ..Options::default() };
    let refused = Image::open(open_file(path, true), &options, &mut |_| unreachable!()).err().unwrap();
    assert!(refused.kind() == Kind::Corrupt && refused.to_string().contains("repair"), "{refused}");
}

/// An image that QEMU left in the middle of writing, its refcounts stale.
fn dirty(dir: &Path, options: &[&str]) -> PathBuf {
    let path = create(&dir.join("dirty.qcow2"), options, 4 * MIB);
    let args = ["-f", "qcow2", "-c", "write -P 5 64k 300k", "-c", "flush", "-c", "abort", arg(&path)];
    peer::attempt("qemu-io", &args);
    path
}

#[test]
fn a_dirty_image_is_repaired_before_it_is_written() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = format!("data_file={}", arg(&dir.path().join("data.raw")));
    for options in [
        vec!["lazy_refcounts=on"],
        vec!["lazy_refcounts=on", "cluster_size=4k"],
        vec!["lazy_refcounts=on", &data],
    ] {
        let path = dirty(dir.path(), &options);
        assert!(format::qcow2::Info::read(open_file(&path, false).as_ref()).unwrap().dirty);
        refused(&path);
        let mut expected = vec![0; 4 * MIB as usize];
        expected[64 * KIB as usize..364 * KIB as usize].fill(5);
        let reading = open(&path, false).disk("reading").unwrap();
        let mut bytes = vec![0; expected.len()];
        reading.read_at(0, &mut bytes, Wait::Allowed).unwrap();
        assert!(bytes == expected, "it can be read as it is");
        let image = for_repair(&path);
        assert!(image.is_damaged());
        let disk = image.disk("repair").unwrap();
        let early = disk.write_at(0, &[1; 512], Wait::Allowed).unwrap_err();
        assert_eq!(early.kind(), Kind::Corrupt, "{early}");
        assert_eq!(
            image.snapshot_create("early").unwrap_err().kind(),
            if options.contains(&data.as_str()) { Kind::Unsupported } else { Kind::Corrupt }
        );
        image.recover().unwrap();
        assert!(!image.is_damaged() && image.check().unwrap().is_clean());
        disk.write_at(0, &[1; 512], Wait::Allowed).unwrap();
        expected[..512].fill(1);
        disk.close().unwrap();
        drop((disk, image));
        same_check(&path, "repaired");
        peer::qemu_img(&["check", "-q", arg(&path)]);
        assert!(converted(&path, None) == expected, "{options:?}");
        std::fs::remove_file(&path).unwrap();
        let _ = std::fs::remove_file(dir.path().join("data.raw"));
    }
}

#[test]
fn leaks_alone_are_repaired_only_where_nothing_else_is_wrong() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = create(&dir.path().join("image.qcow2"), &[], 4 * MIB);
    peer::qemu_io("qcow2", &path, &["write -P 5 0 200k"]);
    let file = open_file(&path, true);
    let table = open(&path, false).header().refcount_table_offset;
    let mut block = [0; 8];
    file.read_at(table, &mut block, Wait::Allowed).unwrap();
    let block = u64::from_be_bytes(block);
    let count = |cluster: u64, count: u16| {
        file.write_at(block + 2 * cluster, &count.to_be_bytes(), Wait::Allowed).unwrap();
    };
    count(20, 1);
    file.set_len(21 << 16).unwrap();
    let image = for_repair(&path);
    assert_eq!(image.repair(Repair::Leaks).unwrap().leaks, 1);
    assert!(image.check().unwrap().is_clean());
    let table = image.header().refcount_table_offset;
    drop(image);
    same_check(&path, "no leak");
    // It has another length now.
    let file = open_file(&path, true);
    let mut block = [0; 8];
    file.read_at(table, &mut block, Wait::Allowed).unwrap();
    let last = u64::from_be_bytes(block) + 2 * 5;
    file.write_at(last, &[0, 0], Wait::Allowed).unwrap();
    let before = std::fs::read(&path).unwrap();
    let image = for_repair(&path);
    assert_eq!(image.repair(Repair::Leaks).unwrap_err().kind(), Kind::Corrupt);
    assert!(std::fs::read(&path).unwrap() == before, "nothing was changed");
    assert!(image.repair(Repair::All).unwrap().corruptions > 0);
    assert!(image.check().unwrap().is_clean());
    image.disk("image").unwrap().close().unwrap();
    same_check(&path, "repaired");
}

#[test]
fn an_image_marked_corrupt_is_repaired_only_by_a_person() {
    if !peer::require(&["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = create(&dir.path().join("image.qcow2"), &[], MIB);
    open_file(&path, true).write_at(79, &[2], Wait::Allowed).unwrap();
    refused(&path);
    let image = for_repair(&path);
    assert_eq!(image.recover().unwrap_err().kind(), Kind::Corrupt);
    image.repair(Repair::All).unwrap();
    drop(image);
    let disk = open(&path, true).disk("image").unwrap();
    disk.write_at(0, &[1; 512], Wait::Allowed).unwrap();
    disk.close().unwrap();
    peer::qemu_img(&["check", "-q", arg(&path)]);
}

/// What opens it, tries to repair it and closes it again leaves every byte as it was.
fn cannot_be_repaired(path: &Path) -> chart::Error {
    let before = std::fs::read(path).unwrap();
    let image = for_repair(path);
    let refused = image.repair(Repair::All).unwrap_err();
    let _ = image.disk("image").unwrap().close();
    drop(image);
    assert!(
        std::fs::read(path).unwrap() == before,
        "it was changed; now {} bytes",
        path.metadata().unwrap().len()
    );
    refused
}

#[test]
fn what_cannot_be_repaired_is_left_as_it_is() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for options in [vec![], vec!["lazy_refcounts=on"]] {
        let path = match options.is_empty() {
            true => create(&dir.path().join("image.qcow2"), &options, 4 * MIB),
            false => dirty(dir.path(), &options),
        };
        if options.is_empty() {
            peer::qemu_io("qcow2", &path, &["write -P 5 64k 300k"]);
        }
        for len in [500_000, 6 << 16, 327_681, 300_000] {
            open_file(&path, true).set_len(len).unwrap();
            let refused = cannot_be_repaired(&path);
            assert_eq!(refused.kind(), Kind::Corrupt, "{refused}");
            assert!(refused.to_string().contains("left as it is"), "{refused}");
        }
    }
}

#[test]
fn tables_in_the_place_of_others_are_found_before_anything_is_repaired() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = create(&dir.path().join("image.qcow2"), &[], 4 * MIB);
    peer::qemu_io("qcow2", &path, &["write -P 5 64k 300k"]);
    peer::qemu_img(&["snapshot", "-c", "s", arg(&path)]);
    peer::qemu_img(&["bitmap", "--add", arg(&path), "b"]);
    let good = std::fs::read(&path).unwrap();
    let word = |at: u64| u64::from_be_bytes(good[at as usize..at as usize + 8].try_into().unwrap());
    let header = open(&path, false).header().clone();
    let directory = header.bitmaps().unwrap().bitmap_directory_offset.get();
    // A snapshot's L1 table and a bitmap's table: what they hold would do for an L2 table.
    for over in [word(header.snapshots_offset), word(directory)] {
        std::fs::write(&path, &good).unwrap();
        let lie = (over | 1 << 63).to_be_bytes();
        open_file(&path, true).write_at(header.l1_table_offset, &lie, Wait::Allowed).unwrap();
        let refused = cannot_be_repaired(&path);
        assert_eq!(refused.kind(), Kind::Corrupt, "{refused}");
        assert!(refused.to_string().contains("left as it is"), "{refused}");
    }
}

#[test]
fn a_repair_that_fails_half_way_leaves_the_length_as_it_was() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dirty(dir.path(), &["lazy_refcounts=on"]);
    let before = std::fs::read(&path).unwrap();
    let mut failed = 0;
    loop {
        let memory = Arc::new(Memory::of(before.clone()));
        let failing = Failing::new(Arc::clone(&memory) as Arc<dyn Source>);
        failing.fail(Op::Write, failed, Kind::NoSpace);
        let options = Options { writable: true, repair: true, ..Options::default() };
        let image = Image::open(Arc::new(failing), &options, &mut |_| unreachable!()).unwrap();
        let header = image.header().clone();
        match image.repair(Repair::All) {
            Ok(_) => break,
            Err(e) => assert_eq!(e.kind(), Kind::NoSpace, "{e}"),
        }
        let after = memory.bytes();
        // Whether the header was written is not known once that has failed: what it would name must stay.
        let longer = after.len() > before.len();
        assert!(after[..before.len()] == before, "the image was changed when write {failed} failed");
        assert!(!longer || failed > 3, "{} bytes after write {failed} failed", after.len());
        assert!(*image.header() == header);
        failed += 1;
    }
    assert!(failed > 3, "only {failed} writes");
}
