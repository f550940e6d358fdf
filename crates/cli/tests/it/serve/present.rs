//! `serve --present`: a disk in another format, while it is served.

use super::{Server, refused};
use crate::run::Dir;
use testkit::peer;

#[test]
fn a_vdi_is_a_qcow2_to_whoever_reads_it() {
    if !peer::require(&["qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    dir.tool("qemu-img", "convert -O vdi top.qcow2 disk.vdi");
    let server = Server::start(&dir, "s", "--present qcow2 disk.vdi");
    let uri = server.uri("");
    let told = dir.tool("qemu-img", &format!("info --output=json {uri}"));
    assert!(told.contains("\"format\": \"qcow2\""), "{told}");
    assert!(dir.tool("qemu-img", &format!("compare -f vdi -F qcow2 disk.vdi {uri}")).contains("identical"));
    let checked = dir.tool("qemu-img", &format!("check -f qcow2 {uri}"));
    assert!(checked.contains("No errors"), "{checked}");
    let said = server.log("out");
    assert!(said.contains("as qcow2") && said.contains("format=qcow2"), "{said}");
    // It is pinned: whoever would write the VDI is refused.
    refused(&dir, "qemu-io", "-f|vdi|-c|write 0 4k|disk.vdi");
    assert!(refused(&dir, "qemu-io", &format!("-f|qcow2|-c|write 0 4k|{uri}")).contains("denied"));
    server.end();
}

#[test]
fn any_format_is_shown_as_any_other() {
    if !peer::require(&["qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    dir.ok("convert -q top.qcow2 disk.vdi");
    for (disk, formats) in
        [("top.qcow2", ["vdi", "raw"]), ("disk.vdi", ["raw", "qcow2"]), ("base.raw", ["qcow2", "vdi"])]
    {
        for format in formats {
            let server = Server::start(&dir, "s", &format!("--present {format} {disk}"));
            let uri = server.uri("");
            let told = dir.tool("qemu-img", &format!("compare -F {format} {disk} {uri}"));
            assert!(told.contains("identical"), "{disk} as {format}: {told}");
            server.end();
        }
    }
    let options = "--present qcow2 -o cluster_size=4k,compat=0.10 top.qcow2";
    let server = Server::start(&dir, "s", options);
    let told = dir.tool("qemu-img", &format!("info {}", server.uri("")));
    assert!(told.contains("cluster_size: 4096") && told.contains("compat: 0.10"), "{told}");
    server.end();
    dir.fails("serve --listen unix:x.sock --present chart top.qcow2", &["a chart holds no data"]);
}

#[test]
fn what_is_shown_is_what_there_was_at_the_beginning_only_for_what_does_not_change() {
    if !peer::require(&["qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 16M");
    let server = Server::start(&dir, "w", "disk.qcow2");
    // Somebody is writing it.
    dir.fails("serve --listen unix:x.sock --present vdi disk.qcow2", &["disk.qcow2"]);
    server.end();
}
