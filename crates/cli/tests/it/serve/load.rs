//! fio, which writes over several connections at once and verifies what it reads back.

use super::{Server, Start, on_a_port, on_a_socket};
use crate::run::Dir;

pub(super) const WORKS: [&str; 3] = [
    "--rw=randwrite --bsrange=512-64k",
    "--rw=randrw --rwmixread=40 --bssplit=512/20:4k/40:16k/20:64k/20 --verify_backlog=64 --fsync=50",
    "--rw=trimwrite --bs=8k",
];

/// Four connections, each with 4 MiB of the disk to itself.
#[track_caller]
pub(super) fn fio(dir: &Dir, uri: &str, work: &str) {
    let own = "--size=4M --offset_increment=4M --numjobs=4 --thread --iodepth=16 --serialize_overlap=1";
    let verify = "--verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=7";
    dir.tool("fio", &format!("--name=v --ioengine=nbd --uri={uri} {own} {verify} {work}"));
}

/// Every kind of work on this image, which is sound afterwards and holds what the server said it did.
#[track_caller]
fn verified(dir: &Dir, start: Start, args: &str, image: &str) {
    let server = start(dir, "s", args);
    for work in WORKS {
        fio(dir, &server.uri(""), work);
    }
    dir.tool("qemu-img", &format!("convert -f raw -O raw {} served.raw", server.uri("")));
    let said = server.end();
    assert!(!said.err.contains("client"), "{}", said.err);
    if image.ends_with("qcow2") {
        dir.tool("qemu-img", &format!("check -q {image}"));
    }
    dir.tool("qemu-img", &format!("compare -q -F raw {image} served.raw"));
}

#[test]
fn fio_verifies_what_it_wrote_to_raw() {
    if !testkit::peer::require(&["fio", "qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    dir.ok("create -q -f raw disk.raw 16M");
    verified(&dir, on_a_socket, "-f raw disk.raw", "-f raw disk.raw");
    verified(&dir, on_a_port, "-f raw disk.raw", "-f raw disk.raw");
}

#[test]
fn fio_verifies_what_it_wrote_to_qcow2() {
    if !testkit::peer::require(&["fio", "qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 16M");
    dir.tool("qemu-img", "create -q -f qcow2 -o cluster_size=64k,extended_l2=on sub.qcow2 16M");
    verified(&dir, on_a_socket, "disk.qcow2", "disk.qcow2");
    verified(&dir, on_a_port, "--proxies 2 disk.qcow2", "disk.qcow2");
    verified(&dir, on_a_socket, "--cache 64k sub.qcow2", "sub.qcow2");
}

#[test]
fn fio_verifies_what_it_wrote_over_a_backing_file() {
    if !testkit::peer::require(&["fio", "qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    let before = std::fs::read(dir.join("mid.qcow2")).unwrap();
    dir.tool("qemu-img", "convert -q -c -O qcow2 top.qcow2 packed.qcow2");
    dir.tool("qemu-img", "create -q -f qcow2 -F qcow2 -b packed.qcow2 over.qcow2");
    verified(&dir, on_a_socket, "top.qcow2", "top.qcow2");
    verified(&dir, on_a_socket, "over.qcow2", "over.qcow2");
    verified(&dir, on_a_socket, "packed.qcow2", "packed.qcow2");
    assert!(before == std::fs::read(dir.join("mid.qcow2")).unwrap());
}

#[test]
fn fio_verifies_what_goes_to_an_overlay() {
    if !testkit::peer::require(&["fio", "qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    dir.raw("base.raw", 16 << 20);
    let before = std::fs::read(dir.join("base.raw")).unwrap();
    verified(&dir, on_a_socket, "--overlay mine.qcow2 -f raw base.raw", "mine.qcow2");
    let server = Server::start(&dir, "t", "--temporary -f raw base.raw");
    fio(&dir, &server.uri(""), WORKS[0]);
    server.end();
    assert!(before == std::fs::read(dir.join("base.raw")).unwrap());
}
