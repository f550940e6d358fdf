use super::*;
use crate::{Gate, Options, Spec, open};
use chart::{Kind, SourceId};
use io::generated::{Generated, Kept};
use io::tree::{self, Tree};
use std::fs;
use std::sync::Arc;

const BLOCK: u64 = 2048;

struct Dir(tempfile::TempDir);

impl Dir {
    /// A directory of files, and what else is needed beside it.
    fn new() -> Dir {
        let dir = Dir(tempfile::tempdir().unwrap());
        fs::create_dir_all(dir.at("root/sub")).unwrap();
        for (name, len) in [("root/a", 5000), ("root/sub/b", 1), ("root/sub/c", 2048), ("root/z", 70_000)] {
            let bytes: Vec<u8> = (0..len).map(|i: usize| (i * 7 + name.len()) as u8).collect();
            fs::write(dir.at(name), bytes).unwrap();
        }
        dir
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A disk as a file system over the directory is: computed bytes first, then each file in whole blocks.
    fn disk(&self) -> Arc<Disk> {
        let tree = Arc::new(Tree::of(&self.at("root"), &tree::Options::default()).unwrap());
        let mut files = tree.files();
        let mut table = Table::builder();
        table.push(Extent::raw(0, 10 * BLOCK, SourceId(0), BLOCK)).unwrap();
        for id in tree.nodes().filter(|&id| tree.node(id).kind == tree::Kind::File) {
            let at = table.end().next_multiple_of(BLOCK);
            files.file(at, id).unwrap();
            table.push(Extent::raw(at, tree.node(id).len, SourceId(1), at)).unwrap();
        }
        let len = table.end().next_multiple_of(BLOCK);
        let kept = (0..20 * BLOCK).map(|i| (i % 251) as u8).collect();
        let computed = Generated::new("metadata", 20 * BLOCK, Kept(kept));
        let builder = Disk::builder("disk", Arc::new(table.finish(len).unwrap()));
        builder.source(Arc::new(computed)).source(files.build(len).unwrap()).build().unwrap()
    }

    /// The chart of a disk, written to a file here.
    fn chart(&self, disk: &Disk, name: &str) -> Written {
        let written = chart_of(disk, &self.at(name), Watch::default()).unwrap();
        let json = name.ends_with(".json");
        let bytes = if json { written.to_json().unwrap().into() } else { written.to_bytes().unwrap() };
        fs::write(self.at(name), bytes).unwrap();
        written
    }

    fn open(&self, name: &str) -> Result<crate::Opened> {
        open(&Spec::file(self.at(name)), &Options::default())
    }
}

fn bytes(disk: &Disk) -> Vec<u8> {
    let mut bytes = vec![0xa5; disk.len() as usize];
    disk.read_at(0, &mut bytes, Wait::Allowed).unwrap();
    bytes
}

#[test]
fn a_directory_s_disk_comes_back_from_its_chart() {
    let dir = Dir::new();
    let disk = dir.disk();
    for name in ["disk.chart", "disk.json", "root/within.chart"] {
        let written = dir.chart(&disk, name);
        let [SourceRecord::Inline(inline), SourceRecord::Family(family)] = &written.sources[..] else {
            panic!("{:?}", written.sources)
        };
        // Of what is computed no more than the disk shows; of the files nothing but who they are.
        assert_eq!(inline.len() as u64, 10 * BLOCK);
        let names: Vec<_> = family.members.iter().map(|m| m.name.to_str().unwrap()).collect();
        assert_eq!(names, ["a", "z", "sub/b", "sub/c"]);
        assert_eq!(family.root, Path::new(if name.starts_with("root") { "." } else { "root" }));
        let opened = dir.open(name).unwrap();
        assert_eq!(bytes(&opened.disk), bytes(&disk));
        // And once more, from the chart's disk.
        let again = dir.chart(&opened.disk, "again.chart");
        assert_eq!(again.sources.len(), 2);
        assert_eq!(bytes(&dir.open("again.chart").unwrap().disk), bytes(&disk));
    }
}

#[test]
fn only_what_is_touched_is_named() {
    let dir = Dir::new();
    let disk = dir.disk();
    let table = Table::from_extents(4 * BLOCK, [Extent::raw(0, 4 * BLOCK, SourceId(0), 9 * BLOCK)]).unwrap();
    let window = Disk::builder("window", Arc::new(table)).source(disk.clone()).build().unwrap();
    let written = dir.chart(&window, "window.chart");
    let [SourceRecord::Inline(inline), SourceRecord::Family(family)] = &written.sources[..] else { panic!() };
    assert_eq!((inline.len() as u64, family.members.len()), (BLOCK, 1));
    let opened = dir.open("window.chart").unwrap();
    assert_eq!(bytes(&opened.disk), bytes(&disk)[9 * BLOCK as usize..][..4 * BLOCK as usize]);
}

#[test]
fn a_file_that_changed_since_fails_alone_and_by_name() {
    let dir = Dir::new();
    let disk = dir.disk();
    dir.chart(&disk, "disk.chart");
    let good = bytes(&disk);
    drop(disk);
    std::thread::sleep(std::time::Duration::from_millis(15));
    fs::write(dir.at("root/z"), vec![1; 70_000]).unwrap();
    // It is found when it is read, not before.
    let opened = dir.open("disk.chart").unwrap();
    let z = 10 * BLOCK as usize + 3 * BLOCK as usize;
    let mut buf = vec![0; z];
    opened.disk.read_at(0, &mut buf, Wait::Allowed).unwrap();
    assert_eq!(buf, good[..z]);
    let e = opened.disk.read_at(z as u64 + 100, &mut [0; 100], Wait::Allowed).unwrap_err();
    assert_eq!(e.kind(), Kind::Conflict);
    assert!(e.to_string().contains("root/z: has been written to"), "{e}");
    let end = z + 70_000_usize.next_multiple_of(BLOCK as usize);
    let mut buf = vec![0; good.len() - end];
    opened.disk.read_at(end as u64, &mut buf, Wait::Allowed).unwrap();
    assert_eq!(buf, good[end..]);
}

#[test]
fn the_gate_decides_which_directory_a_chart_may_name() {
    let dir = Dir::new();
    let disk = dir.disk();
    fs::create_dir(dir.at("elsewhere")).unwrap();
    dir.chart(&disk, "elsewhere/disk.chart");
    let e = dir.open("elsewhere/disk.chart").err().unwrap();
    assert_eq!((e.kind(), e.remedy()), (Kind::Denied, Some(chart::Remedy::AllowThere)), "{e}");
    assert!(e.to_string().contains("as its directory"), "{e}");
    for gate in [Gate::beside().allow(dir.at("root")), Gate::beside().allow(dir.at("")), Gate::any()] {
        let options = Options { gate, ..Options::default() };
        let opened = open(&Spec::file(dir.at("elsewhere/disk.chart")), &options).unwrap();
        assert_eq!(bytes(&opened.disk), bytes(&disk));
    }
    // A symbolic link does not make it lie beside the chart.
    let mut written = dir.chart(&disk, "elsewhere/disk.chart");
    std::os::unix::fs::symlink(dir.at("root"), dir.at("elsewhere/link")).unwrap();
    for source in &mut written.sources {
        if let SourceRecord::Family(family) = source {
            family.root = "link".into();
        }
    }
    fs::write(dir.at("elsewhere/linked.chart"), written.to_bytes().unwrap()).unwrap();
    assert_eq!(dir.open("elsewhere/linked.chart").err().unwrap().kind(), Kind::Denied);
}

#[test]
fn a_directory_may_have_any_name() {
    use std::os::unix::ffi::OsStrExt;
    let dir = Dir::new();
    // One that reads as a protocol, and one that is no text.
    for name in [&b"nbd:odd"[..], b"\xff\xfe"] {
        let name = std::ffi::OsStr::from_bytes(name);
        fs::rename(dir.at("root"), dir.0.path().join(name)).unwrap();
        std::os::unix::fs::symlink(name, dir.at("root")).unwrap();
        let disk = dir.disk();
        for chart in ["disk.chart", "disk.json"] {
            dir.chart(&disk, chart);
            assert_eq!(bytes(&dir.open(chart).unwrap().disk), bytes(&disk));
        }
        fs::remove_file(dir.at("root")).unwrap();
        fs::rename(dir.0.path().join(name), dir.at("root")).unwrap();
    }
}

#[test]
fn rows_name_the_files_of_a_directory() {
    let dir = Dir::new();
    // A run that spans files and what is between them.
    let files = {
        let tree = Arc::new(Tree::of(&dir.at("root"), &tree::Options::default()).unwrap());
        let mut files = tree.files();
        for id in tree.nodes().filter(|&id| tree.node(id).kind == tree::Kind::File) {
            files.file(files.end().next_multiple_of(BLOCK), id).unwrap();
        }
        files.build(100 * BLOCK).unwrap()
    };
    let table = Table::from_extents(99 * BLOCK, [Extent::raw(0, 99 * BLOCK, SourceId(0), BLOCK)]).unwrap();
    let disk = Disk::builder("disk", Arc::new(table)).source(files).build().unwrap();
    dir.chart(&disk, "disk.chart");
    let opened = dir.open("disk.chart").unwrap();
    let mut told = Vec::new();
    crate::listing::rows(&opened.image, true, Watch::default(), |row| {
        let file = row.file.as_deref().map(|f| f.rsplit_once("root/").unwrap().1.to_owned());
        told.push((row.start, row.length, file, row.offset, row.kind));
        Ok(())
    })
    .unwrap();
    use crate::listing::Kind::{Raw, Zero};
    let file = |name: &str| Some(name.to_owned());
    assert_eq!(
        told,
        [
            (0, 2952, file("a"), Some(2048), Raw),
            (2952, 1144, None, None, Zero),
            (4096, 70_000, file("z"), Some(0), Raw),
            (74_096, 1680, None, None, Zero),
            (75_776, 1, file("sub/b"), Some(0), Raw),
            (75_777, 2047, None, None, Zero),
            (77_824, 2048, file("sub/c"), Some(0), Raw),
            (79_872, 99 * BLOCK - 79_872, None, None, Zero),
        ]
    );
    let svg = crate::picture::svg(&opened.image, true, Watch::default()).unwrap();
    assert!(svg.contains(">root</text>") && svg.contains("4 files, "), "a directory is one source");
    assert!(svg.contains("root/sub/b</title>"), "of which each ribbon names a file");
}
