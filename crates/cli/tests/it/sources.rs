//! Disks at addresses.

use crate::run::Dir;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(dir: &Dir, args: &[&str]) -> Server {
    let socket = dir.join("nbd.sock");
    let child = Command::new("qemu-nbd")
        .args(["--persistent", "--shared=4", "--socket"])
        .arg(&socket)
        .args(args)
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server(child);
    let began = Instant::now();
    while !socket.exists() {
        assert!(began.elapsed() < Duration::from_secs(20), "qemu-nbd does not come up");
        std::thread::sleep(Duration::from_millis(10));
    }
    server
}

#[test]
fn an_export_is_a_disk_like_any_other() {
    if !testkit::peer::require(&["qemu-img", "qemu-io", "qemu-nbd"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    let address = format!("nbd+unix:///?socket={}", dir.join("nbd.sock").display());
    let server = serve(&dir, &["--read-only", "-f", "qcow2", "top.qcow2"]);
    assert_eq!(dir.ok(&format!("info --json {address}")).json()["virtual-size"], 16 << 20);
    dir.ok(&format!("compare -U {address} top.qcow2"));
    dir.ok(&format!("convert {address} copy.qcow2"));
    dir.tool("qemu-img", "compare -q -U top.qcow2 copy.qcow2");
    // Holes are known without reading them.
    let rows = dir.ok(&format!("chart --json {address}")).json();
    assert!(rows.as_array().unwrap().iter().any(|row| row["kind"] == "sparse"), "{rows}");
    dir.fails(&format!("bench --write -f raw --operations 1 {address}"), &["read-only"]);
    drop(server);
    dir.fails(&format!("info {address}"), &["nbd"]);
}

#[test]
fn an_export_can_be_written() {
    if !testkit::peer::require(&["qemu-img", "qemu-nbd"]) {
        return;
    }
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 8M");
    let address = format!("nbd+unix:///?socket={}", dir.join("nbd.sock").display());
    let server = serve(&dir, &["-f", "qcow2", "disk.qcow2"]);
    dir.ok(&format!("bench --write -f raw --operations 20 --size 64k {address}"));
    dir.ok(&format!("convert -f raw {address} after.raw"));
    drop(server);
    dir.ok("compare disk.qcow2 after.raw");
    dir.tool("qemu-img", "check -q disk.qcow2");
}

/// A disk in several files, as nbdkit puts it together.
#[test]
fn a_disk_in_parts_is_the_one_that_nbdkit_serves() {
    if !testkit::peer::require(&["nbdkit", "qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    dir.raw("whole.raw", 8 << 20);
    let whole = std::fs::read(dir.join("whole.raw")).unwrap();
    let bounds = [0, (3 << 20) + 512, (3 << 20) + 1024, 8 << 20];
    for (i, name) in ["d.001", "d.002", "d.003"].into_iter().enumerate() {
        std::fs::write(dir.join(name), &whole[bounds[i]..bounds[i + 1]]).unwrap();
    }
    let compare = |with: &str| {
        let compare = format!("qemu-img compare -q -f raw -F {with} $uri {with}.image");
        dir.tool("nbdkit", &format!("-U|-|split|d.001|d.002|d.003|--run|{compare}"));
    };
    // A comma within a value is doubled, as in QEMU.
    for parts in ["auto", "d.002,,d.003"] {
        dir.ok(&format!("convert --force -f raw --option parts={parts} -O qcow2 d.001 qcow2.image"));
        compare("qcow2");
    }
    // Not the other way: nbdkit 1.32 writes to the wrong place of every part but the first.
    dir.ok("convert --force -f raw --option parts=auto -O raw d.001 raw.image");
    compare("raw");
    dir.tool("cmp", "raw.image whole.raw");
}
