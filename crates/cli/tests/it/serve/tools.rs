//! nbdinfo, nbdcopy, qemu-img and qemu-io, on raw and qcow2, over unix sockets and ports.

use super::tls::{listed, pasted};
use super::{Server, Start, on_a_port, on_a_socket, qemu_io, refused};
use crate::run::Dir;

/// Sets of arguments that serve an empty disk of 16 MiB, and its image.
fn disks(dir: &Dir) -> Vec<(&'static str, String)> {
    dir.ok("create -q -f raw disk.raw 16M");
    dir.ok("create -q disk.qcow2 16M");
    dir.ok("create -q -o cluster_size=4k,extended_l2=off small.qcow2 16M");
    dir.raw("under.raw", 12 << 20);
    dir.tool("qemu-img", "create -q -f qcow2 -F raw -b under.raw over.qcow2 16M");
    let disk = |format, name: &str| (format, name.to_owned());
    vec![
        disk("raw", "disk.raw"),
        disk("qcow2", "disk.qcow2"),
        disk("qcow2", "small.qcow2"),
        disk("qcow2", "over.qcow2"),
    ]
}

#[test]
fn nbdinfo_tells_what_is_served() {
    if !testkit::peer::require(&["nbdinfo", "qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    dir.ok("create -q -f raw disk.raw 1M");
    let server = Server::start(&dir, "s", "--read-only top.qcow2");
    let uri = server.uri("");
    let told: serde_json::Value =
        serde_json::from_str(&dir.tool("nbdinfo", &format!("--json {uri}"))).unwrap();
    assert_eq!((&told["protocol"], &told["structured"]), (&"newstyle-fixed".into(), &true.into()), "{told}");
    let export = &told["exports"][0];
    assert_eq!(export["export-size"], 16 << 20);
    let contexts: Vec<_> =
        export["contexts"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
    assert_eq!(contexts, ["base:allocation", "qemu:allocation-depth"]);
    for (what, so) in [
        ("is_read_only", true),
        ("can_multi_conn", true),
        ("can_flush", true),
        ("can_df", true),
        ("can_cache", true),
        ("can_fua", false),
        ("can_trim", false),
        ("can_zero", false),
    ] {
        assert_eq!(export[what], so, "{what} in {told}");
    }
    assert_eq!(
        (&export["block_size_minimum"], &export["block_size_maximum"]),
        (&1.into(), &(32 << 20).into())
    );
    assert_eq!(dir.tool("nbdinfo", &format!("--size {uri}")).trim(), (16 << 20).to_string());
    assert!(refused(&dir, "nbdinfo", &server.uri("other")).contains("other"));
    server.end();

    let server = on_a_port(&dir, "w", "-f raw disk.raw");
    let uri = server.uri("");
    assert!(dir.tool("nbdinfo", &uri).contains("description: disk.raw (raw)"));
    for can in
        ["trim", "zero", "fast-zero", "fua", "flush", "df", "cache", "multi-conn", "connect", "structured"]
    {
        dir.tool("nbdinfo", &format!("--can {can} {uri}"));
    }
    refused(&dir, "nbdinfo", &format!("--is read-only {uri}"));
    server.end();
}

#[test]
fn several_disks_are_several_exports() {
    if !testkit::peer::require(&["nbdinfo", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.ok("create -q one.qcow2 4M");
    dir.ok("create -q two.qcow2 5M");
    let list = |server: &Server<'_>| -> Vec<(String, u64)> {
        let told = dir.tool("nbdinfo", &format!("--list --json {}", server.uri("")));
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        let exports = told["exports"].as_array().unwrap().iter();
        exports
            .map(|e| (e["export-name"].as_str().unwrap().to_owned(), e["export-size"].as_u64().unwrap()))
            .collect()
    };
    let server = Server::start(&dir, "s", "one.qcow2 two.qcow2");
    assert_eq!(list(&server), [("one".to_owned(), 4 << 20), ("two".to_owned(), 5 << 20)]);
    qemu_io(&dir, &["write -P 1 0 64k"], &server.uri("one"));
    qemu_io(&dir, &["write -P 2 0 64k", "write -P 2 4M 64k"], &server.uri("two"));
    // Without a name it is the first.
    qemu_io(&dir, &["read -P 1 0 64k"], &server.uri(""));
    refused(&dir, "nbdinfo", &server.uri("three"));
    server.end();
    dir.fails("serve --name a --name b --name c one.qcow2 two.qcow2", &["3 names for 2 disks"]);
    dir.fails("serve --name a --name a one.qcow2 two.qcow2", &["\"a\""]);
    let server = on_a_port(&dir, "p", "--name a/b --name ü one.qcow2 two.qcow2");
    let names: Vec<_> = list(&server).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a/b", "ü"]);
    let other = format!("{}%C3%BC", server.uri("").strip_suffix("a/b").unwrap());
    qemu_io(&dir, &["read -P 2 4M 64k"], &other);
}

/// The kernel's client, as far as it goes without the kernel.
#[test]
fn nbd_client_lists_what_is_served() {
    if !testkit::peer::require(&["nbd-client"]) {
        return;
    }
    let dir = Dir::new();
    dir.ok("create -q one.qcow2 4M");
    dir.ok("create -q two.qcow2 5M");
    for (name, start) in [("u", on_a_socket as Start), ("t", on_a_port)] {
        let server = start(&dir, name, "one.qcow2 two.qcow2");
        let listed = listed(&dir, &pasted(&server, "kernel", dir.path()));
        assert!(listed.contains("one: one.qcow2") && listed.contains("two: two.qcow2"), "{listed}");
        assert!(!server.end().err.contains("client"), "{listed}");
    }
}

#[test]
fn nbdcopy_copies_both_ways() {
    if !testkit::peer::require(&["nbdcopy", "qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    dir.raw("from.raw", 16 << 20);
    for (format, image) in disks(&dir) {
        let args = format!("-f {format} {image}");
        for (name, start) in [("u", on_a_socket as Start), ("t", on_a_port)] {
            let server = start(&dir, name, &args);
            let uri = server.uri("");
            dir.tool("nbdcopy", &format!("--flush from.raw {uri}"));
            dir.tool("nbdcopy", &format!("{uri} to.raw"));
            dir.tool("cmp", "from.raw to.raw");
            server.end();
            dir.tool("qemu-img", &format!("compare -q -f {format} -F raw {image} from.raw"));
            // Once more, onto what is there now: other bytes, in short requests over one connection.
            dir.ok("create --force -q -f raw from.raw 16M");
            dir.tool("qemu-io", "-f|raw|-c|write -P 77 1000k 3M|-c|write -P 78 10M 1M|from.raw");
            let server = start(&dir, name, &args);
            dir.tool("nbdcopy", &format!("-C 1 --request-size=4096 from.raw {}", server.uri("")));
            server.end();
            dir.tool("qemu-img", &format!("compare -q -f {format} -F raw {image} from.raw"));
            dir.raw("from.raw", 16 << 20);
        }
        if format == "qcow2" {
            dir.tool("qemu-img", &format!("check -q {image}"));
        }
    }
    // From one server to another.
    let (a, b) =
        (Server::start(&dir, "a", "--read-only disk.qcow2"), Server::start(&dir, "b", "-f raw disk.raw"));
    dir.tool("nbdcopy", &format!("{} {}", a.uri(""), b.uri("")));
    dir.tool("qemu-img", &format!("compare -q -f raw -F raw {} {}", a.uri(""), b.uri("")));
}

#[test]
fn qemu_img_converts_and_compares_over_the_wire() {
    if !testkit::peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    dir.tool("qemu-img", "convert -O raw top.qcow2 flat.raw");
    let server = Server::start(&dir, "s", "--read-only top.qcow2");
    let uri = server.uri("");
    assert!(dir.tool("qemu-img", &format!("info -f raw {uri}")).contains("16 MiB (16777216 bytes)"));
    dir.tool("qemu-img", &format!("compare -q -f raw -F raw {uri} flat.raw"));
    dir.tool("qemu-img", &format!("convert -W -m 16 -f raw -O qcow2 {uri} copy.qcow2"));
    dir.tool("qemu-img", "compare -q copy.qcow2 top.qcow2");
    server.end();

    for (format, image) in disks(&dir) {
        for (name, start) in [("u", on_a_socket as Start), ("t", on_a_port)] {
            let server = start(&dir, name, &format!("-f {format} {image}"));
            let uri = server.uri("");
            dir.tool("qemu-img", &format!("convert -n -W -m 8 -O raw top.qcow2 {uri}"));
            dir.tool("qemu-img", &format!("compare -q -f raw -F qcow2 {uri} top.qcow2"));
            dir.tool(
                "qemu-img",
                &format!("bench -q -w -f raw -c 500 -d 8 -s 4096 -S 65536 --flush-interval 50 {uri}"),
            );
            qemu_io(&dir, &["read -P 0 0 4k", "read -P 0 64k 4k"], &uri);
            server.end();
            if format == "qcow2" {
                dir.tool("qemu-img", &format!("check -q {image}"));
            }
        }
    }
}

#[test]
fn qemu_io_writes_what_it_reads() {
    if !testkit::peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    for (format, image) in disks(&dir) {
        let server = Server::start(&dir, "s", &format!("-f {format} {image}"));
        let uri = server.uri("");
        qemu_io(
            &dir,
            &[
                "write -P 1 0 1M",
                "write -f -P 2 1000k 3000",
                "write -P 3 1500k 1",
                "write -z 256k 100k",
                "write -z -u 512k 128k",
                "write -z -f 700k 512",
                "discard 896k 64k",
                "aio_write -P 4 2M 1M",
                "aio_write -P 5 4M 64k",
                "aio_flush",
                "writev -P 6 6M 4k 8k 512",
                "flush",
            ],
            &uri,
        );
        let reads = [
            "read -P 1 0 256k",
            "read -P 0 256k 100k",
            "read -P 1 356k 156k",
            "read -P 0 512k 128k",
            "read -P 0 700k 512",
            "read -P 0 896k 64k",
            "read -P 2 1000k 3000",
            "read -P 3 1500k 1",
            "read -P 4 2M 1M",
            "read -P 5 4M 64k",
            "read -P 6 6M 12800",
        ];
        qemu_io(&dir, &reads, &uri);
        server.end();
        let commands: String = reads.iter().map(|c| format!("-c|{c}|")).collect();
        let said = dir.tool("qemu-io", &format!("-f|{format}|{commands}{image}"));
        assert!(!said.contains("failed"), "{image}: {said}");
        if format == "qcow2" {
            dir.tool("qemu-img", &format!("check -q {image}"));
        }
    }
}

#[test]
fn what_is_read_only_stays_as_it_is() {
    if !testkit::peer::require(&["qemu-img", "qemu-io", "nbdcopy"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    let before = std::fs::read(dir.join("top.qcow2")).unwrap();
    let server = Server::start(&dir, "s", "--read-only top.qcow2");
    let uri = server.uri("");
    let said = refused(&dir, "qemu-io", &format!("-f|raw|-c|write 0 64k|{uri}"));
    assert!(said.contains("Permission denied") || said.contains("read-only"), "{said}");
    refused(&dir, "nbdcopy", &format!("base.raw {uri}"));
    dir.tool("qemu-io", &format!("-r|-f|raw|-c|read -P 99 64k 64k|{uri}"));
    server.end();
    assert!(before == std::fs::read(dir.join("top.qcow2")).unwrap());
}
