//! The files of a directory as one source: each at a position of its own, read only as long as it is what it was.

use super::descriptors::{Descriptors, Open, now};
use super::node::{Kind, NodeId};
use super::seal::{Seal, Stamp};
use super::starts::Starts;
use super::{Tree, as_path};
use chart::{
    Backing, Error, Family, Identity, Limits, Member, Remedy, Result, Run, Source, Wait, check_range,
};
use rustix::fs::SeekFrom;
use rustix::io::{Errno, ReadWriteFlags};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A file with no more bytes has no holes worth asking for.
const NO_HOLES: u64 = 4096;

/// Files beneath a directory, as one source. Between them, and behind the last, it reads as zeros.
///
/// A file is opened when it is read first, by its name and beneath the directory, whatever symbolic links there
/// are; and read only if it is the one that was found: device, inode, time of birth, length and the times of its
/// last changes are compared before each read and after it. If they differ, or the file cannot be opened, that is
/// [`Conflict`](chart::Kind::Conflict), for this file and this read: others are read as ever, and the next read
/// looks anew.
pub struct Files {
    path: PathBuf,
    pub(super) root: Arc<OwnedFd>,
    len: u64,
    /// Where each begins, in order.
    starts: Starts,
    pub(super) members: Members,
    pub(super) open: Descriptors,
    identity: Identity,
}

/// What is known of the files, by their order.
pub(super) enum Members {
    /// They are nodes of a tree.
    Found { tree: Arc<Tree>, nodes: Vec<NodeId> },
    /// Somebody told.
    Told { names: Vec<u8>, list: Vec<Told> },
}

pub(super) struct Told {
    name_at: usize,
    name_len: usize,
    seal: Seal,
}

impl Members {
    pub(super) fn seal(&self, i: usize) -> Seal {
        match self {
            Members::Told { list, .. } => list[i].seal,
            Members::Found { tree, nodes } => {
                let record = tree.record(nodes[i]);
                Seal {
                    device: tree.common(record).device,
                    inode: record.inode,
                    generation: record.born.known().map_or(0, Stamp::nanos),
                    len: record.len,
                    modified: record.modified.nanos(),
                    changed: record.changed.nanos(),
                }
            }
        }
    }

    fn len(&self, i: usize) -> u64 {
        match self {
            Members::Told { list, .. } => list[i].seal.len,
            Members::Found { tree, nodes } => tree.record(nodes[i]).len,
        }
    }

    /// Adds its path, relative to the directory.
    pub(super) fn push_path(&self, i: usize, path: &mut Vec<u8>) {
        match self {
            Members::Told { names, list } => {
                path.extend(&names[list[i].name_at..][..list[i].name_len]);
            }
            Members::Found { tree, nodes } => tree.push_path(nodes[i], path),
        }
    }

    /// Whether it may have holes.
    fn sparse(&self, i: usize) -> bool {
        match self {
            Members::Told { list, .. } => list[i].seal.len > NO_HOLES,
            Members::Found { tree, nodes } => {
                let record = tree.record(nodes[i]);
                record.len > NO_HOLES && tree.common(record).sparse
            }
        }
    }
}

/// What lies at a position.
enum Spot {
    /// A file: which, where in it, and how much of it is left.
    File { index: usize, from: u64, rest: u64 },
    /// Nothing, for so many bytes.
    Gap(u64),
}

impl Files {
    /// Files beneath a directory that somebody else found: a written chart. `path` is what to call it.
    pub fn beneath(root: OwnedFd, path: PathBuf) -> FilesBuilder {
        let members = Members::Told { names: Vec::new(), list: Vec::new() };
        FilesBuilder { path, root: Arc::new(root), starts: Vec::new(), end: 0, members }
    }

    /// How many files there are.
    pub fn count(&self) -> usize {
        self.starts.len()
    }

    /// The file of this number, in the order of their positions.
    pub fn member(&self, index: usize) -> Member {
        let seal = self.members.seal(index);
        let mut name = Vec::new();
        self.members.push_path(index, &mut name);
        Member {
            name: as_path(&name).to_path_buf(),
            start: self.starts.at(index),
            len: seal.len,
            identity: seal.identity(),
            modified: seal.modified,
            changed: seal.changed,
        }
    }

    /// Where the file begins that is this node of the tree, if it was laid out.
    pub fn start_of(&self, id: NodeId) -> Option<u64> {
        let Members::Found { nodes, .. } = &self.members else { return None };
        nodes.binary_search(&id).ok().map(|i| self.starts.at(i))
    }

    /// Whether the byte at a position is a file's, and of how many behind it that is true as well: of at most
    /// `want`. No file is asked. What is no file's is zero.
    pub fn laid_at(&self, offset: u64, want: u64) -> Run {
        match self.spot(offset) {
            Spot::File { rest, .. } => Run { len: rest.min(want), data: true },
            Spot::Gap(rest) => Run { len: rest.min(want), data: false },
        }
    }

    fn spot(&self, offset: u64) -> Spot {
        let behind = self.starts.up_to(offset);
        if let Some(index) = behind.checked_sub(1) {
            let from = offset - self.starts.at(index);
            let len = self.members.len(index);
            if from < len {
                return Spot::File { index, from, rest: len - from };
            }
        }
        let end = if behind < self.starts.len() { self.starts.at(behind) } else { self.len };
        Spot::Gap(end.saturating_sub(offset))
    }

    fn path_of(&self, index: usize) -> PathBuf {
        let mut name = Vec::new();
        self.members.push_path(index, &mut name);
        self.path.join(as_path(&name))
    }

    /// An error about one file, by its name.
    #[cold]
    pub(super) fn fails(&self, index: usize, error: Error) -> Error {
        error.in_path(self.path_of(index))
    }

    #[cold]
    pub(super) fn changed(&self, index: usize, how: impl Into<std::borrow::Cow<'static, str>>) -> Error {
        self.fails(index, Error::conflict(how).with_remedy(Remedy::ChartAgain))
    }

    /// Reads a part of one file.
    fn read_file(&self, index: usize, from: u64, buf: &mut [u8], wait: Wait) -> Result<()> {
        let open = match (self.kept(index), wait) {
            (Some(open), _) => open,
            (None, Wait::Never) => return Err(Error::WOULD_BLOCK),
            (None, Wait::Allowed) => self.open(index)?,
        };
        let read = match wait {
            Wait::Never => read_now(&open, from, buf),
            Wait::Allowed => read_all(open.fd.as_fd(), from, buf),
        };
        match read {
            Ok(()) => {}
            Err(Errno::AGAIN) if wait == Wait::Never => return Err(Error::WOULD_BLOCK),
            Err(e) => {
                // Whatever became of the file says more than what its bytes were answered with.
                self.still(index, open.fd.as_fd())?;
                return Err(self.unread(index, from, e));
            }
        }
        self.still(index, open.fd.as_fd())
    }

    #[cold]
    fn unread(&self, index: usize, from: u64, e: Errno) -> Error {
        let error = match e {
            ENDS => Error::conflict("ends before its length"),
            e => Error::io("cannot be read").caused_by(std::io::Error::from(e)),
        };
        self.fails(index, error.at(from))
    }

    /// The open file, if it is kept and still what it was.
    fn kept(&self, index: usize) -> Option<Arc<Open>> {
        let open = self.open.find(index as u32, now())?;
        match self.difference(index, open.fd.as_fd()) {
            Ok(None) => Some(open),
            // By its name it may be found that it is another file now: that says more.
            _ => {
                self.open.forget(index as u32);
                None
            }
        }
    }

    /// An error if a file that is open is not what it was.
    fn still(&self, index: usize, fd: BorrowedFd<'_>) -> Result<()> {
        let how = match self.difference(index, fd) {
            Ok(None) => return Ok(()),
            Ok(Some(how)) => how,
            Err(e) => format!("cannot be looked at any more: {}", std::io::Error::from(e)),
        };
        self.open.forget(index as u32);
        Err(self.changed(index, how))
    }

    /// How a file that is open differs from what it was. Which file it is cannot change any more.
    fn difference(&self, index: usize, fd: BorrowedFd<'_>) -> rustix::io::Result<Option<String>> {
        let stat = rustix::fs::fstat(fd)?;
        let was = self.members.seal(index);
        let now = Seal {
            len: stat.st_size as u64,
            modified: Stamp::new(stat.st_mtime, stat.st_mtime_nsec as u32).nanos(),
            changed: Stamp::new(stat.st_ctime, stat.st_ctime_nsec as u32).nanos(),
            ..was
        };
        Ok(was.difference(&now))
    }

    /// Which part of a file is stored, as far as that can be found out: whatever is wrong is left to reading.
    fn stored(&self, index: usize, from: u64, most: u64) -> Run {
        let all = Run { len: most, data: true };
        if !self.members.sparse(index) {
            return all;
        }
        let open = self.kept(index).map_or_else(|| self.open(index), Ok);
        let Ok(open) = open else { return all };
        let run = |end: u64, data| Run { len: end.saturating_sub(from).clamp(1, most), data };
        let found = match rustix::fs::seek(&open.fd, SeekFrom::Data(from)) {
            Ok(start) if start > from => run(start, false),
            Ok(_) => match rustix::fs::seek(&open.fd, SeekFrom::Hole(from)) {
                Ok(end) => run(end, true),
                Err(_) => all,
            },
            // No data from here to the end.
            Err(Errno::NXIO) => Run { len: most, data: false },
            Err(_) => all,
        };
        if self.still(index, open.fd.as_fd()).is_ok() { found } else { all }
    }
}

/// How it is told that a file ended too soon.
const ENDS: Errno = Errno::NODATA;

fn read_now(open: &Open, mut from: u64, mut buf: &mut [u8]) -> rustix::io::Result<()> {
    if open.waits.load(Ordering::Relaxed) {
        return Err(Errno::AGAIN);
    }
    while !buf.is_empty() {
        let slices = &mut [IoSliceMut::new(buf)];
        match rustix::io::preadv2(&open.fd, slices, from, ReadWriteFlags::NOWAIT) {
            Ok(0) => return Err(ENDS),
            Ok(n) => (from, buf) = (from + n as u64, &mut buf[n..]),
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                open.waits.store(true, Ordering::Relaxed);
                return Err(Errno::AGAIN);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn read_all(fd: BorrowedFd<'_>, mut from: u64, mut buf: &mut [u8]) -> rustix::io::Result<()> {
    while !buf.is_empty() {
        match rustix::io::pread(fd, &mut *buf, from) {
            Ok(0) => return Err(ENDS),
            Ok(n) => (from, buf) = (from + n as u64, &mut buf[n..]),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

impl Source for Files {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, mut offset: u64, mut buf: &mut [u8], wait: Wait) -> Result<()> {
        check_range(self.len, offset, buf.len() as u64)?;
        while !buf.is_empty() {
            let spot = self.spot(offset);
            let (Spot::File { rest, .. } | Spot::Gap(rest)) = spot;
            let now = rest.min(buf.len() as u64);
            let (part, behind) = buf.split_at_mut(now as usize);
            match spot {
                Spot::File { index, from, .. } => self.read_file(index, from, part, wait)?,
                Spot::Gap(_) => part.fill(0),
            }
            (offset, buf) = (offset + now, behind);
        }
        Ok(())
    }

    fn limits(&self) -> Limits {
        Limits { never: true, preferred: 1 << 20, ..Limits::default() }
    }

    fn data_at(&self, offset: u64, want: u64) -> Result<Run> {
        check_range(self.len, offset, 1)?;
        let want = want.max(1);
        Ok(match self.spot(offset) {
            Spot::Gap(rest) => Run { len: rest.min(want), data: false },
            Spot::File { index, from, rest } => self.stored(index, from, rest.min(want)),
        })
    }

    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn backing(&self) -> Backing<'_> {
        Backing::Family(self)
    }
}

impl Family for Files {
    fn root(&self) -> &Path {
        &self.path
    }

    fn member_at(&self, offset: u64) -> Option<Member> {
        let behind = self.starts.up_to(offset);
        let holds = behind.checked_sub(1).filter(|&i| offset - self.starts.at(i) < self.members.len(i));
        let index = holds.or_else(|| (behind < self.starts.len()).then_some(behind))?;
        Some(self.member(index))
    }

    fn lend(&self, offset: u64, to: &mut dyn FnMut(BorrowedFd<'_>, u64)) -> Result<()> {
        let Spot::File { index, from, .. } = self.spot(offset) else {
            return Err(Error::out_of_range("there is no file").at(offset));
        };
        let open = self.kept(index).map_or_else(|| self.open(index), Ok)?;
        to(open.fd.as_fd(), from);
        self.still(index, open.fd.as_fd())
    }
}

/// Lays files out, in the order of their positions.
pub struct FilesBuilder {
    path: PathBuf,
    root: Arc<OwnedFd>,
    starts: Vec<u64>,
    end: u64,
    members: Members,
}

impl FilesBuilder {
    pub(super) fn of(tree: &Arc<Tree>) -> FilesBuilder {
        FilesBuilder {
            path: tree.path.clone(),
            root: Arc::clone(&tree.root),
            starts: Vec::new(),
            end: 0,
            members: Members::Found { tree: Arc::clone(tree), nodes: Vec::new() },
        }
    }

    /// Where the last file ended.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The next file: a node of the tree that it was [begun with](Tree::files), behind the one before in the tree, at
    /// a position that is not before that one's end. A file without bytes takes no place.
    pub fn file(&mut self, start: u64, id: NodeId) -> Result<()> {
        let Members::Found { tree, nodes } = &self.members else {
            return Err(Error::invalid("a node belongs to the files of its tree"));
        };
        if tree.kind(id) != Kind::File {
            return Err(Error::invalid("is no regular file").in_path(self.path.join(tree.path(id))));
        }
        if nodes.last().is_some_and(|&last| last >= id) {
            return Err(
                Error::invalid("comes before another in the tree").in_path(self.path.join(tree.path(id)))
            );
        }
        if self.place(start, tree.record(id).len)?
            && let Members::Found { nodes, .. } = &mut self.members
        {
            nodes.push(id);
        }
        Ok(())
    }

    /// The next file, as somebody knows it who [found it](Files::beneath).
    pub fn member(&mut self, member: &Member) -> Result<()> {
        let Identity::File { device, inode, generation } = member.identity else {
            return Err(Error::unsupported("only files of the host are in a directory").in_path(&member.name));
        };
        let &Member { len, modified, changed, .. } = member;
        let seal = Seal { device, inode, generation, len, modified, changed };
        if self.place(member.start, len)? {
            let Members::Told { names, list } = &mut self.members else {
                return Err(Error::invalid("the files of a tree are its nodes"));
            };
            let name = member.name.as_os_str().as_bytes();
            list.push(Told { name_at: names.len(), name_len: name.len(), seal });
            names.extend(name);
        }
        Ok(())
    }

    /// Whether it takes a place at all.
    fn place(&mut self, start: u64, len: u64) -> Result<bool> {
        if len == 0 {
            return Ok(false);
        }
        let end = start.checked_add(len).filter(|_| start >= self.end);
        let end = end.ok_or_else(|| Error::invalid("files overlap, or reach past all ends").at(start))?;
        if self.starts.len() >= u32::MAX as usize {
            return Err(Error::unsupported("too many files"));
        }
        self.starts.push(start);
        self.end = end;
        Ok(true)
    }

    /// The source, `len` bytes long: at least as far as its last file reaches.
    pub fn build(self, len: u64) -> Result<Arc<Files>> {
        if len < self.end {
            return Err(Error::out_of_range(format!("files reach byte {}, the source {len}", self.end)));
        }
        Ok(Arc::new(Files {
            path: self.path,
            root: self.root,
            len,
            starts: Starts::of(self.starts),
            members: self.members,
            open: Descriptors::default(),
            identity: Identity::unique(),
        }))
    }
}
