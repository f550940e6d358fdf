//! A new file that takes its place only when it is whole; and a new directory.

mod directory;
mod rights;
#[cfg(test)]
mod tests;

pub use directory::Directory;

use crate::file::{Access, File, Options, lock};
use chart::{Error, Remedy, Result, ResultExt, Source, Wait};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What a new file is asked to be made with; the umask and its directory may take from that.
const NEW: Mode = Mode::from_bits_retain(0o644);
/// What it has instead as long as it has a temporary name.
const PRIVATE: Mode = Mode::from_bits_retain(0o600);

/// A file being made for its destination. Where the file system can, it has no name until it is whole, so that
/// whatever ends the process leaves nothing; elsewhere it has a temporary one beside the destination, and only its
/// owner may open it. Dropped before [`Replacement::commit`], it is gone and the destination is as it was.
///
/// In the end it has the owner and the rights of what it replaces, as far as this process may give them, and nobody
/// may do more with it; where it replaces nothing, it has those of any new file.
pub struct Replacement {
    target: PathBuf,
    /// The name it has meanwhile, if it has one.
    temporary: Option<PathBuf>,
    file: Option<File>,
    /// What is there, locked so that nobody begins to write to a file that is about to be gone.
    replaced: Option<File>,
    force: bool,
    /// What a new file in that place has; none where its maker has given it its own.
    mode: Option<Mode>,
}

impl Replacement {
    /// Begins a file that will be `target`. Refuses what is there, unless `force`; and even then what is no file,
    /// and a file that is being written.
    pub fn create(target: impl Into<PathBuf>, force: bool) -> Result<Self> {
        Self::begin(target.into(), force, nameless)
    }

    fn begin(mut target: PathBuf, force: bool, nameless: impl Fn(&Path) -> Option<File>) -> Result<Self> {
        if let Ok(there) = target.symlink_metadata() {
            if !force {
                return Err(exists(&target));
            }
            // A device, a pipe or a directory would be gone; a link goes on naming what it names.
            if target.metadata().is_ok_and(|there| !there.is_file()) {
                return Err(
                    Error::invalid("is not a regular file, and is not replaced by one").in_path(target)
                );
            }
            if there.is_symlink() {
                target = target.canonicalize().in_path(&target)?;
            }
        }
        if target.file_name().is_none() {
            return Err(Error::invalid("names no file to write").in_path(target));
        }
        let replaced = File::open(&target, Options::default()).ok();
        if let Some(there) = &replaced {
            lock(there, Access::Read)?;
        }
        let folder = folder_of(&target);
        if !folder.is_dir() {
            let what = format!("the directory {} is not there", folder.display());
            return Err(Error::not_found(what).in_path(target));
        }
        let (file, temporary, mode) = match nameless(&target) {
            Some(file) => {
                let mode = mode_of(&file, &target)?;
                (file, None, mode)
            }
            None => named(&target)?,
        };
        Ok(Replacement { target, temporary, file: Some(file), replaced, force, mode: Some(mode) })
    }

    /// Its maker gives it its mode, and perhaps its owner: [`Replacement::commit`] leaves them as they are.
    pub fn keep_rights(&mut self) {
        self.mode = None;
    }

    /// It is filled past the host's page cache.
    pub fn go_past_the_cache(&mut self) -> Result<()> {
        self.file.as_mut().map_or(Ok(()), File::go_past_the_cache)
    }

    /// Fills it with these bytes, and commits it.
    pub fn write_whole(self, bytes: &[u8]) -> Result<()> {
        let file = self.file()?;
        file.set_len(bytes.len() as u64)?;
        file.write_at(0, bytes, Wait::Allowed)?;
        self.commit()
    }

    /// The file to fill.
    pub fn file(&self) -> Result<&File> {
        self.file.as_ref().ok_or_else(|| Error::invalid("the file is finished"))
    }

    /// Makes it durable and gives it its name.
    pub fn commit(self) -> Result<()> {
        self.finish(true)
    }

    /// Gives it its name, and leaves it to the system when to make it durable: a power cut soon after may leave a
    /// file with its name and without its content. Where it replaces another, whose content would be lost too, it is
    /// made durable all the same.
    pub fn commit_in_haste(self) -> Result<()> {
        let replaces = self.replaced.is_some();
        self.finish(replaces)
    }

    fn finish(mut self, durably: bool) -> Result<()> {
        let file = self.file.take().ok_or_else(|| Error::invalid("the file is finished"))?;
        self.give_rights(&file)?;
        if durably {
            file.flush()?;
        }
        if self.temporary.is_none() {
            self.name_nameless(&file)?;
        } else {
            self.rename()?;
        }
        drop(self.replaced.take()); // it has no name any more
        if !durably {
            return Ok(());
        }
        // That it has a name now is a change of the file, and of its folder.
        rustix::fs::fsync(file.fd()).map_err(std::io::Error::from).in_path(&self.target)?;
        let folder = folder_of(&self.target);
        std::fs::File::open(folder).and_then(|f| f.sync_all()).in_path(folder)
    }

    /// Gives it the rights that it is to have under its name.
    fn give_rights(&self, file: &File) -> Result<()> {
        let Some(mode) = self.mode else { return Ok(()) };
        let done = match rustix::fs::stat(&self.target) {
            Ok(there) if self.force => rights::take_over(file.fd(), &self.target, &there),
            _ => rustix::fs::fchmod(file.fd(), mode),
        };
        done.map_err(std::io::Error::from).in_path(&self.target)
    }

    /// Gives a file without a name its own: where that is taken, by way of a temporary one.
    fn name_nameless(&mut self, file: &File) -> Result<()> {
        match link(file, &self.target) {
            Ok(()) => {}
            Err(Errno::EXIST) if self.force => {
                let temporary = temporary_name(&self.target);
                link(file, &temporary).map_err(std::io::Error::from).in_path(&self.target)?;
                self.temporary = Some(temporary);
                self.rename()?;
            }
            Err(Errno::EXIST) => return Err(exists(&self.target)),
            Err(e) => return Err(std::io::Error::from(e)).in_path(&self.target),
        }
        Ok(())
    }

    /// Gives a file with a temporary name its own.
    fn rename(&mut self) -> Result<()> {
        let Some(temporary) = &self.temporary else { return Ok(()) };
        if self.force {
            std::fs::rename(temporary, &self.target).in_path(&self.target)?;
        } else {
            rename_if_free(temporary, &self.target)?;
        }
        self.temporary = None;
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = std::fs::remove_file(temporary);
        }
    }
}

/// A file on the target's file system that has no name, where there can be one that is given a name later.
fn nameless(target: &Path) -> Option<File> {
    let file = open(target, folder_of(target), OFlags::TMPFILE, NEW).ok()?;
    // Naming it goes through /proc.
    link_source(&file).exists().then_some(file)
}

/// A file beside the target that nobody else may open, its temporary name, and the mode of a new file there.
fn named(target: &Path) -> Result<(File, Option<PathBuf>, Mode)> {
    let (temporary, new) = (temporary_name(target), OFlags::CREATE | OFlags::EXCL);
    // What a new file has is known from one. It must not be the one: who opens it now could read it later.
    let mode = open(target, &temporary, new, NEW).and_then(|empty| mode_of(&empty, target))?;
    std::fs::remove_file(&temporary).in_path(target)?;
    Ok((open(target, &temporary, new, PRIVATE)?, Some(temporary), mode))
}

fn mode_of(file: &File, target: &Path) -> Result<Mode> {
    let stat = rustix::fs::fstat(file.fd()).map_err(std::io::Error::from).in_path(target)?;
    Ok(rights::of(&stat))
}

/// Opens a new file at `path`, called `target` in what is said of it.
fn open(target: &Path, path: &Path, flags: OFlags, mode: Mode) -> Result<File> {
    let flags = flags | OFlags::RDWR | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, mode);
    let fd = fd.map_err(std::io::Error::from).in_path(target)?;
    File::from_fd(fd, target.to_path_buf(), Options { writable: true, ..Options::default() })
}

fn link_source(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.fd().as_raw_fd()))
}

/// Gives a file that has no name this one, if it is free.
fn link(file: &File, name: &Path) -> Result<(), Errno> {
    rustix::fs::linkat(CWD, link_source(file), CWD, name, AtFlags::SYMLINK_FOLLOW)
}

/// A rename that does not replace what somebody else made meanwhile.
fn rename_if_free(from: &Path, to: &Path) -> Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(exists(to)),
        // Not every file system has it; a hard link refuses in the same way.
        Err(_) => {
            std::fs::hard_link(from, to).in_path(to)?;
            std::fs::remove_file(from).in_path(from)
        }
    }
}

/// A name beside the target that nobody else has.
fn temporary_name(target: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(format!(".{}.part", serial()));
    folder_of(target).join(name)
}

/// What no other temporary name has in it.
fn serial() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let serial = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{serial}", std::process::id())
}

fn exists(target: &Path) -> Error {
    Error::conflict("exists already").in_path(target).with_remedy(Remedy::Replace)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
