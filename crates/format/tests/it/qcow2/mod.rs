//! qcow2 against qemu-img and qemu-io.

mod check;
mod create;
mod features;
mod hostile;
mod layers;
mod stretch;
mod variants;

use chart::{Disk, Result, Source, Wait};
use format::qcow2::{Image, Needed, Options, Role};
use io::file::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use testkit::{Rng, peer};

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn arg(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(crate) fn source(path: &Path) -> Arc<dyn Source> {
    Arc::new(File::open(path, io::file::Options::default()).unwrap())
}

pub(crate) fn source_rw(path: &Path) -> Arc<dyn Source> {
    let new = !path.exists();
    Arc::new(
        File::open(path, io::file::Options { writable: true, create_new: new, ..Default::default() })
            .unwrap(),
    )
}

/// Opens an image, and what it names from its own directory.
pub(crate) fn image(path: &Path, options: &Options) -> Result<Arc<Image>> {
    let dir = path.parent().unwrap().to_owned();
    let mut opener = move |needed: Needed<'_>| -> Result<Arc<dyn Source>> {
        let path = dir.join(needed.name);
        match (needed.role, needed.format) {
            (Role::Backing, Some("qcow2")) => Ok(disk(&path)?),
            _ => Ok(source(&path)),
        }
    };
    Image::open(source(path), options, &mut opener).map(Arc::new)
}

pub(crate) fn disk(path: &Path) -> Result<Arc<Disk>> {
    image(path, &Options::default())?.disk(arg(path))
}

pub(crate) fn read_all(disk: &Disk) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.len()).unwrap()];
    disk.read_at(0, &mut bytes, Wait::Allowed).unwrap();
    bytes
}

/// A new image, by qemu-img.
pub(crate) fn create(path: &Path, options: &[&str], size: u64) -> PathBuf {
    let (options, size) = (options.join(","), size.to_string());
    let mut args = vec!["create", "-q", "-f", "qcow2"];
    if !options.is_empty() {
        args.extend(["-o", &options]);
    }
    args.extend([arg(path), &size]);
    peer::qemu_img(&args);
    path.to_owned()
}

/// What may happen to an image.
#[derive(Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) seed: u64,
    pub(crate) size: u64,
    pub(crate) cluster: u64,
    pub(crate) compressed: bool,
    pub(crate) zeros: bool,
    pub(crate) steps: usize,
}

impl Workload {
    /// Commands for qemu-io. It only compresses what is not stored yet, so that comes first.
    pub(crate) fn commands(self) -> Vec<String> {
        let mut rng = Rng::new(self.seed);
        let whole = self.size / self.cluster;
        let mut commands = Vec::new();
        if self.compressed && whole > 0 {
            let mut clusters: Vec<u64> = (0..self.steps / 4).map(|_| rng.below(whole)).collect();
            clusters.sort_unstable();
            clusters.dedup();
            let pattern = 1 + rng.below(254);
            let write =
                |n: &u64| format!("write -c -P {} {} {}", pattern ^ (n & 1), n * self.cluster, self.cluster);
            commands.extend(clusters.iter().map(write));
        }
        commands.extend((0..self.steps).map(|_| self.command(&mut rng)));
        commands
    }

    fn command(self, rng: &mut Rng) -> String {
        let pattern = 1 + rng.below(254);
        let sectors = self.size / 512;
        let at = rng.below(sectors) * 512;
        let len = (1 + rng.below(3 * self.cluster / 512)) * 512;
        let len = len.min(sectors * 512 - at);
        let (start, clusters) = (at - at % self.cluster, 1 + rng.below(3));
        let whole = (clusters * self.cluster).min(self.size - start);
        match rng.below(6) {
            0 if self.zeros => format!("write -z {at} {len}"),
            1 if self.zeros => format!("write -z -u {start} {whole}"),
            2 => format!("discard {start} {whole}"),
            _ => format!("write -P {pattern} {at} {len}"),
        }
    }
}

pub(crate) fn qemu_io(path: &Path, commands: &[String]) {
    for commands in commands.chunks(60) {
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        peer::qemu_io("qcow2", path, &commands);
    }
}

/// What qemu-img reads.
pub(crate) fn converted(path: &Path, snapshot: Option<&str>) -> Vec<u8> {
    let out = path.with_extension("converted");
    let mut args = vec!["convert", "-q", "-f", "qcow2", "-O", "raw"];
    let option = snapshot.map(|name| format!("snapshot.name={name}"));
    if let Some(option) = &option {
        args.extend(["-l", option]);
    }
    args.extend([arg(path), arg(&out)]);
    peer::qemu_img(&args);
    let bytes = std::fs::read(&out).unwrap();
    std::fs::remove_file(&out).unwrap();
    bytes
}

/// Our bytes are qemu-img's, read whole, at random, and without waiting where that can be.
pub(crate) fn same_bytes(path: &Path, disk: &Disk, expected: &[u8], what: &str) {
    // A raw file has whole sectors, whatever the image says.
    assert_eq!(disk.len(), expected.len() as u64, "{what}");
    let bytes = read_all(disk);
    if let Some(i) = bytes.iter().zip(expected).position(|(a, b)| a != b) {
        panic!("{what}: {} differs at byte {i:#x}: {:#x}, not {:#x}", path.display(), bytes[i], expected[i]);
    }
    let mut rng = Rng::new(7);
    for _ in 0..200 {
        let (at, len) = rng.range(disk.len(), 200 * KIB);
        let mut buf = vec![0xee; usize::try_from(len).unwrap()];
        match disk.read_at(at, &mut buf, Wait::Never) {
            Ok(()) => {}
            Err(e) if e.is_would_block() => disk.read_at(at, &mut buf, Wait::Allowed).unwrap(),
            Err(e) => panic!("{what}: {e}"),
        }
        let at = usize::try_from(at).unwrap();
        assert!(buf == expected[at..at + buf.len()], "{what}: {len} bytes at {at:#x}");
    }
    testkit::contract::chart_law(disk).unwrap_or_else(|e| panic!("{what}: {e}"));
    testkit::contract::chart_agrees_with_read(disk).unwrap_or_else(|e| panic!("{what}: {e}"));
}

/// What `qemu-img check` says, and that we say the same.
pub(crate) fn same_check(path: &Path, what: &str) -> serde_json::Value {
    let output = peer::attempt("qemu-img", &["check", "--output=json", "-f", "qcow2", arg(path)]);
    let theirs: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!("{what}: {e}: {}", String::from_utf8_lossy(&output.stderr));
    });
    let options = Options { alone: true, allow_corrupt: true, ..Options::default() };
    let ours = image(path, &options).unwrap().check().unwrap_or_else(|e| panic!("{what}: {e}"));
    let number = |name: &str| theirs.get(name).and_then(serde_json::Value::as_u64).unwrap_or(0);
    let pairs = [
        ("corruptions", ours.corruptions),
        ("leaks", ours.leaks),
        ("total-clusters", ours.total_clusters),
        ("allocated-clusters", ours.allocated_clusters),
        ("fragmented-clusters", ours.fragmented_clusters),
        ("compressed-clusters", ours.compressed_clusters),
        ("image-end-offset", ours.image_end_offset),
    ];
    for (name, ours_number) in pairs {
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(ours_number, number(name), "{what}: {name}\n{said}\n{ours:#?}");
    }
    theirs
}
