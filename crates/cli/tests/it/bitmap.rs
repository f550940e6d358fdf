use crate::run::Dir;

#[test]
fn qemu_img_agrees_about_bitmaps() {
    if !testkit::peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 8M");
    assert_eq!(dir.ok("bitmap disk.qcow2").out, "disk.qcow2: no bitmaps\n");
    dir.ok("bitmap --add disk.qcow2 a");
    dir.ok("bitmap --add -g 4k --disabled disk.qcow2 b");
    dir.tool("qemu-io", "-c|write 1M 200k|disk.qcow2");
    let told = dir.ok("bitmap --json disk.qcow2").json();
    assert_eq!(
        (&told[0]["name"], &told[0]["dirty"], &told[0]["auto"]),
        (&"a".into(), &(256 << 10).into(), &true.into())
    );
    assert_eq!(
        (&told[1]["granularity"], &told[1]["dirty"], &told[1]["auto"]),
        (&4096.into(), &0.into(), &false.into())
    );
    dir.ok("bench --write --operations 4 --size 64k --within 4M disk.qcow2");
    dir.ok("bitmap --merge a disk.qcow2 b");
    dir.tool("qemu-img", "bitmap --remove disk.qcow2 a");
    let told = dir.ok("bitmap --json disk.qcow2").json();
    assert!(told[0]["dirty"].as_u64().unwrap() > 256 << 10, "{told}");
    dir.ok("bitmap --clear disk.qcow2 b");
    dir.ok("bitmap --enable disk.qcow2 b");
    assert_eq!(dir.ok("bitmap --json disk.qcow2").json()[0]["dirty"], 0);
    dir.fails("bitmap --add disk.qcow2 b", &["already"]);
    dir.fails("bitmap --remove disk.qcow2 zzz", &["zzz"]);
    dir.ok("snapshot -c s disk.qcow2");
    dir.fails("snapshot -c s disk.qcow2", &["already"]);
    dir.fails("resize disk.qcow2 4M", &["--shrink"]);
    // What failed has done no harm.
    let told = dir.ok("bitmap --json disk.qcow2").json();
    assert_eq!((&told[0]["in-use"], &told[0]["dirty"]), (&false.into(), &0.into()), "{told}");
    assert_eq!(dir.run("bitmap --add disk.qcow2").code, 2);
    assert_eq!(dir.run("bitmap disk.qcow2 b").code, 2);
    dir.tool("qemu-img", "check -q disk.qcow2");
}
