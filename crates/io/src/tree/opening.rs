//! Opening a file: only once it is known to be the one that was found.

use super::descriptors::{Open, now};
use super::files::Files;
use super::seal::{SEALED, Seal};
use super::{Error, Result, beneath};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Who finds no descriptor left waits for one: twice as long each time, and not again after this, half a second in all.
const LONGEST_PAUSE: Duration = Duration::from_millis(256);

/// Held by the one who waits for a descriptor, of all in this process: when others have as many as there are, two who
/// wait would each hold what the other needs. In it is when somebody gave up last.
static SCARCE: Mutex<Duration> = Mutex::new(Duration::ZERO);

/// Why a file is not open.
enum Closed {
    /// There is no descriptor left.
    Scarce(Errno),
    For(Error),
}

impl Files {
    /// Opens a file by its name, once it is known to be what it was: what else may be there now is not touched.
    pub(super) fn open(&self, index: usize) -> Result<Arc<Open>> {
        match self.open_now(index) {
            Err(Closed::Scarce(_)) => self.open_when_there_is_room(index),
            Err(Closed::For(error)) => Err(error),
            Ok(open) => Ok(open),
        }
    }

    /// The same, when there is no descriptor left: those that are only kept go first, and then others that are
    /// reading have time to give theirs back.
    #[cold]
    fn open_when_there_is_room(&self, index: usize) -> Result<Arc<Open>> {
        let (began, mut pause) = (now(), Duration::from_millis(1));
        let mut gave_up = SCARCE.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            self.open.clear();
            match self.open_now(index) {
                // Who waited for another in vain need not wait as long again.
                Err(Closed::Scarce(_)) if pause <= LONGEST_PAUSE && *gave_up < began => {
                    std::thread::sleep(pause);
                    pause *= 2;
                }
                Err(Closed::Scarce(e)) => {
                    *gave_up = now();
                    return Err(self.unopened(index, e));
                }
                Err(Closed::For(error)) => return Err(error),
                Ok(open) => return Ok(open),
            }
        }
    }

    fn open_now(&self, index: usize) -> std::result::Result<Arc<Open>, Closed> {
        let mut name = Vec::new();
        self.members.push_path(index, &mut name);
        let named = now();
        let closed = |e| match e {
            Errno::MFILE | Errno::NFILE => Closed::Scarce(e),
            e => Closed::For(self.unopened(index, e)),
        };
        let there = beneath::open(self.root.as_fd(), &name, OFlags::PATH).map_err(closed)?;
        self.is_it(index, there.as_fd()).map_err(Closed::For)?;
        let fd = open_again(there.as_fd(), self.root.as_fd(), &name).map_err(closed)?;
        drop(there);
        self.is_it(index, fd.as_fd()).map_err(Closed::For)?;
        let open = Arc::new(Open { fd, named, waits: AtomicBool::new(false) });
        self.open.keep(index as u32, &open);
        Ok(open)
    }

    /// An error if what a descriptor leads to is not the file that was found.
    fn is_it(&self, index: usize, fd: BorrowedFd<'_>) -> Result<()> {
        let stat = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, SEALED);
        let stat = stat.map_err(|e| self.unopened(index, e))?;
        match FileType::from_raw_mode(stat.stx_mode.into()) {
            FileType::RegularFile => {}
            FileType::Symlink => return Err(self.unopened(index, Errno::LOOP)),
            _ => return Err(self.changed(index, "is no regular file any more")),
        }
        let how = self.members.seal(index).difference(&Seal::of(&stat));
        how.map_or(Ok(()), |how| Err(self.changed(index, how)))
    }

    #[cold]
    fn unopened(&self, index: usize, e: Errno) -> Error {
        let how = match e {
            Errno::NOENT => "is gone since it was found",
            Errno::LOOP | Errno::XDEV | Errno::NOTDIR => {
                "is behind a symbolic link now, or where a directory was is none: that is not followed"
            }
            Errno::ACCESS | Errno::PERM => "may not be read",
            Errno::AGAIN => {
                let what = "somebody has a lease on it, and is asked to give that up: it can be read then";
                return self.fails(index, Error::unavailable(what));
            }
            e => {
                let error = Error::io("cannot be opened").caused_by(std::io::Error::from(e));
                return self.fails(index, error);
            }
        };
        self.changed(index, how)
    }
}

/// Opens for reading what a descriptor leads to, which was found to be a regular file.
fn open_again(there: BorrowedFd<'_>, root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    // No waiting for whoever holds a lease on it.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let itself = format!("/proc/self/fd/{}", there.as_raw_fd());
    let open = |flags| match rustix::fs::open(&itself, flags, Mode::empty()) {
        // Nothing is mounted there: by its name again, then.
        Err(Errno::NOENT | Errno::NOTDIR) => beneath::open(root, path, flags | OFlags::NOFOLLOW),
        done => done,
    };
    match open(flags | OFlags::NOATIME) {
        // Only the owner may leave the time of the last access as it is.
        Err(Errno::PERM) => open(flags),
        done => done,
    }
}
