//! Whether two trees are the same, in all that can be seen of them.

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What is seen of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    links: u64,
    size: u64,
    device: u64,
    modified: (i64, i64),
    accessed: (i64, i64),
    /// The names it shares a file with begin with this one.
    first: PathBuf,
    content: Vec<u8>,
    pub(crate) attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Bytes that are stored, in blocks: of a sparse file, few.
    pub(crate) stored: u64,
}

impl Seen {
    /// How many bytes it has.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// But for what differs by file system: how many bytes are stored.
    pub(crate) fn same(&self, other: &Seen) -> bool {
        *self == Seen { stored: self.stored, ..other.clone() }
    }
}

/// Everything in a directory, by its path.
pub(crate) fn look(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut found = BTreeMap::new();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME;
    let at = rustix::fs::open(root, flags, Mode::empty()).unwrap();
    let mut firsts = BTreeMap::new();
    folder(&at, Path::new(""), &mut found, &mut firsts);
    found
}

type Firsts = BTreeMap<u64, PathBuf>;

fn folder(at: &OwnedFd, path: &Path, found: &mut BTreeMap<PathBuf, Seen>, firsts: &mut Firsts) {
    let mut names: Vec<_> = Dir::read_from(at).unwrap().map(|e| e.unwrap().file_name().to_owned()).collect();
    names.sort();
    names.insert(0, c".".to_owned());
    for name in names {
        let bytes = name.to_bytes();
        if bytes == b".." || (bytes == b"." && !path.as_os_str().is_empty()) {
            continue;
        }
        let here = path.join(OsStr::from_bytes(bytes));
        let stat = rustix::fs::statat(at, &name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        let kind = FileType::from_raw_mode(stat.st_mode);
        let inner = (kind == FileType::Directory && bytes != b".").then(|| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME | OFlags::NOFOLLOW;
            rustix::fs::openat(at, &name, flags, Mode::empty()).unwrap()
        });
        let content = match kind {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::NOFOLLOW;
                let file = rustix::fs::openat(at, &name, flags, Mode::empty()).unwrap();
                let mut content = Vec::new();
                std::fs::File::from(file).read_to_end(&mut content).unwrap();
                content
            }
            FileType::Symlink => rustix::fs::readlinkat(at, &name, Vec::new()).unwrap().into_bytes(),
            _ => Vec::new(),
        };
        let (directory, link) = (kind == FileType::Directory, kind == FileType::Symlink);
        let first = firsts.entry(stat.st_ino).or_insert_with(|| here.clone());
        let seen = Seen {
            mode: stat.st_mode,
            owner: (stat.st_uid, stat.st_gid),
            links: if directory { 0 } else { stat.st_nlink },
            size: if directory { 0 } else { stat.st_size as u64 },
            device: stat.st_rdev,
            modified: (stat.st_mtime, stat.st_mtime_nsec as i64),
            // Looking where a link leads counts as reading it.
            accessed: if link { (0, 0) } else { (stat.st_atime, stat.st_atime_nsec as i64) },
            first: first.clone(),
            content,
            attributes: attributes(at, bytes),
            stored: stat.st_blocks as u64 * 512,
        };
        found.insert(here.clone(), seen);
        if let Some(inner) = inner {
            folder(&inner, &here, found, firsts);
        }
    }
}

fn attributes(at: &OwnedFd, name: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", at.as_raw_fd())).join(OsStr::from_bytes(name));
    let mut room = vec![0; 64 << 10];
    let len = rustix::fs::llistxattr(&path, &mut room[..]).unwrap();
    let names: Vec<_> =
        room[..len].split(|b| *b == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect();
    let value = |name: &[u8]| {
        let mut room = vec![0; 64 << 10];
        let len = rustix::fs::lgetxattr(&path, OsStr::from_bytes(name), &mut room[..]).unwrap();
        room[..len].to_vec()
    };
    // What XFS shows of the access lists that it keeps.
    let own = |name: &Vec<u8>| name.starts_with(b"trusted.SGI_ACL_");
    names.into_iter().filter(|name| !own(name)).map(|name| (name.clone(), value(&name))).collect()
}

/// That two trees are the same.
#[track_caller]
pub(crate) fn same(ours: &Path, theirs: &Path) {
    let (ours, theirs) = (look(ours), look(theirs));
    let differs = |path: &PathBuf| match (ours.get(path), theirs.get(path)) {
        (Some(a), Some(b)) => !a.same(b),
        _ => true,
    };
    let mut paths: Vec<_> = ours.keys().chain(theirs.keys()).filter(|path| differs(path)).collect();
    paths.sort();
    paths.dedup();
    let shown = |seen: Option<&Seen>| {
        seen.map(|s| Seen { content: s.content[..s.content.len().min(80)].into(), ..s.clone() })
    };
    let first: Vec<_> =
        paths.iter().take(5).map(|path| (path, shown(ours.get(*path)), shown(theirs.get(*path)))).collect();
    assert!(paths.is_empty(), "{} of {} differ: {first:#?}", paths.len(), theirs.len());
}
