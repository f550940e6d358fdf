//! Writing qcow2 images in place: what is left must be what qemu-img says it is.

use chart::{Disk, SetMode, Source, To, Wait};
use format::qcow2::{Image, Needed, Options, Role};
use io::file::{File, Options as Open};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use testkit::peer;

const MB: u64 = 1 << 20;

/// A kind of image, as qemu-img is told to make it.
struct Variant {
    options: &'static str,
    backing: Option<u64>,
    size: u64,
}

const VARIANTS: &[Variant] = &[
    Variant { options: "cluster_size=64k", backing: None, size: 8 * MB },
    Variant { options: "compat=0.10,cluster_size=4k", backing: None, size: 3 * MB + 512 },
    Variant { options: "compat=0.10,cluster_size=512", backing: Some(2 * MB), size: 2 * MB },
    Variant { options: "cluster_size=512,refcount_bits=64", backing: None, size: 2 * MB },
    Variant { options: "cluster_size=512,refcount_bits=1", backing: None, size: 4 * MB },
    Variant { options: "cluster_size=512,refcount_bits=2", backing: None, size: 2 * MB },
    Variant { options: "cluster_size=1k,refcount_bits=4", backing: Some(3 * MB), size: 4 * MB },
    Variant { options: "cluster_size=512,refcount_bits=32", backing: None, size: 2 * MB },
    Variant { options: "cluster_size=64k", backing: Some(5 * MB + 512), size: 8 * MB },
    Variant { options: "cluster_size=4k,refcount_bits=8", backing: Some(9 * MB), size: 4 * MB },
    Variant { options: "cluster_size=2M", backing: Some(8 * MB), size: 16 * MB },
    Variant { options: "cluster_size=16k,extended_l2=on", backing: None, size: 4 * MB },
    Variant { options: "cluster_size=64k,extended_l2=on", backing: Some(6 * MB), size: 8 * MB },
    Variant { options: "cluster_size=64k,lazy_refcounts=on", backing: None, size: 4 * MB },
    Variant { options: "cluster_size=64k,data_file=data.raw", backing: None, size: 4 * MB },
    Variant { options: "cluster_size=64k,data_file=data.raw,data_file_raw=on", backing: None, size: 4 * MB },
];

fn open_file(path: &Path, writable: bool) -> Arc<dyn Source> {
    Arc::new(File::open(path, Open { writable, ..Open::default() }).unwrap())
}

fn raw_disk(path: &Path, writable: bool) -> Arc<Disk> {
    format::raw::open(open_file(path, writable), writable).unwrap()
}

fn open(path: &Path, writable: bool) -> Arc<Disk> {
    let folder = path.parent().unwrap().to_path_buf();
    let options = Options { writable, cache_bytes: 1, ..Options::default() };
    let mut opener = |needed: Needed<'_>| -> chart::Result<Arc<dyn Source>> {
        let other = folder.join(needed.name);
        Ok(match needed.role {
            Role::DataFile => open_file(&other, writable),
            Role::Backing => raw_disk(&other, false),
        })
    };
    let image = Image::open(open_file(path, writable), &options, &mut opener).unwrap();
    Arc::new(image).disk("test").unwrap()
}

struct Bench {
    dir: tempfile::TempDir,
    image: PathBuf,
    model: Vec<u8>,
    /// Bytes that may have kept their old value: discarded ones.
    loose: Vec<bool>,
}

fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = testkit::Rng::new(seed);
    (0..len).map(|_| (rng.below(255) + 1) as u8).collect()
}

impl Bench {
    fn new(variant: &Variant, seed: u64) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image.qcow2");
        let mut model = vec![0; variant.size as usize];
        let size = variant.size.to_string();
        let mut args = vec!["create", "-q", "-f", "qcow2", "-o", variant.options];
        if let Some(len) = variant.backing {
            let bytes = pattern(seed, len as usize);
            let shared = bytes.len().min(model.len());
            model[..shared].copy_from_slice(&bytes[..shared]);
            std::fs::write(dir.path().join("base.raw"), bytes).unwrap();
            args.extend(["-b", "base.raw", "-F", "raw"]);
        }
        let options = variant.options.replace("data.raw", dir.path().join("data.raw").to_str().unwrap());
        args[5] = &options;
        args.extend([image.to_str().unwrap(), &size]);
        peer::qemu_img(&args);
        let loose = vec![false; model.len()];
        Bench { dir, image, model, loose }
    }

    fn agree(&self, disk: &Disk, from: usize, len: usize) {
        let mut buf = vec![0; len];
        disk.read_at(from as u64, &mut buf, Wait::Allowed).unwrap();
        for (i, byte) in buf.iter().enumerate() {
            let at = from + i;
            assert!(
                *byte == self.model[at] || (self.loose[at] && *byte == 0),
                "byte {at} is {byte}, not {}",
                self.model[at]
            );
        }
    }

    fn step(&mut self, disk: &Disk, rng: &mut testkit::Rng) {
        let size = self.model.len() as u64;
        let most = [512, 5000, 70_000, 400_000][rng.below(4) as usize];
        let at = rng.below(size);
        let len = (rng.below(most) + 1).min(size - at);
        let range = at as usize..(at + len) as usize;
        match rng.below(10) {
            0..=4 => {
                let data = pattern(rng.next_u64(), len as usize);
                disk.write_at(at, &data, Wait::Allowed).unwrap();
                self.model[range.clone()].copy_from_slice(&data);
                self.loose[range].fill(false);
            }
            5..=6 => {
                let mode = SetMode { may_unmap: rng.below(2) == 0, fast_only: false };
                disk.set(at, len, To::Zero, mode).unwrap();
                self.model[range.clone()].fill(0);
                self.loose[range].fill(false);
            }
            7 => {
                disk.set(at, len, To::Hole, SetMode { may_unmap: true, fast_only: false }).unwrap();
                self.loose[range].fill(true);
            }
            8 => disk.flush().unwrap(),
            _ => self.agree(disk, range.start, range.len()),
        }
    }

    /// What qemu-img reads in it.
    fn as_qemu_reads(&self) -> Vec<u8> {
        let out = self.dir.path().join("out.raw");
        peer::qemu_img(&["convert", "-O", "raw", self.image.to_str().unwrap(), out.to_str().unwrap()]);
        std::fs::read(out).unwrap()
    }
}

fn check(image: &Path) {
    peer::qemu_img(&["check", "-q", image.to_str().unwrap()]);
}

#[test]
fn random_operations_leave_an_image_that_qemu_agrees_with() {
    if !peer::require(&["qemu-img"]) {
        return;
    }
    for (i, variant) in VARIANTS.iter().enumerate() {
        for seed in 0..2 {
            let mut bench = Bench::new(variant, seed);
            let mut rng = testkit::Rng::new(seed * 100 + i as u64);
            for round in 0..3 {
                let disk = open(&bench.image, true);
                for _ in 0..60 {
                    bench.step(&disk, &mut rng);
                }
                bench.agree(&disk, 0, bench.model.len());
                disk.close().unwrap();
                drop(disk);
                eprintln!("{} seed {seed} round {round}", variant.options);
                check(&bench.image);
                let qemu = bench.as_qemu_reads();
                let mut ours = vec![0; bench.model.len()];
                open(&bench.image, false).read_at(0, &mut ours, Wait::Allowed).unwrap();
                assert!(qemu == ours, "{}: qemu-img reads something else", variant.options);
            }
        }
    }
}

#[test]
fn resizing_keeps_what_stays_and_shows_nothing_old() {
    if !peer::require(&["qemu-img"]) {
        return;
    }
    for variant in VARIANTS {
        let mut bench = Bench::new(variant, 7);
        let disk = open(&bench.image, true);
        let mut rng = testkit::Rng::new(3);
        for size in [variant.size / 1024 * 512 + 512, variant.size * 3, 512 * 77, variant.size] {
            for _ in 0..20 {
                bench.step(&disk, &mut rng);
            }
            disk.resize(size).unwrap_or_else(|e| panic!("{}: {size}: {e}", variant.options));
            bench.model.resize(size as usize, 0);
            bench.loose.resize(size as usize, false);
            bench.agree(&disk, 0, size as usize);
        }
        disk.close().unwrap();
        drop(disk);
        eprintln!("{}", variant.options);
        check(&bench.image);
        let qemu = bench.as_qemu_reads();
        assert_eq!(qemu.len(), bench.model.len());
        bench.agree(&open(&bench.image, false), 0, qemu.len());
    }
}
