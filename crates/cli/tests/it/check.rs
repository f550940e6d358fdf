use crate::run::Dir;
use std::os::unix::fs::FileExt;

#[test]
fn exit_codes_are_those_of_qemu_img() {
    if !testkit::peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.tool("qemu-img", "create -q -f qcow2 disk.qcow2 4M");
    dir.tool("qemu-io", "-c|write -P 1 0 1M|disk.qcow2");
    assert_eq!(dir.run("check disk.qcow2").code, 0);
    dir.fails("check -f raw disk.qcow2", &["no structure"]);

    // A cluster that counts and that nothing refers to is a leak; one that is referred to and counts as free is
    // corrupt.
    let file = std::fs::OpenOptions::new().read(true).write(true).open(dir.join("disk.qcow2")).unwrap();
    let word = |offset| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, offset).unwrap();
        u64::from_be_bytes(bytes)
    };
    // The header names the refcount table, and that the first block.
    let block = word(word(48));
    let end = file.metadata().unwrap().len();
    file.set_len(end + (64 << 10)).unwrap();
    for (cluster, count, code) in [(end >> 16, 1u16, 3), (6, 0, 2)] {
        file.write_all_at(&count.to_be_bytes(), block + 2 * cluster).unwrap();
        let ran = dir.run("check --json disk.qcow2");
        assert_eq!(ran.code, code, "{}", ran.out);
        let theirs =
            std::process::Command::new("qemu-img").args(["check", "-q"]).arg(dir.join("disk.qcow2")).status();
        assert_eq!(theirs.unwrap().code(), Some(code));
    }
    assert_eq!(dir.run("check -r leaks disk.qcow2").code, 2);
    let repaired = dir.ok("check -r all --output=json disk.qcow2").json();
    let before = &repaired["before"];
    assert_eq!((&before["corruptions"], &before["leaks"]), (&2.into(), &1.into()), "{repaired}");
    for (key, value) in
        [("corruptions", 0), ("leaks", 0), ("check-errors", 0), ("corruptions-fixed", 2), ("leaks-fixed", 1)]
    {
        assert_eq!(repaired[key], value, "{key}: {repaired}");
    }
    dir.tool("qemu-img", "check -q disk.qcow2");
    dir.tool("qemu-io", "-c|read -P 1 0 1M|disk.qcow2");
}

#[test]
fn nothing_is_repaired_without_locks_even_where_nothing_is_wrong() {
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 4M");
    dir.fails("check -r all -U disk.qcow2", &["must be locked"]);
    dir.ok("check -U disk.qcow2");
}
