//! A tree that holds one of everything.

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Not zero, and told apart by position.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 3 % 251) as u8 + 1).collect()
}

/// Fills a directory, as root.
pub(crate) fn fill(root: &Path) {
    names(root);
    contents(root);
    links(root);
    attributes(root);
    devices(root);
    deep(root);
    // Last, since making things changes times.
    modes_owners_times(root);
}

fn names(root: &Path) {
    let dir = root.join("names");
    std::fs::create_dir(&dir).unwrap();
    let long = "x".repeat(255);
    let names: [&[u8]; 7] = [
        b"with blank",
        "\u{fc}ml\u{e4}ut \u{1f600}".as_bytes(),
        b"\xff\xfe",
        b"new\nline",
        b"-rf",
        b"\\",
        long.as_bytes(),
    ];
    for name in names {
        std::fs::write(dir.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let many = root.join("many");
    std::fs::create_dir(&many).unwrap();
    for i in 0..1500 {
        std::fs::write(many.join(format!("file number {i}")), pattern(i % 97)).unwrap();
    }
}

fn contents(root: &Path) {
    let dir = root.join("contents");
    std::fs::create_dir(&dir).unwrap();
    for len in [0, 1, 59, 60, 61, 156, 4095, 4096, 4097, 65_536, 100_000, 1 << 20, (1 << 20) + 1, 5_000_000] {
        std::fs::write(dir.join(format!("{len}")), pattern(len)).unwrap();
    }
    let sparse = |name: &str, len: u64, runs: &[(u64, usize)]| {
        let file = std::fs::File::create(dir.join(name)).unwrap();
        file.set_len(len).unwrap();
        runs.iter().for_each(|(at, len)| file.write_all_at(&pattern(*len), *at).unwrap());
    };
    sparse("hole", 64 << 20, &[]);
    sparse("small hole", 20_000, &[]);
    sparse("hole first", 12 << 20, &[(11 << 20, 1 << 20)]);
    sparse("hole last", 12 << 20, &[(0, 100)]);
    sparse("hole between", 8 << 20, &[(0, 5000), ((8 << 20) - 7, 7)]);
    sparse("comb", 4 << 20, &(0..64).map(|i| (i << 16, 4096)).collect::<Vec<_>>());
    // Allocated and never written.
    let file = std::fs::File::create(dir.join("reserved")).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 3 << 20).unwrap();
    file.write_all_at(&pattern(5000), 1 << 20).unwrap();
}

fn links(root: &Path) {
    let dir = root.join("links");
    std::fs::create_dir(&dir).unwrap();
    let long = format!("../{}", "y".repeat(1000));
    for (i, target) in
        ["a", "/etc/passwd", "../../../../..", &"z".repeat(59), &"z".repeat(60), &long].iter().enumerate()
    {
        symlink(target, dir.join(format!("symlink {i}"))).unwrap();
    }
    std::fs::write(dir.join("first"), "linked").unwrap();
    std::fs::hard_link(dir.join("first"), dir.join("second")).unwrap();
    std::fs::hard_link(dir.join("first"), root.join("names/third")).unwrap();
    std::fs::hard_link(dir.join("symlink 0"), dir.join("symlink 0 again")).unwrap();
}

/// An access list as it is stored: what the kernel's `posix_acl_xattr` says.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend([tag.to_le_bytes(), permissions.to_le_bytes()].concat());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn attributes(root: &Path) {
    let dir = root.join("attributes");
    std::fs::create_dir(&dir).unwrap();
    let set = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())
            .unwrap_or_else(|e| panic!("{name}: {e}"));
    };
    let none = u32::MAX;
    let access = acl(&[(1, 6, none), (2, 7, 1234), (4, 4, none), (0x10, 6, none), (0x20, 0, none)]);
    for name in ["file", "other"] {
        std::fs::write(dir.join(name), "content").unwrap();
        set(&dir.join(name), "user.comment", "\u{fc}".as_bytes());
        set(&dir.join(name), "user.empty", b"");
        set(&dir.join(name), "trusted.secret", &pattern(40));
    }
    set(&dir.join("file"), "user.long", &pattern(3000));
    set(&dir.join("file"), "security.thing", b"tag");
    // cap_net_raw+ep
    let capability = [0x0200_0001_u32, 1 << 13, 0, 0, 0].map(u32::to_le_bytes).concat();
    set(&dir.join("other"), "security.capability", &capability);
    std::fs::write(dir.join("listed"), "").unwrap();
    set(&dir.join("listed"), "system.posix_acl_access", &access);
    std::fs::create_dir(dir.join("inner")).unwrap();
    set(&dir.join("inner"), "user.of", b"a directory");
    set(&dir.join("inner"), "system.posix_acl_default", &access);
    std::fs::write(dir.join("inner/heir"), "").unwrap();
    symlink("file", dir.join("link")).unwrap();
    set(&dir.join("link"), "trusted.of", b"a link");
}

fn devices(root: &Path) {
    let dir = root.join("devices");
    std::fs::create_dir(&dir).unwrap();
    let make = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, dir.join(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
    };
    make("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    make("wide", FileType::BlockDevice, rustix::fs::makedev(259, 70_000));
    make("pipe", FileType::Fifo, 0);
    make("socket", FileType::Socket, 0);
}

/// Directories in each other, further than a path can name.
fn deep(root: &Path) {
    let name = "d".repeat(200);
    let mut at = rustix::fs::open(root, OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..30 {
        rustix::fs::mkdirat(&at, name.as_str(), Mode::from_raw_mode(0o755)).unwrap();
        at = rustix::fs::openat(&at, name.as_str(), OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let flags = OFlags::CREATE | OFlags::WRONLY;
    rustix::fs::openat(&at, "bottom", flags, Mode::from_raw_mode(0o600)).unwrap();
}

fn modes_owners_times(root: &Path) {
    let dir = root.join("modes");
    std::fs::create_dir(&dir).unwrap();
    for mode in [0, 0o400, 0o444, 0o600, 0o644, 0o666, 0o755, 0o777, 0o4755, 0o2755, 0o6711, 0o1644] {
        for owner in [0, 1000] {
            let path = dir.join(format!("{mode:o} of {owner}"));
            std::fs::write(&path, "x").unwrap();
            std::os::unix::fs::chown(&path, Some(owner), Some(owner + 1)).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        }
    }
    for mode in [0, 0o555, 0o700, 0o755, 0o1777, 0o2775] {
        let path = dir.join(format!("directory {mode:o}"));
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("inside"), "x").unwrap();
        std::os::unix::fs::chown(&path, Some(7), Some(8)).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    }
    let link = root.join("links/symlink 1");
    std::os::unix::fs::lchown(&link, Some(5), Some(6)).unwrap();
    let owner = (Some(Uid::from_raw(70_000)), Some(Gid::from_raw(80_000)));
    rustix::fs::chown(root.join("devices/null"), owner.0, owner.1).unwrap();
    let times: [(&str, i64, i64); 6] = [
        ("contents/1", 1, 0),
        ("contents/59", -1_000_000_000, 5),
        ("contents/60", 4_000_000_000, 999_999_999),
        ("links/symlink 1", 12_345, 678_901_234),
        ("devices/null", 1_000_000_000, 1),
        ("modes", 1_500_000_000, 123_456_789),
    ];
    for (path, tv_sec, tv_nsec) in times {
        let time = Timespec { tv_sec, tv_nsec };
        let times = Timestamps { last_access: Timespec { tv_nsec: 7, tv_sec: 99 }, last_modification: time };
        let path: PathBuf = root.join(path);
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}
