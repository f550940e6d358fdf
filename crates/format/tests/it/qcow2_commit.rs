//! Committing an overlay into what lies below it, compared with `qemu-img commit`, and interrupted anywhere.

use crate::qcow2::{KIB, MIB, Workload, arg, converted, qemu_io};
use crate::qcow2_bitmaps::{open, open_file};
use crate::qcow2_rebase;
use chart::{Disk, Extent, Kind, Source, SourceId, Table, Wait};
use format::qcow2::create::{Backing, New, create};
use format::qcow2::{Image, Needed, Options};
use io::copy;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use testkit::crash::{self, Budget, State};
use testkit::source::{Memory, Recorder};
use testkit::{Rng, peer};

/// A chain, as qemu-img is told to make it.
struct Chain {
    overlay: &'static str,
    size: u64,
    base: &'static str,
    base_format: &'static str,
    base_size: u64,
    compressed: bool,
}

const CHAINS: &[Chain] = &[
    Chain {
        overlay: "cluster_size=64k",
        size: 4 * MIB,
        base: "",
        base_format: "raw",
        base_size: 4 * MIB,
        compressed: true,
    },
    Chain {
        overlay: "cluster_size=64k",
        size: 6 * MIB,
        base: "",
        base_format: "raw",
        base_size: 3 * MIB,
        compressed: false,
    },
    Chain {
        overlay: "cluster_size=4k",
        size: 2 * MIB,
        base: "cluster_size=64k",
        base_format: "qcow2",
        base_size: 4 * MIB,
        compressed: true,
    },
    Chain {
        overlay: "cluster_size=64k,extended_l2=on",
        size: 4 * MIB + 512,
        base: "cluster_size=4k",
        base_format: "qcow2",
        base_size: 2 * MIB,
        compressed: false,
    },
    Chain {
        overlay: "compat=0.10",
        size: 4 * MIB,
        base: "compat=0.10,cluster_size=4k",
        base_format: "qcow2",
        base_size: 4 * MIB,
        compressed: false,
    },
    Chain {
        overlay: "cluster_size=64k,data_file=DIR/data.raw",
        size: 4 * MIB,
        base: "cluster_size=64k",
        base_format: "qcow2",
        base_size: 3 * MIB,
        compressed: false,
    },
];

impl Chain {
    fn make(&self, dir: &Path, seed: u64) -> (PathBuf, PathBuf) {
        let (overlay, base) = (dir.join("overlay.qcow2"), dir.join("base.img"));
        let mut args = vec!["create", "-q", "-f", self.base_format];
        if !self.base.is_empty() {
            args.extend(["-o", self.base]);
        }
        let size = self.base_size.to_string();
        args.extend([arg(&base), &size]);
        peer::qemu_img(&args);
        let filled: Vec<String> =
            (0..8).map(|i| format!("write -P {} {} 100k", i + 1, i * 300 * KIB)).collect();
        let filled: Vec<&str> =
            filled.iter().map(String::as_str).take_while(|_| self.base_size > 2 * MIB).collect();
        peer::qemu_io(self.base_format, &base, &filled);
        let options = self.overlay.replace("DIR", dir.to_str().unwrap());
        let size = self.size.to_string();
        peer::qemu_img(&[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            &options,
            "-b",
            "base.img",
            "-F",
            self.base_format,
            arg(&overlay),
            &size,
        ]);
        let cluster =
            if self.overlay.contains("4k") && !self.overlay.contains("64k") { 4 * KIB } else { 64 * KIB };
        let zeros = !self.overlay.contains("0.10");
        let work = Workload { seed, size: self.size, cluster, compressed: self.compressed, zeros, steps: 25 };
        qemu_io(&overlay, &work.commands());
        (overlay, base)
    }

    fn base_disk(&self, base: &Path) -> Arc<Disk> {
        match self.base_format {
            "raw" => format::raw::open(open_file(base, true), true).unwrap(),
            _ => open(base, true).disk("base").unwrap(),
        }
    }
}

fn bytes(disk: &Disk) -> Vec<u8> {
    let mut all = vec![0; disk.len() as usize];
    disk.read_at(0, &mut all, Wait::Allowed).unwrap();
    all
}

#[test]
fn what_is_committed_is_what_qemu_commits() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    for (i, chain) in CHAINS.iter().enumerate() {
        let what = chain.overlay;
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (overlay, base) = chain.make(ours.path(), i as u64);
        let (their_overlay, their_base) = chain.make(theirs.path(), i as u64);
        let before = converted(&overlay, None);
        let base_disk = chain.base_disk(&base);
        let image = open(&overlay, true);
        let report =
            image.commit_into(base_disk.as_ref(), &copy::Options { zero_detect: true, ..Default::default() });
        let report = report.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(report.copied > 0 && report.skipped > 0, "{what}: {report:?}");
        base_disk.close().unwrap();
        drop(base_disk);
        // All of it is below; the overlay still covers it.
        assert!(converted(&overlay, None) == before, "{what}");
        image.empty().unwrap();
        image.disk("overlay").unwrap().close().unwrap();
        drop(image);
        peer::qemu_img(&["commit", "-q", arg(&their_overlay)]);
        peer::qemu_img(&[
            "compare",
            "-f",
            chain.base_format,
            "-F",
            chain.base_format,
            arg(&base),
            arg(&their_base),
        ]);
        let len = |path: &Path| path.metadata().unwrap().len();
        assert!(chain.base_format != "raw" || len(&base) == len(&their_base), "{what}");
        assert!(converted(&overlay, None) == before, "{what}: what is read through the overlay");
        peer::qemu_img(&["check", "-q", arg(&overlay)]);
        if chain.base_format == "qcow2" {
            peer::qemu_img(&["check", "-q", arg(&base)]);
        }
        let emptied = open(&overlay, true);
        let disk = emptied.disk("overlay").unwrap();
        let (extent, own) = disk.answer(0, disk.len(), Wait::Allowed).unwrap();
        assert!(!own, "{what}: {extent:?}");
        // It lives on.
        disk.write_at(5000, &[9; 70_000], Wait::Allowed).unwrap();
        disk.close().unwrap();
        assert!(emptied.check().unwrap().is_clean(), "{what}");
        drop((disk, emptied));
        let mut after = before;
        after[5000..75_000].fill(9);
        assert!(converted(&overlay, None) == after, "{what}");
    }
}

#[test]
fn what_cannot_be_committed_is_refused() {
    let source: Arc<dyn Source> = Arc::new(Memory::new(0));
    create(source.as_ref(), None, &New::of(MIB)).unwrap();
    let image = Arc::new(
        Image::open(source, &Options { writable: true, ..Options::default() }, &mut |_| unreachable!())
            .unwrap(),
    );
    let base = Memory::new(MIB);
    let kind = image.commit_into(&base, &copy::Options::default()).unwrap_err().kind();
    assert_eq!((kind, image.empty().unwrap_err().kind()), (Kind::Invalid, Kind::Invalid));
    let (overlay, _) = layers(&Parts::new(3));
    overlay.snapshot_create("s").unwrap();
    assert_eq!(overlay.commit_into(&base, &copy::Options::default()).unwrap_err().kind(), Kind::Invalid);
}

/// The bytes of a source, as a disk that stores none of its zeros.
fn sparse(source: &Arc<dyn Source>) -> Arc<Disk> {
    let mut all = vec![0; source.len() as usize];
    source.read_at(0, &mut all, Wait::Allowed).unwrap();
    let piece = |(i, page): (usize, &[u8])| {
        let (at, len) = (i as u64 * 4096, page.len() as u64);
        let empty = page.iter().all(|&b| b == 0);
        if empty { Extent::hole(at, len) } else { Extent::raw(at, len, SourceId(0), at) }
    };
    let table = Table::from_extents(all.len() as u64, all.chunks(4096).enumerate().map(piece)).unwrap();
    Disk::builder("sparse", Arc::new(table)).source(Arc::clone(source)).build().unwrap()
}

#[test]
fn zeros_that_are_held_where_nothing_is_stored_are_committed() {
    let (file, base): (Arc<dyn Source>, Arc<dyn Source>) =
        (Arc::new(Memory::new(0)), Arc::new(Memory::of(vec![7; MIB as usize])));
    let backing = Some(Backing { name: "base".into(), format: Some("raw".into()) });
    create(file.as_ref(), None, &New { backing, ..New::of(MIB) }).unwrap();
    let disk = open_in(&file, Some(&base), true).disk("overlay").unwrap();
    disk.write_at(64 * KIB, &[0; 64 << 10], Wait::Allowed).unwrap();
    disk.close().unwrap();
    drop(disk);
    let lies_in: Arc<dyn Source> = sparse(&file);
    let overlay = open_in(&lies_in, Some(&base), false);
    overlay.commit_into(base.as_ref(), &copy::Options::default()).unwrap();
    let mut wanted = vec![7; MIB as usize];
    wanted[64 << 10..128 << 10].fill(0);
    let mut found = vec![0; MIB as usize];
    base.read_at(0, &mut found, Wait::Allowed).unwrap();
    assert!(found == wanted);
}

/// An overlay and its base, in memory.
struct Parts {
    overlay: Arc<dyn Source>,
    base: Arc<dyn Source>,
}

fn open_in(source: &Arc<dyn Source>, below: Option<&Arc<dyn Source>>, writable: bool) -> Arc<Image> {
    let mut opener = |_: Needed<'_>| Ok(Arc::clone(below.unwrap()));
    let options = Options { writable, cache_bytes: 1, ..Options::default() };
    Image::open(Arc::clone(source), &options, &mut opener).map(Arc::new).unwrap()
}

/// The overlay, open for writing, over its base, and the base for writing.
fn layers(parts: &Parts) -> (Arc<Image>, Arc<Disk>) {
    let base: Arc<dyn Source> = open_in(&parts.base, None, false).disk("base").unwrap();
    (open_in(&parts.overlay, Some(&base), true), open_in(&parts.base, None, true).disk("base").unwrap())
}

fn scribble(disk: &Disk, rng: &mut Rng) {
    for _ in 0..10 {
        let (at, len) = rng.range(disk.len(), 40_000);
        let mut data = vec![0; len as usize];
        rng.fill(&mut data);
        disk.write_at(at, &data, Wait::Allowed).unwrap();
        let (at, len) = rng.range(disk.len(), 40_000);
        disk.set(at, len, chart::To::Zero, chart::SetMode { may_unmap: true, fast_only: false }).unwrap();
    }
}

impl Parts {
    fn new(seed: u64) -> Parts {
        let parts = Parts { overlay: Arc::new(Memory::new(0)), base: Arc::new(Memory::new(0)) };
        let mut rng = Rng::new(seed);
        create(parts.base.as_ref(), None, &New { cluster_bits: 12, ..New::of(400 * KIB) }).unwrap();
        let base = open_in(&parts.base, None, true).disk("base").unwrap();
        scribble(&base, &mut rng);
        base.close().unwrap();
        let backing = Some(Backing { name: "base".into(), format: Some("qcow2".into()) });
        let cluster_bits = 9 + rng.below(5) as u32;
        create(parts.overlay.as_ref(), None, &New { cluster_bits, backing, ..New::of(500 * KIB) }).unwrap();
        let (overlay, _) = layers(&parts);
        let disk = overlay.disk("overlay").unwrap();
        scribble(&disk, &mut rng);
        disk.close().unwrap();
        parts
    }

    fn read(&self) -> Vec<u8> {
        let base: Arc<dyn Source> = open_in(&self.base, None, false).disk("base").unwrap();
        bytes(&open_in(&self.overlay, Some(&base), false).disk("overlay").unwrap())
    }

    fn commit(&self) {
        let (overlay, base) = layers(self);
        overlay
            .commit_into(
                base.as_ref(),
                &copy::Options { threads: 1, zero_detect: true, ..Default::default() },
            )
            .unwrap();
        base.close().unwrap();
        overlay.empty().unwrap();
        overlay.disk("overlay").unwrap().close().unwrap();
    }

    fn judge(&self, before: &[u8]) -> Result<(), String> {
        for source in [&self.base, &self.overlay] {
            let options = Options { alone: true, ..Options::default() };
            let image = Image::open(Arc::clone(source), &options, &mut |_| unreachable!())
                .map_err(|e| e.to_string())?;
            let report = image.check().map_err(|e| e.to_string())?;
            if report.corruptions > 0 {
                return Err(format!("{:?}", report.findings));
            }
        }
        let now = self.read();
        match now.iter().zip(before).position(|(a, b)| a != b) {
            Some(at) => Err(format!("byte {at} is {}, not {}", now[at], before[at])),
            None => Ok(()),
        }
    }
}

fn qemu_finds_no_corruption(state: &State) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.qcow2");
    std::fs::write(&path, &state.bytes).unwrap();
    let said = peer::attempt("qemu-img", &["check", &qcow2_rebase::without_backing(&path)]);
    match said.status.code() {
        Some(0 | 3) => Ok(()),
        _ => Err(String::from_utf8_lossy(&said.stdout).into_owned()),
    }
}

#[test]
fn commit_interrupted_anywhere_is_harmless_and_can_be_done_again() {
    let ask_qemu = peer::require(&["qemu-img"]);
    for seed in 0..4 {
        let fresh = Parts::new(seed);
        let before = fresh.read();
        let recorder = |source: &Arc<dyn Source>| Arc::new(Recorder::new(Arc::clone(source)).unwrap());
        let (overlay, base) = (recorder(&fresh.overlay), recorder(&fresh.base));
        let old_overlay = overlay.log().initial;
        let parts = Parts { overlay: overlay.clone(), base: base.clone() };
        {
            let (image, disk) = layers(&parts);
            image
                .commit_into(
                    disk.as_ref(),
                    &copy::Options { threads: 1, zero_detect: true, ..Default::default() },
                )
                .unwrap();
            // The overlay is only touched when all of it is durable below.
            assert!(!base.has_unflushed() && overlay.count() == 0);
            disk.close().unwrap();
            image.empty().unwrap();
            image.disk("overlay").unwrap().close().unwrap();
        }
        let judged = std::cell::Cell::new(0);
        let memory = |bytes: &[u8]| -> Arc<dyn Source> { Arc::new(Memory::of(bytes.to_vec())) };
        let judge = |state: &State, parts: &Parts| {
            judged.set(judged.get() + 1);
            if ask_qemu && judged.get() % 20 == 0 {
                qemu_finds_no_corruption(state)?;
            }
            parts.judge(&before)?;
            if judged.get() % 5 == 0 {
                parts.commit();
                parts.judge(&before)?;
            }
            Ok(())
        };
        let budget = Budget { states: 500, seed };
        let in_base = crash::check(&base.log(), budget, |state| {
            judge(state, &Parts { overlay: memory(&old_overlay), base: memory(&state.bytes) })
        });
        let in_base = in_base.unwrap_or_else(|e| panic!("the base, seed {seed}: {e}"));
        let mut new_base = vec![0; base.len() as usize];
        base.read_at(0, &mut new_base, Wait::Allowed).unwrap();
        let in_overlay = crash::check(&overlay.log(), budget, |state| {
            judge(state, &Parts { overlay: memory(&state.bytes), base: memory(&new_base) })
        });
        let in_overlay = in_overlay.unwrap_or_else(|e| panic!("the overlay, seed {seed}: {e}"));
        assert!(in_base > 30 && in_overlay > 30, "{in_base} {in_overlay}");
    }
}
