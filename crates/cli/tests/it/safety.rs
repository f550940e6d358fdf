use crate::run::Dir;
use std::process::Stdio;
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
    }
    assert_eq!(std::fs::read(dir.join("base.raw")).unwrap(), before);
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    let dir = Dir::new();
    // Random bytes, so that compressing them takes a while.
    let mut state = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    })
    .take(96 << 20)
    .collect();
    std::fs::write(dir.join("a.raw"), noise).unwrap();
    let before = dir.join("a.raw").metadata().unwrap().modified().unwrap();
    let mut child = dir
        .command("convert -c --level 9 -m 1 -O qcow2 a.raw b.qcow2")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while dir.names().len() < 2 && began.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    assert_eq!(dir.names(), ["a.raw"]);
    assert_eq!(dir.join("a.raw").metadata().unwrap().modified().unwrap(), before);
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
