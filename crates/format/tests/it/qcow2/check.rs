//! Our check says what `qemu-img check` says, of whole images and of broken ones.

use super::*;
use std::os::unix::fs::FileExt;

fn poke(path: &Path, offset: u64, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

fn peek(path: &Path, offset: u64) -> u64 {
    let mut bytes = [0; 8];
    std::fs::File::open(path).unwrap().read_exact_at(&mut bytes, offset).unwrap();
    u64::from_be_bytes(bytes)
}

/// Where an image's tables are.
struct Tables {
    l1: u64,
    l2: u64,
    refcount_table: u64,
    block: u64,
}

const MASK: u64 = 0x00ff_ffff_ffff_fe00;

fn tables(path: &Path) -> Tables {
    let (l1, refcount_table) = (peek(path, 40), peek(path, 48));
    Tables { l1, l2: peek(path, l1) & MASK, refcount_table, block: peek(path, refcount_table) }
}

fn sample(path: &Path, options: &[&str]) -> Tables {
    create(path, options, 4 * MIB);
    peer::qemu_io(
        "qcow2",
        path,
        &["write -P 1 0 640k", "write -c -P 2 1M 64k", "write -z 2M 192k", "write -P 3 3M 64k"],
    );
    tables(path)
}

#[test]
fn broken_images_are_counted_as_qemu_counts() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.qcow2");
    let copied = 1u64 << 63;
    type Break = fn(&Path, &Tables);
    let breaks: [(&str, Break); 18] = [
        ("nothing", |_, _| {}),
        ("a refcount too low", |p, t| poke(p, t.block + 2 * 6, &[0, 0])),
        ("a refcount too high", |p, t| poke(p, t.block + 2 * 7, &[0, 2])),
        ("a leak", |p, t| poke(p, t.block + 2 * 30, &[0, 1])),
        ("no copied flag in L2", |p, t| poke(p, t.l2, &(peek(p, t.l2) & MASK).to_be_bytes())),
        ("no copied flag in L1", |p, t| poke(p, t.l1, &t.l2.to_be_bytes())),
        ("L2 entry not aligned", |p, t| poke(p, t.l2, &(peek(p, t.l2) | 512).to_be_bytes())),
        ("L2 reserved bits", |p, t| poke(p, t.l2, &(peek(p, t.l2) | 4).to_be_bytes())),
        ("L1 reserved bits", |p, t| poke(p, t.l1, &(peek(p, t.l1) | 1).to_be_bytes())),
        ("a cluster used twice", |p, t| poke(p, t.l2, &peek(p, t.l2 + 8).to_be_bytes())),
        ("L2 in itself", |p, t| poke(p, t.l2, &(t.l2 | (1 << 63)).to_be_bytes())),
        ("data in the header", |p, t| poke(p, t.l2 + 800, &(65536u64 | (1 << 63)).to_be_bytes())),
        ("data past the end", |p, t| poke(p, t.l2, &((1u64 << 40) | (1 << 63)).to_be_bytes())),
        ("L2 past the end", |p, t| poke(p, t.l1, &((1u64 << 40) | (1 << 63)).to_be_bytes())),
        ("a compressed cluster marked copied", |p, t| {
            let at = t.l2 + 8 * 16;
            poke(p, at, &(peek(p, at) | (1 << 63)).to_be_bytes());
        }),
        ("a compressed cluster past the end", |p, t| {
            let at = t.l2 + 8 * 16;
            poke(p, at, &(peek(p, at) | (1 << 45)).to_be_bytes());
        }),
        ("a refcount block past the end", |p, t| poke(p, t.refcount_table + 8, &(1u64 << 40).to_be_bytes())),
        ("a refcount block twice", |p, t| poke(p, t.refcount_table + 8, &t.block.to_be_bytes())),
    ];
    for options in [&["compat=1.1"][..], &["compat=0.10"]] {
        for (what, damage) in &breaks {
            let _ = std::fs::remove_file(&path);
            let mut t = sample(&path, options);
            t.l2 &= !copied;
            damage(&path, &t);
            same_check(&path, what);
            // And reading it is an error or bytes, never a panic.
            let disk = disk(&path).unwrap();
            let mut buf = vec![0; 64 << 10];
            for at in (0..disk.len()).step_by(buf.len()) {
                let _ = disk.read_at(at, &mut buf, Wait::Allowed);
            }
        }
    }
}

#[test]
fn broken_subclusters() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.qcow2");
    for (what, bitmap) in [
        ("fine", 0x0000_0000_ffff_ffffu64),
        ("both allocated and zero", 0x0000_0001_ffff_ffff),
        ("half", 0xffff_0000_0000_ffff),
    ] {
        let _ = std::fs::remove_file(&path);
        let t = sample(&path, &["extended_l2=on"]);
        poke(&path, t.l2 + 8, &bitmap.to_be_bytes());
        same_check(&path, what);
        let read = disk(&path).unwrap().read_at(0, &mut [0; 4096], Wait::Allowed);
        assert_eq!(read.is_err(), what.starts_with("both"), "{what}");
    }
    let _ = std::fs::remove_file(&path);
    let t = sample(&path, &["extended_l2=on"]);
    poke(&path, t.l2 + 16 * 50 + 8, &1u64.to_be_bytes());
    same_check(&path, "allocated subclusters of no cluster");
    assert!(disk(&path).unwrap().read_at(50 * 65536, &mut [0; 512], Wait::Allowed).is_err());
}

#[test]
fn snapshots_and_bitmaps_count() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.qcow2");
    sample(&path, &[]);
    peer::qemu_img(&["snapshot", "-c", "one", arg(&path)]);
    peer::qemu_io("qcow2", &path, &["write -P 9 64k 300k"]);
    peer::qemu_img(&["snapshot", "-c", "two", arg(&path)]);
    peer::qemu_img(&["bitmap", "--add", "--enable", arg(&path), "b0"]);
    peer::qemu_io("qcow2", &path, &["write -P 10 1M 300k"]);
    peer::qemu_img(&["bitmap", "--add", "--disable", "-g", "4096", arg(&path), "b1"]);
    let clean = same_check(&path, "snapshots and bitmaps");
    assert_eq!(clean.get("corruptions"), None);
    let bytes = std::fs::read(&path).unwrap();
    // Every pointer-like word of the metadata broken in turn; the numbers stay qemu's.
    let t = tables(&path);
    for offset in [t.l1, t.l2, t.l2 + 8, t.l2 + 128, t.refcount_table] {
        for bit in [9, 16, 17, 20, 33, 63] {
            std::fs::write(&path, &bytes).unwrap();
            poke(&path, offset, &(peek(&path, offset) ^ (1 << bit)).to_be_bytes());
            // qemu goes on to read an unaligned table, whatever is there, and gives up at an unaligned block.
            if (offset == t.refcount_table && (bit == 63 || bit == 9)) || (offset == t.l1 && bit == 9) {
                continue;
            }
            same_check(&path, &format!("bit {bit} of the word at {offset:#x}"));
        }
    }
}

#[test]
fn a_dirty_image_counts_what_is_stale() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.qcow2");
    create(&path, &["lazy_refcounts=on"], 4 * MIB);
    // Ended before it could write its refcounts.
    let args = ["-f", "qcow2", "-c", "write -P 1 0 1M", "-c", "flush", "-c", "abort", arg(&path)];
    let _ = peer::attempt("qemu-io", &args);
    let info = image(&path, &Options::default()).unwrap().info().unwrap();
    assert!(info.dirty && info.lazy_refcounts);
    let said = same_check(&path, "dirty");
    assert!(said.get("corruptions").is_some());
    same_bytes(&path, &disk(&path).unwrap(), &converted(&path, None), "dirty");
}
