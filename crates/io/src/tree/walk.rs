//! The walk: level by level, each directory opened beneath the root, listed, and its names looked at in the order of
//! their inodes.

use super::blocks::Blocks;
use super::node::{Common, Commons, Kind, Listed, NodeId, Record};
use super::seal::Stamp;
use super::{MAX_DEPTH, MAX_NAME_BYTES, Options, Skipped, Tree, as_path, beneath};
use crate::watch::Watch;
use chart::{Error, Result};
use rustix::fs::{Access, AtFlags, OFlags, RawDir, Statx, StatxFlags};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// As much of a directory is read at once.
const LISTED_BYTES: usize = 64 << 10;

/// With fewer directories in a level, more threads cost more than they bring.
const ALONE: usize = 32;
/// More threads than this wait for each other in the kernel.
const THREADS: usize = 4;
/// Directories that a thread takes at once.
const SHARE: usize = 8;

/// The clock by which times are noted goes on every 10 ms where it is slowest.
const LONGEST_TICK: Duration = Duration::from_millis(10);

/// So many of what could not be read are named in an error.
const NAMED: usize = 3;

/// All that a tree tells, and whether a file has holes.
const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// Walks what is beneath `root`, which was named `path`.
pub(super) fn walk(root: OwnedFd, path: &Path, options: &Options, watch: Watch<'_>) -> Result<Tree> {
    let fails = |e: Errno| Error::from(std::io::Error::from(e)).in_path(path);
    let stat = rustix::fs::statx(&root, c"", AtFlags::EMPTY_PATH, WANTED).map_err(fails)?;
    let mut commons = Commons::default();
    let mut tree = Tree {
        root: Arc::new(root),
        path: path.to_path_buf(),
        records: vec![Record::new(&stat, commons.number(Common::of(&stat)))],
        accessed: if options.accessed { vec![Stamp::of(stat.stx_atime)] } else { Vec::new() },
        commons: commons.list().to_vec(),
        listed: Vec::new(),
        names: Vec::new(),
        skipped: Vec::new(),
    };
    Record::push_name(b"", &mut tree.names);
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
        merge(&mut tree, &mut commons, batches)?;
        tree.commons.extend_from_slice(&commons.list()[tree.commons.len()..]);
        level = first..tree.records.len() as u32;
    }
    if !options.skip_unreadable {
        refuse(&tree)?;
    }
    settle(&tree);
    tree.records.shrink_to_fit();
    tree.accessed.shrink_to_fit();
    tree.commons.shrink_to_fit();
    tree.listed.shrink_to_fit();
    tree.names.shrink_to_fit();
    Ok(tree)
}

/// Waits until the clock by which file systems note times has gone on since anything here was changed last, if that
/// was just now: then whatever is changed from here on has a later time. Nothing was read so far, so what was changed
/// in the same tick, but after it was looked at, is what was found.
fn settle(tree: &Tree) {
    let now = || {
        let time = clock_gettime(ClockId::RealtimeCoarse);
        Stamp::new(time.tv_sec, time.tv_nsec as u32)
    };
    let (began, clock) = (Instant::now(), now());
    // A time that is still to come was set by another clock.
    let since = |record: &&Record| record.changed >= clock && record.changed <= clock.later(LONGEST_TICK);
    let Some(last) = tree.records.iter().filter(since).map(|record| record.changed).max() else { return };
    while now() <= last && began.elapsed() < 2 * LONGEST_TICK {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn enters(tree: &Tree, options: &Options, id: u32) -> bool {
    let device = |id| tree.common(tree.record(NodeId(id))).device;
    tree.kind(NodeId(id)) == Kind::Directory && (!options.one_file_system || device(id) == device(0))
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
        n => error.during(format!("{} cannot be read, {} among them", n + 1, named.join(", "))),
    })
}

/// What one thread found in some directories of a level.
#[derive(Default)]
struct Batch {
    records: Blocks<Record>,
    accessed: Blocks<Stamp>,
    names: Vec<u8>,
    commons: Commons,
    /// Each directory, and how many of the records are its.
    lists: Vec<(u32, usize)>,
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
fn merge(tree: &mut Tree, commons: &mut Commons, batches: Vec<Batch>) -> Result<()> {
    let mut lists: Vec<(u32, usize, usize)> = Vec::new();
    let (mut sources, before) = (Vec::new(), tree.skipped.len());
    for (i, batch) in batches.into_iter().enumerate() {
        if tree.names.len() + batch.names.len() > MAX_NAME_BYTES as usize {
            return Err(too_many_names(&tree.path));
        }
        lists.extend(batch.lists.iter().map(|&(id, count)| (id, i, count)));
        let numbers: Vec<u32> = batch.commons.list().iter().map(|&common| commons.number(common)).collect();
        let base = tree.names.len() as u32;
        tree.names.extend_from_slice(&batch.names);
        tree.skipped.extend(batch.skipped);
        // What is taken out of them, a block at a time, is kept no longer.
        sources.push((batch.records.into_iter(), batch.accessed.into_iter(), numbers, base));
    }
    lists.sort_unstable_by_key(|&(id, ..)| id);
    for (id, i, count) in lists {
        let (records, accessed, numbers, base) = &mut sources[i];
        tree.listed.push(Listed { node: id, first: tree.records.len() as u32 });
        for _ in 0..count {
            let (record, accessed) = (records.next(), accessed.next());
            let Some(record) = record.filter(|record| !record.is_nothing()) else { continue };
            let common = numbers[record.common as usize];
            tree.records.push(Record { name_at: record.name_at + *base, common, ..record });
            tree.accessed.extend(accessed);
        }
    }
    tree.skipped[before..].sort_by(|a, b| a.path.cmp(&b.path));
    Ok(())
}

fn too_many_names(path: &Path) -> Error {
    Error::unsupported(format!("more than {MAX_NAME_BYTES} bytes of names")).in_path(path)
}

/// A name in a directory: where it lies in the scratch space, how long it is, and its inode. Behind it is a zero.
#[derive(Clone, Copy)]
struct Entry {
    at: u32,
    len: u32,
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
    /// Sorted by their names.
    entries: Vec<Entry>,
    /// In which order they are looked at.
    order: Vec<u32>,
    /// Where the symbolic links among them lead, by the place of each among the entries.
    targets: Vec<(u32, Vec<u8>)>,
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
            order: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// Lists one directory.
    fn list(&mut self, id: u32) -> Result<()> {
        self.path.clear();
        self.tree.push_path(NodeId(id), &mut self.path);
        self.entries.clear();
        let start = self.batch.records.len();
        match self.look_into() {
            Ok(()) => {}
            // It is gone: nothing is in it.
            Err(Stop::Unreadable(Errno::NOENT)) => self.entries.clear(),
            Err(Stop::Unreadable(e)) if id == 0 => return Err(unreadable(e).in_path(&self.tree.path)),
            Err(Stop::Unreadable(e)) => {
                self.entries.clear();
                self.skip(b"", unreadable(e));
            }
            Err(Stop::Limit(e)) => return Err(e),
        }
        self.name_records(start)?;
        self.batch.lists.push((id, self.entries.len()));
        Ok(())
    }

    /// Gives the records from `start` on, one for each entry, their names.
    fn name_records(&mut self, start: usize) -> Result<()> {
        let batch = &mut self.batch;
        self.targets.sort_unstable_by_key(|&(i, _)| i);
        let mut targets = self.targets.drain(..).peekable();
        for (i, entry) in self.entries.iter().enumerate() {
            let record = batch.records.at(start + i);
            let target = targets.next_if(|&(link, _)| link as usize == i);
            if record.is_nothing() {
                continue;
            }
            record.name_at = Record::push_name(name_at(&self.scratch, entry), &mut batch.names);
            if let Some((_, target)) = target {
                record.len = target.len() as u64;
                batch.names.extend_from_slice(&target);
            }
            if batch.names.len() > MAX_NAME_BYTES as usize {
                return Err(too_many_names(&self.tree.path));
            }
        }
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
        let (scratch, entries) = (&self.scratch, &mut self.entries);
        entries.sort_unstable_by(|a, b| name_at(scratch, a).cmp(name_at(scratch, b)));
        // Inodes lie near each other on the disk where their numbers do.
        self.order.clear();
        self.order.extend(0..entries.len() as u32);
        self.order.sort_unstable_by_key(|&i| entries[i as usize].inode);
        let start = self.batch.records.len();
        for _ in 0..self.entries.len() {
            self.batch.records.push(Record::nothing());
            if self.options.accessed {
                self.batch.accessed.push(Stamp::new(0, 0));
            }
        }
        for i in 0..self.order.len() {
            self.look_at(fd.as_fd(), self.order[i], start);
        }
        Ok(())
    }

    /// Reads the names in a directory into the scratch space.
    fn read_names(&mut self, fd: BorrowedFd<'_>) -> Result<(), Stop> {
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
            if self.scratch.len() + name.len() > MAX_NAME_BYTES as usize {
                return Err(Stop::Limit(too_many_names(&self.tree.path)));
            }
            let (at, len) = (self.scratch.len() as u32, name.len() as u32 - 1);
            self.entries.push(Entry { at, len, inode: entry.ino() });
            self.scratch.extend_from_slice(name);
        }
        Ok(())
    }

    /// Looks at one entry of a directory, whose records begin at `start`.
    fn look_at(&mut self, fd: BorrowedFd<'_>, i: u32, start: usize) {
        let Entry { at, len, .. } = self.entries[i as usize];
        let bytes = &self.scratch[at as usize..=at as usize + len as usize];
        let Ok(name) = CStr::from_bytes_with_nul(bytes) else { return };
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let stat = match rustix::fs::statx(fd, name, flags, WANTED) {
            Ok(stat) => stat,
            // It is gone.
            Err(Errno::NOENT) => return,
            Err(e) => {
                let name = name.to_bytes().to_vec();
                self.skip(&name, unreadable(e));
                return;
            }
        };
        let common = Common::of(&stat);
        let refused = match common.kind() {
            Kind::Symlink => match rustix::fs::readlinkat(fd, name, Vec::new()) {
                Ok(target) => {
                    self.targets.push((i, target.into_bytes()));
                    None
                }
                Err(Errno::NOENT | Errno::INVAL) => return,
                Err(e) => Some(e),
            },
            Kind::File if !self.root => may_read(fd, name, &stat).err(),
            _ => None,
        };
        if let Some(e) = refused {
            let name = name.to_bytes().to_vec();
            self.skip(&name, unreadable(e));
            return;
        }
        let at = start + i as usize;
        *self.batch.records.at(at) = Record::new(&stat, self.batch.commons.number(common));
        if self.options.accessed {
            *self.batch.accessed.at(at) = Stamp::of(stat.stx_atime);
        }
    }

    /// Notes that something in the directory at hand, or it itself, cannot be read.
    fn skip(&mut self, name: &[u8], error: Error) {
        let path = as_path(&self.path).join(as_path(name));
        let path = if name.is_empty() { as_path(&self.path).to_path_buf() } else { path };
        self.batch.skipped.push(Skipped { path, error });
    }
}

/// A name in the scratch space.
fn name_at<'s>(scratch: &'s [u8], entry: &Entry) -> &'s [u8] {
    &scratch[entry.at as usize..][..entry.len as usize]
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
