use crate::run::Dir;

#[test]
fn every_pair_holds_the_same_disk() {
    if !testkit::peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    dir.ok("convert top.qcow2 a.raw");
    dir.ok("convert a.raw b.qcow2");
    dir.ok("convert -O qcow2 -o cluster_size=4k,refcount_bits=1,compat=1.1 b.qcow2 c");
    dir.ok("convert -c b.qcow2 d.qcow2");
    dir.ok("convert -c -o compression_type=zstd,cluster_size=2M --level 5 b.qcow2 e.qcow2");
    dir.ok("convert -o extended_l2=on,cluster_size=128k e.qcow2 f.qcow2");
    dir.ok("convert d.qcow2 g.raw");
    for name in ["a.raw", "b.qcow2", "c", "d.qcow2", "e.qcow2", "f.qcow2", "g.raw"] {
        dir.tool("qemu-img", &format!("compare -q top.qcow2 {name}"));
        dir.ok(&format!("compare {name} top.qcow2"));
        if name != "a.raw" && name != "g.raw" {
            dir.tool("qemu-img", &format!("check -q {name}"));
        }
    }
    // Holes stayed holes.
    let told = dir.ok("info --json a.raw").json();
    assert!(told["actual-size"].as_u64().unwrap() < 8 << 20, "{told}");
}

#[test]
fn the_report_counts_every_byte() {
    let dir = Dir::new();
    dir.raw("a.raw", 9 << 20);
    let data = 3 << 20;
    for target in ["b.raw", "-O qcow2 b", "-c b.qcow2"] {
        let report = dir.ok(&format!("convert --json --reflink never a.raw {target}")).json();
        let count = |keys: &[&str]| keys.iter().map(|k| report[*k].as_u64().unwrap()).sum::<u64>();
        assert_eq!(
            count(&["cloned", "offloaded", "copied", "zeroed", "encoded", "passed"]),
            data,
            "{report}"
        );
        assert_eq!(count(&["skipped"]), (9 << 20) - data, "{report}");
        assert_eq!(count(&["tables"]) > 0, target != "b.raw", "{report}");
    }
    // A disk that ends within a cluster, and one of holes alone.
    std::fs::write(dir.join("odd.raw"), [7; 700]).unwrap();
    let report = dir.ok("convert --json --reflink never odd.raw odd.qcow2").json();
    assert_eq!((&report["copied"], &report["skipped"]), (&700.into(), &0.into()), "{report}");
    dir.ok("create -q empty.raw 2G");
    let report = dir.ok("convert --json empty.raw empty.qcow2").json();
    assert_eq!((&report["copied"], &report["skipped"]), (&0.into(), &(2_u64 << 30).into()), "{report}");
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing() {
    let dir = Dir::new();
    dir.raw("a.raw", 1 << 20);
    dir.fails("convert -c -O raw a.raw b.raw", &["compressed"]);
    dir.fails("convert -O qcow2 -o cluster_size=3k a.raw b.qcow2", &["cluster_size"]);
    dir.fails("convert -O qcow2 -o odd=1 a.raw b.qcow2", &["odd"]);
    dir.fails("convert -c --level 99 a.raw b.qcow2", &["0 to 9"]);
    let lost = dir.fails("convert a.raw no/such/b.raw", &["no/such"]);
    assert!(!lost.err.contains(".part"), "{}", lost.err);
    assert_eq!(dir.run("convert -O vmdk a.raw b").code, 2);
    dir.fails("convert a.raw b.vmdk", &["vmdk", "name it"]);
    dir.fails("create b.VHDX 1M", &["vhdx"]);
    assert_eq!(dir.names(), ["a.raw"]);
}

#[test]
fn habits_from_qemu_img_are_answered() {
    let dir = Dir::new();
    dir.raw("a.raw", 1 << 20);
    for (habit, answer) in [
        ("-l s", "disk.qcow2@s"),
        ("-l snapshot.name=s", "disk.qcow2@s"),
        ("-n", "--force"),
        ("-B base", "rebase -b base"),
        ("-S 4k", "--keep-zeros"),
        ("-W", "-m 1"),
        ("-t none", "--direct"),
        ("-T none", "--direct"),
    ] {
        dir.fails(&format!("convert {habit} a.raw b.raw"), &[answer]);
    }
    assert_eq!(dir.ok("map --output=json a.raw").out, dir.ok("chart --json a.raw").out);
    assert_eq!(dir.names(), ["a.raw"]);
}

#[test]
fn a_snapshot_is_a_disk() {
    if !testkit::peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.tool("qemu-img", "create -q -f qcow2 disk.qcow2 4M");
    dir.tool("qemu-io", "-c|write -P 1 0 1M|disk.qcow2");
    dir.tool("qemu-img", "snapshot -c then disk.qcow2");
    dir.tool("qemu-io", "-c|write -P 2 512k 1M|disk.qcow2");
    dir.ok("convert disk.qcow2@then then.raw");
    dir.tool("qemu-img", "convert -l snapshot.name=then -O raw disk.qcow2 theirs.raw");
    dir.ok("compare then.raw theirs.raw");
    assert_eq!(dir.run("compare then.raw disk.qcow2").code, 1);
    dir.fails("convert disk.qcow2@never x.raw", &["never"]);
}

#[test]
fn past_the_page_cache_everything_is_the_same() {
    if !testkit::peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    // A length that fills no block.
    let odd: Vec<u8> = (0..5_000_123_u32).map(|i| (i / 777) as u8 | 1).collect();
    std::fs::write(dir.join("odd.raw"), &odd).unwrap();
    for (from, to) in [
        ("top.qcow2", "a.raw"),
        ("a.raw", "b.qcow2"),
        ("-c b.qcow2", "c.qcow2"),
        ("c.qcow2", "d.vdi"),
        ("odd.raw", "e.raw"),
        ("e.raw", "f.qcow2"),
    ] {
        dir.ok(&format!("convert --direct --reflink never {from} {to}"));
    }
    for name in ["a.raw", "b.qcow2", "c.qcow2", "d.vdi"] {
        dir.tool("qemu-img", &format!("compare -q top.qcow2 {name}"));
    }
    assert!(std::fs::read(dir.join("e.raw")).unwrap() == odd);
    dir.tool("qemu-img", "convert -O raw f.qcow2 g.raw");
    dir.tool("qemu-img", "compare -q -f raw -F raw odd.raw g.raw");
    for name in ["b.qcow2", "c.qcow2", "f.qcow2"] {
        dir.tool("qemu-img", &format!("check -q {name}"));
    }
}

/// What is in the page cache behind conversions there and back, past it and through it.
const IN_CACHE: &str = "cp --sparse=always a.raw mnt; cd mnt; sync a.raw
dd if=a.raw iflag=nocache count=0 status=none
$0 convert -q --direct --reflink never a.raw b.qcow2; $0 convert -q --direct --reflink never b.qcow2 c.raw
fincore --bytes --noheadings --output RES a.raw b.qcow2 c.raw | sort | uniq -c
cmp a.raw c.raw";

#[test]
fn past_the_page_cache_nothing_stays_in_it() {
    if !testkit::peer::require(&["mkfs.xfs", "unshare", "root", "fincore"]) {
        return;
    }
    let dir = Dir::new();
    dir.raw("a.raw", 9 << 20);
    assert_eq!(dir.on_xfs(IN_CACHE).split_whitespace().collect::<Vec<_>>(), ["3", "0"]);
}

#[test]
fn a_disk_of_no_bytes_leaves_nothing_behind() {
    if !testkit::peer::require(&["qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    std::fs::write(dir.join("empty.raw"), []).unwrap();
    for (args, name) in [("", "plain.qcow2"), ("-c ", "packed.qcow2")] {
        dir.ok(&format!("convert -q -f raw {args}empty.raw {name}"));
        dir.tool("qemu-img", &format!("check -q {name}"));
        dir.ok(&format!("resize {name} 2M"));
        dir.tool("qemu-img", &format!("check -q {name}"));
    }
}

#[test]
fn options_that_only_new_disks_have_are_refused_as_such() {
    let dir = Dir::new();
    dir.raw("a.raw", 1 << 20);
    dir.fails("convert -o preallocation=falloc a.raw b.raw", &["made of another"]);
    dir.fails("convert -o preallocation=full a.raw b.qcow2", &["made of another"]);
    dir.fails("convert -o data_file=c a.raw b.qcow2", &["made of another"]);
    dir.fails("convert -o preallocation=full a.raw b.vdi", &["made of another"]);
    assert_eq!(dir.names(), ["a.raw"]);
}
