//! `serve --history`: what the disk held, beside what it holds.

use super::{Server, qemu_io, wait_until};
use crate::run::Dir;
use std::process::Command;
use testkit::peer;

/// What a server offers now.
fn exports(dir: &Dir, server: &Server<'_>) -> Vec<String> {
    // It asks for each in turn, and fails where one has gone meanwhile.
    let list = ["--list", "--json", &server.uri("")];
    let mut told = Vec::new();
    wait_until("a list", || {
        let listed = Command::new("nbdinfo").args(list).current_dir(dir.path()).output().unwrap();
        told = listed.stdout;
        listed.status.success()
    });
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
    let names = told["exports"].as_array().unwrap().iter();
    names.map(|e| e["export-name"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn wait_for(dir: &Dir, server: &Server<'_>, export: &str) {
    wait_until(export, || exports(dir, server).iter().any(|name| name == export));
}

#[test]
fn every_state_that_was_written_can_be_read_and_none_changes() {
    if !peer::require(&["qemu-img", "qemu-io", "nbdinfo"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    dir.tool("qemu-img", "convert -O raw top.qcow2 before.raw");
    let server = Server::start(&dir, "s", "--history 100ms top.qcow2");
    qemu_io(&dir, &["write -P 1 1M 300k", "write -z 8M 1M", "flush"], &server.uri(""));
    wait_for(&dir, &server, "v1");
    dir.tool("qemu-img", &format!("convert -f raw -O raw {} first.raw", server.uri("")));
    qemu_io(&dir, &["write -P 2 1M 64k", "discard 3M 3M"], &server.uri(""));
    wait_for(&dir, &server, "v2");
    dir.tool("qemu-img", &format!("convert -f raw -O raw {} second.raw", server.uri("")));
    // Nothing is written: nothing is kept.
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(exports(&dir, &server), ["", "v0", "v1", "v2"]);
    for (state, file) in [("v0", "before.raw"), ("v1", "first.raw"), ("v2", "second.raw"), ("", "second.raw")]
    {
        dir.tool("qemu-img", &format!("compare -f raw -F raw {} {file}", server.uri(state)));
        dir.ok(&format!("compare -f raw {} {file}", server.uri(state)));
    }
    let kept = dir.tool("nbdinfo", &format!("--json {}", server.uri("v1")));
    assert!(kept.contains("\"is_read_only\": true") && kept.contains("after the beginning"), "{kept}");
    // What was written between two of them, in whole blocks of 64 KiB.
    let map = format!("--map=qemu:dirty-bitmap:changed --json {}", server.uri("v2"));
    let told: serde_json::Value = serde_json::from_str(&dir.tool("nbdinfo", &map)).unwrap();
    let dirty: Vec<(u64, u64)> = told
        .as_array()
        .unwrap()
        .iter()
        .filter(|run| run["type"] == 1)
        .map(|run| (run["offset"].as_u64().unwrap(), run["length"].as_u64().unwrap()))
        .collect();
    assert_eq!(dirty, [(1 << 20, 64 << 10), (3 << 20, 3 << 20)]);
    server.end();
    // The disk itself was only read, and nothing is left.
    dir.tool("qemu-img", "compare -F raw top.qcow2 before.raw");
    assert!(!dir.names().iter().any(|name| name.starts_with("portolan-")), "{:?}", dir.names());
}

#[test]
fn the_oldest_states_go() {
    if !peer::require(&["qemu-io", "nbdinfo"]) {
        return;
    }
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 16M");
    let server = Server::start(&dir, "s", "--history 50ms --keep 2 --name vm disk.qcow2");
    for state in 1..5 {
        qemu_io(&dir, &[&format!("write -P {state} 0 4k")], &server.uri("vm"));
        wait_for(&dir, &server, &format!("vm/v{state}"));
    }
    assert_eq!(exports(&dir, &server), ["vm", "vm/v3", "vm/v4"]);
    // What was written since the state before is known of the oldest too, though that one is gone.
    let map = dir.tool("nbdinfo", &format!("--map=qemu:dirty-bitmap:changed --json {}", server.uri("vm/v3")));
    assert!(map.contains("dirty"), "{map}");
    let read = format!("-r|-f|raw|-c|read -P 3 0 4k|-c|read -P 0 4k 60k|{}", server.uri("vm/v3"));
    assert!(!dir.tool("qemu-io", &read).contains("failed"));
    server.end();
}

#[test]
fn one_state_is_kept_where_one_is_wanted() {
    if !peer::require(&["qemu-io", "nbdinfo"]) {
        return;
    }
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 16M");
    let server = Server::start(&dir, "s", "--history 50ms --keep 1 --name vm disk.qcow2");
    for state in 1..4 {
        qemu_io(&dir, &[&format!("write -P {state} 0 4k")], &server.uri("vm"));
        wait_for(&dir, &server, &format!("vm/v{state}"));
    }
    assert_eq!(exports(&dir, &server), ["vm", "vm/v3"]);
    server.end();
}
