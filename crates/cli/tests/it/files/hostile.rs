//! Images that want out, or in circles.

use super::{able, mount};
use crate::run::Dir;
use std::os::unix::fs::symlink;
use std::path::Path;

/// A bare ext4 without checksums, so that its directories can be written to by hand.
fn bare(dir: &Dir, fill: impl FnOnce(&Path)) {
    std::fs::File::create(dir.join("raw")).unwrap().set_len(8 << 20).unwrap();
    dir.tool("mkfs.ext4", "-q -F -O ^metadata_csum,^has_journal raw");
    let mounted = mount::Mounted::new(&dir.join("raw"), "rw");
    fill(mounted.path());
}

/// Writes other bytes over a name, wherever it is.
fn rename(dir: &Dir, from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let mut bytes = std::fs::read(dir.join("raw")).unwrap();
    let found: Vec<_> = (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from)).collect();
    assert!(!found.is_empty());
    found.into_iter().for_each(|at| bytes[at..at + to.len()].copy_from_slice(to));
    std::fs::write(dir.join("raw"), bytes).unwrap();
}

#[test]
fn a_link_is_never_gone_through() {
    if !able() {
        return;
    }
    let dir = Dir::new();
    std::fs::create_dir(dir.join("outside")).unwrap();
    let outside = dir.join("outside");
    bare(&dir, |root| {
        // The link comes first in the directory, and has the directory's name later.
        symlink(&outside, root.join("somename")).unwrap();
        std::fs::create_dir(root.join("dirsname")).unwrap();
        std::fs::write(root.join("dirsname/evil"), "evil").unwrap();
        // And a file of a link's name.
        symlink(outside.join("evil"), root.join("linkname")).unwrap();
        std::fs::write(root.join("filename"), "evil").unwrap();
    });
    rename(&dir, b"dirsname", b"somename");
    rename(&dir, b"filename", b"linkname");
    for force in ["", "--force "] {
        let _ = dir.run(&format!("extract {force}raw -o out"));
        let _ = dir.run(&format!("extract {force}--keep-going -m 1 raw -o out"));
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "something got out");
    let told = dir.run("extract --json --keep-going raw -o new");
    assert!(told.code == 0 || told.code == 3, "{}", told.err);
    assert!(told.out.contains("holds twice"), "{}", told.out);
}

#[test]
fn names_that_lead_elsewhere_are_none() {
    if !able() {
        return;
    }
    for name in [&b"../../evil"[..], b"/tmp/evil!", b"a/../evil1", b"..\0\0\0\0\0\0\0\0"] {
        let dir = Dir::new();
        bare(&dir, |root| {
            std::fs::write(root.join("tenletters"), "evil").unwrap();
            std::fs::write(root.join("good"), "good").unwrap();
        });
        rename(&dir, b"tenletters", name);
        let failed = dir.run("extract raw -o a/b");
        assert_eq!(failed.code, 1);
        std::fs::create_dir(dir.join("a")).unwrap();
        let failed = dir.run("extract raw -o a/b");
        assert_eq!(failed.code, 1, "{}", failed.out);
        assert_eq!(std::fs::read_dir(dir.join("a")).unwrap().count(), 0);
        let kept = dir.run("extract --keep-going raw -o a/b");
        assert_eq!(kept.code, 3, "{}{}", kept.out, kept.err);
        assert_eq!(dir.names(), ["a", "raw"]);
    }
}

#[test]
fn a_directory_has_one_name() {
    if !able() || !testkit::peer::require(&["debugfs"]) {
        return;
    }
    // One that holds itself, and one that two others hold.
    for (further, by) in [("/one/two/three", "/one"), ("/other/one", "/one")] {
        let dir = Dir::new();
        bare(&dir, |root| {
            std::fs::create_dir_all(root.join("one/two")).unwrap();
            std::fs::create_dir(root.join("other")).unwrap();
            std::fs::write(root.join("one/file"), "good").unwrap();
        });
        dir.tool("debugfs", &format!("-w|-R|ln {by} {further}|raw"));
        dir.fails("extract raw -o out", &["another name"]);
        dir.fails("ls -R raw", &["another name"]);
        let kept = dir.run("extract --json --keep-going raw -o out");
        assert_eq!((kept.code, &kept.json()["unreadable-count"]), (3, &1.into()), "{}", kept.out);
        assert!(dir.join("out/one/file").exists() != dir.join("out/other/one/file").exists());
    }
}

#[test]
fn what_cannot_be_read_is_left_out_when_that_is_said() {
    if !able() || !testkit::peer::require(&["debugfs"]) {
        return;
    }
    let dir = Dir::new();
    bare(&dir, |root| {
        std::fs::write(root.join("bad"), vec![1; 100_000]).unwrap();
        std::fs::write(root.join("good"), "good").unwrap();
    });
    // Its extents lead past the end of the disk.
    dir.tool("debugfs", "-w|-R|sif bad block[4] 0x7fffffff|raw");
    dir.tool("debugfs", "-w|-R|sif bad block[5] 0x7fffffff|raw");
    dir.fails("extract raw -o out", &["/bad"]);
    assert_eq!(dir.names(), ["raw"]);
    let kept = dir.run("extract --json --keep-going raw -o out");
    assert_eq!(kept.code, 3, "{}", kept.err);
    assert_eq!(kept.json()["unreadable"][0]["path"], "/bad");
    assert!(!dir.join("out/bad").exists() && dir.join("out/good").exists());
}

#[test]
fn names_do_not_speak_to_the_terminal() {
    if !able() {
        return;
    }
    let dir = Dir::new();
    bare(&dir, |root| {
        std::fs::write(root.join("a\x1b[2Jb\nc"), "").unwrap();
        symlink("\x1b]0;x\x07", root.join("link")).unwrap();
    });
    for command in ["ls raw", "ls -R raw", "ls --json raw"] {
        let out = dir.ok(command).out;
        assert!(!out.contains(['\x1b', '\x07']) && out.contains("[2Jb"), "{out}");
    }
}

#[test]
fn what_is_damaged_hides_nothing_else_from_a_list() {
    if !able() || !testkit::peer::require(&["debugfs"]) {
        return;
    }
    let dir = Dir::new();
    bare(&dir, |root| {
        for name in ["bad", "good"] {
            std::fs::write(root.join(name), name).unwrap();
            std::fs::create_dir(root.join(format!("{name} directory"))).unwrap();
            std::fs::write(root.join(format!("{name} directory/in it")), name).unwrap();
        }
    });
    dir.tool("debugfs", "-w|-R|sif bad mode 0|raw");
    dir.tool("debugfs", "-w|-R|sif \"bad directory\" block[2] 0x7fffffff|raw");
    dir.tool("debugfs", "-w|-R|sif \"bad directory\" block[5] 0x7fffffff|raw");
    let told =
        dir.fails("ls -R raw", &["raw:/bad: inode 12 is of no kind", "raw:/bad directory: ", "e2fsck -n"]);
    for name in ["lost+found", " good\n", "bad directory", "./good directory:", "in it"] {
        assert!(told.out.contains(name), "{name}: {}", told.out);
    }
    assert_eq!(told.err.lines().count(), 3, "{}", told.err);
    let told = dir.fails("ls --json raw", &["raw:/bad: inode 12"]);
    assert_eq!(told.json().as_array().unwrap().len(), 4);
    dir.fails("ls raw:/bad", &["inode 12"]);
}
