//! A tree with one of everything.

use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Mode, Timespec, Timestamps, XattrFlags};
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use testkit::Rng;

/// What the file system can hold.
#[derive(Clone, Copy)]
pub(crate) struct Can {
    pub(crate) block_size: usize,
    pub(crate) extents: bool,
    pub(crate) extra_times: bool,
    /// So many names in the largest directory.
    pub(crate) names: usize,
}

pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes);
    bytes
}

/// Fills a directory.
pub(crate) fn populate(root: &Path, can: Can) {
    files(root, can);
    holes(&root.join("holes"), can);
    special(&root.join("special"));
    links(&root.join("links"), can);
    attributes(&root.join("attributes"));
    directories(&root.join("directories"), can.names);
    times(&root.join("times"), can);
}

fn files(root: &Path, can: Can) {
    let block = can.block_size;
    for len in
        [0, 1, 59, 60, 61, 100, 140, 161, 1023, 1024, 1025, block - 1, block, block + 1, 13 * block, 300_001]
    {
        std::fs::write(root.join(format!("file-{len}")), bytes(len as u64, len)).unwrap();
    }
    std::fs::write(root.join("file-large"), bytes(7, 3 << 20)).unwrap();
    for mode in [0o000, 0o644, 0o4755, 0o2711, 0o1777] {
        let path = root.join(format!("mode-{mode:o}"));
        std::fs::write(&path, "mode").unwrap();
        std::os::unix::fs::chown(&path, Some(70_000 + mode), Some(4_000_000_000)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// Files of many extents, with holes, unwritten ranges, and more than they show.
fn holes(dir: &Path, can: Can) {
    std::fs::create_dir(dir).unwrap();
    let block = can.block_size as u64;
    let sparse = File::create(dir.join("sparse")).unwrap();
    for (i, at) in [0, 11, 12, 40, 300, 70_000, 6_600_000 / block].into_iter().enumerate() {
        sparse.write_all_at(&bytes(i as u64, 700 + i), at * block + 13).unwrap();
    }
    sparse.set_len(80_000 * block).unwrap();
    File::create(dir.join("nothing")).unwrap().set_len(5 << 20).unwrap();
    let many = File::create(dir.join("many")).unwrap();
    for i in 0..900 {
        many.write_all_at(&bytes(i, can.block_size), 2 * i * block).unwrap();
    }
    if !can.extents {
        return;
    }
    let reserved = File::create(dir.join("reserved")).unwrap();
    let allocate =
        |flags, from: u64, len: u64| rustix::fs::fallocate(&reserved, flags, from * block, len * block);
    allocate(FallocateFlags::empty(), 0, 40).unwrap();
    allocate(FallocateFlags::KEEP_SIZE, 40, 40).unwrap();
    reserved.write_all_at(&bytes(3, 5000), 3 * block).unwrap();
    reserved.write_all_at(&bytes(4, 5), 30 * block + 7).unwrap();
    let punched = File::create(dir.join("punched")).unwrap();
    punched.write_all_at(&bytes(5, 200 * can.block_size), 0).unwrap();
    for i in (1..199).step_by(3) {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&punched, punch, i * block, block).unwrap();
    }
}

fn special(dir: &Path) {
    std::fs::create_dir(dir).unwrap();
    let make = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, dir.join(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
    };
    for (major, minor) in [(1, 3), (8, 255), (8, 256), (259, 70_000), (4095, 1_048_575)] {
        let device = rustix::fs::makedev(major, minor);
        make(&format!("character-{major}-{minor}"), FileType::CharacterDevice, device);
        make(&format!("block-{major}-{minor}"), FileType::BlockDevice, device);
    }
    make("fifo", FileType::Fifo, 0);
    make("socket", FileType::Socket, 0);
}

fn links(dir: &Path, can: Can) {
    std::fs::create_dir(dir).unwrap();
    for len in [1, 58, 59, 60, 61, 140, 161, can.block_size.min(4096) - 2] {
        symlink("t".repeat(len), dir.join(format!("symbolic-{len}"))).unwrap();
    }
    symlink("../special/\u{e9}\u{4e2d}", dir.join("dangling")).unwrap();
    std::fs::write(dir.join("first"), "one content").unwrap();
    for i in 0..20 {
        std::fs::hard_link(dir.join("first"), dir.join(format!("hard-{i}"))).unwrap();
    }
}

/// Everything that is told to `setxattr`, of one path.
fn set(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// An access control list as system calls take it.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = Vec::from(2_u32.to_le_bytes());
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn attributes(dir: &Path) {
    std::fs::create_dir(dir).unwrap();
    let file = |name: &str| {
        let path = dir.join(name);
        std::fs::write(&path, name).unwrap();
        path
    };
    set(&file("short"), "user.comment", b"short");
    set(&file("empty"), "user.empty", b"");
    let many = file("many");
    for i in 0..12 {
        set(&many, &format!("user.attribute-{i}"), &bytes(i, 3 * i as usize + 1));
    }
    set(&many, "trusted.secret", &[0, 1, 2, 3]);
    set(&file("block"), "user.block", &bytes(9, 500));
    let nobody = u32::MAX;
    let list = acl(&[
        (1, 6, nobody),
        (2, 4, 1234),
        (2, 7, 70_000),
        (4, 4, nobody),
        (8, 5, 99),
        (16, 7, nobody),
        (32, 0, nobody),
    ]);
    set(&file("acl"), "system.posix_acl_access", &list);
    let guarded = dir.join("guarded");
    std::fs::create_dir(&guarded).unwrap();
    set(&guarded, "system.posix_acl_default", &list);
    std::fs::write(guarded.join("inherits"), "inherits").unwrap();
    // Version 2, and cap_net_raw allowed and effective.
    let mut capability = Vec::from(0x0200_0001_u32.to_le_bytes());
    capability.extend([0x00, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    set(&file("ping"), "security.capability", &capability);
    symlink("target", dir.join("link")).unwrap();
    set(&dir.join("link"), "trusted.link", b"of the link");
}

fn directories(dir: &Path, names: usize) {
    std::fs::create_dir(dir).unwrap();
    for (name, count) in [("two", 2), ("some", 30), ("large", names)] {
        let dir = dir.join(name);
        std::fs::create_dir(&dir).unwrap();
        for i in 0..count {
            File::create(dir.join(format!("{i}-{}", "n".repeat(i % 60)))).unwrap();
        }
        for i in (0..count).step_by(5) {
            std::fs::remove_file(dir.join(format!("{i}-{}", "n".repeat(i % 60)))).unwrap();
        }
    }
    let mut deep = dir.to_owned();
    for i in 0..40 {
        deep = deep.join(format!("{i}"));
        std::fs::create_dir(&deep).unwrap();
    }
    let odd = dir.join("odd");
    std::fs::create_dir(&odd).unwrap();
    for name in [&b"\xff\xfe"[..], b"\xe9t\xe9", b" ", b"...", b"-x", b"a\nb", &[b'x'; 255], &[0xc3; 254]] {
        std::fs::write(odd.join(std::ffi::OsStr::from_bytes(name)), "odd").unwrap();
    }
    std::fs::create_dir(dir.join("none")).unwrap();
}

fn times(dir: &Path, can: Can) {
    std::fs::create_dir(dir).unwrap();
    let far: &[i64] = if can.extra_times { &[4_102_444_800, 15_000_000_000, 2_147_483_648] } else { &[] };
    for seconds in [0, 1, -1, -1_000_000_000, 2_147_483_647].iter().chain(far) {
        let path = dir.join(format!("at-{seconds}"));
        std::fs::write(&path, "time").unwrap();
        let at = |nanos| Timespec { tv_sec: *seconds, tv_nsec: nanos };
        let times = Timestamps { last_access: at(123_456_789), last_modification: at(999_999_999) };
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()).unwrap();
    }
}
