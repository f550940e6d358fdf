//! `extract`, and what is left when it does not get to its end.

use super::{START, able, compare, divided, mount::Mounted, seen, tree};
use crate::run::Dir;
use rustix::process::Signal;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn a_tree_is_what_the_kernel_sees() {
    if !able() {
        return;
    }
    let dir = Dir::new();
    divided(&dir, 96, tree::fill);
    for (source, out) in [("disk.qcow2#1", "one"), ("raw#1:/", "two")] {
        let report = dir.ok(&format!("extract --json {source} -o {out}")).json();
        let seen = seen(&dir);
        compare::same(&dir.join(out), seen.path());
        assert_eq!(report["skipped"], serde_json::json!([]), "{report}");
        let count = |keys: &[&str]| keys.iter().map(|key| report[*key].as_u64().unwrap()).sum::<u64>();
        assert_eq!(count(&["cloned", "offloaded", "copied", "holes"]), count(&["bytes"]), "{report}");
        let all = compare::look(seen.path());
        let made = count(&["files", "directories", "symlinks", "hard-links", "special"]);
        assert_eq!(made, all.len() as u64, "{report}");
        // Sparse stays sparse. How directories grow depends on the order of their names.
        let ours = compare::look(&dir.join(out));
        let is_file = |seen: &compare::Seen| seen.mode & 0o170_000 == 0o100_000;
        for (path, theirs) in all.iter().filter(|(_, seen)| is_file(seen)) {
            let (ours, theirs) = (ours[path].stored, theirs.stored.max(theirs.size()));
            assert!(ours <= theirs.div_ceil(4096) * 4096 + 4096, "{}: {ours}, {theirs}", path.display());
        }
        assert!(ours[Path::new("contents/hole")].stored <= 4096);
        assert!(ours[Path::new("contents/comb")].stored <= 1 << 20);
    }
    assert_eq!(dir.names(), ["disk.qcow2", "one", "raw", "two"]);
    // A part of it.
    dir.ok("extract disk.qcow2#1:/attributes/inner/.. -o three");
    compare::same(&dir.join("three"), &seen(&dir).path().join("attributes"));
}

#[test]
fn a_debian_root_is_what_the_kernel_sees() {
    // Beside where the command is built: `debug` or `release`.
    let kept = Path::new(env!("CARGO_BIN_EXE_portolan")).ancestors().nth(2).unwrap().join("guest/root.raw");
    if !able() || !testkit::peer::require_files(&[&kept], "`cargo xtask test peers`, as root") {
        return;
    }
    let dir = Dir::new();
    dir.tool("dd", &format!("if={} of=raw bs=1M seek=1 conv=sparse status=none", kept.display()));
    std::fs::write(dir.join("script"), "label: gpt\nstart=2048\n").unwrap();
    dir.tool("sh", "-c|truncate -s +1M raw && sfdisk -q raw < script");
    dir.tool("qemu-img", "convert -f raw -O qcow2 raw disk.qcow2");
    dir.ok("extract disk.qcow2#1 -o root");
    compare::same(&dir.join("root"), seen(&dir).path());
}

#[test]
fn a_file_system_that_was_not_unmounted_is_what_e2fsck_leaves() {
    if !able() || !testkit::peer::require(&["e2fsck"]) {
        return;
    }
    let dir = Dir::new();
    divided(&dir, 96, |_| ());
    // As it is while it is mounted, the journal written and the rest not.
    let mounted = Mounted::new(&dir.join("raw"), &format!("noatime,commit=1000,offset={START}"));
    tree::fill(mounted.path());
    let last = mounted.path().join("last");
    std::fs::write(&last, "last").unwrap();
    std::fs::File::open(&last).unwrap().sync_all().unwrap();
    std::fs::copy(dir.join("raw"), dir.join("dirty")).unwrap();
    drop(mounted);
    dir.ok("convert -q -f raw dirty dirty.qcow2");
    dir.ok("extract dirty.qcow2#1 -o out");
    let unreplayed = Mounted::new(&dir.join("dirty"), &format!("ro,noload,offset={START}"));
    assert!(!unreplayed.path().join("last").exists(), "the journal held nothing");
    drop(unreplayed);
    dir.tool("dd", "if=dirty of=part bs=1M skip=1 count=96 status=none");
    let checked = testkit::peer::attempt("e2fsck", &["-fy".as_ref(), dir.join("part").as_os_str()]);
    assert!(checked.status.code().is_some_and(|code| code < 4), "{checked:?}");
    compare::same(&dir.join("out"), Mounted::new(&dir.join("part"), "ro").path());
}

#[test]
fn who_is_not_root_gets_what_they_may_have() {
    if !able() {
        return;
    }
    let dir = Dir::new();
    divided(&dir, 96, tree::fill);
    // Nobody can reach where the program was built.
    std::fs::copy(env!("CARGO_BIN_EXE_portolan"), dir.join("portolan")).unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::set_permissions(dir.join("disk.qcow2"), PermissionsExt::from_mode(0o644)).unwrap();
    let mut command = std::process::Command::new(dir.join("portolan"));
    command
        .args(["extract", "--json", "disk.qcow2#1", "-o", "out"])
        .current_dir(dir.path())
        .uid(65_534)
        .gid(65_534);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let left_out: Vec<_> =
        report["skipped"].as_array().unwrap().iter().map(|s| s["what"].as_str().unwrap()).collect();
    for what in ["devices", "set-id bits", "attributes that only root"] {
        assert!(left_out.iter().any(|known| known.contains(what)), "{what}: {report}");
    }
    let (ours, all) = (compare::look(&dir.join("out")), compare::look(seen(&dir).path()));
    for (path, theirs) in &all {
        let Some(ours) = ours.get(path) else {
            assert!(path.starts_with("devices"), "{}", path.display());
            continue;
        };
        assert_eq!(ours.owner, (65_534, 65_534));
        let mut expected = theirs.clone();
        expected.owner = ours.owner;
        // It is not theirs who made it, so it is not run as theirs either.
        expected.mode &= !0o6000;
        expected.attributes.retain(|name, _| name.starts_with(b"user.") || name.starts_with(b"system."));
        assert!(ours.same(&expected), "{}: {ours:?} {expected:?}", path.display());
    }
    // Without owners, root does the same, but for the attributes.
    dir.ok("extract -q --no-owner disk.qcow2#1 -o unowned");
    let unowned = dir.join("unowned/modes/4755 of 1000").metadata().unwrap();
    assert_eq!((unowned.uid(), unowned.mode() & 0o7777), (0, 0o755));
}

#[test]
fn one_file() {
    if !able() {
        return;
    }
    let dir = Dir::new();
    divided(&dir, 96, tree::fill);
    std::fs::create_dir(dir.join("into")).unwrap();
    dir.ok("extract disk.qcow2#1:/contents/5000000 -o big");
    dir.ok("extract disk.qcow2#1:/contents/5000000 -o into");
    dir.ok("extract disk.qcow2#1:/attributes/file -o other");
    dir.fails("extract disk.qcow2#1:/contents/1 -o big", &["exists", "--force"]);
    let seen = seen(&dir);
    let file = |name: &str| {
        let m = dir.join(name).metadata().unwrap();
        (std::fs::read(dir.join(name)).unwrap(), m.mode(), m.mtime(), m.mtime_nsec(), m.uid())
    };
    let theirs = seen.path().join("contents/5000000");
    assert_eq!(file("big"), file(theirs.to_str().unwrap()));
    assert_eq!(file("into/5000000"), file(theirs.to_str().unwrap()));
    assert_eq!(file("other"), file(seen.path().join("attributes/file").to_str().unwrap()));
    let mut value = [0; 10];
    assert_eq!(rustix::fs::getxattr(dir.join("other"), "user.comment", &mut value[..]).unwrap(), 2);
    dir.ok("extract --force disk.qcow2#1:/contents/hole -o big");
    assert_eq!(
        (dir.join("big").metadata().unwrap().len(), dir.join("big").metadata().unwrap().blocks()),
        (64 << 20, 0)
    );
    dir.fails("extract disk.qcow2#1:/devices/null -o null", &["neither a directory nor"]);
    dir.fails("extract disk.qcow2#1:/nowhere -o x", &["/nowhere"]);
    assert_eq!(dir.names(), ["big", "disk.qcow2", "into", "other", "raw"]);
}

#[test]
fn what_is_there_stays_unless_that_is_said() {
    if !able() {
        return;
    }
    let dir = Dir::new();
    divided(&dir, 8, |root| {
        std::fs::create_dir(root.join("d")).unwrap();
        std::fs::write(root.join("d/new"), "new").unwrap();
        std::fs::write(root.join("f"), "new").unwrap();
    });
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    for name in ["empty", "full"] {
        std::fs::create_dir(dir.join(name)).unwrap();
    }
    dir.ok("extract disk.qcow2#1 -o empty");
    assert_eq!((read("empty/d/new"), read("empty/f")), ("new".into(), "new".into()));
    std::fs::write(dir.join("full/f"), "old").unwrap();
    dir.fails("extract disk.qcow2#1 -o full", &["not empty", "--force"]);
    assert_eq!(std::fs::read_dir(dir.join("full")).unwrap().count(), 1);
    std::fs::create_dir(dir.join("full/d")).unwrap();
    std::fs::write(dir.join("full/d/kept"), "old").unwrap();
    dir.ok("extract --force disk.qcow2#1 -o full");
    assert_eq!(
        (read("full/f"), read("full/d/kept"), read("full/d/new")),
        ("new".into(), "old".into(), "new".into())
    );
    dir.fails("extract disk.qcow2#1 -o raw", &["no directory"]);
    dir.fails("extract disk.qcow2#1 -o no/such", &["no is not there"]);
    assert_eq!(dir.names(), ["disk.qcow2", "empty", "full", "raw"]);
}

#[test]
fn an_interrupted_extraction_leaves_nothing() {
    if !able() {
        return;
    }
    let dir = Dir::new();
    divided(&dir, 128, |root| {
        for folder in 0..20 {
            let folder = root.join(format!("{folder}"));
            std::fs::create_dir(&folder).unwrap();
            (0..1000).for_each(|i| std::fs::write(folder.join(format!("{i}")), "").unwrap());
        }
    });
    std::fs::create_dir(dir.join("there")).unwrap();
    for out in ["new", "there"] {
        let mut child = dir
            .command(&format!("extract disk.qcow2#1 -o {out}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let began = Instant::now();
        let folder = if out == "new" { dir.path().to_path_buf() } else { dir.join("there") };
        let part = |name: std::ffi::OsString| name.to_string_lossy().ends_with(".part");
        while !std::fs::read_dir(&folder).unwrap().any(|e| part(e.unwrap().file_name())) {
            assert!(began.elapsed() < Duration::from_secs(20) && child.try_wait().unwrap().is_none());
        }
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::INT).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(dir.names(), ["disk.qcow2", "raw", "there"]);
    assert_eq!(std::fs::read_dir(dir.join("there")).unwrap().count(), 0);
}

/// What the target has room for is the limit of what comes out of an image.
#[test]
fn a_target_that_is_full_is_an_error_and_nothing_is_left_in_it() {
    if !able() || !testkit::peer::require(&["unshare"]) {
        return;
    }
    let dir = Dir::new();
    divided(&dir, 64, |root| {
        (1..13).for_each(|i| std::fs::write(root.join(i.to_string()), vec![i; 1 << 20]).unwrap());
    });
    std::fs::create_dir(dir.join("small")).unwrap();
    let script = r#"
        mount -t tmpfs -o size=8m none small || exit 9
        "$0" extract disk.qcow2#1 -o small/new 2> said; echo $? >> said
        "$0" convert -O raw disk.qcow2 small/raw 2>> said; echo $? >> said
        ls -A small > left"#;
    let args = ["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_portolan")];
    let output = std::process::Command::new("unshare").args(args).current_dir(dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let said = read("said");
    assert_eq!((said.matches("No space left").count(), said.matches("\n1\n").count()), (2, 2), "{said}");
    assert_eq!(read("left"), "");
}

#[test]
fn nothing_is_copied_that_can_be_shared() {
    if !able() || !testkit::peer::require(&["mkfs.xfs"]) {
        return;
    }
    let dir = Dir::new();
    divided(&dir, 96, tree::fill);
    std::fs::File::create(dir.join("xfs")).unwrap().set_len(400 << 20).unwrap();
    dir.tool("mkfs.xfs", "-q -m reflink=1 xfs");
    let xfs = Mounted::new(&dir.join("xfs"), "rw");
    std::fs::copy(dir.join("disk.qcow2"), xfs.path().join("disk.qcow2")).unwrap();
    let (image, out) = (xfs.path().join("disk.qcow2"), xfs.path().join("out"));
    let run = |args: &str| {
        dir.ok(&format!("extract --json {}#1 -o {} {args}", image.display(), out.display())).json()
    };
    let report = run("--reflink=auto");
    let (cloned, bytes) = (report["cloned"].as_u64().unwrap(), report["bytes"].as_u64().unwrap());
    let holes = report["holes"].as_u64().unwrap();
    assert!(cloned > (bytes - holes) * 8 / 10, "{report}");
    compare::same(&out, seen(&dir).path());
    // What comes behind a file's end in its last block was not shared with anybody.
    let odd = std::fs::File::options().write(true).open(out.join("contents/100000")).unwrap();
    odd.set_len(200_000).unwrap();
    let bytes = std::fs::read(out.join("contents/100000")).unwrap();
    assert!(bytes[..100_000] == tree::pattern(100_000) && bytes[100_000..].iter().all(|b| *b == 0));
    std::fs::remove_dir_all(&out).unwrap();
    let report = run("--reflink=never");
    assert_eq!(report["cloned"], 0, "{report}");
    compare::same(&out, seen(&dir).path());
}
