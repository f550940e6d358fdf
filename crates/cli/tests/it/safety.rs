use crate::run::Dir;
use rustix::process::Signal;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

#[test]
fn nothing_is_overwritten_unless_that_is_said() {
    let dir = Dir::new();
    dir.raw("a.raw", 1 << 20);
    std::fs::write(dir.join("b.raw"), "precious").unwrap();
    dir.fails("convert a.raw b.raw", &["exists", "--force"]);
    dir.fails("create b.raw 1M", &["exists"]);
    assert_eq!(std::fs::read(dir.join("b.raw")).unwrap(), b"precious");
    dir.ok("convert --force a.raw b.raw");
    assert_eq!(dir.names(), ["a.raw", "b.raw"]);
    // A link stays one, and nothing but a file is replaced.
    std::os::unix::fs::symlink("b.raw", dir.join("link")).unwrap();
    dir.ok("create --force -f raw link 2M");
    assert!(dir.join("link").symlink_metadata().unwrap().is_symlink());
    assert_eq!(dir.join("b.raw").metadata().unwrap().len(), 2 << 20);
    let _pipe = std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
    dir.fails("convert --force a.raw socket", &["regular file"]);
    assert_eq!(dir.names(), ["a.raw", "b.raw", "link", "socket"]);
}

#[test]
fn a_disk_is_never_its_own_target() {
    if !testkit::peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    std::fs::hard_link(dir.join("base.raw"), dir.join("alias")).unwrap();
    let before = std::fs::read(dir.join("base.raw")).unwrap();
    for target in ["top.qcow2", "mid.qcow2", "base.raw", "alias"] {
        dir.fails(&format!("convert --force -O raw top.qcow2 {target}"), &["its own target"]);
        dir.fails(&format!("chart --force -o {target} top.qcow2"), &["its own target"]);
        dir.fails(&format!("chart --force --svg {target} top.qcow2"), &["its own target"]);
    }
    assert_eq!(std::fs::read(dir.join("base.raw")).unwrap(), before);
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    let dir = Dir::new();
    dir.noise("a.raw");
    let before = dir.join("a.raw").metadata().unwrap().modified().unwrap();
    let convert = "convert -c --level 9 -m 1 -O qcow2 a.raw b.qcow2";
    for (command, signal, code) in [
        (convert, Signal::INT, Some(130)),
        (convert, Signal::KILL, None),
        ("create -o preallocation=full b.raw 8G", Signal::INT, Some(130)),
        ("create -o preallocation=full b.qcow2 8G", Signal::INT, Some(130)),
    ] {
        let child = dir.command(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until_at_work(&dir, &child);
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), code, "{command}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(dir.names(), ["a.raw"], "{command}");
    }
    assert_eq!(dir.join("a.raw").metadata().unwrap().modified().unwrap(), before);
}

#[test]
fn an_interrupted_change_is_whole_or_has_not_happened() {
    if !testkit::peer::require(&["qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    // Two million clusters that have their places: long tables, and no data.
    dir.ok("create -q -o preallocation=metadata,cluster_size=4k disk.qcow2 8G");
    for (command, done) in [
        ("snapshot -c s disk.qcow2", "snapshot"),
        ("snapshot -d s disk.qcow2", "snapshot"),
        ("resize --shrink disk.qcow2 1G", "resize"),
    ] {
        for after in [0, 300] {
            let mut child =
                dir.command(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            wait_until_open(&dir, &mut child, "disk.qcow2");
            std::thread::sleep(Duration::from_millis(after));
            if child.try_wait().unwrap().is_none() {
                rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::INT).unwrap();
            }
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            match output.status.code() {
                Some(0) => {}
                // It was done the first time.
                Some(1) => assert!(after > 0 && said.contains(done), "{command}: {said}"),
                Some(130) => assert!(said.contains("interrupted"), "{command}: {said}"),
                code => panic!("{command}: {code:?}: {said}"),
            }
            dir.tool("qemu-img", "check -q disk.qcow2");
        }
        // Whether it was done or not: it can be now.
        let again = dir.run(command);
        assert!(again.code == 0 || again.err.contains(done), "{command}: {}", again.err);
        dir.tool("qemu-img", "check -q disk.qcow2");
    }
    assert_eq!(dir.names(), ["disk.qcow2"]);
}

/// Waits until a process has a file open, or has ended.
fn wait_until_open(dir: &Dir, child: &mut Child, name: &str) {
    let began = Instant::now();
    let path = dir.path().canonicalize().unwrap().join(name);
    while began.elapsed() < Duration::from_secs(20) {
        let ended = child.try_wait().unwrap().is_some();
        let open = std::fs::read_dir(format!("/proc/{}/fd", child.id())).into_iter().flatten().flatten();
        if ended || open.map(|fd| std::fs::read_link(fd.path())).any(|to| to.is_ok_and(|to| to == path)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it has not opened {name}");
}

/// Waits until a process has a new file open here: one that has no name yet.
fn wait_until_at_work(dir: &Dir, child: &Child) {
    let began = Instant::now();
    let here = dir.path().canonicalize().unwrap();
    let writes = |link: PathBuf| {
        std::fs::read_link(link)
            .is_ok_and(|to| to.starts_with(&here) && to.to_string_lossy().contains("deleted"))
    };
    while began.elapsed() < Duration::from_secs(20) {
        let open = std::fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap();
        if open.flatten().any(|fd| writes(fd.path())) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it has not begun to write");
}

#[test]
fn two_users_of_one_image_refuse_each_other() {
    if !testkit::peer::require(&["qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 4M");
    let mut holder = std::process::Command::new("qemu-io")
        .args(["disk.qcow2"])
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It prompts when the image is open.
    let mut prompt = [0; 8];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut prompt).unwrap();
    dir.fails("convert disk.qcow2 out.raw", &["another process", "-U"]);
    dir.fails("resize disk.qcow2 8M", &["another process"]);
    let busy = dir.fails("snapshot -c x disk.qcow2", &["another process", "Stop"]);
    assert!(!busy.err.contains("-U"), "{}", busy.err);
    dir.ok("info -U disk.qcow2");
    dir.fails("create --force disk.qcow2 1M", &["another process"]);
    dir.fails("resize -U disk.qcow2 8M", &["must be locked"]);
    dir.fails("snapshot -U -c x disk.qcow2", &["must be locked"]);
    drop(holder.stdin.take());
    holder.wait().unwrap();
    dir.ok("resize disk.qcow2 8M");
}

#[test]
fn hints_tell_what_to_do() {
    let dir = Dir::new();
    std::fs::write(dir.join("odd@name"), [0; 512]).unwrap();
    dir.fails("info odd@name", &["file:odd@name"]);
    dir.ok("info file:odd@name");
    dir.fails("info absent", &["absent"]);
    assert_eq!(dir.run("info disk#0").code, 2);
    assert_eq!(dir.run("nonsense").code, 2);
}

#[test]
fn an_image_is_never_its_own_backing_file() {
    let dir = Dir::new();
    dir.ok("create base.qcow2 4M");
    dir.ok("create -b base.qcow2 -F qcow2 over.qcow2");
    std::fs::hard_link(dir.join("base.qcow2"), dir.join("alias.qcow2")).unwrap();
    let before = ["base.qcow2", "over.qcow2"].map(|name| std::fs::read(dir.join(name)).unwrap());
    for backing in ["base.qcow2", "./alias.qcow2", "over.qcow2"] {
        dir.fails(&format!("create --force -b {backing} -F qcow2 base.qcow2"), &["its own target"]);
    }
    for backing in ["over.qcow2", "./over.qcow2"] {
        dir.fails(&format!("rebase -b {backing} -F qcow2 over.qcow2"), &["below"]);
        dir.fails(&format!("rebase -u -b {backing} -F qcow2 over.qcow2"), &["below"]);
    }
    assert!(before == ["base.qcow2", "over.qcow2"].map(|name| std::fs::read(dir.join(name)).unwrap()));
}

#[test]
fn names_in_images_do_not_speak_to_the_terminal() {
    let dir = Dir::new();
    dir.ok("create a.qcow2 4M");
    dir.ok("snapshot -c snapname a.qcow2");
    dir.ok("bitmap --add a.qcow2 bitsname");
    let mut bytes = std::fs::read(dir.join("a.qcow2")).unwrap();
    for name in [b"snapname", b"bitsname"] {
        let at = bytes.windows(8).rposition(|window| window == name).unwrap();
        bytes[at..at + 8].copy_from_slice(b"\x1b[2J\nok\x7f");
    }
    std::fs::write(dir.join("a.qcow2"), bytes).unwrap();
    for command in ["info a.qcow2", "snapshot a.qcow2", "bitmap a.qcow2"] {
        let ran = dir.ok(command);
        assert!(
            ran.out.contains(r"\u{1b}[2J\nok\u{7f}") && !ran.out.contains(['\x1b', '\x7f']),
            "{}",
            ran.out
        );
    }
    let ran = dir.fails("snapshot -a other a.qcow2", &[r"\u{1b}[2J\nok"]);
    assert!(!ran.err.contains('\x1b'), "{}", ran.err);
}

#[test]
fn what_nobody_could_hear_is_told_by_the_exit_code() {
    let dir = Dir::new();
    dir.raw("a.raw", 1 << 20);
    dir.raw("b.raw", 2 << 20);
    dir.raw("c.raw", 6 << 20);
    let run = |args: &str, out: Stdio| dir.command(args).stdout(out).stderr(Stdio::piped()).output().unwrap();
    let unheard = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    assert_eq!(run("compare a.raw b.raw", unheard()).status.code(), Some(0));
    assert_eq!(run("compare a.raw c.raw", unheard()).status.code(), Some(1), "they differ all the same");
    assert_eq!(run("info a.raw", unheard()).status.code(), Some(0));
    // It is not the new file that has no room.
    for args in
        ["convert a.raw new.raw", "convert --json a.raw other.raw", "chart a.raw", "chart --json a.raw"]
    {
        let full = std::fs::File::create("/dev/full").unwrap();
        let output = run(args, full.into());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{args}: {said}");
        assert!(said.contains("standard output"), "{args}: {said}");
    }
    assert_eq!(std::fs::read(dir.join("new.raw")).unwrap(), std::fs::read(dir.join("a.raw")).unwrap());
}
