//! Where files go: a directory that nothing leads out of.
//!
//! Everything is made by one name in a directory that is open. Directories are opened beneath the outermost one, by
//! paths in which no symbolic link is followed, so that what an image holds decides about names only.

use chart::{Error, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

/// A longer path is opened in steps.
const MAX_PATH_BYTES: usize = 4000;

/// The outermost directory of what is made.
#[derive(Clone, Copy)]
pub(super) struct Target<'a>(pub(super) BorrowedFd<'a>);

impl Target<'_> {
    /// Opens a directory that was made before, by its path from the outermost one.
    pub(super) fn open(&self, path: &Path) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let bytes = path.as_os_str().len();
        let here = if bytes == 0 { Path::new(".") } else { path };
        let opened = if bytes <= MAX_PATH_BYTES {
            rustix::fs::openat2(self.0, here, flags, Mode::empty(), resolve)
        } else {
            Err(Errno::NAMETOOLONG)
        };
        let opened = match opened {
            // An old kernel, one that was told to know no such call, a long path, or a rename meanwhile.
            Err(Errno::NOSYS | Errno::PERM | Errno::NAMETOOLONG | Errno::AGAIN) => self.step(here, flags),
            opened => opened,
        };
        let fails = |e| {
            Error::from(std::io::Error::from(e)).in_path(path).during("opening a directory that was made")
        };
        opened.map_err(fails)
    }

    /// The same, by one name after the other.
    fn step(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut at = rustix::fs::openat(self.0, ".", flags, Mode::empty())?;
        for component in path.components() {
            match component {
                Component::Normal(name) => at = rustix::fs::openat(&at, name, flags, Mode::empty())?,
                Component::CurDir => {}
                _ => return Err(Errno::XDEV),
            }
        }
        Ok(at)
    }
}

/// A name that may be one in a directory. What an image holds may be anything.
pub(super) fn name(bytes: &[u8]) -> Result<&OsStr> {
    if matches!(bytes, b"" | b"." | b"..") || bytes.iter().any(|byte| matches!(byte, 0 | b'/')) {
        let what = format!("{:?} is no name that a file can have", String::from_utf8_lossy(bytes));
        return Err(Error::corrupt(what));
    }
    Ok(OsStr::from_bytes(bytes))
}
