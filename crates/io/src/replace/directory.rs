//! A new directory that takes its place only when it is whole.

use super::{exists, folder_of, serial, temporary_name};
use chart::{Error, Kind, Remedy, Result, ResultExt};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// So deep may directories lie in each other where what was made is put among what is there already.
const MAX_MERGE_DEPTH: usize = 256;

/// A directory being made for its destination. It has a temporary name meanwhile, and nobody but its owner may look
/// into it. Dropped before [`Directory::commit`], it is gone and the destination is as it was.
///
/// Where the destination is a directory already, what was made is put into it in the end: an empty one may be
/// filled, one that is not only with `force`.
pub struct Directory {
    target: PathBuf,
    /// The name it has meanwhile, as long as it has one.
    temporary: Option<PathBuf>,
    fd: OwnedFd,
    /// The destination, where that is there already.
    into: Option<OwnedFd>,
    force: bool,
}

impl Directory {
    /// Begins a directory that will be `target`. Refuses what is there, unless that is an empty directory, or a
    /// directory and `force`.
    pub fn create(target: impl Into<PathBuf>, force: bool) -> Result<Self> {
        let target = target.into();
        let into = match target.metadata() {
            Ok(there) if there.is_dir() => Some(open(&target)?),
            Ok(_) => return Err(Error::invalid("is there, and is no directory").in_path(target)),
            // A link to nowhere is there too.
            Err(_) if target.symlink_metadata().is_ok() => return Err(exists(&target)),
            Err(_) => None,
        };
        if let (Some(there), false) = (&into, force)
            && entries(there).in_path(&target)?.next().is_some()
        {
            let what = "is a directory that is not empty";
            return Err(Error::conflict(what).in_path(target).with_remedy(Remedy::Replace));
        }
        let temporary = match &into {
            Some(_) => target.join(format!(".portolan.{}.part", serial())),
            None => beside(&target)?,
        };
        rustix::fs::mkdir(&temporary, Mode::RWXU).map_err(std::io::Error::from).in_path(&target)?;
        match open(&temporary) {
            Ok(fd) => Ok(Directory { target, temporary: Some(temporary), fd, into, force }),
            Err(e) => {
                remove(&temporary);
                Err(e)
            }
        }
    }

    /// The directory to fill.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether it will be the destination itself, rather than be emptied into it.
    pub fn is_new(&self) -> bool {
        self.into.is_none()
    }

    /// Gives it its name, or its content a new home. With `durably`, a power cut soon after leaves all of it;
    /// otherwise it may leave files without their content, as with any tool that makes many files.
    pub fn commit(mut self, durably: bool) -> Result<()> {
        if durably {
            rustix::fs::syncfs(&self.fd).map_err(std::io::Error::from).in_path(&self.target)?;
        }
        match &self.into {
            Some(into) => self.empty_into(into)?,
            None => self.rename()?,
        }
        if durably {
            let folder = if self.into.is_some() { &self.target } else { folder_of(&self.target) };
            std::fs::File::open(folder).and_then(|f| f.sync_all()).in_path(folder)?;
        }
        Ok(())
    }

    fn rename(&mut self) -> Result<()> {
        let Some(temporary) = &self.temporary else { return Ok(()) };
        match rustix::fs::renameat_with(CWD, temporary, CWD, &self.target, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(exists(&self.target)),
            // Not every file system has it; without it nothing is replaced either but an empty directory.
            Err(Errno::INVAL | Errno::NOSYS) => {
                std::fs::rename(temporary, &self.target).in_path(&self.target)?;
            }
            Err(e) => return Err(std::io::Error::from(e)).in_path(&self.target),
        }
        self.temporary = None;
        Ok(())
    }

    fn empty_into(&self, into: &OwnedFd) -> Result<()> {
        let merge = Merge { target: &self.target, force: self.force };
        if self.force {
            merge.fits(&self.fd, into, 0)?;
        }
        merge.all(&self.fd, into, 0)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            remove(temporary);
        }
    }
}

/// A temporary name beside the target.
fn beside(target: &Path) -> Result<PathBuf> {
    if target.file_name().is_none() {
        return Err(Error::invalid("names no directory to make").in_path(target));
    }
    let folder = folder_of(target);
    if !folder.is_dir() {
        let what = format!("the directory {} is not there", folder.display());
        return Err(Error::not_found(what).in_path(target));
    }
    Ok(temporary_name(target))
}

/// Puts what was made among what is there.
struct Merge<'a> {
    target: &'a Path,
    force: bool,
}

impl Merge<'_> {
    /// Refuses what cannot be put in the place of what is there, before anything is.
    fn fits(&self, from: &OwnedFd, to: &OwnedFd, depth: usize) -> Result<()> {
        self.bounded(depth)?;
        for name in &entries(from)?.collect::<Vec<_>>() {
            let fails = |e| self.fails(name, e);
            let old = match is_directory(to, name) {
                Err(Errno::NOENT) => continue,
                old => old.map_err(fails)?,
            };
            match (is_directory(from, name).map_err(fails)?, old) {
                (true, true) => {
                    let inner = [open_at(from, name).map_err(fails)?, open_at(to, name).map_err(fails)?];
                    let [from, to] = &inner;
                    self.fits(from, to, depth + 1)?;
                }
                (false, false) => {}
                (new, _) => return Err(self.differs(name, new)),
            }
        }
        Ok(())
    }

    fn bounded(&self, depth: usize) -> Result<()> {
        if depth > MAX_MERGE_DEPTH {
            let what =
                format!("more than {MAX_MERGE_DEPTH} directories in each other are not put among others");
            return Err(Error::unsupported(what).in_path(self.target));
        }
        Ok(())
    }

    fn differs(&self, name: &CStr, new_is_directory: bool) -> Error {
        let [new, old] = if new_is_directory { ["a directory", "none"] } else { ["no directory", "one"] };
        let what = format!("{} is {new}, and what is there is {old}", name.to_string_lossy());
        Error::new(Kind::Conflict, what).in_path(self.target)
    }

    /// Puts everything in a directory into another one. What is no directory in both is replaced, with `force`.
    fn all(&self, from: &OwnedFd, to: &OwnedFd, depth: usize) -> Result<()> {
        self.bounded(depth)?;
        // All names first: what is read while it changes may be told twice, or not at all.
        let names: Vec<_> = entries(from)?.collect();
        for name in &names {
            match rename(from, to, name, RenameFlags::NOREPLACE) {
                Ok(()) => {}
                Err(Errno::EXIST) if self.force => self.onto(from, to, name, depth)?,
                Err(e) => return Err(self.fails(name, e)),
            }
        }
        Ok(())
    }

    fn onto(&self, from: &OwnedFd, to: &OwnedFd, name: &CStr, depth: usize) -> Result<()> {
        let fails = |e| self.fails(name, e);
        match (is_directory(from, name).map_err(fails)?, is_directory(to, name).map_err(fails)?) {
            (true, true) => {
                let inner = [open_at(from, name).map_err(fails)?, open_at(to, name).map_err(fails)?];
                let [from_inner, to_inner] = &inner;
                self.all(from_inner, to_inner, depth + 1)?;
                rustix::fs::unlinkat(from, name, AtFlags::REMOVEDIR).map_err(fails)
            }
            (false, false) => rename(from, to, name, RenameFlags::empty()).map_err(fails),
            (new, _) => Err(self.differs(name, new)),
        }
    }

    fn fails(&self, name: &CStr, e: Errno) -> Error {
        let e = Error::from(std::io::Error::from(e)).in_path(self.target);
        e.during(format!("putting {} in its place", name.to_string_lossy()))
    }
}

/// Moves an entry. A directory that its owner may not write cannot be moved by them: for the moment, it may.
fn rename(from: &OwnedFd, to: &OwnedFd, name: &CStr, flags: RenameFlags) -> Result<(), Errno> {
    let go = || match rustix::fs::renameat_with(from, name, to, name, flags) {
        // Not every file system knows flags; what is checked first is not checked for good, but nobody else is here.
        Err(Errno::INVAL | Errno::NOSYS) if !flags.is_empty() => {
            match rustix::fs::statat(to, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Err(Errno::EXIST),
                Err(_) => rustix::fs::renameat(from, name, to, name),
            }
        }
        done => done,
    };
    match go() {
        Err(Errno::ACCESS) => {}
        done => return done,
    }
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(Errno::ACCESS);
    }
    let directory = open_at(from, name)?;
    let mode = Mode::from_raw_mode(stat.st_mode);
    rustix::fs::fchmod(&directory, mode | Mode::RWXU)?;
    let done = go();
    rustix::fs::fchmod(&directory, mode)?;
    done
}

fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(std::io::Error::from).in_path(path)
}

fn open_at(at: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// The names in a directory.
fn entries(directory: &OwnedFd) -> Result<impl Iterator<Item = std::ffi::CString>> {
    let listed = Dir::read_from(directory).map_err(std::io::Error::from)?;
    let mut names = Vec::new();
    for entry in listed {
        let entry = entry.map_err(std::io::Error::from)?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names.into_iter())
}

/// Removes what was made, as far as that is possible.
fn remove(path: &Path) {
    if std::fs::remove_dir_all(path).is_err() {
        let _ = flatten(path);
        let _ = std::fs::remove_dir_all(path);
    }
}

/// Empties a directory whose directories lie deeper in each other than can be open at a time, or may not be written
/// by their owner: each is brought to the top before it is looked into.
pub(super) fn flatten(path: &Path) -> Result<()> {
    let top = open(path)?;
    let mut waiting: Vec<_> = entries(&top)?.filter(|name| !unlinked(&top, name)).collect();
    let mut count = 0_u64;
    while let Some(name) = waiting.pop() {
        open_up(&top, &name);
        let Ok(directory) = open_at(&top, &name) else { continue };
        for inner in entries(&directory)?.filter(|inner| !unlinked(&directory, inner)) {
            // Without all rights to it, it cannot be moved either.
            open_up(&directory, &inner);
            let moved = loop {
                count += 1;
                let Ok(free) = std::ffi::CString::new(format!(".{count}")) else { break None };
                match rustix::fs::renameat(&directory, &inner, &top, &free) {
                    Ok(()) => break Some(free),
                    Err(Errno::EXIST | Errno::NOTEMPTY) => {}
                    Err(_) => break None,
                }
            };
            waiting.extend(moved);
        }
        let _ = rustix::fs::unlinkat(&top, &name, AtFlags::REMOVEDIR);
    }
    Ok(())
}

/// Whether a name was that of no directory, and is gone.
fn unlinked(at: &OwnedFd, name: &CStr) -> bool {
    rustix::fs::unlinkat(at, name, AtFlags::empty()).is_ok()
}

/// Whether a name is that of a directory, rather than of a link to one or anything else.
fn is_directory(at: &OwnedFd, name: &CStr) -> Result<bool, Errno> {
    let stat = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Gives its owner all rights to a directory: without them nothing can be removed from it.
fn open_up(at: &OwnedFd, name: &CStr) {
    if is_directory(at, name) == Ok(true) {
        let _ = rustix::fs::chmodat(at, name, Mode::RWXU, AtFlags::empty());
    }
}
