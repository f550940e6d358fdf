//! Bitmaps: kept true by every write, stored so that a crash never leaves one silently out of date, and the same to
//! QEMU as its own.

use crate::qcow2::{KIB, MIB, arg};
use chart::{Disk, Kind, Place, SetMode, Source, To, Wait};
use format::qcow2::{Image, Needed, Options, Role};
use io::file::{File, Options as Open};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use testkit::crash::{self, Budget};
use testkit::source::{Memory, Recorder};
use testkit::{Rng, peer};

const TOOLS: &[&str] = &["qemu-img", "qemu-io", "qemu-nbd", "nbdinfo"];

pub(crate) fn open_file(path: &Path, writable: bool) -> Arc<dyn Source> {
    Arc::new(File::open(path, Open { writable, ..Open::default() }).unwrap())
}

/// Opens an image over raw or qcow2 files beside it, with the smallest cache there is.
pub(crate) fn open(path: &Path, writable: bool) -> Arc<Image> {
    let folder = path.parent().unwrap().to_path_buf();
    let mut opener = |needed: Needed<'_>| -> chart::Result<Arc<dyn Source>> {
        let other = folder.join(needed.name);
        Ok(match (needed.role, needed.format) {
            (Role::DataFile, _) => open_file(&other, writable),
            (Role::Backing, Some("qcow2")) => open(&other, false).disk("below")?,
            (Role::Backing, _) => format::raw::open(open_file(&other, false), false)?,
        })
    };
    let options = Options { writable, cache_bytes: 1, ..Options::default() };
    Image::open(open_file(path, writable), &options, &mut opener).map(Arc::new).unwrap()
}

fn bitmap(path: &Path, args: &[&str], name: &str) {
    let mut all = vec!["bitmap"];
    all.extend(args);
    all.extend([arg(path), name]);
    peer::qemu_img(&all);
}

/// What qemu-img info says of the bitmaps: name, flags, granularity.
fn listed(path: &Path) -> Vec<(String, Vec<String>, u64)> {
    let said = peer::qemu_img(&["info", "--output=json", arg(path)]);
    let info: serde_json::Value = serde_json::from_str(&said).unwrap();
    let list = info["format-specific"]["data"]["bitmaps"].as_array().cloned().unwrap_or_default();
    let text = |v: &serde_json::Value| v.as_str().unwrap().to_owned();
    list.iter()
        .map(|b| {
            let flags = b["flags"].as_array().unwrap().iter().map(text).collect();
            (text(&b["name"]), flags, b["granularity"].as_u64().unwrap())
        })
        .collect()
}

/// What qemu-nbd says is dirty.
fn dirty_by_qemu(path: &Path, name: &str) -> Vec<Range<u64>> {
    let socket = path.with_extension(format!("{name}.sock"));
    let mut server = Command::new("qemu-nbd")
        .args(["-r", "-f", "qcow2", "-B", name, "-k", arg(&socket), arg(path)])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while !socket.exists() {
        assert!(began.elapsed() < Duration::from_secs(20), "qemu-nbd does not listen");
        assert!(server.try_wait().unwrap().is_none(), "qemu-nbd refuses bitmap {name}");
        std::thread::sleep(Duration::from_millis(5));
    }
    let uri = format!("nbd+unix:///?socket={}", arg(&socket));
    let map = format!("--map=qemu:dirty-bitmap:{name}");
    let said = peer::run("nbdinfo", &["--json", &map, &uri]);
    // It ends when its client has left.
    server.wait().unwrap();
    let _ = std::fs::remove_file(&socket);
    let map: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    let number = |run: &serde_json::Value, key: &str| run[key].as_u64().unwrap();
    let runs = map.as_array().unwrap().iter().filter(|run| number(run, "type") & 1 != 0);
    runs.map(|run| number(run, "offset")..number(run, "offset") + number(run, "length")).collect()
}

/// What we say is dirty.
fn dirty_by_us(image: &Image, name: &str) -> Vec<Range<u64>> {
    let map = image.dirty_map(name).unwrap();
    let (mut at, mut runs) = (0, Vec::new());
    while at < map.disk_size() {
        let (dirty, len) = map.run(at, u64::MAX);
        if dirty {
            runs.push(at..at + len);
        }
        at += len;
    }
    runs
}

/// Sectors of a disk that a bitmap must, or may, call dirty.
#[derive(Clone)]
struct Expected {
    granularity: u64,
    must: Vec<bool>,
    may: Vec<bool>,
}

impl Expected {
    fn new(size: u64, granularity: u64) -> Expected {
        let granules = size.div_ceil(granularity) as usize;
        Expected { granularity, must: vec![false; granules], may: vec![false; granules] }
    }

    fn granules(&self, range: Range<u64>) -> Range<usize> {
        if range.is_empty() {
            return 0..0;
        }
        (range.start / self.granularity) as usize..range.end.div_ceil(self.granularity) as usize
    }

    fn touch(&mut self, must: Range<u64>, may: Range<u64>) {
        let (must, may) = (self.granules(must), self.granules(may));
        self.must[must].fill(true);
        self.may[may].fill(true);
    }

    fn holds(&self, dirty: &[Range<u64>], what: &str) {
        let mut found = vec![false; self.must.len()];
        dirty.iter().for_each(|run| found[self.granules(run.clone())].fill(true));
        for (i, found) in found.iter().enumerate() {
            let at = i as u64 * self.granularity;
            assert!(*found || !self.must[i], "{what}: the granule at {at} was written and is clean");
            assert!(!*found || self.may[i], "{what}: the granule at {at} is dirty and was not touched");
        }
    }
}

struct Bench {
    dir: tempfile::TempDir,
    path: PathBuf,
    size: u64,
    cluster: u64,
}

impl Bench {
    fn new(options: &str, size: u64, backing: bool) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image.qcow2");
        let options = options.replace("data.raw", dir.path().join("data.raw").to_str().unwrap());
        let mut args = vec!["create", "-q", "-f", "qcow2", "-o", &options];
        if backing {
            std::fs::write(dir.path().join("base.raw"), vec![0x55; (size as usize - 5000) & !511]).unwrap();
            args.extend(["-b", "base.raw", "-F", "raw"]);
        }
        let len = size.to_string();
        args.extend([arg(&path), &len]);
        peer::qemu_img(&args);
        let said = peer::qemu_img(&["info", "--output=json", arg(&path)]);
        let info: serde_json::Value = serde_json::from_str(&said).unwrap();
        Bench { cluster: info["cluster-size"].as_u64().unwrap(), dir, path, size }
    }

    fn check(&self) {
        peer::qemu_img(&["check", "-q", arg(&self.path)]);
    }

    fn step(&self, disk: &Disk, rng: &mut Rng, all: &mut [Expected]) {
        let most = [700, 9000, 90_000][rng.below(3) as usize];
        let (at, len) = rng.range(self.size, most);
        let range = at..at + len;
        let inner_end =
            if range.end == self.size { range.end } else { range.end / self.cluster * self.cluster };
        let inner_start = at.next_multiple_of(self.cluster).min(inner_end);
        let mode = SetMode { may_unmap: rng.once_in(2), fast_only: false };
        let mut touch = |must: Range<u64>| all.iter_mut().for_each(|e| e.touch(must.clone(), range.clone()));
        match rng.below(8) {
            0..=3 => {
                disk.write_at(at, &vec![rng.below(255) as u8 + 1; len as usize], Wait::Allowed).unwrap();
                touch(range.clone());
            }
            4 => {
                disk.set(at, len, To::Zero, mode).unwrap();
                touch(inner_start..inner_end);
            }
            5 => {
                disk.set(at, len, To::Hole, SetMode { may_unmap: true, fast_only: false }).unwrap();
                touch(inner_start..inner_end);
            }
            6 => drop(disk.fill_up(at, len).unwrap()),
            _ => disk.flush().unwrap(),
        }
    }
}

/// Law 4: no extent is writable where a bitmap that follows writes does not know of them yet.
fn writable_only_where_marked(image: &Image, disk: &Disk, names: &[&str], rng: &mut Rng) {
    let maps: Vec<_> = names.iter().map(|name| image.dirty_map(name).unwrap()).collect();
    for _ in 0..20 {
        let (at, want) = rng.range(disk.len(), 300_000);
        let (extent, _) = disk.answer(at, want, Wait::Allowed).unwrap();
        if extent.writable {
            assert!(matches!(extent.place, Place::Raw { .. }));
            for map in &maps {
                let (dirty, len) = map.run(at, extent.len);
                assert!(dirty && len == extent.len, "{extent:?} is writable and not marked");
            }
        }
    }
}

const VARIANTS: &[(&str, u64, bool)] = &[
    ("cluster_size=64k", 6 * MIB, false),
    ("cluster_size=4k", 3 * MIB + 1536, true),
    ("cluster_size=512,refcount_bits=64", 300 * KIB, false),
    ("cluster_size=64k,extended_l2=on", 5 * MIB, true),
    ("cluster_size=2M", 9 * MIB, false),
    ("cluster_size=64k,data_file=data.raw", 4 * MIB, false),
];

#[test]
fn every_write_is_recorded_and_qemu_reads_the_same() {
    if !peer::require(TOOLS) {
        return;
    }
    for (i, &(options, size, backing)) in VARIANTS.iter().enumerate() {
        let bench = Bench::new(options, size, backing);
        bitmap(&bench.path, &["--add", "-g", "64k"], "coarse");
        bitmap(&bench.path, &["--add", "-g", "512"], "fine");
        bitmap(&bench.path, &["--add", "--disable", "-g", "4k"], "still");
        let mut rng = Rng::new(i as u64);
        let mut all = vec![Expected::new(size, 65536), Expected::new(size, 512)];
        for round in 0..3 {
            let what = format!("{options} round {round}");
            let image = open(&bench.path, true);
            let disk = image.disk("test").unwrap();
            for _ in 0..12 {
                bench.step(&disk, &mut rng, &mut all);
                writable_only_where_marked(&image, &disk, &["coarse", "fine"], &mut rng);
            }
            disk.close().unwrap();
            if round == 1 {
                // Open still: written again, and closed again.
                bench.step(&disk, &mut rng, &mut all);
                disk.close().unwrap();
            }
            for (name, expected) in ["coarse", "fine"].iter().zip(&all) {
                expected.holds(&dirty_by_us(&image, name), &what);
            }
            drop((disk, image));
            bench.check();
            let flags: Vec<_> =
                listed(&bench.path).into_iter().map(|(name, flags, _)| (name, flags)).collect();
            let auto = || vec!["auto".to_owned()];
            assert_eq!(flags, [("coarse".into(), auto()), ("fine".into(), auto()), ("still".into(), vec![])]);
            for (name, expected) in ["coarse", "fine"].iter().zip(&all) {
                let theirs = dirty_by_qemu(&bench.path, name);
                expected.holds(&theirs, &what);
                assert_eq!(theirs, dirty_by_us(&open(&bench.path, false), name), "{what}");
            }
            assert!(dirty_by_qemu(&bench.path, "still").is_empty());
            // QEMU goes on with them.
            peer::qemu_io("qcow2", &bench.path, &["write -P 7 1024 512"]);
            all.iter_mut().for_each(|e| e.touch(1024..1536, 1024..1536));
        }
    }
}

#[test]
fn an_image_that_was_not_closed_says_so_of_its_bitmaps() {
    if !peer::require(TOOLS) {
        return;
    }
    let bench = Bench::new("cluster_size=64k", 4 * MIB, false);
    bitmap(&bench.path, &["--add"], "a");
    bitmap(&bench.path, &["--add", "--disable"], "b");
    let image = open(&bench.path, true);
    let disk = image.disk("test").unwrap();
    disk.read_at(0, &mut [0; 512], Wait::Allowed).unwrap();
    assert_eq!(listed(&bench.path)[0].1, ["auto"], "nothing was written yet");
    disk.write_at(0, &[1; 512], Wait::Allowed).unwrap();
    disk.flush().unwrap();
    drop((disk, image));
    assert_eq!(listed(&bench.path)[0].1, ["in-use", "auto"]);
    assert!(listed(&bench.path)[1].1.is_empty());
    bench.check();
    // It stays so, whoever writes, until somebody removes it.
    let image = open(&bench.path, true);
    assert_eq!(image.dirty_map("a").unwrap_err().kind(), Kind::Conflict);
    let disk = image.disk("test").unwrap();
    disk.write_at(9000, &[2; 512], Wait::Allowed).unwrap();
    assert_eq!(disk.resize(8 * MIB).unwrap_err().kind(), Kind::Conflict);
    assert_eq!(image.bitmap_clear("a").unwrap_err().kind(), Kind::Conflict);
    disk.close().unwrap();
    assert_eq!(listed(&bench.path)[0].1, ["in-use", "auto"]);
    image.bitmap_remove("a").unwrap();
    assert_eq!(listed(&bench.path).len(), 1);
    disk.resize(8 * MIB).unwrap();
    disk.close().unwrap();
    bench.check();
    assert!(image.check().unwrap().is_clean());
}

#[test]
fn bitmaps_are_edited_as_qemu_img_does() {
    if !peer::require(TOOLS) {
        return;
    }
    let (ours, theirs) =
        (Bench::new("cluster_size=64k", 4 * MIB, true), Bench::new("cluster_size=64k", 4 * MIB, true));
    let image = open(&ours.path, true);
    let disk = image.disk("test").unwrap();
    let same = || {
        assert_eq!(listed(&ours.path), listed(&theirs.path));
        for (name, ..) in listed(&ours.path) {
            assert_eq!(dirty_by_qemu(&ours.path, &name), dirty_by_qemu(&theirs.path, &name), "{name}");
        }
        ours.check();
        assert!(image.check().unwrap().is_clean());
    };
    let write = |at: u64, len: u64| {
        disk.write_at(at, &vec![3; len as usize], Wait::Allowed).unwrap();
        disk.close().unwrap();
        peer::qemu_io("qcow2", &theirs.path, &[&format!("write -P 3 {at} {len}")]);
    };
    image.bitmap_add("a", None, true).unwrap();
    bitmap(&theirs.path, &["--add"], "a");
    image.bitmap_add("b", Some(4096), false).unwrap();
    bitmap(&theirs.path, &["--add", "--disable", "-g", "4096"], "b");
    same();
    write(70_000, 512);
    same();
    image.bitmap_enable("b").unwrap();
    bitmap(&theirs.path, &["--enable"], "b");
    image.bitmap_disable("a").unwrap();
    bitmap(&theirs.path, &["--disable"], "a");
    write(1_000_448, 1024);
    same();
    image.bitmap_merge("b", &image.dirty_map("a").unwrap()).unwrap();
    bitmap(&theirs.path, &["--merge", "a"], "b");
    image.bitmap_merge("a", &image.dirty_map("b").unwrap()).unwrap();
    bitmap(&theirs.path, &["--merge", "b"], "a");
    same();
    image.bitmap_clear("b").unwrap();
    bitmap(&theirs.path, &["--clear"], "b");
    write(2 * MIB, 600_064);
    same();
    image.bitmap_remove("a").unwrap();
    bitmap(&theirs.path, &["--remove"], "a");
    same();
    image.bitmap_remove("b").unwrap();
    bitmap(&theirs.path, &["--remove"], "b");
    same();
    let kind = |done: chart::Result<()>| done.unwrap_err().kind();
    assert_eq!(kind(image.bitmap_remove("b")), Kind::NotFound);
    assert_eq!(kind(image.bitmap_add("c", Some(1000), true)), Kind::Invalid);
    assert_eq!(kind(image.bitmap_add("", None, true)), Kind::Invalid);
    image.bitmap_add("c", None, true).unwrap();
    assert_eq!(kind(image.bitmap_add("c", None, true)), Kind::Conflict);
    assert!(ours.dir.path().exists());
}

#[test]
fn resizing_takes_bitmaps_along_as_qemu_does() {
    if !peer::require(TOOLS) {
        return;
    }
    // 512-byte clusters, so that bitmaps have tables of several entries that come and go.
    for options in ["cluster_size=64k", "cluster_size=512"] {
        let (ours, theirs) = (Bench::new(options, 6 * MIB, false), Bench::new(options, 6 * MIB, false));
        for bench in [&ours, &theirs] {
            bitmap(&bench.path, &["--add", "-g", "512"], "a");
            bitmap(&bench.path, &["--add", "-g", "64k"], "b");
            peer::qemu_io("qcow2", &bench.path, &["write 0 2M", "write 3M 1M", "write 5999616 1k"]);
            bitmap(&bench.path, &["--disable"], "b");
        }
        for size in [9 * MIB, 4 * MIB - 64 * KIB, 5 * MIB, 10 * MIB] {
            let image = open(&ours.path, true);
            let disk = image.disk("test").unwrap();
            disk.resize(size).unwrap();
            disk.close().unwrap();
            drop((disk, image));
            peer::qemu_img(&[
                "resize",
                "-q",
                "--shrink",
                "-f",
                "qcow2",
                arg(&theirs.path),
                &size.to_string(),
            ]);
            ours.check();
            assert_eq!(listed(&ours.path), listed(&theirs.path));
            for name in ["a", "b"] {
                let (a, b) = (dirty_by_qemu(&ours.path, name), dirty_by_qemu(&theirs.path, name));
                assert_eq!(a, b, "{options} {name} {size}");
            }
        }
    }
}

#[test]
fn after_applying_a_snapshot_all_is_dirty() {
    if !peer::require(TOOLS) {
        return;
    }
    let bench = Bench::new("cluster_size=64k", 4 * MIB, false);
    let image = open(&bench.path, true);
    let disk = image.disk("test").unwrap();
    image.snapshot_create("s").unwrap();
    disk.resize(5 * MIB).unwrap();
    image.bitmap_add("a", None, true).unwrap();
    image.bitmap_add("b", None, false).unwrap();
    image.snapshot_apply("s").unwrap();
    disk.close().unwrap();
    let whole = 0..4 * MIB;
    assert_eq!(dirty_by_qemu(&bench.path, "a"), [whole]);
    assert!(dirty_by_qemu(&bench.path, "b").is_empty());
    bench.check();
}

#[test]
fn a_bitmap_that_is_too_large_is_left_inconsistent() {
    if !peer::require(TOOLS) {
        return;
    }
    // 64 MiB of bits of 512 bytes each are 256 GiB.
    let bench = Bench::new("cluster_size=64k", 257 << 30, false);
    bitmap(&bench.path, &["--add", "-g", "512"], "large");
    bitmap(&bench.path, &["--add", "-g", "64k"], "small");
    let image = open(&bench.path, true);
    let disk = image.disk("test").unwrap();
    disk.write_at(200 << 30, &[1; 512], Wait::Allowed).unwrap();
    disk.close().unwrap();
    assert_eq!(listed(&bench.path)[0].1, ["in-use", "auto"]);
    assert_eq!(listed(&bench.path)[1].1, ["auto"]);
    let run = 200 << 30..(200 << 30) + 65536;
    assert_eq!(dirty_by_qemu(&bench.path, "small"), [run]);
    assert_eq!(image.bitmap_add("more", Some(512), true).unwrap_err().kind(), Kind::Unsupported);
    bench.check();
}

/// Whatever a crash leaves: no bitmap says that something is clean that is not.
#[test]
fn a_crash_leaves_no_bitmap_silently_out_of_date() {
    let ask_qemu = peer::require(&["qemu-img"]);
    for (seed, (options, size, backing)) in
        [VARIANTS[0], VARIANTS[1], VARIANTS[2], VARIANTS[3]].iter().enumerate()
    {
        if !ask_qemu {
            return;
        }
        let size = &(*size).min(MIB);
        let bench = Bench::new(options, *size, *backing);
        let image = open(&bench.path, true);
        let disk = image.disk("test").unwrap();
        let mut rng = Rng::new(seed as u64 + 40);
        let mut ignored = [Expected::new(*size, 512)];
        (0..10).for_each(|_| bench.step(&disk, &mut rng, &mut ignored));
        image.bitmap_add("fine", Some(512), true).unwrap();
        image.bitmap_add("coarse", Some(65536), true).unwrap();
        let mut before = vec![0; *size as usize];
        disk.read_at(0, &mut before, Wait::Allowed).unwrap();
        drop((disk, image));
        let below = backing.then(|| std::fs::read(bench.dir.path().join("base.raw")).unwrap());
        let recorder =
            Arc::new(Recorder::new(Arc::new(Memory::of(std::fs::read(&bench.path).unwrap()))).unwrap());
        let image = in_memory(recorder.clone(), below.as_ref(), true);
        let disk = image.disk("test").unwrap();
        for round in 0..3 {
            (0..6).for_each(|_| bench.step(&disk, &mut rng, &mut ignored));
            match round {
                0 => disk.close().unwrap(),
                1 => image.bitmap_add("late", None, false).unwrap(),
                _ => image.bitmap_disable("late").unwrap(),
            }
        }
        let judged = std::cell::Cell::new(0);
        let judge = |state: &crash::State| {
            judged.set(judged.get() + 1);
            if judged.get() % 16 == 0 {
                let file = bench.dir.path().join("state.qcow2");
                std::fs::write(&file, &state.bytes).map_err(|e| e.to_string())?;
                let said = peer::attempt("qemu-img", &["check", arg(&file)]);
                if !matches!(said.status.code(), Some(0 | 3)) {
                    return Err(String::from_utf8_lossy(&said.stdout).into_owned());
                }
            }
            judge_bitmaps(state.bytes.clone(), below.as_ref(), &before).map_err(|e| e.to_string())?
        };
        let states = crash::check(&recorder.log(), Budget { states: 1200 * crash::times(), seed: 1 }, judge);
        let states = states.unwrap_or_else(|e| panic!("{options}: {e}"));
        assert!(states > 150, "{states}");
    }
}

fn in_memory(source: Arc<dyn Source>, below: Option<&Vec<u8>>, writable: bool) -> Arc<Image> {
    let mut opener = |needed: Needed<'_>| -> chart::Result<Arc<dyn Source>> {
        assert_eq!(needed.role, Role::Backing);
        Ok(format::raw::open(Arc::new(Memory::of(below.unwrap().clone())), false)?)
    };
    Image::open(source, &Options { writable, ..Options::default() }, &mut opener).map(Arc::new).unwrap()
}

fn judge_bitmaps(
    bytes: Vec<u8>,
    below: Option<&Vec<u8>>,
    before: &[u8],
) -> chart::Result<Result<(), String>> {
    let image = in_memory(Arc::new(Memory::of(bytes)), below, false);
    let report = image.check()?;
    if report.corruptions > 0 {
        return Ok(Err(format!("{:?}", report.findings)));
    }
    let mut now = vec![0; before.len()];
    image.disk("state")?.read_at(0, &mut now, Wait::Allowed)?;
    let bitmaps = image.bitmaps()?;
    if bitmaps.len() < 2 {
        return Ok(Err(format!("bitmaps are gone: {bitmaps:?}")));
    }
    for bitmap in bitmaps.iter().filter(|b| b.is_usable() && b.is_auto()) {
        let map = image.dirty_map(&bitmap.name)?;
        let changed = (0..before.len()).step_by(512).find(|&at| {
            let sector = at..(at + 512).min(before.len());
            before[sector.clone()] != now[sector] && !map.is_dirty(at as u64)
        });
        if let Some(at) = changed {
            return Ok(Err(format!("bitmap {:?} calls byte {at} clean, which was written", bitmap.name)));
        }
    }
    Ok(Ok(()))
}
