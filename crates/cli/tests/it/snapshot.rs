use crate::run::Dir;

#[test]
fn taken_listed_applied_and_deleted() {
    if !testkit::peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 4M");
    dir.tool("qemu-io", "-c|write -P 1 0 1M|disk.qcow2");
    dir.ok("snapshot -c first disk.qcow2");
    dir.tool("qemu-io", "-c|write -P 2 0 1M|disk.qcow2");
    assert!(dir.tool("qemu-img", "snapshot -l disk.qcow2").contains("first"));
    assert!(dir.ok("snapshot disk.qcow2").out.contains("first"));
    assert_eq!(dir.ok("snapshot --json disk.qcow2").json()[0]["name"], "first");
    dir.fails("snapshot -c first disk.qcow2", &["first"]);
    dir.ok("snapshot -a first disk.qcow2");
    dir.tool("qemu-io", "-c|read -P 1 0 1M|disk.qcow2");
    dir.ok("snapshot -d first disk.qcow2");
    dir.fails("snapshot -d first disk.qcow2", &["first"]);
    dir.tool("qemu-img", "check -q disk.qcow2");
    assert_eq!(dir.ok("snapshot disk.qcow2").out, "disk.qcow2: no snapshots\n");
    dir.ok("snapshot -c small disk.qcow2");
    dir.ok("resize disk.qcow2 8M");
    assert_eq!(dir.ok("info --json disk.qcow2@small").json()["virtual-size"], 4 << 20);
    dir.ok("create -q disk.raw 1M");
    dir.fails("snapshot -f raw -c x disk.raw", &["no snapshots"]);
}
