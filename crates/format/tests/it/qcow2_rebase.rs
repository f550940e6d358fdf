//! Rebasing, compared with `qemu-img rebase`, and interrupted anywhere.

use crate::qcow2::{KIB, MIB, Workload, arg, converted, qemu_io};
use crate::qcow2_bitmaps::{open, open_file};
use chart::{Disk, Kind, Source, Wait};
use format::qcow2::create::{Backing, New, create};
use format::qcow2::{Image, Needed, Options};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use testkit::crash::{self, Budget, State};
use testkit::source::{Memory, Recorder};
use testkit::{Rng, peer};

fn backing(name: &str, format: &str) -> Backing {
    Backing { name: name.into(), format: Some(format.into()) }
}

/// An image for qemu-img to open without its backing file.
pub(crate) fn without_backing(path: &Path) -> String {
    let file = serde_json::json!({ "driver": "file", "filename": arg(path) });
    format!("json:{}", serde_json::json!({ "driver": "qcow2", "file": file, "backing": null }))
}

fn pattern(seed: u64, len: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut bytes = vec![0; len as usize];
    rng.fill(&mut bytes);
    // Some zeros, where others have data.
    for _ in 0..6 {
        let (at, len) = rng.range(len, 200_000);
        bytes[at as usize..(at + len) as usize].fill(0);
    }
    bytes
}

/// Two raw files that are alike in places, and a qcow2 over the second.
fn lay(dir: &Path, options: &str, size: u64, (old, new): (u64, u64)) {
    let old_bytes = pattern(1, old);
    let mut new_bytes = pattern(2, new);
    let shared = old_bytes.len().min(new_bytes.len()) / 2;
    new_bytes[..shared].copy_from_slice(&old_bytes[..shared]);
    std::fs::write(dir.join("old.raw"), old_bytes).unwrap();
    std::fs::write(dir.join("new.raw"), new_bytes).unwrap();
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    peer::qemu_img(&["create", "-q", "-f", "qcow2", "-b", "new.raw", "-F", "raw", &path("new.qcow2")]);
    peer::qemu_io("qcow2", &dir.join("new.qcow2"), &["write -P 7 64k 200k", "write -z 512k 100k"].map(|c| c));
    let len = size.to_string();
    peer::qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        options,
        "-b",
        "old.raw",
        "-F",
        "raw",
        &path("overlay.qcow2"),
        &len,
    ]);
    let zeros = !options.contains("0.10");
    let work = Workload { seed: 5, size, cluster: 64 * KIB, compressed: false, zeros, steps: 12 };
    qemu_io(&dir.join("overlay.qcow2"), &work.commands());
}

fn rebase(path: &Path, new: Option<&Backing>) {
    let image = open(path, true);
    let disk = image.disk("overlay").unwrap();
    let below: Option<Arc<Disk>> = new.map(|backing| {
        let other = path.with_file_name(&backing.name);
        match backing.format.as_deref() {
            Some("raw") => format::raw::open(open_file(&other, false), false).unwrap(),
            _ => open(&other, false).disk("new").unwrap(),
        }
    });
    image.copy_up(&disk, below.as_deref(), &mut |_| Ok(())).unwrap();
    image.set_backing(new).unwrap();
    disk.close().unwrap();
    assert!(image.check().unwrap().is_clean());
}

fn info(path: &Path) -> (Option<String>, Option<String>) {
    let said = peer::qemu_img(&["info", "--output=json", arg(path)]);
    let info: serde_json::Value = serde_json::from_str(&said).unwrap();
    let text = |key: &str| info[key].as_str().map(str::to_owned);
    (text("backing-filename"), text("backing-filename-format"))
}

#[test]
fn a_rebased_disk_reads_the_same_and_holds_no_more_than_qemus() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let variants: [(&str, u64, (u64, u64)); 6] = [
        ("cluster_size=64k", 4 * MIB, (4 * MIB, 4 * MIB)),
        ("cluster_size=4k", 4 * MIB, (3 * MIB, 2 * MIB)),
        ("cluster_size=64k,extended_l2=on", 3 * MIB, (2 * MIB + 1024, 5 * MIB)),
        ("compat=0.10", 4 * MIB, (5 * MIB, 1536 * KIB)),
        ("cluster_size=512", 2 * MIB, (MIB, 2 * MIB)),
        ("cluster_size=2M", 8 * MIB, (8 * MIB, 3 * MIB)),
    ];
    for (options, size, lens) in variants {
        for to in [Some(backing("new.raw", "raw")), Some(backing("new.qcow2", "qcow2")), None] {
            let what = format!("{options} {lens:?} to {to:?}");
            let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            lay(ours.path(), options, size, lens);
            lay(theirs.path(), options, size, lens);
            let (overlay, other) = (ours.path().join("overlay.qcow2"), theirs.path().join("overlay.qcow2"));
            let before = converted(&overlay, None);
            rebase(&overlay, to.as_ref());
            let (name, format) = to.as_ref().map_or(("", "raw"), |b| (&b.name, b.format.as_deref().unwrap()));
            peer::qemu_img(&["rebase", "-q", "-f", "qcow2", "-b", name, "-F", format, arg(&other)]);
            assert!(converted(&overlay, None) == before, "{what}: the disk reads otherwise");
            assert!(converted(&other, None) == before, "{what}: qemu's reads otherwise");
            peer::qemu_img(&["check", "-q", arg(&overlay)]);
            assert_eq!(info(&overlay), info(&other), "{what}");
            let len = |path: &Path| std::fs::metadata(path).unwrap().len();
            assert!(len(&overlay) <= len(&other) + 256 * KIB, "{what}: {} {}", len(&overlay), len(&other));
        }
    }
}

#[test]
fn an_unsafe_rebase_changes_the_header_alone() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let mut rng = Rng::new(9);
    for options in
        ["cluster_size=64k", "cluster_size=4k", "cluster_size=1k", "cluster_size=512", "compat=0.10"]
    {
        let dir = tempfile::tempdir().unwrap();
        lay(dir.path(), options, MIB, (MIB, MIB));
        let path = dir.path().join("overlay.qcow2");
        let bitmaps = !options.contains("0.10") && !options.contains("512");
        if bitmaps {
            peer::qemu_img(&["bitmap", "--add", arg(&path), "kept"]);
        }
        let small = options.ends_with("512") || options.ends_with("1k");
        for round in 0..12 {
            let len = 1 + rng.below(if small { 200 } else { 1000 }) as usize;
            let name: String = (0..len).map(|_| char::from(b'a' + rng.below(26) as u8)).collect();
            let to = match round % 4 {
                3 => None,
                _ => Some(Backing { name, format: rng.once_in(2).then(|| "qcow2".to_owned()) }),
            };
            let alone = Options { writable: true, alone: true, ..Options::default() };
            let image = Image::open(open_file(&path, true), &alone, &mut |_| unreachable!()).unwrap();
            image.set_backing(to.as_ref()).unwrap_or_else(|e| panic!("{options} {to:?}: {e}"));
            let close = chart::ChartMut::close(&image);
            close.unwrap();
            drop(image);
            let expected = to.map_or((None, None), |b| (Some(b.name), b.format));
            let said = info_of_header(&path);
            assert_eq!(said, expected, "{options} round {round}");
            let said = peer::qemu_img(&["info", "--output=json", arg(&path)]);
            let said: serde_json::Value = serde_json::from_str(&said).unwrap();
            assert_eq!(said["backing-filename"].as_str().map(str::to_owned), expected.0);
            let list = said["format-specific"]["data"]["bitmaps"].as_array().map_or(0, Vec::len);
            assert_eq!(list, usize::from(bitmaps), "{options} round {round}");
            peer::qemu_img(&["check", "-q", &without_backing(&path)]);
        }
        // QEMU takes such a header for its own.
        peer::qemu_img(&["rebase", "-u", "-f", "qcow2", "-b", "old.raw", "-F", "raw", arg(&path)]);
        assert_eq!(info(&path).0.as_deref(), Some("old.raw"));
    }
}

fn info_of_header(path: &Path) -> (Option<String>, Option<String>) {
    let info = format::qcow2::Info::read(open_file(path, false).as_ref()).unwrap();
    (info.backing_file, info.backing_format)
}

#[test]
fn a_name_that_does_not_fit_is_refused_and_changes_nothing() {
    let source: Arc<dyn Source> = Arc::new(Memory::new(0));
    let new = New { cluster_bits: 9, backing: Some(backing("base", "raw")), ..New::of(MIB) };
    create(source.as_ref(), None, &new).unwrap();
    let alone = Options { writable: true, alone: true, ..Options::default() };
    let image = Image::open(Arc::clone(&source), &alone, &mut |_| unreachable!()).unwrap();
    let refused = image.set_backing(Some(&backing(&"x".repeat(400), "raw"))).unwrap_err();
    assert_eq!(refused.kind(), Kind::Unsupported, "{refused}");
    let refused = image.set_backing(Some(&backing(&"x".repeat(2000), "raw"))).unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    let refused = image.set_backing(Some(&backing("x", "a format's name"))).map(|()| "fits");
    assert_eq!(refused.unwrap(), "fits");
    let refused = image.set_backing(Some(&backing("x", "a format's name with more"))).unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    let info = format::qcow2::Info::read(source.as_ref()).unwrap();
    assert_eq!(info.backing_file.as_deref(), Some("x"));
}

/// Files by name, as an image's backing files.
type Files = BTreeMap<String, Vec<u8>>;

fn open_in(source: Arc<dyn Source>, files: &Files, writable: bool) -> chart::Result<Arc<Image>> {
    let mut opener = |needed: Needed<'_>| -> chart::Result<Arc<dyn Source>> {
        let bytes = files.get(needed.name).ok_or_else(|| chart::Error::not_found(needed.name.to_owned()))?;
        assert_eq!(
            needed.format,
            Some(if needed.name.len() > 10 { "raw" } else { "file" }),
            "name and format part"
        );
        Ok(format::raw::open(Arc::new(Memory::of(bytes.clone())), false)?)
    };
    Image::open(source, &Options { writable, cache_bytes: 1, ..Options::default() }, &mut opener)
        .map(Arc::new)
}

fn bytes(disk: &Disk) -> Vec<u8> {
    let mut all = vec![0; disk.len() as usize];
    disk.read_at(0, &mut all, Wait::Allowed).unwrap();
    all
}

#[test]
fn rebase_interrupted_anywhere_finds_the_old_chain_or_the_new_one() {
    let ask_qemu = peer::require(&["qemu-img"]);
    let long = "a-name-so-long-that-it-cannot-be-in-the-first-sector".repeat(12);
    let names = ["short", "another-name-of-some-length", &long];
    for (seed, (version, cluster_bits, bitmap)) in
        [(3, 16, true), (3, 12, false), (2, 12, false), (3, 11, true), (3, 14, false)].into_iter().enumerate()
    {
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 1), (1, 3)] {
            let files: Files = names
                .iter()
                .zip(0..)
                .map(|(name, i)| ((*name).to_owned(), pattern(i, 300_000 - i * 70_000)))
                .collect();
            let format = |i: usize| if names[i].len() > 10 { "raw" } else { "file" };
            let named = |i: usize| (i < names.len()).then(|| backing(names[i], format(i)));
            let memory: Arc<dyn Source> = Arc::new(Memory::new(0));
            let new = New {
                version,
                cluster_bits,
                backing: named(from),
                extended_l2: cluster_bits == 14,
                ..New::of(400 * KIB)
            };
            create(memory.as_ref(), None, &new).unwrap();
            let image = open_in(Arc::clone(&memory), &files, true).unwrap();
            let disk = image.disk("overlay").unwrap();
            for i in 0..4 {
                disk.write_at(i * 90_000, &[i as u8 + 1; 12_345], Wait::Allowed).unwrap();
            }
            if bitmap {
                image.bitmap_add("b", None, true).unwrap();
            }
            disk.close().unwrap();
            drop((disk, image));
            let recorder = Arc::new(Recorder::new(memory).unwrap());
            let image = open_in(recorder.clone(), &files, true).unwrap();
            let disk = image.disk("overlay").unwrap();
            let before = bytes(&disk);
            let target = (to < names.len())
                .then(|| format::raw::open(Arc::new(Memory::of(files[names[to]].clone())), false).unwrap());
            image.copy_up(&disk, target.as_deref(), &mut |_| Ok(())).unwrap();
            image.set_backing(named(to).as_ref()).unwrap();
            disk.close().unwrap();
            drop((disk, image));
            let judged = std::cell::Cell::new(0);
            let judge = |state: &State| -> Result<(), String> {
                judged.set(judged.get() + 1);
                let image = open_in(Arc::new(Memory::of(state.bytes.clone())), &files, false)
                    .map_err(|e| e.to_string())?;
                let header = image.header().clone();
                let name = header.backing_file.as_deref();
                if ![named(from), named(to)].iter().any(|b| b.as_ref().map(|b| b.name.as_str()) == name) {
                    return Err(format!("the backing file is {name:?}"));
                }
                if image.bitmaps().map_err(|e| e.to_string())?.len() != usize::from(bitmap) {
                    return Err("the bitmap is gone".into());
                }
                let report = image.check().map_err(|e| e.to_string())?;
                if report.corruptions > 0 {
                    return Err(format!("{:?}", report.findings));
                }
                if bytes(&image.disk("state").unwrap()) != before {
                    return Err(format!("the disk reads otherwise, over {name:?}"));
                }
                if ask_qemu && judged.get() % 25 == 0 {
                    let dir = tempfile::tempdir().unwrap();
                    let path = dir.path().join("state.qcow2");
                    std::fs::write(&path, &state.bytes).unwrap();
                    let said = peer::attempt("qemu-img", &["check", &without_backing(&path)]);
                    if !matches!(said.status.code(), Some(0 | 3)) {
                        return Err(String::from_utf8_lossy(&said.stdout).into_owned());
                    }
                }
                Ok(())
            };
            let budget = Budget { states: 250, seed: seed as u64 };
            let states = crash::check(&recorder.log(), budget, judge);
            let states = states.unwrap_or_else(|e| panic!("{cluster_bits} {from} to {to}: {e}"));
            assert!(states > 15, "{states}");
        }
    }
}
