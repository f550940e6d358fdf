//! A tree as the kernel shows it, held against the same tree as it is read.

use chart::{Disk, LeafPlace, Purpose, Wait};
use fs::{FileSystem, Inode, Kind, Stat, Time};
use rustix::fs::{AtFlags, CWD, SeekFrom, StatxFlags};
use std::collections::BTreeMap;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

/// What is not the same by the nature of things.
#[derive(Clone, Copy, Default)]
pub(crate) struct But {
    /// The two are not one file system: inode numbers, most times, what is stored and what is a
    /// hole may differ.
    pub(crate) copy: bool,
    /// How many blocks a file has was put right.
    pub(crate) counted: bool,
}

/// Holds all of a directory against what is read; returns how many names there are.
pub(crate) fn compare(root: &Path, system: &dyn FileSystem, but: But) -> usize {
    compare_directory(root, system, system.root(), but)
}

fn compare_directory(path: &Path, system: &dyn FileSystem, directory: Inode, but: But) -> usize {
    compare_one(path, system, directory, but);
    let mut found = BTreeMap::new();
    let listed = system.list(directory, &mut |entry| {
        let again = found.insert(entry.name.to_vec(), (entry.inode, entry.kind));
        assert!(again.is_none(), "{}: {:?} twice", path.display(), entry.name);
        Ok(())
    });
    listed.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut expected: Vec<Vec<u8>> =
        std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_vec()).collect();
    if but.copy && path.join("lost+found").exists() != found.contains_key(&b"lost+found"[..]) {
        found.remove(&b"lost+found"[..]);
        expected.retain(|name| name != b"lost+found");
    }
    expected.sort();
    let names: Vec<Vec<u8>> = found.keys().cloned().collect();
    assert!(names == expected, "{}: {} names instead of {}", path.display(), names.len(), expected.len());
    assert_eq!(system.lookup(directory, b"no such name").unwrap(), None);
    let mut count = names.len();
    for (name, (inode, kind)) in found {
        let child = path.join(std::ffi::OsStr::from_bytes(&name));
        let looked = system.lookup(directory, &name).unwrap_or_else(|e| panic!("{}: {e}", child.display()));
        assert_eq!(looked, Some(inode), "{}: looked up", child.display());
        let stat = system.stat(inode).unwrap_or_else(|e| panic!("{}: {e}", child.display()));
        assert!(
            kind.is_none_or(|kind| kind == stat.kind),
            "{}: the directory says {kind:?}",
            child.display()
        );
        if stat.kind == Kind::Directory {
            count += compare_directory(&child, system, inode, but);
        } else {
            compare_one(&child, system, inode, but);
        }
    }
    count
}

fn compare_one(path: &Path, system: &dyn FileSystem, inode: Inode, but: But) {
    let what = path.display();
    let stat = system.stat(inode).unwrap_or_else(|e| panic!("{what}: {e}"));
    compare_stat(path, &stat, but);
    compare_attributes(path, system, inode);
    match stat.kind {
        Kind::File => {
            let file = system.file(inode).unwrap_or_else(|e| panic!("{what}: {e}"));
            compare_content(path, &file, but);
        }
        Kind::Symlink => {
            let target = system.target(inode).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(target, std::fs::read_link(path).unwrap().into_os_string().into_vec(), "{what}");
        }
        _ => {}
    }
}

fn time(seconds: i64, nanos: i64) -> Time {
    Time { seconds, nanos: nanos.try_into().unwrap() }
}

fn compare_stat(path: &Path, stat: &Stat, but: But) {
    let what = path.display();
    let real = std::fs::symlink_metadata(path).unwrap();
    let of = real.file_type();
    let kind = match () {
        () if of.is_file() => Kind::File,
        () if of.is_dir() => Kind::Directory,
        () if of.is_symlink() => Kind::Symlink,
        () if of.is_char_device() => Kind::CharacterDevice,
        () if of.is_block_device() => Kind::BlockDevice,
        () if of.is_fifo() => Kind::Fifo,
        () => Kind::Socket,
    };
    assert_eq!(stat.kind, kind, "{what}");
    let owned = (stat.mode.into(), stat.uid, stat.gid);
    assert_eq!(owned, (real.mode() & 0o7777, real.uid(), real.gid()), "{what}: mode and owners");
    let device = stat.device.map(|(major, minor)| rustix::fs::makedev(major, minor));
    assert_eq!(device.unwrap_or(0), real.rdev(), "{what}: device");
    if kind != Kind::Directory || !but.copy {
        assert_eq!((stat.links, stat.len), (real.nlink(), real.len()), "{what}: links and length");
    }
    if but.copy {
        // Directories change while they are filled, and fractions of seconds are not taken over.
        let modified = (kind != Kind::Directory).then_some(stat.modified.seconds);
        assert_eq!(modified.unwrap_or(real.mtime()), real.mtime(), "{what}: modified");
        return;
    }
    assert_eq!(stat.modified, time(real.mtime(), real.mtime_nsec()), "{what}: modified");
    assert_eq!(stat.inode.0, real.ino(), "{what}");
    assert_eq!(stat.accessed, time(real.atime(), real.atime_nsec()), "{what}: accessed");
    assert_eq!(stat.changed, time(real.ctime(), real.ctime_nsec()), "{what}: changed");
    if !but.counted {
        assert_eq!(stat.stored, Some(real.blocks() * 512), "{what}: stored");
    }
    let more = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BTIME).unwrap();
    let born = (more.stx_mask & StatxFlags::BTIME.bits() != 0)
        .then(|| time(more.stx_btime.tv_sec, more.stx_btime.tv_nsec.into()));
    assert_eq!(stat.born, born, "{what}: born");
}

fn compare_attributes(path: &Path, system: &dyn FileSystem, inode: Inode) {
    let what = path.display();
    let mut names = vec![0; 64 << 10];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let mut expected = BTreeMap::new();
    for name in names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(len);
        expected.insert(name.to_vec(), value);
    }
    let told = system.attributes(inode).unwrap_or_else(|e| panic!("{what}: {e}"));
    let count = told.len();
    let found: BTreeMap<_, _> = told.into_iter().map(|a| (a.name, a.value)).collect();
    assert_eq!(count, found.len(), "{what}: an attribute twice");
    // What the host's own security adds to what it shows is not in the image.
    expected.retain(|name, _| name != b"security.selinux" || found.contains_key(name));
    assert_eq!(found, expected, "{what}: attributes");
}

fn compare_content(path: &Path, file: &Disk, but: But) {
    let what = path.display();
    let real = std::fs::File::open(path).unwrap();
    let expected = real_data(&real);
    let mut ours = Vec::<(u64, u64)>::new();
    let mut at = 0;
    while at < file.len() {
        let leaf = file.leaf(at, file.len() - at, Wait::Allowed, Purpose::Locate).unwrap();
        if matches!(leaf.place, LeafPlace::Raw { .. }) {
            match ours.last_mut() {
                Some((_, end)) if *end == at => *end = leaf.end(),
                _ => ours.push((at, leaf.end())),
            }
        }
        at = leaf.end();
    }
    // What was read under another name is in memory, and data then to the kernel, though it was never written.
    let read_before = real.metadata().unwrap().nlink() > 1;
    if !but.copy && !read_before {
        assert_eq!(ours, expected, "{what}: where there is data");
    }
    for (start, end) in expected.into_iter().chain(ours) {
        let mut at = start;
        while at < end {
            let len = (end - at).min(1 << 20) as usize;
            let (mut real_bytes, mut bytes) = (vec![0; len], vec![1; len]);
            std::os::unix::fs::FileExt::read_exact_at(&real, &mut real_bytes, at).unwrap();
            file.read_at(at, &mut bytes, Wait::Allowed).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(bytes == real_bytes, "{what}: bytes from {at} on");
            at += len as u64;
        }
    }
}

/// Where the kernel says that there is data.
fn real_data(file: &std::fs::File) -> Vec<(u64, u64)> {
    let len = file.metadata().unwrap().len();
    let (mut data, mut at) = (Vec::new(), 0);
    while at < len {
        let Ok(start) = rustix::fs::seek(file, SeekFrom::Data(at)) else { break };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap();
        data.push((start, end));
        at = end;
    }
    data
}
