//! Flags that change how something is done, and nothing of what comes of it.

use crate::run::Dir;
use testkit::peer;

#[test]
fn whatever_way_an_image_is_opened_it_holds_the_same() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    dir.tool("qemu-img", "convert -O raw top.qcow2 model.raw");
    for how in
        ["--direct", "-U", "--guess", "--allow-any", "--allow .", "--cache 0", "--cache 1k --direct -U"]
    {
        for format in ["raw", "qcow2", "vdi"] {
            dir.ok(&format!("convert -q --force {how} -O {format} top.qcow2 new"));
            dir.tool("qemu-img", &format!("compare -q -f {format} -F raw new model.raw"));
        }
        dir.ok(&format!("convert -q --force {how} -c -O qcow2 top.qcow2 new"));
        dir.ok(&format!("compare -q {how} -f qcow2 -F raw new model.raw"));
        let rows = dir.ok(&format!("chart --json {how} top.qcow2"));
        assert_eq!(rows.out, dir.ok("chart --json top.qcow2").out, "{how}");
        for args in ["info", "check", "measure -O qcow2", "snapshot", "bitmap", "bench --operations 9"] {
            dir.ok(&format!("{args} {how} top.qcow2"));
        }
    }
    for how in ["-m 1", "-m 7", "--no-flush", "--no-flush --direct -m 3 --keep-zeros"] {
        dir.ok(&format!("convert -q --force {how} -O qcow2 top.qcow2 new"));
        dir.tool("qemu-img", "compare -q -f qcow2 -F raw new model.raw");
    }
    dir.ok("compare -m 5 top.qcow2 model.raw");
}

#[test]
fn whatever_way_an_image_is_changed_it_holds_the_same() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    for how in ["--direct", "--guess", "--allow .", "--cache 4k"] {
        let dir = Dir::new();
        dir.chain();
        dir.tool("qemu-img", "convert -O raw top.qcow2 model.raw");
        for args in [
            "snapshot -c first top.qcow2",
            "resize top.qcow2 17M",
            "snapshot -a first top.qcow2",
            "snapshot -d first top.qcow2",
            "bitmap -g 4k --add top.qcow2 marks",
            "bitmap --disable top.qcow2 marks",
            "bitmap --merge marks -b top.qcow2 top.qcow2 marks",
            "bitmap --remove top.qcow2 marks",
            "rebase -b base.raw -F raw top.qcow2",
            "check -r all top.qcow2",
            "commit -d top.qcow2",
            "rebase -u -b mid.qcow2 -F qcow2 top.qcow2",
            "rebase -u -b base.raw -F raw top.qcow2",
            "commit top.qcow2",
        ] {
            dir.ok(&format!("{args} {how} -q"));
            dir.tool("qemu-img", "check -q top.qcow2");
        }
        for name in ["top.qcow2", "base.raw"] {
            dir.tool("qemu-img", &format!("compare -q -F raw {name} model.raw"));
        }
    }
}

#[test]
fn a_chart_without_the_host_knows_of_no_holes_in_files() {
    let dir = Dir::new();
    dir.raw("a.raw", 6 << 20);
    let kinds = |args: &str| {
        let rows = dir.ok(args).json();
        rows.as_array()
            .unwrap()
            .iter()
            .map(|row| row["kind"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(kinds("chart --json a.raw"), ["raw", "sparse", "raw", "sparse"]);
    assert_eq!(kinds("chart --json --no-host a.raw"), ["raw"]);
}
