//! File systems that were not unmounted: read as `e2fsck` leaves them.

use super::populate::{Can, bytes, populate};
use super::tree::{But, compare};
use super::{Image, open};
use chart::Kind;
use fs::FileSystem as _;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use testkit::peer;

pub(super) const LEN: u64 = 64 << 20;
pub(super) const TOOLS: &[&str] = &["mkfs.ext4", "e2fsck", "debugfs", "mount", "umount", "cp", "root"];

/// An image as it is while it is mounted and `work` was done in it, and the journal was written.
fn dirty(options: &[&str], mount: &str, work: impl FnOnce(&Path)) -> Image {
    let image = Image::made(options, LEN);
    let mounted = image.mount(&format!("rw,noatime,commit=1000,{mount}"));
    work(mounted.path());
    commit(mounted.path());
    let copy = image.copy();
    drop(mounted);
    copy
}

/// Has the journal written, and what it holds not yet put in its place.
fn commit(root: &Path) {
    let path = root.join("commit");
    std::fs::write(&path, "commit").unwrap();
    File::open(&path).unwrap().sync_all().unwrap();
}

fn e2fsck(image: &Image) -> String {
    let output = peer::attempt("e2fsck", &["-fy".as_ref(), image.path().as_os_str()]);
    assert!(output.status.code().is_some_and(|code| code < 4), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Holds what is read of a dirty image against what `e2fsck` makes of a copy of it; returns what that said.
pub(super) fn as_e2fsck_leaves_it(image: &Image) -> String {
    let system = image.open();
    let checked = image.copy();
    let said = e2fsck(&checked);
    assert!(said.contains("recovering journal"), "{said}");
    let mounted = checked.mount("ro,noatime");
    // Of files that were being cut, and of maps that can be shorter, it gives the space back.
    let counted = ["i_blocks is", "Truncating", "Optimizing"].iter().any(|repair| said.contains(repair));
    compare(mounted.path(), &system, But { counted, ..But::default() });
    said
}

/// Whether it matters that the journal is replayed: without it, `name` is not there.
fn without_replay_is_missing(image: &Image, name: &str) {
    let copy = image.copy();
    let mounted = copy.mount("ro,noload");
    assert!(!mounted.path().join(name).exists(), "{name} is there without the journal");
}

fn can(block_size: usize) -> Can {
    Can { block_size, extents: true, extra_times: true, names: 1500 }
}

/// What leaves revocations: directories that come and go, and files in the place of them.
fn churn(root: &Path) {
    for round in 0..6 {
        let dir = root.join(format!("churn-{round}"));
        std::fs::create_dir(&dir).unwrap();
        for i in 0..300 {
            let name = format!("{i}-{}", "n".repeat(100));
            std::fs::write(dir.join(name), bytes(i, 3000)).unwrap();
        }
        commit(root);
        if round % 3 != 2 {
            std::fs::remove_dir_all(&dir).unwrap();
            commit(root);
        }
        std::fs::write(root.join(format!("over-{round}")), bytes(round, 900_000)).unwrap();
        commit(root);
    }
}

#[test]
fn everything_since_the_mount_is_in_the_journal() {
    if !peer::require(TOOLS) {
        return;
    }
    let image = dirty(&["-b", "4096"], "defaults", |root| populate(root, can(4096)));
    without_replay_is_missing(&image, "file-0");
    as_e2fsck_leaves_it(&image);
}

#[test]
fn blocks_that_were_revoked_stay_as_they_are() {
    if !peer::require(TOOLS) {
        return;
    }
    for options in [&["-b", "4096"][..], &["-b", "1024", "-O", "^64bit"], &["-b", "1024", "-t", "ext3"]] {
        let image = dirty(options, "defaults", churn);
        let log = peer::run("debugfs", &["-R".as_ref(), "logdump".as_ref(), image.path().as_os_str()]);
        assert!(String::from_utf8_lossy(&log.stdout).contains("revoke"), "nothing was revoked");
        as_e2fsck_leaves_it(&image);
    }
}

#[test]
fn a_log_that_goes_round() {
    if !peer::require(TOOLS) {
        return;
    }
    let image = dirty(&["-b", "1024", "-J", "size=1"], "defaults", |root| {
        for _ in 0..3 {
            churn(root);
            for name in std::fs::read_dir(root).unwrap() {
                let path = name.unwrap().path();
                if path.file_name().unwrap() == "lost+found" {
                    continue;
                }
                if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
                    .unwrap();
            }
        }
        churn(root);
    });
    as_e2fsck_leaves_it(&image);
}

/// Files whose blocks begin as those of the journal itself.
fn escaped(root: &Path, block_size: usize) {
    let mut content = bytes(1, 20 * block_size);
    for block in content.chunks_mut(block_size).step_by(2) {
        block[..4].copy_from_slice(&[0xc0, 0x3b, 0x39, 0x98]);
    }
    std::fs::write(root.join("escaped"), &content).unwrap();
    std::fs::write(root.join("magic"), [0xc0, 0x3b, 0x39, 0x98]).unwrap();
    std::fs::write(root.join("plain"), bytes(2, 100_000)).unwrap();
    for name in ["escaped", "magic", "plain"] {
        File::open(root.join(name)).unwrap().sync_all().unwrap();
    }
}

#[test]
fn data_in_the_journal_and_blocks_that_begin_as_its_own() {
    if !peer::require(TOOLS) {
        return;
    }
    for (block_size, options) in [(4096, &["-b", "4096"][..]), (1024, &["-b", "1024", "-t", "ext3"])] {
        let image = dirty(options, "data=journal", |root| escaped(root, block_size));
        without_replay_is_missing(&image, "escaped");
        as_e2fsck_leaves_it(&image);
    }
}

#[test]
fn checksums_of_whole_transactions_and_commits_that_did_not_wait() {
    if !peer::require(TOOLS) {
        return;
    }
    let options = ["-b", "4096", "-O", "^metadata_csum"];
    for mount in ["journal_checksum", "journal_async_commit,data=writeback"] {
        let image = dirty(&options, mount, churn);
        without_replay_is_missing(&image, "commit");
        as_e2fsck_leaves_it(&image);
    }
}

#[test]
fn files_that_were_deleted_while_open_or_were_being_cut() {
    if !peer::require(TOOLS) {
        return;
    }
    let mut open_files = Vec::new();
    let image = dirty(&["-b", "4096"], "defaults", |root| {
        for i in 0..10 {
            let path = root.join(format!("gone-{i}"));
            std::fs::write(&path, bytes(i, 50_000)).unwrap();
            open_files.push(File::open(&path).unwrap());
            std::fs::remove_file(&path).unwrap();
        }
        let path = root.join("cut");
        std::fs::write(&path, bytes(3, 2 << 20)).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(12_345).unwrap();
        // A mount with files open cannot end.
        commit(root);
        open_files.drain(..5);
    });
    drop(open_files);
    as_e2fsck_leaves_it(&image);
}

/// The first byte of every block of the journal's file that is a block of this type of its own, on the disk.
fn journal_blocks(image: &Image, block_size: u64, blocktype: u32) -> Vec<u64> {
    let blocks = peer::run("debugfs", &["-R".as_ref(), "blocks <8>".as_ref(), image.path().as_os_str()]);
    let blocks = String::from_utf8(blocks.stdout).unwrap();
    let file = File::open(image.path()).unwrap();
    let wanted = [0xc03b_3998_u32.to_be_bytes(), blocktype.to_be_bytes()].concat();
    let places = blocks.split_whitespace().map(|block| block.parse::<u64>().unwrap() * block_size);
    let is_wanted = |at: &u64| {
        let mut head = [0; 8];
        file.read_exact_at(&mut head, *at).unwrap();
        head == wanted[..]
    };
    places.filter(is_wanted).collect()
}

fn flip(image: &Image, at: u64) {
    let file = File::options().read(true).write(true).open(image.path()).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

#[test]
fn a_transaction_that_was_not_committed_whole_ends_the_log() {
    if !peer::require(TOOLS) {
        return;
    }
    let image = dirty(&["-b", "4096"], "defaults", |root| {
        for i in 0..8 {
            std::fs::write(root.join(format!("file-{i}")), bytes(i, 10_000)).unwrap();
            commit(root);
        }
    });
    let commits = journal_blocks(&image, 4096, 2);
    assert!(commits.len() >= 8, "{commits:?}");
    for commit in &commits {
        for byte in [20, 700] {
            let broken = image.copy();
            flip(&broken, commit + byte);
            as_e2fsck_leaves_it(&broken);
        }
    }
}

/// An image with a file, whose blocks debugfs wrote a journal for: transactions with copies, a revocation, a block
/// that begins as the journal's own do, and a transaction that was not committed.
fn written_by_debugfs(version: &str, wide: bool) -> Image {
    let wide = if wide { "64bit" } else { "^64bit" };
    let image = Image::made(&["-b", "1024", "-O", &format!("{wide},^metadata_csum")], LEN);
    let mounted = image.mount("rw");
    std::fs::write(mounted.path().join("file"), bytes(1, 60 << 10)).unwrap();
    drop(mounted);
    let block = peer::run("debugfs", &["-R".as_ref(), "blocks /file".as_ref(), image.path().as_os_str()]);
    let block = String::from_utf8(block.stdout).unwrap();
    let first: u64 = block.split_whitespace().next().unwrap().parse().unwrap();
    let beside = |name: &str, bytes: &[u8]| {
        let path = image.path().with_file_name(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut escaped = bytes(5, 4 << 10);
    escaped[1024..1028].copy_from_slice(&[0xc0, 0x3b, 0x39, 0x98]);
    let (one, two) = (beside("one", &bytes(4, 8 << 10)), beside("two", &escaped));
    let of = |from: u64, count: u64| {
        let blocks: Vec<String> =
            (first + from..first + from + count).map(|block| block.to_string()).collect();
        blocks.join(",")
    };
    let steps = [
        format!("jo {version}"),
        format!("jw -b {} {one}", of(0, 8)),
        format!("jw -b {} {two}", of(4, 4)),
        format!("jw -r {}", of(6, 1)),
        format!("jw -b {} {one}", of(20, 8)),
        format!("jw -b {} -c {two}", of(30, 4)),
        "jc\n".to_owned(),
    ];
    let script = beside("script", steps.join("\n").as_bytes());
    peer::run("debugfs", &["-w".as_ref(), "-f".as_ref(), script.as_ref(), image.path().as_os_str()]);
    image
}

#[test]
fn journals_that_debugfs_wrote_with_checksums_of_all_versions() {
    if !peer::require(TOOLS) {
        return;
    }
    for version in ["", "-c -v 1", "-c -v 2", "-c -v 3"] {
        for wide in [true, false] {
            as_e2fsck_leaves_it(&written_by_debugfs(version, wide));
        }
    }
}

#[test]
fn copies_and_descriptors_that_do_not_match_their_checksums() {
    if !peer::require(TOOLS) {
        return;
    }
    for version in ["-c -v 1", "-c -v 2", "-c -v 3"] {
        let image = written_by_debugfs(version, true);
        let descriptors = journal_blocks(&image, 1024, 1);
        assert_eq!(descriptors.len(), 4, "{descriptors:?}");
        for (at, byte) in
            descriptors.into_iter().flat_map(|at| [17, 200, 1024 + 300, 3 * 1024].map(|by| (at, by)))
        {
            let broken = image.copy();
            flip(&broken, at + byte);
            as_e2fsck_leaves_it(&broken);
        }
    }
}

#[test]
fn fast_commits_are_refused_by_name_where_there_are_some() {
    if !peer::require(TOOLS) {
        return;
    }
    let image = dirty(&["-b", "4096", "-O", "fast_commit"], "defaults", |root| {
        std::fs::write(root.join("file"), "file").unwrap();
        File::open(root.join("file")).unwrap().sync_all().unwrap();
    });
    let refused = fs::ext4::open(open(&image.path())).err().expect("fast commits were read");
    assert_eq!(refused.kind(), Kind::Unsupported);
    assert!(refused.to_string().contains("fast_commit"), "{refused}");
    let whole = dirty(&["-b", "4096", "-O", "fast_commit"], "defaults", |root| {
        populate(root, can(4096));
        // Renamed directories are more than fast commits can tell, so that the next commit is a whole one.
        std::fs::rename(root.join("links"), root.join("directories/links")).unwrap();
    });
    as_e2fsck_leaves_it(&whole);
}

#[test]
fn a_journal_elsewhere_is_refused_by_name() {
    if !peer::require(TOOLS) {
        return;
    }
    let image = Image::made(&["-b", "4096"], LEN);
    assert_eq!(image.open().label(), "");
    let script = image.path().with_file_name("script");
    std::fs::write(&script, "feature needs_recovery\nssv journal_inum 0\nssv journal_dev 0x700\n").unwrap();
    peer::run("debugfs", &["-w".as_ref(), "-f".as_ref(), script.as_os_str(), image.path().as_os_str()]);
    let refused =
        fs::ext4::open(open(&image.path())).err().expect("a journal was replayed that is elsewhere");
    assert_eq!(refused.kind(), Kind::Unsupported);
    assert!(refused.to_string().contains("external journal"), "{refused}");
}
