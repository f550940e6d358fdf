//! The walk: level by level, each directory opened beneath the root, listed, and its names looked at in the order of
//! their inodes.

use super::node::{self, Kind, NodeId, Record};
use super::{MAX_DEPTH, MAX_NAME_BYTES, Options, Skipped, Tree, as_path, beneath};
use crate::watch::Watch;
use chart::{Error, Result};
use rustix::fs::{Access, AtFlags, OFlags, RawDir, Statx, StatxFlags, makedev};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// As much of a directory is read at once.
const LISTED_BYTES: usize = 64 << 10;

/// With fewer directories in a level, more threads cost more than they bring.
const ALONE: usize = 32;
/// More threads than this wait for each other in the kernel.
const THREADS: usize = 4;
/// Directories that a thread takes at once.
const SHARE: usize = 8;

/// So many of what could not be read are named in an error.
const NAMED: usize = 3;

/// All that a tree tells, and whether a file has holes.
const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// Walks what is beneath `root`, which was named `path`.
pub(super) fn walk(root: OwnedFd, path: &Path, options: &Options, watch: Watch<'_>) -> Result<Tree> {
    let fails = |e: Errno| Error::from(std::io::Error::from(e)).in_path(path);
    let stat = rustix::fs::statx(&root, c"", AtFlags::EMPTY_PATH, WANTED).map_err(fails)?;
    let mut devices = Devices::default();
    let mut tree = Tree {
        root: Arc::new(root),
        path: path.to_path_buf(),
        records: vec![Record::new(&stat, devices.index(&stat))],
        names: Vec::new(),
        devices: Vec::new(),
        skipped: Vec::new(),
    };
    let nodes = AtomicU64::new(1);
    let mut level = 0..1;
    for depth in 0.. {
        let enter: Vec<u32> = level.clone().filter(|&id| enters(&tree, options, id)).collect();
        if enter.is_empty() {
            break;
        }
        if depth == MAX_DEPTH {
            let what = format!("more than {MAX_DEPTH} directories in each other");
            return Err(Error::unsupported(what).in_path(path.join(tree.path(NodeId(enter[0])))));
        }
        watch.go_on()?;
        let batches = list_all(&tree, options, &enter, &nodes)?;
        let first = tree.records.len() as u32;
        merge(&mut tree, &mut devices, batches)?;
        level = first..tree.records.len() as u32;
    }
    if !options.skip_unreadable {
        refuse(&tree)?;
    }
    tree.records.shrink_to_fit();
    tree.names.shrink_to_fit();
    tree.devices = devices.list;
    Ok(tree)
}

fn enters(tree: &Tree, options: &Options, id: u32) -> bool {
    let record = &tree.records[id as usize];
    // Indices of devices are comparable: the root's is 0.
    record.kind() == Kind::Directory && (!options.one_file_system || record.device == 0)
}

/// An error that names what could not be read.
fn refuse(tree: &Tree) -> Result<()> {
    let Some(first) = tree.skipped.first() else { return Ok(()) };
    let path = tree.path.join(&first.path);
    let others = &tree.skipped[1..];
    let named: Vec<_> = others.iter().take(NAMED).map(|s| s.path.display().to_string()).collect();
    let error = first.error.repeat().in_path(path);
    Err(match others.len() {
        0 => error,
        n if n <= NAMED => error.during(format!("{} cannot be read either", named.join(", "))),
        n => error.during(format!("{} and {} more cannot be read either", named.join(", "), n - NAMED)),
    })
}

/// The devices that were met, each by a small number.
#[derive(Default)]
struct Devices {
    list: Vec<u64>,
    known: HashMap<u64, u32>,
}

impl Devices {
    fn index(&mut self, stat: &Statx) -> u32 {
        self.number(makedev(stat.stx_dev_major, stat.stx_dev_minor))
    }

    fn number(&mut self, device: u64) -> u32 {
        let list = &mut self.list;
        *self.known.entry(device).or_insert_with(|| {
            list.push(device);
            list.len() as u32 - 1
        })
    }
}

/// What one thread found in some directories of a level.
#[derive(Default)]
struct Batch {
    records: Vec<Record>,
    names: Vec<u8>,
    devices: Devices,
    /// Each directory, and its part of the records.
    lists: Vec<(u32, Range<usize>)>,
    skipped: Vec<Skipped>,
}

/// Lists directories, in threads where there are many.
fn list_all(tree: &Tree, options: &Options, enter: &[u32], nodes: &AtomicU64) -> Result<Vec<Batch>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut scout = Scout::new(tree, options, nodes);
        loop {
            let at = next.fetch_add(SHARE, Ordering::Relaxed);
            let Some(share) = enter.get(at..) else { return Ok(scout.batch) };
            if share.is_empty() {
                return Ok(scout.batch);
            }
            for &id in share.iter().take(SHARE) {
                scout.list(id)?;
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if enter.len() < ALONE { 1 } else { cores.min(THREADS) };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut batches = vec![work()];
        for other in others {
            batches.push(other.join().unwrap_or_else(|_| Err(Error::io("a thread of the walk failed"))));
        }
        batches.into_iter().collect()
    })
}

/// Puts what was found in a level behind what was known, in the order of its directories.
fn merge(tree: &mut Tree, devices: &mut Devices, batches: Vec<Batch>) -> Result<()> {
    let mut lists: Vec<_> = Vec::new();
    for (i, batch) in batches.iter().enumerate() {
        lists.extend(batch.lists.iter().map(|(id, range)| (*id, i, range.clone())));
    }
    lists.sort_unstable_by_key(|&(id, ..)| id);
    let mut bases = Vec::new();
    for batch in &batches {
        bases.push(tree.names.len());
        if tree.names.len() + batch.names.len() > MAX_NAME_BYTES as usize {
            let what = format!("more than {MAX_NAME_BYTES} bytes of names");
            return Err(Error::unsupported(what).in_path(&tree.path));
        }
        tree.names.extend_from_slice(&batch.names);
    }
    for (id, i, range) in lists {
        let (batch, base) = (&batches[i], bases[i]);
        let first = tree.records.len();
        tree.records[id as usize].set_content(first, range.len());
        for record in &batch.records[range] {
            let mut record = *record;
            record.settle(base, id);
            record.device = devices.number(batch.devices.list[record.device as usize]);
            tree.records.push(record);
        }
    }
    let before = tree.skipped.len();
    tree.skipped.extend(batches.into_iter().flat_map(|batch| batch.skipped));
    tree.skipped[before..].sort_by(|a, b| a.path.cmp(&b.path));
    Ok(())
}

/// A name in a directory: where it lies in the scratch space, how long it is, and its inode.
#[derive(Clone, Copy)]
struct Entry {
    at: usize,
    len: usize,
    inode: u64,
}

/// One thread that lists directories.
struct Scout<'t> {
    tree: &'t Tree,
    options: &'t Options,
    /// How many nodes all of them found.
    nodes: &'t AtomicU64,
    root: bool,
    batch: Batch,
    path: Vec<u8>,
    buffer: Vec<MaybeUninit<u8>>,
    /// The names in a directory, each with a zero at its end.
    scratch: Vec<u8>,
    entries: Vec<Entry>,
    found: Vec<(Entry, Record)>,
}

impl<'t> Scout<'t> {
    fn new(tree: &'t Tree, options: &'t Options, nodes: &'t AtomicU64) -> Scout<'t> {
        Scout {
            tree,
            options,
            nodes,
            root: rustix::process::geteuid().is_root(),
            batch: Batch::default(),
            path: Vec::new(),
            buffer: vec![MaybeUninit::uninit(); LISTED_BYTES],
            scratch: Vec::new(),
            entries: Vec::new(),
            found: Vec::new(),
        }
    }

    /// Lists one directory.
    fn list(&mut self, id: u32) -> Result<()> {
        self.path.clear();
        node::push_path(&self.tree.records, &self.tree.names, NodeId(id), &mut self.path);
        let start = self.batch.records.len();
        match self.look_into() {
            Ok(()) => {}
            // It is gone: nothing is in it.
            Err(Stop::Unreadable(Errno::NOENT)) => self.found.clear(),
            Err(Stop::Unreadable(e)) if id == 0 => return Err(unreadable(e).in_path(&self.tree.path)),
            Err(Stop::Unreadable(e)) => {
                self.found.clear();
                self.skip(b"", unreadable(e));
            }
            Err(Stop::Limit(e)) => return Err(e),
        }
        let (scratch, batch) = (&self.scratch, &mut self.batch);
        let name = |entry: &Entry| &scratch[entry.at..][..entry.len];
        self.found.sort_unstable_by(|(a, _), (b, _)| name(a).cmp(name(b)));
        for (entry, record) in self.found.drain(..) {
            let mut record = record;
            record.set_name(batch.names.len(), entry.len);
            batch.names.extend_from_slice(name(&entry));
            batch.records.push(record);
        }
        batch.lists.push((id, start..batch.records.len()));
        Ok(())
    }

    fn look_into(&mut self) -> Result<(), Stop> {
        let fd = open_directory(self.tree.root.as_fd(), &self.path)?;
        self.read_names(fd.as_fd())?;
        let found = self.nodes.fetch_add(self.entries.len() as u64, Ordering::Relaxed);
        if found + self.entries.len() as u64 > self.options.most_nodes.into() {
            let what = format!("more than {} files and directories", self.options.most_nodes);
            return Err(Stop::Limit(Error::unsupported(what).in_path(&self.tree.path)));
        }
        // Inodes lie near each other on the disk where their numbers do.
        self.entries.sort_unstable_by_key(|entry| entry.inode);
        for i in 0..self.entries.len() {
            self.look_at(fd.as_fd(), self.entries[i])?;
        }
        Ok(())
    }

    /// Reads the names in a directory into the scratch space.
    fn read_names(&mut self, fd: BorrowedFd<'_>) -> Result<(), Stop> {
        self.entries.clear();
        self.scratch.clear();
        let mut list = RawDir::new(fd, &mut self.buffer);
        while let Some(entry) = list.next() {
            let entry = match entry {
                Err(Errno::INTR) => continue,
                entry => entry?,
            };
            let name = entry.file_name().to_bytes_with_nul();
            if matches!(name, b".\0" | b"..\0") {
                continue;
            }
            if self.entries.len() as u64 >= self.options.most_nodes.into() {
                break;
            }
            let (at, len) = (self.scratch.len(), name.len() - 1);
            self.entries.push(Entry { at, len, inode: entry.ino() });
            self.scratch.extend_from_slice(name);
        }
        Ok(())
    }

    /// Looks at one name in a directory.
    fn look_at(&mut self, fd: BorrowedFd<'_>, entry: Entry) -> Result<(), Stop> {
        let bytes = &self.scratch[entry.at..=entry.at + entry.len];
        let Ok(name) = CStr::from_bytes_with_nul(bytes) else { return Ok(()) };
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let stat = match rustix::fs::statx(fd, name, flags, WANTED) {
            Ok(stat) => stat,
            // It is gone.
            Err(Errno::NOENT) => return Ok(()),
            Err(e) => {
                let name = name.to_bytes().to_vec();
                self.skip(&name, unreadable(e));
                return Ok(());
            }
        };
        let device = self.batch.devices.index(&stat);
        let mut record = Record::new(&stat, device);
        let refused = match record.kind() {
            Kind::Symlink => match rustix::fs::readlinkat(fd, name, Vec::new()) {
                Ok(target) => {
                    record.set_content(self.batch.names.len(), target.as_bytes().len());
                    self.batch.names.extend_from_slice(target.as_bytes());
                    None
                }
                Err(Errno::NOENT | Errno::INVAL) => return Ok(()),
                Err(e) => Some(e),
            },
            Kind::File if !self.root => may_read(fd, name, &stat).err(),
            _ => None,
        };
        if let Some(e) = refused {
            let name = name.to_bytes().to_vec();
            self.skip(&name, unreadable(e));
            return Ok(());
        }
        self.found.push((entry, record));
        Ok(())
    }

    /// Notes that something in the directory at hand, or it itself, cannot be read.
    fn skip(&mut self, name: &[u8], error: Error) {
        let path = as_path(&self.path).join(as_path(name));
        let path = if name.is_empty() { as_path(&self.path).to_path_buf() } else { path };
        self.batch.skipped.push(Skipped { path, error });
    }
}

/// Why listing a directory ends.
enum Stop {
    Unreadable(Errno),
    Limit(Error),
}

impl From<Errno> for Stop {
    fn from(e: Errno) -> Stop {
        Stop::Unreadable(e)
    }
}

fn unreadable(e: Errno) -> Error {
    match e {
        Errno::LOOP | Errno::XDEV | Errno::NOTDIR | Errno::AGAIN => {
            Error::conflict("changed while it was being walked")
        }
        e => Error::from(std::io::Error::from(e)),
    }
}

fn open_directory(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
    match beneath::open(root, path, flags | OFlags::NOATIME) {
        // Only the owner may leave the time of the last access as it is.
        Err(Errno::PERM) => beneath::open(root, path, flags),
        done => done,
    }
}

/// Whether a file may be read, by somebody who is not root. The kernel is asked only where the mode does not tell.
fn may_read(fd: BorrowedFd<'_>, name: &CStr, stat: &Statx) -> rustix::io::Result<()> {
    if stat.stx_mode & 0o444 == 0o444 {
        return Ok(());
    }
    rustix::fs::accessat(fd, name, Access::READ_OK, AtFlags::EACCESS)
}
