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
