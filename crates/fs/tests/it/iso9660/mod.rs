//! Directories as ISO 9660 disks, against a reader of our own and the real ones.

mod parse;
mod peers;
mod random;
mod tree;

use chart::{Chart, Wait};
use fs::iso9660::Options;
use std::sync::Arc;
use std::time::{Duration, Instant};
use testkit::contract;
use tree::{Dir, awkward, compare};

#[test]
fn an_awkward_tree_is_there_as_it_is() {
    let dir = Dir::new();
    awkward(&dir);
    let disk = dir.disk(&Options { volume: Some("Awkward Tree".into()), ..Options::default() });
    let (plain, joliet) = parse::parse(disk.as_ref());
    assert_eq!(&plain.label, b"AWKWARD_TREE                    ");
    compare(&dir, &disk, &plain);
    let joliet = joliet.unwrap();
    assert_eq!(&joliet.label[..24], b"\0A\0w\0k\0w\0a\0r\0d\0 \0T\0r\0e\0e");
    let linked = plain.files.values().filter(|found| found.target.is_none()).count();
    assert_eq!(joliet.files.len(), linked, "whatever is no symbolic link has a name in UTF-16");
    for name in ["README.TXT", "readme.txt", "many tongues/emoji 🗺.png", "odd/a_1", "dots/..two", "odd/a_2"]
    {
        assert!(joliet.files.contains_key(name.as_bytes()), "{name}");
    }
}

#[test]
fn the_chart_keeps_the_laws() {
    let dir = Dir::new();
    awkward(&dir);
    let disk = dir.disk(&Options::default());
    contract::chart_law(disk.as_ref()).unwrap();
    contract::chart_agrees_with_read(&disk).unwrap();
    contract::split_reads(disk.as_ref(), 7).unwrap();
    contract::walk_law(&disk).unwrap();
    contract::source_law(disk.as_ref(), 7).unwrap();
    contract::source_law(disk.sources()[0].as_ref(), 7).unwrap();
    let extent = disk.extent_at(0, u64::MAX, Wait::Never).unwrap();
    assert!(extent.place.is_zero() && extent.len == 32768, "the system area is nobody's: {extent:?}");
}

#[test]
fn the_same_tree_makes_the_same_disk() {
    let dir = Dir::new();
    awkward(&dir);
    let bytes = |options: &Options| {
        let disk = dir.disk(options);
        let mut bytes = vec![0; disk.len() as usize];
        disk.read_at(0, &mut bytes, Wait::Allowed).unwrap();
        bytes
    };
    let first = bytes(&Options::default());
    assert!(first == bytes(&Options::default()));
    assert!(first != bytes(&Options { joliet: false, ..Options::default() }));
    assert!(first != bytes(&Options { accessed: true, ..Options::default() }));
}

#[test]
fn nothing_is_there_of_an_empty_directory_but_itself() {
    let dir = Dir::new();
    for joliet in [true, false] {
        let disk = dir.disk(&Options { joliet, ..Options::default() });
        let (plain, other) = parse::parse(disk.as_ref());
        compare(&dir, &disk, &plain);
        assert_eq!(other.map(|volume| volume.files.len()), joliet.then_some(1));
    }
}

#[test]
fn a_directory_may_have_a_hundred_thousand_entries() {
    let dir = Dir::quick();
    dir.directory("many");
    for i in 0..100_000 {
        // Half of them differ only behind what an identifier has room for.
        let name = if i % 2 == 0 {
            format!("many/{i}")
        } else {
            format!("many/{}{i}", "a name that is long ".repeat(3))
        };
        std::fs::File::create(dir.at(name)).unwrap();
    }
    let began = Instant::now();
    let disk = dir.disk(&Options::default());
    let built = began.elapsed();
    // Reading at random costs what is read, not what the directory holds.
    let (mut sector, mut rng, began) = ([0; 2048], testkit::Rng::new(1), Instant::now());
    for _ in 0..1000 {
        let at = rng.below(disk.sources()[0].len() / 2048) * 2048;
        disk.read_at(at, &mut sector, Wait::Never).unwrap();
    }
    let read = began.elapsed();
    assert!(read < Duration::from_secs(1), "{built:?} to build, {read:?} for a thousand sectors");
    let (plain, joliet) = parse::parse(disk.as_ref());
    assert_eq!((plain.files.len(), joliet.unwrap().files.len()), (100_002, 100_002));
    compare(&dir, &disk, &plain);
}

#[test]
fn a_volume_is_as_old_as_what_is_newest_in_it_or_as_is_said() {
    let dir = Dir::new();
    dir.file("old", b"");
    let time = std::time::UNIX_EPOCH + Duration::from_millis(4_000_000_000_250);
    std::fs::File::options().write(true).open(dir.at("old")).unwrap().set_modified(time).unwrap();
    let created = |date| parse::parse(dir.disk(&Options { date, ..Options::default() }).as_ref()).0.created;
    assert_eq!(created(None), b"2096100207064025\0");
    assert_eq!(created(Some(io::tree::Time { seconds: 0, nanos: 0 })), b"1970010100000000\0");
}

#[test]
fn no_file_is_opened_until_its_bytes_are_read() {
    let dir = Dir::new();
    dir.file("gone", &[1; 5000]);
    dir.file("stays", &[2; 5000]);
    let tree = Arc::new(io::tree::Tree::of(dir.path(), &io::tree::Options::default()).unwrap());
    std::fs::remove_file(dir.at("gone")).unwrap();
    let disk = fs::iso9660::synth(tree, &Options::default()).unwrap();
    let (plain, _) = parse::parse(disk.as_ref());
    let mut bytes = [0; 5000];
    disk.read_at(plain.files[&b"stays"[..]].at(), &mut bytes, Wait::Allowed).unwrap();
    assert_eq!(bytes, [2; 5000]);
    let error = disk.read_at(plain.files[&b"gone"[..]].at(), &mut bytes, Wait::Allowed).unwrap_err();
    assert_eq!(error.kind(), chart::Kind::Conflict);
    assert_eq!(error.path(), Some(dir.at("gone").as_path()));
    // What is behind its end is nobody's, and read all the same.
    let behind = plain.files[&b"gone"[..]].at() + 5000;
    disk.read_at(behind, &mut bytes[..8192 - 5000], Wait::Allowed).unwrap();
    assert!(bytes[..8192 - 5000].iter().all(|&byte| byte == 0));
}

#[test]
fn names_of_one_file_lie_in_one_place() {
    let dir = Dir::new();
    dir.file("a", &[1; 5000]);
    std::fs::hard_link(dir.at("a"), dir.at("b")).unwrap();
    dir.file("c", &[1; 100]);
    dir.file("d", &[1; 100]);
    let (plain, joliet) = parse::parse(dir.disk(&Options::default()).as_ref());
    for volume in [plain, joliet.unwrap()] {
        let at = |name: &str| volume.files[name.as_bytes()].at();
        assert_eq!((at("a"), at("a") % 4096), (at("b"), 0));
        assert_eq!([at("c"), at("d")], [at("a") + 6144, at("a") + 8192]);
    }
}

#[test]
fn times_of_last_access_are_told_to_who_asks() {
    let dir = Dir::new();
    dir.file("a", b"");
    let times = std::fs::FileTimes::new().set_accessed(std::time::UNIX_EPOCH);
    std::fs::File::options().write(true).open(dir.at("a")).unwrap().set_times(times).unwrap();
    let disk = dir.disk(&Options { accessed: true, ..Options::default() });
    let [_, _, accessed, _] = &parse::parse(disk.as_ref()).0.files[&b"a"[..]].times;
    assert_eq!(tree::seconds(accessed.as_ref().unwrap()), 0);
}

#[test]
fn times_that_seven_bytes_cannot_tell_have_seventeen() {
    let dir = Dir::new();
    dir.file("late", b"");
    let seconds = 6_000_000_000;
    let time = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
    std::fs::File::options().write(true).open(dir.at("late")).unwrap().set_modified(time).unwrap();
    let stored = std::fs::metadata(dir.at("late")).unwrap().modified().unwrap();
    let found = parse::parse(dir.disk(&Options::default()).as_ref()).0.files.remove(&b"late"[..]).unwrap();
    let [_, modified, ..] = found.times;
    // Not every file system knows times that late.
    if stored == time {
        assert_eq!(modified.as_ref().map(Vec::len), Some(17));
        assert_eq!(tree::seconds(&modified.unwrap()), seconds as i64);
        assert_eq!(tree::seconds(&found.date), 5_869_583_999);
    }
}

#[test]
fn eight_tib_are_too_many() {
    let dir = Dir::new();
    for i in 0..3 {
        std::fs::File::create(dir.at(i.to_string())).unwrap().set_len(3 << 40).unwrap();
    }
    let tree = Arc::new(io::tree::Tree::of(dir.path(), &io::tree::Options::default()).unwrap());
    let error = fs::iso9660::synth(tree, &Options::default()).err().unwrap();
    assert_eq!(error.kind(), chart::Kind::Unsupported);
    assert!(error.to_string().contains("8 TiB"), "{error}");
    std::fs::remove_file(dir.at("2")).unwrap();
    let disk = dir.disk(&Options::default());
    let (plain, _) = parse::parse(disk.as_ref());
    assert_eq!(plain.files[&b"1"[..]].len(), 3 << 40);
}

#[test]
fn path_tables_end_where_their_numbers_do() {
    let dir = Dir::quick();
    for i in 0..66_000_u32 {
        dir.directory(format!("{}/{i}", i % 66));
    }
    for i in [0, 65] {
        dir.directory(format!("{i}/{}/below", i + 65_934));
    }
    // Among those whose parents' numbers do not fit into 16 bits: the reader sees to that.
    let (plain, joliet) = parse::parse(dir.disk(&Options::default()).as_ref());
    assert_eq!((plain.files.len(), joliet.unwrap().files.len()), (66_069, 66_069));
}

#[test]
fn a_volume_has_a_name_that_fits() {
    let dir = Dir::new();
    let tree = Arc::new(io::tree::Tree::of(dir.path(), &io::tree::Options::default()).unwrap());
    for name in ["", "more than thirty-two characters long"] {
        let options = Options { volume: Some(name.into()), ..Options::default() };
        let error = fs::iso9660::synth(Arc::clone(&tree), &options).err().unwrap();
        assert_eq!(error.kind(), chart::Kind::Invalid);
    }
}
