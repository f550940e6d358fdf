use crate::run::Dir;

#[test]
fn qemu_img_takes_what_is_made() {
    if !testkit::peer::require(&["qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    dir.ok("create a.qcow2 1G");
    dir.ok("create -f qcow2 -o compat=0.10 b 10M");
    dir.ok("create -o cluster_size=512,refcount_bits=64,lazy_refcounts=on c.qcow2 1M");
    dir.ok("create -o preallocation=metadata,extended_l2=on,cluster_size=16k d.qcow2 8M");
    dir.ok("create -o data_file=e.raw,data_file_raw=on e.qcow2 2M");
    dir.ok("create -b a.qcow2 -F qcow2 f.qcow2");
    dir.ok("create -f raw -o preallocation=falloc g.img 3M");
    for (name, size) in [
        ("a.qcow2", 1 << 30),
        ("b", 10 << 20),
        ("c.qcow2", 1 << 20),
        ("d.qcow2", 8 << 20),
        ("e.qcow2", 2 << 20),
        ("f.qcow2", 1 << 30),
    ] {
        dir.tool("qemu-img", &format!("check -q {name}"));
        let told: serde_json::Value =
            serde_json::from_str(&dir.tool("qemu-img", &format!("info --output=json {name}"))).unwrap();
        assert_eq!(told["virtual-size"], size, "{name}");
    }
    assert_eq!(dir.join("g.img").metadata().unwrap().len(), 3 << 20);
}

#[test]
fn a_backing_file_is_looked_at_and_its_format_said() {
    let dir = Dir::new();
    dir.raw("base.raw", 1 << 20);
    dir.fails("create -b base.raw top.qcow2", &["format"]);
    dir.fails("create -b absent.raw -F raw top.qcow2", &["absent.raw"]);
    dir.fails("create -f raw -b base.raw -F raw top.raw", &["no backing file"]);
    dir.fails("create top.qcow2", &["size"]);
    assert_eq!(dir.names(), ["base.raw"]);
    dir.ok("create -u -b absent.raw -F raw top.qcow2 1M");
}

#[test]
fn sizes_are_read_as_people_write_them() {
    let dir = Dir::new();
    dir.ok("create a.raw 1.5M");
    assert_eq!(dir.join("a.raw").metadata().unwrap().len(), 3 << 19);
    assert_eq!(dir.run("create b.raw 12parsecs").code, 2);
    // No file system takes that, and who asked for it is told of the name that was given.
    let huge = dir.fails("create huge.raw 7E", &["huge.raw"]);
    assert!(!huge.err.contains(".part") && !huge.err.contains(".huge"), "{}", huge.err);
    dir.ok("resize -f raw a.raw +512k");
    assert_eq!(dir.join("a.raw").metadata().unwrap().len(), 2 << 20);
    dir.fails("resize -f raw a.raw -1M", &["--shrink"]);
    dir.ok("resize -f raw --shrink a.raw -1M");
    assert_eq!(dir.join("a.raw").metadata().unwrap().len(), 1 << 20);
    dir.fails("resize a.raw 3M", &["-f raw"]);
}

#[test]
fn what_changes_something_reports_as_json_too() {
    let dir = Dir::new();
    let told = |args: &str| dir.ok(args).json();
    let made = told("create --json a.qcow2 1M");
    assert_eq!((&made["format"], &made["virtual-size"]), (&"qcow2".into(), &(1 << 20).into()));
    assert_eq!(told("resize --output json a.qcow2 2M")["was"], 1 << 20);
    assert_eq!(told("snapshot --json -c s a.qcow2")["id"], "1");
    assert_eq!(told("snapshot --json -a s a.qcow2")["action"], "apply");
    assert_eq!(told("snapshot --json -d s a.qcow2")["snapshot"], "s");
    assert_eq!(told("bitmap --json --add a.qcow2 b")["done"], "added");
    assert_eq!(told("chart --json -o a.chart a.qcow2")["virtual-size"], 2 << 20);
}

#[test]
fn standard_output_takes_no_disk() {
    let dir = Dir::new();
    dir.raw("a.raw", 1 << 20);
    for args in ["convert a.raw -", "chart -o - a.raw", "create - 1M"] {
        let ran = dir.run(args);
        assert!(ran.code == 2 && ran.err.contains("./-"), "{args}: {}", ran.err);
    }
    for args in [
        "convert a.raw nbd://localhost/x",
        "convert --force a.raw nbd+unix:///?socket=x",
        "chart -o http://localhost/x a.raw",
        "create nbds://localhost/x 1M",
    ] {
        let ran = dir.run(args);
        assert!(ran.code == 2 && ran.err.contains("address"), "{args}: {}", ran.err);
    }
    assert_eq!(dir.names(), ["a.raw"]);
}

#[test]
fn measuring_agrees_with_making() {
    let dir = Dir::new();
    dir.raw("a.raw", 20 << 20);
    let measured = dir.ok("measure --json -O qcow2 a.raw").json();
    dir.ok("convert -q a.raw b.qcow2");
    assert_eq!(measured["required"], dir.join("b.qcow2").metadata().unwrap().len());
    if testkit::peer::require(&["qemu-img"]) {
        let theirs: serde_json::Value =
            serde_json::from_str(&dir.tool("qemu-img", "measure --output=json -O qcow2 --size 10G")).unwrap();
        let ours = dir.ok("measure --json -O qcow2 --size 10G").json();
        assert_eq!(ours["fully-allocated"], theirs["fully-allocated"]);
    }
}

#[test]
fn a_backing_file_is_looked_at_as_it_is_said() {
    if !testkit::peer::require(&["qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    // It names one of no stated format, which names one itself.
    dir.tool("qemu-img", "create -q -f qcow2 -F qcow2 -b mid.qcow2 over.qcow2");
    let bytes = std::fs::read(dir.join("over.qcow2")).unwrap();
    let stated = bytes.windows(4).position(|w| w == [0xe2, 0x79, 0x2a, 0xca]).unwrap();
    let mut unstated = bytes;
    unstated[stated] = 0x12;
    std::fs::write(dir.join("over.qcow2"), unstated).unwrap();
    dir.fails("create -b over.qcow2 -F qcow2 new.qcow2", &["--guess"]);
    dir.ok("create --guess -b over.qcow2 -F qcow2 new.qcow2");
    // One that somebody writes.
    let held = io::file::Options { writable: true, ..io::file::Options::default() };
    let held = io::file::File::open(dir.join("mid.qcow2"), held).unwrap();
    let _hold = io::file::lock(&held, io::file::Access::Write).unwrap();
    dir.fails("create -b mid.qcow2 -F qcow2 used.qcow2", &["another process", "-U"]);
    dir.ok("create -U -b mid.qcow2 -F qcow2 used.qcow2");
    assert_eq!(dir.ok("info --json used.qcow2").json()["virtual-size"], 14 << 20);
}
