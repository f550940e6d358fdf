//! A whole Debian, as it is while it is at work.

use super::{START, able, compare, mount::Mounted};
use crate::run::Dir;
use std::path::Path;
use testkit::peer;

/// What a machine does that is never shut down: packages come and go, logs grow, and all of it is in the journal.
fn work(root: &Path) {
    for gone in ["usr/share/doc", "usr/share/locale"] {
        std::fs::remove_dir_all(root.join(gone)).unwrap();
    }
    peer::run(
        "cp",
        &["-a".as_ref(), root.join("usr/share/zoneinfo").as_os_str(), root.join("srv").as_os_str()],
    );
    std::fs::rename(root.join("etc/debian_version"), root.join("etc/version")).unwrap();
    std::fs::hard_link(root.join("etc/passwd"), root.join("srv/passwd")).unwrap();
    for i in 0..300 {
        std::fs::write(root.join(format!("var/log/log.{i}")), format!("{i}\n").repeat(i * 10)).unwrap();
    }
    for i in (0..300).step_by(3) {
        std::fs::remove_file(root.join(format!("var/log/log.{i}"))).unwrap();
    }
    let last = root.join("var/log/last");
    std::fs::write(&last, "last").unwrap();
    std::fs::File::open(&last).unwrap().sync_all().unwrap();
}

#[test]
fn a_debian_root_that_was_not_unmounted_is_what_e2fsck_leaves() {
    // Beside where the command is built: `debug` or `release`.
    let kept = Path::new(env!("CARGO_BIN_EXE_portolan")).ancestors().nth(2).unwrap().join("guest/root.raw");
    let there = || peer::require_files(&[&kept], "`cargo xtask test peers`, as root");
    if !able() || !peer::require(&["e2fsck"]) || !there() {
        return;
    }
    let dir = Dir::new();
    dir.tool("dd", &format!("if={} of=raw bs=1M seek=1 conv=sparse status=none", kept.display()));
    std::fs::write(dir.join("script"), "label: gpt\nstart=2048\n").unwrap();
    dir.tool("sh", "-c|truncate -s +1M raw && sfdisk -q raw < script");
    let mounted = Mounted::new(&dir.join("raw"), &format!("noatime,commit=1000,offset={START}"));
    work(mounted.path());
    // While somebody has a file open that has no name any more.
    let nameless = mounted.path().join("nameless");
    let held = std::fs::File::create(&nameless).unwrap();
    std::fs::remove_file(&nameless).unwrap();
    dir.tool("cp", "--sparse=always raw dirty");
    drop(held);
    drop(mounted);
    dir.ok("convert -q -f raw dirty dirty.qcow2");
    dir.ok("extract dirty.qcow2#1 -o out");
    let len = kept.metadata().unwrap().len() >> 20;
    dir.tool("dd", &format!("if=dirty of=part bs=1M skip=1 count={len} conv=sparse status=none"));
    dir.tool("truncate", &format!("-s {len}M part"));
    let checked = peer::attempt("e2fsck", &["-fy".as_ref(), dir.join("part").as_os_str()]);
    assert!(checked.status.code().is_some_and(|code| code < 4), "{checked:?}");
    assert!(String::from_utf8_lossy(&checked.stdout).contains("recovering journal"), "{checked:?}");
    compare::same(&dir.join("out"), Mounted::new(&dir.join("part"), "ro").path());
    assert_eq!(std::fs::read(dir.join("out/var/log/last")).unwrap(), b"last");
}
