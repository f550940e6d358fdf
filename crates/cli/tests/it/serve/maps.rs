//! Block status, beside what QEMU says of the same images.

use super::Server;
use crate::run::Dir;
use serde_json::Value;

/// Runs of the same, from the beginning: where each ends, and what it is.
type Runs<T> = Vec<(u64, T)>;

/// Neighbours of one kind are one run.
fn merged<T: PartialEq>(rows: impl Iterator<Item = (u64, T)>) -> Runs<T> {
    let (mut runs, mut at): (Runs<T>, u64) = (Vec::new(), 0);
    for (len, what) in rows {
        at += len;
        match runs.last_mut() {
            Some(last) if last.1 == what => last.0 = at,
            _ => runs.push((at, what)),
        }
    }
    runs
}

fn rows(json: &str) -> Vec<Value> {
    serde_json::from_str::<Value>(json).unwrap().as_array().unwrap().clone()
}

/// What `nbdinfo --map` says of a context.
#[track_caller]
fn map(dir: &Dir, context: &str, of: &str) -> Runs<u64> {
    let told = rows(&dir.tool("nbdinfo", &format!("--json --map={context} {of}")));
    merged(told.iter().map(|row| (row["length"].as_u64().unwrap(), row["type"].as_u64().unwrap())))
}

/// Which ranges read as zeros, as `qemu-img map` says.
#[track_caller]
fn zeros(dir: &Dir, args: &str) -> Runs<bool> {
    let told = rows(&dir.tool("qemu-img", &format!("map --output=json {args}")));
    merged(told.iter().map(|row| (row["length"].as_u64().unwrap(), row["zero"].as_bool().unwrap())))
}

#[test]
fn a_chain_has_the_map_that_qemu_sees() {
    if !testkit::peer::require(&["nbdinfo", "qemu-img", "qemu-io", "qemu-nbd"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    dir.tool("qemu-img", "convert -q -c -O qcow2 top.qcow2 packed.qcow2");
    dir.tool(
        "qemu-img",
        "create -q -f qcow2 -o extended_l2=on,cluster_size=128k -F qcow2 -b packed.qcow2 sub.qcow2 18M",
    );
    dir.tool(
        "qemu-io",
        "-c|write -P 4 20k 3k|-c|write -z 40k 8k|-c|discard 1M 256k|-c|write 17M 4k|sub.qcow2",
    );
    for (format, image) in [
        ("raw", "base.raw"),
        ("qcow2", "mid.qcow2"),
        ("qcow2", "top.qcow2"),
        ("qcow2", "packed.qcow2"),
        ("qcow2", "sub.qcow2"),
    ] {
        let server = Server::start(&dir, "s", &format!("--read-only -f {format} {image}"));
        let uri = server.uri("");
        let expected = zeros(&dir, &format!("-f {format} {image}"));
        assert_eq!(zeros(&dir, &format!("-f raw {uri}")), expected, "{image}");
        let told = map(&dir, "base:allocation", &uri);
        let told = merged(told.iter().scan(0, |at, (end, kind)| {
            let len = end - std::mem::replace(at, *end);
            Some((len, kind & 2 != 0))
        }));
        assert_eq!(told, expected, "{image}");
        let ours = map(&dir, "qemu:allocation-depth", &uri);
        let theirs =
            map(&dir, "qemu:allocation-depth", &format!("-- [ qemu-nbd -r -A -f {format} {image} ]"));
        assert_eq!(ours, theirs, "{image}");
        server.end();
    }
}

#[test]
fn places_are_told_to_those_who_may_know() {
    if !testkit::peer::require(&["nbdinfo", "qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    dir.tool("qemu-img", "convert -q -c -O qcow2 base.raw packed.qcow2");
    let server = Server::start(&dir, "s", "--read-only top.qcow2");
    assert!(!dir.tool("nbdinfo", &server.uri("")).contains("portolan:place"));
    server.end();
    let places = |image: &str| -> Runs<(u64, u64)> {
        let server = Server::start(&dir, "s", &format!("--read-only --places {image}"));
        let told = map(&dir, "portolan:place", &server.uri(""));
        server.end();
        told.into_iter().map(|(end, word)| (end, (word >> 28, word >> 16 & 0xfff))).collect()
    };
    // Three files hold the disk's bytes; what one of them is marked to hold zeros in lies in none.
    let (mib, told) = (1 << 20, places("top.qcow2"));
    let kind = |at: u64| told.iter().find(|(end, _)| at < *end).unwrap().1;
    let sources: Vec<u64> = [64 << 10, 600 << 10, 9 * mib].iter().map(|at| kind(*at).1).collect();
    assert_eq!([kind(64 << 10).0, kind(600 << 10).0, kind(9 * mib).0], [2, 2, 2], "{told:?}");
    assert!(sources[0] != sources[1] && sources[1] != sources[2] && sources[0] != sources[2], "{told:?}");
    assert_eq!((kind(mib), kind(14 * mib + mib / 2)), ((1, 0), (0, 0)), "{told:?}");
    assert!(places("packed.qcow2").iter().any(|(_, (kind, _))| *kind == 3));
}

#[test]
fn bitmaps_are_told_as_qemu_tells_them() {
    if !testkit::peer::require(&["nbdinfo", "qemu-img", "qemu-io", "qemu-nbd"]) {
        return;
    }
    let dir = Dir::new();
    dir.tool("qemu-img", "create -q -f qcow2 disk.qcow2 64M");
    dir.tool("qemu-img", "bitmap --add -g 64k disk.qcow2 coarse");
    dir.tool("qemu-io", "-c|write 1M 200k|-c|write 20M 1|-c|discard 40M 3M|disk.qcow2");
    dir.tool("qemu-img", "bitmap --add -g 512 disk.qcow2 fine");
    dir.tool("qemu-io", "-c|write 5M 700|-c|write -z 63M 1M|-c|write 33M 2M|disk.qcow2");
    dir.fails("serve --listen unix:x.sock --bitmap none disk.qcow2", &["none"]);
    dir.fails("serve --listen unix:x.sock --bitmap fine disk.qcow2", &["fine", "follows writes"]);
    let told = |name: &str, of: &str| map(&dir, &format!("qemu:dirty-bitmap:{name}"), of);
    let server = Server::start(&dir, "s", "--read-only --bitmap coarse --bitmap fine disk.qcow2");
    for name in ["coarse", "fine"] {
        let theirs = told(name, &format!("-- [ qemu-nbd -r -f qcow2 -B {name} disk.qcow2 ]"));
        assert_eq!(told(name, &server.uri("")), theirs, "{name}");
        assert!(theirs.len() > 3, "{theirs:?}");
    }
    server.end();
    // What does not follow writes is told as it was, whatever is written, and what does goes on following.
    dir.tool("qemu-img", "bitmap --disable disk.qcow2 coarse");
    let server = Server::start(&dir, "s", "--bitmap coarse disk.qcow2");
    let before = told("coarse", &server.uri(""));
    super::qemu_io(&dir, &["write 50M 1M"], &server.uri(""));
    assert_eq!(told("coarse", &server.uri("")), before);
    server.end();
    let after = told("fine", "-- [ qemu-nbd -r -f qcow2 -B fine disk.qcow2 ]");
    assert!(after.contains(&(51 << 20, 1)), "{after:?}");
    dir.tool("qemu-img", "check -q disk.qcow2");
}
