//! Finding what is to be made, and making the directories for it.

use super::Job;
use super::queue::{Item, Unit};
use super::report::{Tally, shown};
use super::target::name;
use chart::{Error, Result};
use fs::{Entry, Inode, Kind, Stat};
use rustix::fs::Mode;
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

/// So many directories are extracted at once.
pub const MAX_DIRECTORIES: usize = 1 << 22;
/// So many names of files that have several.
pub const MAX_LINKED: usize = 1 << 22;
/// So many names of all kinds.
pub const MAX_NAMES: u64 = 1 << 28;
/// So deep may directories lie in each other.
pub const MAX_DEPTH: usize = 4096;
/// So many bytes may the paths of all directories have: each is known until the end.
pub const MAX_PATH_BYTES: usize = 1 << 30;

/// So many files of a directory are handed on together.
const UNIT: usize = 256;

/// Why something was left out.
pub(super) const TWICE: &str = "names that a directory holds twice";

/// A directory that was made.
pub(super) struct Folder {
    /// From the outermost one.
    pub(super) path: Arc<Path>,
    pub(super) stat: Stat,
    /// The mode it was asked to be made with.
    pub(super) made: u32,
    depth: usize,
}

/// Where a name is.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) folder: Arc<Path>,
    pub(super) name: Box<[u8]>,
}

/// A further name of a file.
pub(super) struct Link {
    pub(super) first: Place,
    pub(super) further: Place,
}

/// Finds everything below a directory.
pub(super) struct Scanner<'j> {
    job: &'j Job<'j>,
    pub(super) tally: Tally,
    /// Every directory that was found, in the order in which they were made.
    pub(super) folders: Vec<Folder>,
    /// Made once all files are.
    pub(super) links: Vec<Link>,
    seen: HashSet<Inode>,
    linked: HashMap<Inode, Place>,
    names: u64,
    path_bytes: usize,
}

impl<'j> Scanner<'j> {
    /// Begins at a directory, which is made already.
    pub(super) fn new(job: &'j Job<'j>, root: Stat) -> Self {
        let folder = Folder { path: Path::new("").into(), stat: root, made: 0o700, depth: 0 };
        Scanner {
            job,
            tally: Tally::default(),
            seen: HashSet::from([root.inode]),
            folders: vec![folder],
            links: Vec::new(),
            linked: HashMap::new(),
            names: 0,
            path_bytes: 0,
        }
    }

    /// Finds everything, and hands on what is to be made.
    pub(super) fn run(&mut self) -> Result<()> {
        // Directories are numbered as they are found: those of one directory are next to each other.
        let mut open = vec![0];
        while let Some(at) = open.pop() {
            let Some(folder) = self.folders.get(at) else { continue };
            let (path, inode, depth) = (Arc::clone(&folder.path), folder.stat.inode, folder.depth);
            let first = self.folders.len();
            match self.folder(&path, inode, depth) {
                Ok(()) => {}
                Err(e) if self.job.forgives(&e, &path) => self.tally.unreadable(&path, b"", &e),
                Err(e) => return Err(e.during(format!("reading {}", shown(&path, b"")))),
            }
            open.extend((first..self.folders.len()).rev());
        }
        Ok(())
    }

    fn folder(&mut self, path: &Arc<Path>, inode: Inode, depth: usize) -> Result<()> {
        let directory = self.job.target.open(path)?;
        let mut items = Vec::new();
        let fs = self.job.fs;
        let done = fs.list(inode, &mut |entry| {
            self.job.options.watch.go_on()?;
            self.entry(directory.as_fd(), path, depth, entry, &mut items)?;
            if items.len() >= UNIT {
                self.hand_on(path, &mut items);
            }
            if self.job.is_over() { Err(Error::conflict("another thread failed")) } else { Ok(()) }
        });
        // What was found before an error is as good as it was.
        self.hand_on(path, &mut items);
        done
    }

    fn hand_on(&self, path: &Arc<Path>, items: &mut Vec<Item>) {
        if items.is_empty() {
            return;
        }
        let mut items = std::mem::take(items);
        // File systems number inodes as they place them: this is close to the order of the bytes on the disk.
        items.sort_unstable_by_key(|item| item.stat.inode);
        self.job.queue.put(Unit { folder: Arc::clone(path), items });
    }

    fn entry(
        &mut self,
        directory: BorrowedFd<'_>,
        path: &Arc<Path>,
        depth: usize,
        entry: Entry<'_>,
        items: &mut Vec<Item>,
    ) -> Result<()> {
        self.names += 1;
        if self.names > MAX_NAMES {
            return Err(Error::unsupported(format!("more than {MAX_NAMES} names")));
        }
        let stat = match name(entry.name).and_then(|_| self.job.fs.stat(entry.inode)) {
            Ok(stat) => stat,
            Err(e) if self.job.forgives(&e, path) => {
                self.tally.unreadable(path, entry.name, &e);
                return Ok(());
            }
            Err(e) => return Err(e.during(shown(path, entry.name))),
        };
        if stat.kind == Kind::Directory {
            return match self.directory(directory, path, depth, entry.name, stat) {
                Err(e) if self.job.forgives(&e, path) => {
                    self.tally.unreadable(path, entry.name, &e);
                    Ok(())
                }
                done => done,
            };
        }
        if stat.links > 1 {
            let place = Place { folder: Arc::clone(path), name: entry.name.into() };
            if let Some(first) = self.linked.get(&stat.inode) {
                self.links.push(Link { first: first.clone(), further: place });
                return if self.links.len() > MAX_LINKED { Err(too_many_links()) } else { Ok(()) };
            }
            self.linked.insert(stat.inode, place);
            if self.linked.len() > MAX_LINKED {
                return Err(too_many_links());
            }
        }
        self.job.found(stat.len);
        items.push(Item { name: entry.name.into(), stat });
        Ok(())
    }

    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        path: &Arc<Path>,
        depth: usize,
        entry: &[u8],
        stat: Stat,
    ) -> Result<()> {
        let named = name(entry)?;
        let depth = depth + 1;
        if !self.seen.insert(stat.inode) {
            let what = format!("{} is a directory that has another name already", shown(path, entry));
            return Err(Error::corrupt(what));
        }
        if self.folders.len() >= MAX_DIRECTORIES || depth > MAX_DEPTH {
            let what = format!("more than {MAX_DIRECTORIES} directories, or {MAX_DEPTH} in each other");
            return Err(Error::unsupported(what));
        }
        let own = path.join(named);
        self.path_bytes += own.as_os_str().len();
        if self.path_bytes > MAX_PATH_BYTES {
            let what = format!("the paths of its directories have more than {MAX_PATH_BYTES} bytes together");
            return Err(Error::unsupported(what));
        }
        let made = u32::from(stat.mode & 0o777) | 0o700;
        match rustix::fs::mkdirat(parent, named, Mode::from_raw_mode(made)) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                self.tally.skip(TWICE, path, entry);
                return Ok(());
            }
            Err(e) => return Err(Error::from(std::io::Error::from(e)).in_path(path.as_ref())),
        }
        self.folders.push(Folder { path: own.into(), stat, made, depth });
        Ok(())
    }
}

fn too_many_links() -> Error {
    Error::unsupported(format!("more than {MAX_LINKED} names of files that have several"))
}
