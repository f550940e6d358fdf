//! Which layer of a chain answers, as QEMU tells it over NBD.

use super::arg;
use crate::qcow2_bitmaps::open;
use chart::Purpose;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use testkit::peer;

/// The unit in which the two are compared.
const STEP: usize = 4096;

fn create(dir: &Path, name: &str, over: Option<(&str, &str)>, size: &str) {
    let file = dir.join(name);
    let over = over.map_or(vec![], |(file, format)| vec!["-b", file, "-F", format]);
    peer::qemu_img(&[&["create", "-q", "-f", "qcow2"], over.as_slice(), &[arg(&file), size]].concat());
}

/// Three layers, each longer than the one below; the lowest a qcow2 or a raw file.
fn lay(dir: &Path, raw: bool) {
    if raw {
        peer::qemu_img(&["create", "-q", "-f", "raw", arg(&dir.join("base")), "1M"]);
        peer::qemu_io("raw", &dir.join("base"), &["write -P 1 0 128k"]);
    } else {
        create(dir, "base", None, "1M");
        peer::qemu_io("qcow2", &dir.join("base"), &["write -P 1 0 128k", "write -z 256k 64k"]);
    }
    create(dir, "middle", Some(("base", if raw { "raw" } else { "qcow2" })), "2M");
    let middle = ["write -P 2 64k 64k", "write -z 512k 64k", "write -P 3 1500k 100k", "discard 1200k 100k"];
    peer::qemu_io("qcow2", &dir.join("middle"), &middle);
    create(dir, "top", Some(("middle", "qcow2")), "3M");
    let top = ["write -P 4 128k 64k", "write -z 1536k 64k", "discard 0 64k", "write -P 5 2500k 64k"];
    peer::qemu_io("qcow2", &dir.join("top"), &top);
}

fn by_qemu(file: &Path) -> Vec<usize> {
    let socket = file.with_extension("sock");
    let mut server = Command::new("qemu-nbd")
        .args(["-r", "-A", "-f", "qcow2", "-k", arg(&socket), arg(file)])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while !socket.exists() {
        assert!(began.elapsed() < Duration::from_secs(20), "qemu-nbd does not listen");
        assert!(server.try_wait().unwrap().is_none(), "qemu-nbd does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    let uri = format!("nbd+unix:///?socket={}", arg(&socket));
    let said = peer::run("nbdinfo", &["--json", "--map=qemu:allocation-depth", &uri]);
    // It ends when its client has left.
    server.wait().unwrap();
    let map: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    let mut layers = Vec::new();
    for run in map.as_array().unwrap() {
        let number = |key: &str| run[key].as_u64().unwrap() as usize;
        layers.resize(layers.len() + number("length") / STEP, number("type"));
    }
    layers
}

#[test]
fn the_layers_are_those_of_qemu() {
    if !peer::require(&["qemu-img", "qemu-io", "qemu-nbd", "nbdinfo"]) {
        return;
    }
    for raw in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        lay(dir.path(), raw);
        let disk = open(&dir.path().join("top"), false).disk("top").unwrap();
        let mut layers = Vec::new();
        let walk = disk.walk(0..disk.len(), Purpose::Locate);
        walk.each(|leaf| {
            layers.resize(layers.len() + leaf.len as usize / STEP, leaf.layer);
            Ok(())
        })
        .unwrap();
        let theirs = by_qemu(&dir.path().join("top"));
        let differs = layers.iter().zip(&theirs).position(|(a, b)| a != b);
        assert_eq!(layers, theirs, "over a raw file: {raw}; first at {:?}", differs.map(|i| i * STEP));
    }
}
