//! What is large: directories with an index, files of very many extents, attributes in inodes of their own.

use super::populate::bytes;
use super::tree::{But, compare};
use super::{Image, open};
use chart::{Kind, Wait};
use fs::{FileSystem, Inode, Stat};
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use testkit::{contract, peer};

const LEN: u64 = 128 << 20;
const TOOLS: &[&str] = &["mkfs.ext4", "debugfs", "mount", "umount", "cp", "root"];

fn debugfs(image: &Image, commands: &[&str]) -> String {
    let path = image.path();
    let script = path.with_file_name("script");
    std::fs::write(&script, commands.join("\n") + "\n").unwrap();
    let args = ["-w".as_ref(), "-f".as_ref(), script.as_os_str(), path.as_os_str()];
    String::from_utf8_lossy(&peer::run("debugfs", &args).stdout).into_owned()
}

fn name(i: usize) -> Vec<u8> {
    // Bytes above 127, of which hashes may or may not take the sign.
    [format!("{i}-").as_bytes(), &[0xc3, 0xa9, 0xff, 0x80][..1 + i % 4]].concat()
}

/// Breaks a block of a directory; then its list cannot be read, but by the index all names in other blocks are found.
fn is_found_by_index(image: &Image, names: usize, block_size: u64) {
    let system = image.open();
    let dir = system.lookup(system.root(), b"dir").unwrap().unwrap();
    let all: Vec<Inode> = (0..names).map(|i| system.lookup(dir, &name(i)).unwrap().unwrap()).collect();
    assert_eq!(system.lookup(dir, b"absent").unwrap(), None);
    let blocks = debugfs(image, &["blocks /dir"]);
    let mut numbers =
        blocks.lines().last().unwrap().split_whitespace().map(|number| number.parse::<u64>().unwrap());
    let broken = image.copy();
    let file = File::options().write(true).open(broken.path()).unwrap();
    // The last entry's length: there are no checksums.
    file.write_all_at(&[1, 0], numbers.next_back().unwrap() * block_size + 4).unwrap();
    let system = broken.open();
    assert_eq!(system.list(dir, &mut |_| Ok(())).unwrap_err().kind(), Kind::Corrupt);
    let found =
        (0..names).filter(|i| system.lookup(dir, &name(*i)).is_ok_and(|found| found == Some(all[*i])));
    let count = found.count();
    assert!(count < names && count > names * 3 / 4, "{count} of {names}");
}

#[test]
fn names_are_found_by_every_kind_of_index() {
    if !peer::require(TOOLS) {
        return;
    }
    for (version, flags, names) in [
        ("legacy", 1, 2500),
        ("half_md4", 1, 9000),
        ("half_md4", 2, 2500),
        ("tea", 1, 2500),
        ("tea", 2, 2500),
    ] {
        let image = Image::made(&["-b", "1024", "-N", "12000", "-O", "^metadata_csum"], LEN);
        debugfs(&image, &[&format!("ssv def_hash_version {version}"), &format!("ssv flags {flags}")]);
        let mounted = image.mount("rw");
        let dir = mounted.path().join("dir");
        std::fs::create_dir(&dir).unwrap();
        for i in 0..names {
            File::create(dir.join(std::ffi::OsStr::from_bytes(&name(i)))).unwrap();
        }
        drop(mounted);
        is_found_by_index(&image, names, 1024);
    }
}

#[test]
fn files_of_more_extents_than_a_table_has() {
    if !peer::require(TOOLS) {
        return;
    }
    for options in [&["-b", "1024"][..], &["-b", "1024", "-t", "ext2"]] {
        let image = Image::made(options, LEN);
        let mounted = image.mount("rw");
        let file = File::create(mounted.path().join("file")).unwrap();
        for i in 0..24_000 {
            file.write_all_at(&bytes(i, 1024), i * 2048).unwrap();
        }
        file.set_len(60 << 20).unwrap();
        drop((file, mounted));
        let mounted = image.mount("ro,noatime");
        let system = image.open();
        compare(mounted.path(), &system, But::default());
        let file = system.lookup(system.root(), b"file").unwrap().unwrap();
        let disk = system.file(file).unwrap();
        contract::split_reads(&disk, 1).unwrap();
        contract::walk_law(&disk).unwrap();
    }
}

#[test]
fn values_in_inodes_of_their_own() {
    if !peer::require(TOOLS) {
        return;
    }
    let image = Image::made(&["-b", "4096", "-O", "ea_inode"], LEN);
    let mounted = image.mount("rw");
    for (i, len) in [3000, 5000, 20_000, 60_000].into_iter().enumerate() {
        let path = mounted.path().join(format!("file-{i}"));
        File::create(&path).unwrap();
        let set = |name: &str, value: &[u8]| {
            rustix::fs::setxattr(&path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
        };
        set("user.large", &bytes(i as u64, len));
        set("user.same", &bytes(9, 10_000));
        set("trusted.small", b"small");
    }
    drop(mounted);
    let mounted = image.mount("ro,noatime");
    compare(mounted.path(), &image.open(), But::default());
}

#[test]
fn charts_of_files_keep_the_laws() {
    if !peer::require(TOOLS) {
        return;
    }
    let image = Image::made(&["-b", "4096", "-O", "inline_data"], LEN);
    let mounted = image.mount("rw");
    for len in [1, 60, 150, 5000, 300_000] {
        std::fs::write(mounted.path().join(format!("file-{len}")), bytes(len, len as usize)).unwrap();
    }
    let holes = File::create(mounted.path().join("holes")).unwrap();
    for i in 0..60 {
        holes.write_all_at(&bytes(i, 100), i * 9000).unwrap();
    }
    drop((holes, mounted));
    let system = fs::ext4::open(open(&image.path())).unwrap();
    let mut files = Vec::new();
    system
        .list(system.root(), &mut |entry| {
            files.push(entry.inode);
            Ok(())
        })
        .unwrap();
    let mut count = 0;
    for inode in files {
        let Ok(disk) = system.file(inode) else { continue };
        count += 1;
        contract::chart_law(&*disk).unwrap();
        contract::chart_agrees_with_read(&disk).unwrap();
        contract::split_reads(&disk, 7).unwrap();
        contract::walk_law(&disk).unwrap();
    }
    assert_eq!(count, 6);
}

/// Everything of a directory and below, as far as it is told of each: to be held against another such list.
fn all_of(system: &dyn FileSystem, directory: Inode, all: &mut Vec<(Vec<u8>, Stat, Vec<u8>)>) {
    let mut names = Vec::new();
    let listed = system.list(directory, &mut |entry| {
        names.push((entry.name.to_vec(), entry.inode));
        Ok(())
    });
    listed.unwrap();
    for (name, inode) in names {
        assert_eq!(system.lookup(directory, &name).unwrap(), Some(inode));
        let stat = system.stat(inode).unwrap();
        let mut content = Vec::new();
        if stat.kind == fs::Kind::File {
            content.resize(stat.len.min(100_000) as usize, 0);
            system.file(inode).unwrap().read_at(0, &mut content, Wait::Allowed).unwrap();
        }
        all.push((name, stat, content));
        if stat.kind == fs::Kind::Directory {
            all_of(system, inode, all);
        }
    }
}

#[test]
fn threads_read_one_file_system() {
    if !peer::require(TOOLS) {
        return;
    }
    let image = Image::made(&["-b", "1024"], LEN);
    let mounted = image.mount("rw");
    let can = super::populate::Can { block_size: 1024, extents: true, extra_times: true, names: 1000 };
    super::populate::populate(mounted.path(), can);
    drop(mounted);
    let alone = image.open();
    let mut expected = Vec::new();
    all_of(&alone, alone.root(), &mut expected);
    let system = image.open();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut found = Vec::new();
                all_of(&system, system.root(), &mut found);
                assert!(found == expected);
            });
        }
    });
}
