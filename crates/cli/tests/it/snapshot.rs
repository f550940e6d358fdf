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

#[test]
fn a_list_needs_nothing_that_the_image_stands_on() {
    if !testkit::peer::require(&["qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    dir.raw("base.raw", 1 << 20);
    dir.ok("create -q -b base.raw -F raw top.qcow2");
    dir.ok("snapshot -q -c first top.qcow2");
    dir.ok("bitmap -q --add top.qcow2 marks");
    std::fs::remove_file(dir.join("base.raw")).unwrap();
    assert!(dir.ok("snapshot top.qcow2").out.contains("first"));
    assert!(dir.ok("bitmap top.qcow2").out.contains("marks"));
    dir.fails("snapshot -c second top.qcow2", &["base.raw"]);
}

#[test]
fn what_is_told_of_a_snapshot_that_cannot_be_written_can_be_done() {
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 4M");
    dir.ok("snapshot -q -c first disk.qcow2");
    dir.fails("resize disk.qcow2@first 8M", &["apply it, or convert it"]);
    dir.ok("convert -q disk.qcow2@first own.qcow2");
    dir.ok("resize own.qcow2 8M");
}
