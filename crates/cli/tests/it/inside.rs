//! What is inside disks, by SPEC: partitions, files, and images among those.

use crate::run::Dir;
use crate::serve::Server;
use std::fs;
use testkit::peer;

/// `outer.raw` and `outer.qcow2`: a GPT with an ext4 as `#1`, which holds images, and `#2` with nothing in it. Whether
/// there are the tools for that.
fn filled(dir: &Dir) -> bool {
    if !peer::require(&["mkfs.ext4", "sfdisk", "qemu-img", "qemu-io"]) {
        return false;
    }
    fs::create_dir_all(dir.join("tree/vm")).unwrap();
    fs::create_dir_all(dir.join("tree/etc")).unwrap();
    fs::write(dir.join("tree/etc/motd"), "Fair winds.\n").unwrap();
    dir.raw("tree/vm/base.raw", 4 << 20);
    let at = |name: &str| dir.join("tree/vm").join(name).display().to_string();
    dir.tool("qemu-img", &format!("create -q -f qcow2 -F raw -b base.raw {} 6M", at("top.qcow2")));
    dir.tool("qemu-io", &format!("-f|qcow2|-c|write -P 7 1M 100k|{}", at("top.qcow2")));
    dir.tool("qemu-img", &format!("snapshot -c before {}", at("top.qcow2")));
    dir.tool("qemu-io", &format!("-f|qcow2|-c|write -P 8 1M 100k|{}", at("top.qcow2")));
    dir.tool("qemu-img", &format!("create -q -f qcow2 -u -F qcow2 -b loop.qcow2 {} 1M", at("loop.qcow2")));
    let outside = dir.join("outside.raw");
    fs::write(&outside, vec![3; 65536]).unwrap();
    let outside = format!("create -q -f qcow2 -F raw -b {} {}", outside.display(), at("nosy.qcow2"));
    dir.tool("qemu-img", &outside);
    dir.ok(&format!("chart -o {} outside.raw", at("nosy.chart")));
    dir.ok("create -q -f raw outer.raw 64M");
    fs::write(dir.join("table"), "label: gpt\nsize=48M\nsize=4M\n").unwrap();
    dir.tool("sh", "-c|sfdisk -q outer.raw < table");
    dir.tool("mkfs.ext4", "-q -F -E offset=1048576 -d tree outer.raw 48M");
    dir.ok("convert -q -f raw outer.raw outer.qcow2");
    true
}

#[test]
fn an_image_inside_an_image_is_opened_with_what_it_stands_on() {
    let dir = Dir::new();
    if !filled(&dir) {
        return;
    }
    dir.tool("qemu-img", "convert -O raw tree/vm/top.qcow2 now.raw");
    dir.tool("qemu-img", "convert -l snapshot.name=before -O raw tree/vm/top.qcow2 before.raw");
    for (inside, outside) in [
        ("outer.qcow2#1:/vm/top.qcow2", "now.raw"),
        (
            r#"json:{"file":"outer.qcow2","steps":[{"partition":1},{"path":"/vm/top.qcow2"},{"version":"before"}]}"#,
            "before.raw",
        ),
        ("outer.raw#1:/vm/../vm/base.raw", "tree/vm/base.raw"),
    ] {
        dir.ok(&format!("compare {inside} {outside}"));
    }
    let told = dir.ok("info --json --chain outer.qcow2#1:/vm/top.qcow2").json();
    assert_eq!((&told[0]["format"], &told[1]["format"]), (&"qcow2".into(), &"raw".into()), "{told}");
    assert!(told[0]["filename"].as_str().unwrap().ends_with("outer.qcow2#1:/vm/top.qcow2"), "{told}");
    // Where its bytes really lie: in the file of the host.
    let rows = dir.ok("chart --json outer.qcow2#1:/vm/top.qcow2").json();
    let data = rows.as_array().unwrap().iter().find(|row| row["data"] == true).unwrap();
    assert!(data["file"].as_str().unwrap().ends_with("outer.qcow2"), "{rows}");
    // Served, with an overlay that takes the writes.
    let server = Server::start(&dir, "s", "--temporary outer.raw#2");
    server.end();
}

#[test]
fn what_is_inside_names_nothing_outside() {
    let dir = Dir::new();
    if !filled(&dir) {
        return;
    }
    dir.fails("convert outer.qcow2#1:/vm/nosy.qcow2 out.raw", &["nosy.qcow2", "no /tmp in this file system"]);
    dir.fails("convert --allow-any outer.qcow2#1:/vm/nosy.qcow2 out.raw", &["no /tmp in this file system"]);
    dir.fails("convert outer.qcow2#1:/vm/nosy.chart out.raw", &["not followed to files of the host"]);
    dir.fails("convert outer.qcow2#1:/vm/loop.qcow2 out.raw", &["loop.qcow2", "100 images"]);
    assert!(!dir.join("out.raw").exists());
}

#[test]
fn a_partition_is_written_through_and_a_file_is_not() {
    let dir = Dir::new();
    if !filled(&dir) {
        return;
    }
    let server = Server::start(&dir, "s", "outer.qcow2#2");
    let uri = format!("nbd+unix:///?socket={}", dir.join("s.sock").display());
    dir.tool("qemu-io", &format!("-f|raw|-c|write -P 5 1M 1M|-c|flush|{uri}"));
    server.end();
    dir.tool("qemu-img", "check -q outer.qcow2");
    dir.tool("qemu-img", "convert -O raw outer.qcow2 after.raw");
    let bytes = fs::read(dir.join("after.raw")).unwrap();
    let start = (1 << 20) + (48 << 20);
    assert!(bytes[start..start + (1 << 20)].iter().all(|b| *b == 0));
    assert!(bytes[start + (1 << 20)..start + (2 << 20)].iter().all(|b| *b == 5));
    dir.fails("resize outer.qcow2#2 8M", &["outer.qcow2"]);
    dir.fails("bench --write --operations 1 outer.qcow2#1:/vm/base.raw", &["files inside a disk"]);
    // Served, it can only be read, and says why.
    let server = Server::start(&dir, "s", "outer.qcow2#1:/vm/base.raw");
    assert!(fs::read_to_string(dir.join("s.err")).unwrap().contains("files inside a disk"));
    server.end();
}

#[test]
fn what_is_not_there_is_told_apart() {
    let dir = Dir::new();
    if !filled(&dir) {
        return;
    }
    dir.fails("info outer.qcow2#3", &["no partition #3", "#1, #2"]);
    dir.fails("info outer.qcow2:/etc/motd", &["divided into partitions", "portolan ls"]);
    dir.fails("info outer.qcow2#2:/etc/motd", &["no file system"]);
    dir.fails("info outer.qcow2#1:/etc", &["is a directory"]);
    dir.fails("info outer.qcow2#1:/etc/none", &["/etc/none"]);
    dir.fails("cat outer.qcow2#1:etc/motd", &["begins with a slash: outer.qcow2#1:/etc/motd"]);
    dir.fails("ls -f raw outer.raw#2", &["portolan: outer.raw#2: no file system"]);
    dir.fails("info outer.qcow2#1#1", &["no partition table"]);
    dir.fails("info outer.qcow2#1@before", &["@before"]);
    dir.fails("convert outer.qcow2#1 outer.qcow2", &["outer.qcow2"]);
    dir.fails("convert --force outer.qcow2#1:/vm/base.raw outer.qcow2", &["its own target"]);
    dir.fails("extract --force outer.qcow2#1:/vm/base.raw -o outer.qcow2", &["its own target"]);
}

#[test]
fn what_is_damaged_is_told_by_name_and_who_looks_into_it() {
    use std::os::unix::fs::FileExt;
    let dir = Dir::new();
    if !filled(&dir) {
        return;
    }
    let damage = |name: &str, at: u64| {
        fs::copy(dir.join("outer.raw"), dir.join(name)).unwrap();
        let file = fs::File::options().write(true).open(dir.join(name)).unwrap();
        file.write_all_at(&[0x55; 512], at).unwrap();
        file
    };
    let last = fs::metadata(dir.join("outer.raw")).unwrap().len() - 512;
    damage("table", 512).write_all_at(&[0; 512], last).unwrap();
    dir.fails("ls table", &["portolan: table: ", "neither of its headers is whole"]);
    // The half of the superblock that says least.
    damage("super", (1 << 20) + 1024 + 512);
    let failed =
        dir.fails("ls super#1", &["portolan: super#1: superblock does not match its checksum", "e2fsck -n"]);
    assert!(failed.err.lines().count() == 2, "{}", failed.err);
    assert!(dir.ok("ls super").out.contains("#1: superblock does not match its checksum"));
}
