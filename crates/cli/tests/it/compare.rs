use crate::run::Dir;
use std::os::unix::fs::FileExt;

fn file(dir: &Dir, name: &str) -> std::fs::File {
    std::fs::OpenOptions::new().write(true).open(dir.join(name)).unwrap()
}

#[test]
fn same_different_and_not_compared() {
    let dir = Dir::new();
    dir.raw("a.raw", 8 << 20);
    dir.raw("b.raw", 8 << 20);
    assert_eq!(dir.ok("compare a.raw b.raw").out, "The disks are identical.\n");
    file(&dir, "b.raw").write_all_at(b"\xee", 5_000_001).unwrap();
    file(&dir, "b.raw").write_all_at(b"\xee", 7_000_001).unwrap();
    let ran = dir.run("compare a.raw b.raw");
    assert_eq!((ran.code, ran.out.as_str()), (1, "The disks differ, first at byte 5000001.\n"));
    let ran = dir.run("compare --json a.raw b.raw");
    assert_eq!(ran.json()["first-difference"], 5_000_001);
    let ran = dir.run("compare -q a.raw b.raw");
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    let ran = dir.run("compare a.raw absent.raw");
    assert_eq!(ran.code, 2, "{}", ran.err);
}

#[test]
fn a_longer_disk_is_the_same_only_with_zeros_behind() {
    if !testkit::peer::require(&["qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    dir.raw("a.raw", 4 << 20);
    dir.raw("b.raw", 4 << 20);
    file(&dir, "b.raw").set_len(6 << 20).unwrap();
    for (expected, strict, qemu) in [(0, 1, 0), (1, 1, 1)] {
        assert_eq!(dir.run("compare a.raw b.raw").code, expected);
        assert_eq!(dir.run("compare b.raw a.raw").code, expected);
        assert_eq!(dir.run("compare -s a.raw b.raw").code, strict);
        let theirs = std::process::Command::new("qemu-img")
            .args(["compare", "-q", "-f", "raw", "-F", "raw"])
            .args([dir.join("a.raw"), dir.join("b.raw")])
            .status();
        assert_eq!(theirs.unwrap().code(), Some(qemu));
        file(&dir, "b.raw").write_all_at(b"x", (5 << 20) + 3).unwrap();
    }
}

#[test]
fn what_lies_in_one_place_is_not_read() {
    if !testkit::peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    dir.tool("qemu-img", "create -q -f qcow2 -F qcow2 -b mid.qcow2 twin.qcow2 16M");
    dir.tool(
        "qemu-io",
        "-c|write -P 99 64k 64k|-c|write -z 1M 512k|-c|discard 6M 1M|-c|write -P 5 15M 1M|twin.qcow2",
    );
    let report = dir.ok("compare --json top.qcow2 twin.qcow2").json();
    // Only what each has for itself.
    assert!(report["read"].as_u64().unwrap() <= 2 << 20, "{report}");
    dir.ok("compare top.qcow2 top.qcow2");
}

/// A clone beside its source, and then other bytes in that.
const ON_XFS: &str = r#"cp disk.raw mnt/disk.raw
sync -f mnt
cd mnt
"$0" convert --quiet -f raw disk.raw clone.qcow2
"$0" compare --json disk.raw clone.qcow2
printf x | dd of=disk.raw bs=1 seek=5000000 conv=notrunc status=none
"$0" compare --json disk.raw clone.qcow2 || test $? = 1
"#;

#[test]
fn what_a_file_system_shares_is_not_read() {
    if !testkit::peer::require(&["mkfs.xfs", "unshare", "root"]) {
        return;
    }
    let dir = Dir::new();
    dir.raw("disk.raw", 12 << 20);
    let said = dir.on_xfs(ON_XFS);
    let reports: Vec<serde_json::Value> =
        serde_json::Deserializer::from_str(&said).into_iter().map(Result::unwrap).collect();
    assert_eq!((&reports[0]["identical"], reports[0]["read"].as_u64()), (&true.into(), Some(0)), "{said}");
    assert_eq!(reports[1]["first-difference"].as_u64(), Some(5_000_000), "{said}");
}
