//! The real readers: xorriso, libarchive, 7-Zip, isoinfo. What each is known not to do is said where it is left out.

use super::tree::{Dir, awkward, write};
use super::{parse, random};
use fs::iso9660::Options;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use testkit::peer;

/// A directory, and the file that its disk was written to.
struct Written {
    dir: Dir,
    room: tempfile::TempDir,
    image: PathBuf,
}

fn written(make: impl FnOnce(&Dir), options: &Options) -> Written {
    let (dir, room) = (Dir::new(), tempfile::tempdir().unwrap());
    make(&dir);
    let image = room.path().join("disk.iso");
    write(&dir.disk(options), &image);
    Written { dir, room, image }
}

impl Written {
    /// An empty directory to extract to.
    fn target(&self) -> Dir {
        Dir(tempfile::tempdir_in(self.room.path()).unwrap())
    }
}

/// That `got` is what `wanted` is: names, kinds, modes, owners, times to the second, targets, bytes and hard links.
fn same(wanted: &Dir, got: &Dir) {
    let (old, new) = (wanted.survey(), got.survey());
    let names = |all: &BTreeMap<Vec<u8>, Metadata>| {
        all.keys().map(|name| name.escape_ascii().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&old), names(&new));
    let mut links = BTreeMap::new();
    for (path, metadata) in &old {
        let (other, told) = (&new[path], path.escape_ascii().to_string());
        if metadata.is_symlink() {
            let [a, b] = [wanted, got].map(|dir| std::fs::read_link(dir.at(path)).unwrap());
            assert_eq!(a, b, "{told}");
            continue;
        }
        let brief = |m: &Metadata| (m.mode(), m.uid(), m.gid(), m.mtime());
        // What the tool was told to extract to is its own directory.
        if !path.is_empty() {
            assert_eq!(brief(metadata), brief(other), "{told}");
        }
        if metadata.is_file() {
            let [a, b] = [wanted, got].map(|dir| std::fs::read(dir.at(path)).unwrap());
            assert!(a == b, "{told}");
        }
        // Of files without bytes no tool knows that they are one.
        if metadata.len() > 0 {
            assert_eq!(links.entry(metadata.ino()).or_insert(other.ino()), &other.ino(), "{told}");
        }
    }
}

/// Runs a tool with these words.
fn run(tool: &str, words: &[&dyn AsRef<OsStr>]) -> std::process::Output {
    let words: Vec<&OsStr> = words.iter().map(|word| (*word).as_ref()).collect();
    peer::run(tool, &words)
}

#[test]
fn libarchive_finds_an_awkward_tree_as_it_is() {
    if !peer::require(&["bsdtar", "root"]) {
        return;
    }
    for joliet in [true, false] {
        let all = written(awkward, &Options { joliet, ..Options::default() });
        let target = all.target();
        run("bsdtar", &[&"-xpf", &all.image, &"-C", &target.path()]);
        same(&all.dir, &target);
    }
}

/// Takes away what xorriso refuses to read or to tell: symbolic links of more than 1023 bytes, and two slashes
/// where one would do.
fn for_xorriso(dir: &Dir) {
    awkward(dir);
    for name in ["long", "two slashes", "two slashes first"] {
        std::fs::remove_file(dir.at(format!("links/{name}"))).unwrap();
    }
}

#[test]
fn xorriso_finds_an_awkward_tree_as_it_is() {
    if !peer::require(&["xorriso", "root"]) {
        return;
    }
    let all = written(for_xorriso, &Options { volume: Some("AWKWARD".into()), ..Options::default() });
    let target = all.target();
    let to = target.path();
    let output = run(
        "xorriso",
        &[&"-abort_on", &"WARNING", &"-osirrox", &"on", &"-indev", &all.image, &"-extract", &"/", &to],
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("Volume id    : 'AWKWARD'"), "{said}");
    same_but_hard_links(&all.dir, &target);
}

/// xorriso extracts each name of a file for itself, unless told to look for others first.
fn same_but_hard_links(wanted: &Dir, got: &Dir) {
    for path in ["links/hard", "links/harder"] {
        std::fs::remove_file(got.at(path)).unwrap();
        std::fs::hard_link(got.at("sizes/100000"), got.at(path)).unwrap();
    }
    for dir in [wanted, got] {
        let time = std::time::UNIX_EPOCH;
        File::open(dir.at("links")).unwrap().set_modified(time).unwrap();
    }
    same(wanted, got);
}

#[test]
fn xorriso_finds_that_hard_links_are_one_file() {
    if !peer::require(&["xorriso", "root"]) {
        return;
    }
    let all = written(for_xorriso, &Options::default());
    let target = all.target();
    let how = "on:sort_lba_on";
    let to = target.path();
    run("xorriso", &[&"-hardlinks", &"on", &"-osirrox", &how, &"-indev", &all.image, &"-extract", &"/", &to]);
    let inode = |name: &str| std::fs::metadata(target.at(name)).unwrap().ino();
    assert_eq!([inode("links/hard"), inode("links/harder")], [inode("sizes/100000"); 2]);
}

/// 7-Zip, by the name it has here.
fn seven_zip() -> Option<&'static str> {
    let found = |name: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
    };
    match found("7z") {
        true if !found("7zz") => Some("7z"),
        _ => peer::require(&["7zz"]).then_some("7zz"),
    }
}

/// A tree that 7-Zip, which reads Joliet where there is any, can tell: no links, no names of more than 103 units,
/// none with what Joliet has no letters for.
fn tame(dir: &Dir) {
    let deep = (1..=20).map(|i| format!("level {i}")).collect::<Vec<_>>().join("/");
    dir.file(format!("{deep}/at the bottom"), b"deep down");
    dir.directory("nothing in here");
    for name in ["größe.txt", "日本語のファイル", "emoji 🗺.png", "a.b.c", ".hidden", "case", "Case", "CASE"]
    {
        dir.file(format!("names/{name}"), name.as_bytes());
    }
    dir.file("long ".repeat(20), b"a hundred units");
    for i in 0..5000 {
        dir.file(format!("many/a file with number {i}"), &[i as u8; 3]);
    }
    for len in [0, 1, 2047, 2048, 2049, 4096, 1_000_000] {
        dir.file(format!("sizes/{len}"), &vec![len as u8 | 1; len]);
    }
}

#[test]
fn seven_zip_finds_a_tree_as_it_is() {
    let Some(tool) = seven_zip() else { return };
    let all = written(tame, &Options::default());
    let target = all.target();
    let to = format!("-o{}", target.path().display());
    run(tool, &[&"x", &to, &all.image]);
    let (wanted, got) = (all.dir.survey(), target.survey());
    assert!(wanted.keys().eq(got.keys()));
    for (path, metadata) in wanted.iter().filter(|(_, metadata)| metadata.is_file()) {
        assert_eq!(metadata.mtime(), got[path].mtime());
        let [a, b] = [&all.dir, &target].map(|dir| std::fs::read(dir.at(path)).unwrap());
        assert!(a == b, "{}", path.escape_ascii());
    }
    // And nothing in an awkward tree is wrong for it.
    let all = written(awkward, &Options::default());
    run(tool, &[&"t", &all.image]);
}

#[test]
fn isoinfo_lists_every_name() {
    if !peer::require(&["isoinfo"]) {
        return;
    }
    // It crashes on symbolic links that are longer than its buffers.
    let make = |dir: &Dir| {
        awkward(dir);
        std::fs::remove_dir_all(dir.at("links")).unwrap();
    };
    let all = written(make, &Options::default());
    let listed = |how: &str| run("isoinfo", &[&how, &"-f", &"-i", &all.image]).stdout;
    let mut wanted: Vec<Vec<u8>> = all.dir.survey().into_keys().filter(|path| !path.is_empty()).collect();
    // It shows no names of the root but for `.`, and ends each name with the line.
    let mut told: Vec<Vec<u8>> = split_names(&listed("-R"), &wanted);
    wanted.sort();
    told.sort();
    assert_eq!(told.len(), wanted.len());
    assert!(told == wanted);
    let joliet = String::from_utf8_lossy(&listed("-J")).into_owned();
    // Letters beyond ASCII depend on the locale.
    assert!(joliet.contains("/Readme.txt;1\n") && joliet.contains("/dots/a.b.c;1\n"), "{joliet}");
    let checked = run("isovfy", &[&"-i", &all.image]).stdout;
    assert!(String::from_utf8_lossy(&checked).ends_with("No errors found\n"));
}

/// The lines of a listing as paths, joined again where a name has a line's end in it.
fn split_names(listing: &[u8], wanted: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    for line in listing.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        match line.strip_prefix(b"/") {
            Some(name) => names.push(name.to_vec()),
            None => {
                let last = names.last_mut().unwrap();
                last.push(b'\n');
                last.extend(line);
            }
        }
    }
    assert!(names.iter().all(|name| wanted.contains(name)));
    names
}

#[test]
fn libarchive_finds_the_names_of_joliet() {
    if !peer::require(&["bsdtar"]) {
        return;
    }
    let all = written(tame, &Options::default());
    let target = all.target();
    run("bsdtar", &[&"--options", &"!rockridge", &"-xf", &all.image, &"-C", &target.path()]);
    let (wanted, got) = (all.dir.survey(), target.survey());
    assert!(wanted.keys().eq(got.keys()));
    let len = |m: &Metadata| m.is_file().then_some((m.len(), m.mtime()));
    assert!(wanted.values().map(len).eq(got.values().map(len)));
}

#[test]
fn libarchive_finds_random_trees_as_they_are() {
    if !peer::require(&["bsdtar", "root"]) {
        return;
    }
    random::some(12, |dir| {
        let all = written(|_| (), &Options::default());
        write(&dir.disk(&Options::default()), &all.image);
        let target = all.target();
        run("bsdtar", &[&"-xpf", &all.image, &"-C", &target.path()]);
        same(dir, &target);
    });
}

const GIB: u64 = 1 << 30;

/// A file with more bytes than one record can tell, marked in some places.
fn large(dir: &Dir) {
    let file = File::create(dir.at("large")).unwrap();
    file.set_len(5 * GIB + 123).unwrap();
    for at in MARKS {
        file.write_all_at(&at.to_le_bytes(), at).unwrap();
    }
    dir.file("small", b"behind it");
}

/// The beginning, around the end of the first section, the end.
const MARKS: [u64; 6] = [0, 4 * GIB - 2048 - 8, 4 * GIB - 2048, 4 * GIB + 5, 5 * GIB, 5 * GIB + 115];

#[test]
fn a_file_of_five_gib_is_read_in_all_its_sections() {
    let dir = Dir::new();
    large(&dir);
    let disk = dir.disk(&Options::default());
    let (plain, joliet) = parse::parse(disk.as_ref());
    for volume in [&plain, joliet.as_ref().unwrap()] {
        let found = &volume.files[&b"large"[..]];
        let lens: Vec<u32> = found.sections.iter().map(|&(_, len)| len).collect();
        assert_eq!(lens, [0xffff_f800, (5 * GIB + 123 - 0xffff_f800) as u32]);
        for at in MARKS {
            let mut mark = [0; 8];
            disk.read_at(found.at() + at, &mut mark, chart::Wait::Allowed).unwrap();
            assert_eq!(u64::from_le_bytes(mark), at);
        }
    }
    if !peer::require(&["xorriso", "bsdtar"]) {
        return;
    }
    let (room, marks) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let image = room.path().join("large.iso");
    write(&disk, &image);
    // Elsewhere than at a sector's beginning it reads all that is before.
    for at in MARKS.into_iter().filter(|at| at % 2048 == 0) {
        let part = marks.path().join(at.to_string());
        let from = at.to_string();
        let load: [&dyn AsRef<OsStr>; 4] = [&"-osirrox", &"on", &"-indev", &image];
        let cut: [&dyn AsRef<OsStr>; 5] = [&"-extract_cut", &"/large", &from, &"8", &part];
        run("xorriso", &[&load[..], &cut[..]].concat());
        assert_eq!(std::fs::read(part).unwrap(), at.to_le_bytes());
    }
    let listed = run("bsdtar", &[&"-tvf", &image]).stdout;
    let listed = String::from_utf8_lossy(&listed).into_owned();
    assert!(listed.contains(&(5 * GIB + 123).to_string()), "{listed}");
    seven_zip_extracts_the_small_file(&image, marks.path());
}

/// What comes behind a file of several sections is found.
fn seven_zip_extracts_the_small_file(image: &Path, target: &Path) {
    let Some(tool) = seven_zip() else { return };
    let listed = run(tool, &[&"l", &image]).stdout;
    assert!(String::from_utf8_lossy(&listed).contains(&(5 * GIB + 123).to_string()));
    let to = format!("-o{}", target.display());
    run(tool, &[&"e", &to, &image, &"small"]);
    assert_eq!(std::fs::read(target.join("small")).unwrap(), b"behind it");
}
