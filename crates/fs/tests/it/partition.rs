//! Partition tables that sfdisk and sgdisk wrote, as they and libblkid read them.

use chart::{Disk, Slice, Source, SourceId};
use fs::partition::{self, Scheme, Table};
use io::file::{File, Options};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use testkit::peer;

const LEN: u64 = 64 << 20;

struct Image {
    dir: tempfile::TempDir,
}

impl Image {
    fn new() -> Image {
        let dir = tempfile::tempdir().unwrap();
        std::fs::File::create(dir.path().join("disk")).unwrap().set_len(LEN).unwrap();
        Image { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    /// A table as sfdisk makes it from a script.
    fn sfdisk(script: &str) -> Image {
        let image = Image::new();
        sfdisk(&image.path(), script);
        image
    }

    fn table(&self) -> Table {
        partition::read(&open(&self.path())).unwrap().unwrap()
    }

    fn zero(&self, offset: u64, len: usize) {
        let file = std::fs::File::options().write(true).open(self.path()).unwrap();
        file.write_all_at(&vec![0; len], offset).unwrap();
    }
}

fn sfdisk(path: &Path, script: &str) {
    let mut command = Command::new("sfdisk");
    command.args(["-q", "--no-reread", "--no-tell-kernel"]).arg(path).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{script}");
}

fn open(path: &Path) -> Arc<Disk> {
    let file: Arc<dyn Source> = Arc::new(File::open(path, Options::default()).unwrap());
    let window = Slice::new(SourceId(0), 0, file.len(), false).unwrap();
    Disk::builder("disk", Arc::new(window)).source(file).build().unwrap()
}

/// What is compared of a partition, in sectors.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    number: u64,
    start: u64,
    len: u64,
    kind: String,
    name: String,
    uuid: String,
    bootable: bool,
}

fn ours(table: &Table) -> Vec<Row> {
    let rows = table.partitions.iter().map(|p| Row {
        number: p.number.into(),
        start: p.start / table.sector,
        len: p.len / table.sector,
        kind: p.kind.to_string(),
        name: p.name.clone().unwrap_or_default(),
        uuid: p.uuid.clone().unwrap_or_default(),
        bootable: p.bootable,
    });
    rows.collect()
}

/// What sfdisk reads. It knows no UUIDs of MBR partitions.
fn theirs(path: &Path) -> (String, Vec<Row>) {
    let told = peer::run("sfdisk", &["--json".as_ref(), path.as_os_str()]).stdout;
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
    let table = &told["partitiontable"];
    let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
    let mut rows: Vec<Row> = Vec::new();
    for p in table["partitions"].as_array().unwrap_or(&Vec::new()) {
        let node = text(&p["node"]);
        let number = node.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
        let legacy = text(&p["attrs"]).contains("LegacyBIOSBootable");
        rows.push(Row {
            number,
            start: p["start"].as_u64().unwrap(),
            len: p["size"].as_u64().unwrap(),
            kind: text(&p["type"]).to_lowercase(),
            name: text(&p["name"]),
            uuid: text(&p["uuid"]).to_lowercase(),
            bootable: legacy || p["bootable"].as_bool().unwrap_or(false),
        });
    }
    (text(&table["id"]).to_lowercase(), rows)
}

/// What libblkid reads: number, first sector, sectors, UUID.
fn blkid(path: &Path) -> Vec<(u64, u64, u64, String)> {
    let args = ["-P", "-o", "NR,START,SECTORS,UUID"].map(str::as_ref);
    let told = peer::run("partx", &[&args[..], &[path.as_os_str()]].concat()).stdout;
    let told = String::from_utf8(told).unwrap();
    let value = |line: &str, key: &str| {
        let from = line.find(&format!("{key}=\"")).unwrap() + key.len() + 2;
        line[from..].split('"').next().unwrap().to_owned()
    };
    let number = |line: &str, key| value(line, key).parse().unwrap();
    let row = |l: &str| (number(l, "NR"), number(l, "START"), number(l, "SECTORS"), value(l, "UUID"));
    told.lines().map(row).collect()
}

#[track_caller]
fn agrees(image: &Image) -> Table {
    let table = image.table();
    let (id, theirs) = theirs(&image.path());
    assert_eq!(table.id, id.trim_start_matches("0x"));
    let known: Vec<_> = ours(&table);
    if table.scheme == Scheme::Mbr {
        let nameless = |row: &Row| Row { uuid: String::new(), ..row.clone() };
        assert_eq!(known.iter().map(nameless).collect::<Vec<_>>(), theirs);
    } else {
        assert_eq!(known, theirs);
    }
    let known: Vec<_> = known.into_iter().map(|r| (r.number, r.start, r.len, r.uuid)).collect();
    assert_eq!(known, blkid(&image.path()));
    table
}

#[test]
fn mbr_with_logical_partitions() {
    if !peer::require(&["sfdisk", "partx"]) {
        return;
    }
    let script = "label: dos\n,10M,L,*\nstart=40M,size=20M,type=f\nstart=60M,size=1M,type=7\n\
                  start=41M,size=3M,type=83\nstart=50M,size=1M,type=82\nstart=46M,size=2M,type=8e\n";
    let image = Image::sfdisk(script);
    let table = agrees(&image);
    let numbers: Vec<_> = table.partitions.iter().map(|p| p.number).collect();
    assert_eq!((numbers, table.notes.len()), (vec![1, 2, 3, 5, 6, 7], 0), "{table:?}");
    // A hole in the chain: what is behind moves up.
    peer::run("sfdisk", &["-q".as_ref(), "--delete".as_ref(), image.path().as_os_str(), "5".as_ref()]);
    agrees(&image);
    let table = agrees(&Image::sfdisk("label: dos\n"));
    assert!(table.partitions.is_empty());
}

#[test]
fn gpt_with_names() {
    if !peer::require(&["sfdisk", "partx"]) {
        return;
    }
    let script = "label: gpt\nsize=1M,type=U,name=\"EFI\"\nsize=10M,name=\"Wurzel – μ\",attrs=\"LegacyBIOSBootable\"\n\
                  type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F\n";
    let image = Image::sfdisk(script);
    let table = agrees(&image);
    assert_eq!((table.partitions.len(), table.notes.len()), (3, 0), "{table:?}");
    assert_eq!(table.partitions[2].kind.name(), Some("Linux swap"));
    // Either header alone tells the same.
    image.zero(512, 512);
    let again = agrees(&image);
    assert_eq!((&again.partitions, again.notes.len()), (&table.partitions, 1));
    let image = Image::sfdisk(script);
    image.zero(LEN - 512, 512);
    assert_eq!(agrees(&image).notes.len(), 1);
}

#[test]
fn what_sgdisk_writes() {
    if !peer::require(&["sgdisk", "sfdisk", "partx"]) {
        return;
    }
    let image = Image::new();
    let path = image.path();
    let sgdisk = |args: &[&str]| {
        let mut all: Vec<&std::ffi::OsStr> = args.iter().map(AsRef::as_ref).collect();
        all.push(path.as_os_str());
        peer::run("sgdisk", &all);
    };
    sgdisk(&["-S", "256", "-n", "3:0:+5M", "-c", "3:third", "-n", "200:0:+1M", "-t", "200:8e00"]);
    assert_eq!(agrees(&image).notes, Vec::<String>::new());
    // A hybrid: both tables name the partition, and the GPT is taken.
    sgdisk(&["-h", "3"]);
    let table = image.table();
    assert_eq!((table.scheme, table.partitions.len(), table.notes.len()), (Scheme::Gpt, 2, 1), "{table:?}");
}

#[test]
fn large_sectors() {
    if !peer::require(&["root", "losetup", "sfdisk"]) {
        return;
    }
    let image = Image::new();
    let args = ["-f", "--show", "-b", "4096"].map(str::as_ref);
    let device = peer::run("losetup", &[&args[..], &[image.path().as_os_str()]].concat()).stdout;
    let device = PathBuf::from(String::from_utf8(device).unwrap().trim());
    sfdisk(&device, "label: gpt\nsize=10M,name=one\nsize=2M\n");
    let (id, theirs) = theirs(&device);
    peer::run("losetup", &["-d".as_ref(), device.as_os_str()]);
    let table = image.table();
    assert_eq!((table.sector, &table.id, ours(&table)), (4096, &id, theirs));
}
