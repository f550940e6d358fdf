//! Servers over servers: what one serves is a disk like any other to the next.

use super::{Server, on_a_port, qemu_io, refused};
use crate::run::Dir;

#[test]
fn a_server_over_a_server_is_the_same_disk() {
    if !testkit::peer::require(&["qemu-img", "qemu-io", "nbdinfo", "nbdcopy", "fio"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    dir.tool("qemu-img", "convert -O raw top.qcow2 flat.raw");
    let inner = Server::start(&dir, "inner", "top.qcow2");
    let outer = on_a_port(&dir, "outer", &format!("-f raw {}", inner.uri("")));
    dir.tool("qemu-img", &format!("compare -q -f raw -F raw {} flat.raw", outer.uri("")));
    // What is a hole is one at the other end too.
    let zeros = |uri: &str| {
        let told = dir.tool("nbdinfo", &format!("--map --totals --json {uri}"));
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        let kinds = told.as_array().unwrap().iter();
        kinds
            .filter(|k| k["type"].as_u64().unwrap() & 2 != 0)
            .map(|k| k["size"].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(zeros(&outer.uri("")), zeros(&inner.uri("")));
    assert!(zeros(&outer.uri("")) > 6 << 20);
    let writes =
        ["write -P 8 300k 500k", "write -z 5M 1M", "discard 64k 64k", "write -f -P 9 15M 1", "flush"];
    qemu_io(&dir, &writes, &outer.uri(""));
    qemu_io(
        &dir,
        &["read -P 8 300k 500k", "read -P 0 5M 1M", "read -P 0 64k 64k", "read -P 9 15M 1"],
        &inner.uri(""),
    );
    dir.tool(
        "fio",
        &format!(
            "--name=v --ioengine=nbd --uri={} --rw=randwrite --bsrange=512-64k --size=4M --offset_increment=4M \
             --numjobs=4 --thread --iodepth=8 --serialize_overlap=1 --verify=crc32c --verify_fatal=1 --randseed=3",
            outer.uri("")
        ),
    );
    dir.tool("nbdcopy", &format!("--flush {} outer.raw", outer.uri("")));
    outer.end();
    inner.end();
    dir.tool("qemu-img", "check -q top.qcow2");
    dir.tool("qemu-img", "compare -q -f qcow2 -F raw top.qcow2 outer.raw");
}

#[test]
fn an_overlay_over_a_server_leaves_it_as_it_is() {
    if !testkit::peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    let before = std::fs::read(dir.join("top.qcow2")).unwrap();
    let inner = Server::start(&dir, "inner", "--read-only --name golden top.qcow2");
    let golden = inner.uri("golden");
    {
        let one = Server::start(&dir, "one", &format!("--overlay one.qcow2 -f raw {golden}"));
        let two = Server::start(&dir, "two", &format!("--temporary -f raw {golden}"));
        qemu_io(&dir, &["read -P 99 64k 64k", "write -P 1 70k 10k", "read -P 99 80k 48k"], &one.uri(""));
        qemu_io(&dir, &["read -P 99 64k 64k", "write -P 2 70k 10k", "read -P 99 64k 6k"], &two.uri(""));
        qemu_io(&dir, &["read -P 1 70k 10k"], &one.uri(""));
        two.end();
        one.end();
    }
    let again = Server::start(&dir, "again", &format!("--overlay one.qcow2 -f raw {golden}"));
    qemu_io(&dir, &["read -P 1 70k 10k", "read -P 99 80k 48k"], &again.uri(""));
    again.end();
    dir.tool("qemu-img", "check -q one.qcow2");
    inner.end();
    assert!(before == std::fs::read(dir.join("top.qcow2")).unwrap());
}

#[test]
fn what_stands_on_a_server_that_is_gone_says_so() {
    if !testkit::peer::require(&["qemu-io", "nbdinfo"]) {
        return;
    }
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 8M");
    let inner = Server::start(&dir, "inner", "disk.qcow2");
    let outer = Server::start(&dir, "outer", &format!("-f raw {}", inner.uri("")));
    qemu_io(&dir, &["write -P 1 0 64k", "flush"], &outer.uri(""));
    inner.kill();
    let began = std::time::Instant::now();
    let said = dir.tool("nbdinfo", &format!("--size {}", outer.uri("")));
    assert_eq!(said.trim(), (8 << 20).to_string());
    let failed = refused(&dir, "qemu-io", &format!("-f|raw|-c|read 0 64k|{}", outer.uri("")));
    assert!(failed.contains("read failed"), "{failed}");
    assert!(began.elapsed().as_secs() < 15, "{:?}", began.elapsed());
    // It comes back, and so does the disk.
    let inner = Server::start(&dir, "inner", "disk.qcow2");
    super::wait_until("the disk is back", || {
        let args = ["-f", "raw", "-c", "read -P 1 0 64k", &outer.uri("")];
        let output = std::process::Command::new("qemu-io").args(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success() && !said.contains("failed")
    });
    outer.end();
    inner.end();
}
