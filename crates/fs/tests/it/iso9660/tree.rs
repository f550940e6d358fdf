//! Directories to be charted, and what must be found of them.

use super::parse::{Found, Volume};
use chart::{Disk, LeafPlace, Purpose, Wait};
use fs::iso9660::{Options, synth};
use io::tree::Tree;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory that is gone after the test.
pub(super) struct Dir(pub(super) tempfile::TempDir);

impl Dir {
    pub(super) fn new() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    /// The same in memory, where there is such a place: for many files.
    pub(super) fn quick() -> Dir {
        Dir(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn at(&self, name: impl AsRef<[u8]>) -> PathBuf {
        self.path().join(OsStr::from_bytes(name.as_ref()))
    }

    pub(super) fn directory(&self, name: impl AsRef<[u8]>) {
        std::fs::create_dir_all(self.at(name)).unwrap();
    }

    pub(super) fn file(&self, name: impl AsRef<[u8]>, bytes: &[u8]) {
        let path = self.at(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub(super) fn link(&self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) {
        symlink(OsStr::from_bytes(target.as_ref()), self.at(name)).unwrap();
    }

    pub(super) fn disk(&self, options: &Options) -> Arc<Disk> {
        let walk = io::tree::Options { accessed: options.accessed, ..io::tree::Options::default() };
        let tree = Tree::of(self.path(), &walk).unwrap();
        synth(Arc::new(tree), options).unwrap()
    }

    /// What is in it, by path.
    pub(super) fn survey(&self) -> BTreeMap<Vec<u8>, Metadata> {
        let mut all = BTreeMap::new();
        survey(self.path(), b"", &mut all);
        all
    }
}

fn survey(directory: &Path, path: &[u8], all: &mut BTreeMap<Vec<u8>, Metadata>) {
    all.insert(path.to_vec(), directory.symlink_metadata().unwrap());
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_vec();
        let path = if path.is_empty() { name } else { [path, b"/", &name].concat() };
        let metadata = entry.path().symlink_metadata().unwrap();
        if metadata.is_dir() {
            survey(&entry.path(), &path, all);
        } else {
            all.insert(path, metadata);
        }
    }
}

/// Names and contents that tools stumble over.
pub(super) fn awkward(dir: &Dir) {
    let deep = (1..=20).map(|i| format!("level {i}")).collect::<Vec<_>>().join("/");
    dir.file(format!("{deep}/at the bottom"), b"deep down");
    dir.directory("empty directory");
    dir.file("empty file", b"");
    dir.file("README.TXT", b"upper");
    for name in ["readme.txt", "Readme.txt", "README.TX", "README_TXT", "README", "README_1.TXT"] {
        dir.file(name, name.as_bytes());
    }
    for name in
        ["abcdefgh1", "abcdefgh2", "ABCDEFGH1", "a.b.c", ".hidden", "name.", "..", "..two", "...", "-dash"]
    {
        if name != ".." {
            dir.file(format!("dots/{name}"), name.as_bytes());
        }
    }
    for name in
        ["archive.tar.gz", "x.an extension that is long", " space", "tab\tname", "new\nline", "back\\slash"]
    {
        dir.file(format!("odd/{name}"), name.as_bytes());
    }
    for name in ["a;1", "a;2", "star*", "quest?ion", "co:lon", "quote\"", "pi|pe", "a_1", "A", "a"] {
        dir.file(format!("odd/{name}"), name.as_bytes());
    }
    for name in ["größe.txt", "日本語のファイル", "emoji 🗺.png", "e\u{301}", "é", "ﬃ"] {
        dir.file(format!("many tongues/{name}"), name.as_bytes());
    }
    for name in [&b"latin \xe4\xf6\xfc"[..], b"\xff\xfe", b"cut \xf0\x9f\x97", b"half \xed\xa0\x80 pair"] {
        dir.file([b"no utf-8/", name].concat(), name);
    }
    for c in ['x', 'ä', '🗺'] {
        let long = c.to_string().repeat(255 / c.len_utf8());
        dir.file(format!("long/{long}"), long.as_bytes());
        dir.file(format!("long/{}.ext", &long[..248 / c.len_utf8() * c.len_utf8()]), b"cut differently");
        dir.directory(format!("long/d{}", &long[..252 / c.len_utf8() * c.len_utf8()]));
    }
    for i in 0..10 {
        dir.file(format!("long/{}{i}", "same beginning ".repeat(16)), &[i]);
    }
    for len in [1, 2047, 2048, 2049, 4095, 4096, 4097, 100_000] {
        dir.file(format!("sizes/{len}"), &(0..len).map(|i: u32| (i * 7 + len) as u8).collect::<Vec<_>>());
    }
    links(dir);
    for (i, name) in ["dots/a.b.c", "sizes/4097", "empty file", "long"].iter().enumerate() {
        let mode = [0o4755, 0o600, 0o444, 0o1777][i];
        std::fs::set_permissions(dir.at(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    times(dir);
}

fn links(dir: &Dir) {
    dir.directory("links");
    let long = "a long way/".repeat(373);
    for (name, target) in [
        ("plain", "target"),
        ("up", "../../sizes/4096"),
        ("here", "."),
        ("above", ".."),
        ("dotted", "./a/../b/./c"),
        ("absolute", "/usr/bin/env"),
        ("root", "/"),
        ("dangling", "nowhere/at all"),
        ("tongue", "日本語/größe"),
        ("long", &long[..4095]),
        ("one long name", &"n".repeat(255)),
        ("three long names", &["n".repeat(255), "m".repeat(254), "o".repeat(253)].join("/")),
        ("slash at the end", "sizes/"),
        ("two slashes", "a//b"),
        ("two slashes first", "//a/b"),
    ] {
        dir.link(format!("links/{name}"), target);
    }
    dir.link(b"links/no utf-8", b"\xff\xfe/\x80");
    dir.link(["links/", &"s".repeat(240)].concat(), "t".repeat(240));
    std::fs::hard_link(dir.at("sizes/100000"), dir.at("links/hard")).unwrap();
    std::fs::hard_link(dir.at("sizes/100000"), dir.at("links/harder")).unwrap();
    std::fs::hard_link(dir.at("empty file"), dir.at("links/hard and empty")).unwrap();
    std::fs::hard_link(dir.at("links/dangling"), dir.at("links/dangling too")).unwrap();
}

/// Gives some files times of other centuries.
fn times(dir: &Dir) {
    let at = |name: &str, seconds: i64| {
        let time = if seconds < 0 {
            std::time::UNIX_EPOCH - std::time::Duration::from_secs(seconds.unsigned_abs())
        } else {
            std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds.unsigned_abs())
        };
        File::options().write(true).open(dir.at(name)).unwrap().set_modified(time).unwrap();
    };
    at("sizes/1", 0);
    at("sizes/2047", 951_782_400);
    at("sizes/2048", 4_107_542_399);
    at("sizes/2049", -1_000_000_000);
    at("sizes/4095", 2_147_483_648);
}

/// That a volume has what the directory has, in names, attributes and bytes.
pub(super) fn compare(dir: &Dir, disk: &Disk, volume: &Volume) {
    let wanted = dir.survey();
    let names =
        |keys: Vec<&Vec<u8>>| keys.iter().map(|key| key.escape_ascii().to_string()).collect::<Vec<_>>();
    assert_eq!(names(volume.files.keys().collect()), names(wanted.keys().collect()));
    let mut serials: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    for (path, metadata) in &wanted {
        let found = &volume.files[path];
        let told = path.escape_ascii().to_string();
        attributes(found, metadata, &told);
        let inode = (metadata.dev(), metadata.ino());
        assert_eq!(*serials.entry(found.serial).or_insert(inode), inode, "{told}");
        assert_eq!(*inodes.entry(inode).or_insert(found.serial), found.serial, "{told}");
        if metadata.is_symlink() {
            let target = std::fs::read_link(dir.at(path)).unwrap();
            assert_eq!(found.target.as_deref(), Some(target.as_os_str().as_bytes()), "{told}");
        }
        if metadata.is_file() {
            content(&dir.at(path), disk, found);
        }
    }
}

fn attributes(found: &Found, metadata: &Metadata, told: &str) {
    assert_eq!(
        (found.mode, found.uid, found.gid),
        (metadata.mode(), metadata.uid(), metadata.gid()),
        "{told}"
    );
    assert_eq!(found.directory, metadata.is_dir(), "{told}");
    let [_, modified, accessed, changed] = &found.times;
    assert_eq!(seconds(modified.as_ref().unwrap()), metadata.mtime(), "{told}");
    assert_eq!(seconds(changed.as_ref().unwrap()), metadata.ctime(), "{told}");
    assert_eq!(accessed, &None, "{told}");
    if !metadata.is_dir() {
        assert_eq!(u64::from(found.links), metadata.nlink(), "{told}");
        assert_eq!(found.len(), if metadata.is_file() { metadata.len() } else { 0 }, "{told}");
    }
}

/// The bytes of a file, and the zeros behind them.
pub(super) fn content(path: &Path, disk: &Disk, found: &Found) {
    let file = File::open(path).unwrap();
    let len = found.len().min(1 << 20) as usize;
    let (mut wanted, mut got) = (vec![0; len.next_multiple_of(2048)], vec![1; len.next_multiple_of(2048)]);
    file.read_exact_at(&mut wanted[..len], 0).unwrap();
    if len > 0 {
        assert!(found.len() < 4096 || found.at().is_multiple_of(4096));
        disk.read_at(found.at(), &mut got, Wait::Allowed).unwrap();
    }
    assert!(wanted == got, "{}", path.display());
}

/// Seconds since 1970 of a date of seven bytes or of seventeen, by counting days.
pub(super) fn seconds(date: &[u8]) -> i64 {
    let digits =
        |range: std::ops::Range<usize>| std::str::from_utf8(&date[range]).unwrap().parse::<i64>().unwrap();
    let [year, month, day, hour, minute, second] = if date.len() == 7 {
        assert_eq!(date[6], 0);
        let n = |i: usize| i64::from(date[i]);
        [1900 + n(0), n(1), n(2), n(3), n(4), n(5)]
    } else {
        assert_eq!(date[16], 0);
        [digits(0..4), digits(4..6), digits(6..8), digits(8..10), digits(10..12), digits(12..14)]
    };
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_of = |year| if leap(year) { 366 } else { 365 };
    let mut days: i64 =
        if year >= 1970 { (1970..year).map(days_of).sum() } else { -(year..1970).map(days_of).sum::<i64>() };
    let months = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    assert!((1..=12).contains(&month) && (1..=months[month as usize - 1]).contains(&day));
    days += months[..month as usize - 1].iter().sum::<i64>() + day - 1;
    ((days * 24 + hour) * 60 + minute) * 60 + second
}

/// Writes a disk to a file; what it does not store becomes holes.
pub(super) fn write(disk: &Disk, path: &Path) {
    let file = File::create(path).unwrap();
    file.set_len(disk.len()).unwrap();
    let walk = disk.walk(0..u64::MAX, Purpose::Read).ask_sources();
    walk.each(|leaf| {
        let LeafPlace::Raw { source, offset } = leaf.place else { return Ok(()) };
        if !leaf.data {
            return Ok(());
        }
        let mut done = 0;
        while done < leaf.len {
            let mut bytes = vec![0; (leaf.len - done).min(1 << 20) as usize];
            source.read_at(offset + done, &mut bytes, Wait::Allowed)?;
            file.write_all_at(&bytes, leaf.at + done)?;
            done += bytes.len() as u64;
        }
        Ok(())
    })
    .unwrap();
}
