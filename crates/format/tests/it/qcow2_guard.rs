//! Images whose refcounts or tables lie, opened to be written: refused, and their tables left as they are.

use crate::qcow2::{KIB, MIB, create};
use crate::qcow2_bitmaps::{open, open_file};
use chart::{Kind, Source, Wait};
use format::qcow2::{Image, Options, Repair};
use std::path::Path;
use std::sync::Arc;
use testkit::peer;

const COPIED: u64 = 1 << 63;
const CLUSTER: u64 = 64 * KIB;

/// Where the tables of an image are, by cluster.
struct Tables {
    l1: u64,
    refcounts: u64,
    block: u64,
    l2: u64,
    snapshots: u64,
    snapshot_l2: u64,
}

fn word(file: &dyn Source, offset: u64) -> u64 {
    let mut bytes = [0; 8];
    file.read_at(offset, &mut bytes, Wait::Allowed).unwrap();
    u64::from_be_bytes(bytes)
}

fn set(file: &dyn Source, offset: u64, value: u64) {
    file.write_at(offset, &value.to_be_bytes(), Wait::Allowed).unwrap();
}

/// An image with a snapshot, data that is only the active disk's, and room within.
fn sample(path: &Path) -> (Arc<dyn Source>, Tables) {
    create(path, &[], 4 * MIB);
    peer::qemu_io("qcow2", path, &["write -P 1 0 300k", "write -P 2 1M 300k"]);
    peer::qemu_img(&["snapshot", "-c", "s", path.to_str().unwrap()]);
    peer::qemu_io("qcow2", path, &["write -P 3 0 300k", "write -P 3 2M 64k"]);
    let file = open_file(path, true);
    let whole = file.len().next_multiple_of(CLUSTER);
    file.set_len(whole).unwrap();
    let image = open(path, false);
    let header = image.header();
    let place = |offset: u64| offset & 0x00ff_ffff_ffff_fe00;
    let snapshot_l1 = word(file.as_ref(), header.snapshots_offset);
    let tables = Tables {
        l1: header.l1_table_offset,
        refcounts: header.refcount_table_offset,
        block: word(file.as_ref(), header.refcount_table_offset),
        l2: place(word(file.as_ref(), header.l1_table_offset)),
        snapshots: header.snapshots_offset,
        snapshot_l2: place(word(file.as_ref(), snapshot_l1)),
    };
    drop(header);
    (file, tables)
}

/// Writes all over the disk; the first error.
fn write_all_over(path: &Path) -> chart::Result<()> {
    let options = Options { writable: true, ..Options::default() };
    let image = Arc::new(Image::open(open_file(path, true), &options, &mut |_| unreachable!())?);
    let disk = image.disk("guarded")?;
    let mut done = Ok(());
    for at in (0..disk.len()).step_by(64 << 10) {
        done = done.and(disk.write_at(at, &[9; 4096], Wait::Allowed));
    }
    let closed = disk.close();
    done.and(closed)
}

fn refused(path: &Path, what: &str) {
    let e = write_all_over(path).expect_err(what);
    assert_eq!(e.kind(), Kind::Corrupt, "{what}: {e}");
}

#[test]
fn tables_that_refcounts_call_free_are_not_given_out() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.qcow2");
    for which in 0..7 {
        let _ = std::fs::remove_file(&path);
        let (file, t) = sample(&path);
        let cluster = [0, t.l1, t.refcounts, t.block, t.l2, t.snapshots, t.snapshot_l2][which];
        file.write_at(t.block + 2 * (cluster / CLUSTER), &[0; 2], Wait::Allowed).unwrap();
        let mut before = vec![0; CLUSTER as usize];
        file.read_at(cluster, &mut before, Wait::Allowed).unwrap();
        refused(&path, &format!("table {which}"));
        let mut after = vec![0; CLUSTER as usize];
        file.read_at(cluster, &mut after, Wait::Allowed).unwrap();
        // The refcount block and the L2 table change as they should; what they began with stays.
        let same = if cluster == t.block || cluster == t.l2 { 8 } else { CLUSTER as usize };
        assert!(before[..same] == after[..same], "table {which} was overwritten");
        is_whole_once_repaired(&path);
    }
}

/// Once it is repaired it takes writes again, and nothing is wrong with it then.
fn is_whole_once_repaired(path: &Path) {
    let options = Options { writable: true, repair: true, ..Options::default() };
    let image = Image::open(open_file(path, true), &options, &mut |_| unreachable!()).unwrap();
    image.repair(Repair::All).unwrap();
    drop(image);
    write_all_over(path).unwrap();
    peer::qemu_img(&["check", "-q", path.to_str().unwrap()]);
}

/// Not even as data: of the disk, of a snapshot, whole or compressed.
#[test]
fn data_that_refcounts_call_free_is_not_given_out() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.qcow2");
    let place = |entry: u64| (entry & 0x00ff_ffff_ffff_fe00) / CLUSTER * CLUSTER;
    for which in 0..3 {
        let _ = std::fs::remove_file(&path);
        let (file, mut t) = sample(&path);
        if which == 2 {
            drop(file);
            peer::qemu_io("qcow2", &path, &["write -c -P 5 3M 64k"]);
        }
        let file = open_file(&path, true);
        t.l2 = place(word(file.as_ref(), open(&path, false).header().l1_table_offset));
        let (table, index) = [(t.l2, 0), (t.snapshot_l2, 0), (t.l2, 48)][which];
        let entry = word(file.as_ref(), table + 8 * index);
        // Of a compressed one, where it lies is said with fewer bits.
        let cluster = if which == 2 { place(entry & !(0xff << 54)) } else { place(entry) };
        file.write_at(t.block + 2 * (cluster / CLUSTER), &[0; 2], Wait::Allowed).unwrap();
        let held = |file: &dyn Source| {
            let mut bytes = vec![0; file.len() as usize];
            file.read_at(0, &mut bytes, Wait::Allowed).unwrap();
            bytes
        };
        let before = held(file.as_ref());
        refused(&path, &format!("data {which}"));
        assert!(held(file.as_ref()) == before, "data {which}: the image has changed");
        is_whole_once_repaired(&path);
    }
}

#[test]
fn a_map_that_lays_data_or_tables_over_tables_is_refused() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.qcow2");
    let l2_flags = [0, 1];
    for target in 0..5 {
        // 0: an L2 table; 1: a refcount block; 2, 3: data, and zeros that keep a place.
        for lie in 0..4 {
            let _ = std::fs::remove_file(&path);
            let (file, t) = sample(&path);
            let over = [t.l1, t.refcounts, t.block, t.l2, t.snapshots][target];
            match lie {
                // That is the truth.
                0 if over == t.l2 => continue,
                0 => set(file.as_ref(), t.l1, over | COPIED),
                1 if over == t.block => set(file.as_ref(), t.refcounts + 8, over),
                1 => set(file.as_ref(), t.refcounts, over),
                _ => set(file.as_ref(), t.l2, over | COPIED | l2_flags[lie - 2]),
            }
            let mut before = vec![0; CLUSTER as usize];
            file.read_at(over, &mut before, Wait::Allowed).unwrap();
            refused(&path, &format!("lie {lie} over table {target}"));
            let mut after = vec![0; CLUSTER as usize];
            file.read_at(over, &mut after, Wait::Allowed).unwrap();
            if lie < 2 || target == 0 || target == 1 || target == 4 {
                assert!(before == after, "lie {lie} over table {target} changed it");
            }
        }
    }
}

#[test]
fn what_was_cut_off_is_not_replaced_by_other_data() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.qcow2");
    let (file, t) = sample(&path);
    let len = file.len();
    file.set_len(len - 2 * CLUSTER).unwrap();
    refused(&path, "cut off");
    assert_eq!(file.len(), len - 2 * CLUSTER);
    // Leaks past the end are no reason to refuse: a writer that was stopped leaves them.
    file.set_len(len).unwrap();
    let count = t.block + 2 * (len / CLUSTER + 5);
    file.write_at(count, &1_u16.to_be_bytes(), Wait::Allowed).unwrap();
    write_all_over(&path).unwrap();
    assert!(open(&path, false).check().unwrap().corruptions == 0);
}
