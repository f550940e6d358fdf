//! Data that goes past without being copied.

use chart::{Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, splice};
use std::os::fd::{BorrowedFd, OwnedFd};

/// Requests of so many bytes are worth it: their data is moved by two more system calls, but not copied.
pub(super) const WORTHWHILE: u64 = 64 << 10;

/// How much a pipe is asked to hold: as much as anybody may ask for.
const PIPE: usize = 1 << 20;

/// From a socket through a pipe to nowhere.
pub(super) struct Drain {
    read: OwnedFd,
    write: OwnedFd,
    nowhere: OwnedFd,
}

impl Drain {
    pub(super) fn new() -> Result<Drain> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(std::io::Error::from)?;
        // One that holds less does as well, only less at a time.
        let _ = rustix::pipe::fcntl_setpipe_size(&write, PIPE);
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let nowhere = rustix::fs::open("/dev/null", flags, Mode::empty()).map_err(std::io::Error::from)?;
        Ok(Drain { read, write, nowhere })
    }

    /// Lets up to `most` bytes that have come pass; waits for them only if `wait`. How many that were.
    pub(super) fn pass(&self, socket: BorrowedFd<'_>, most: u64, wait: bool) -> Result<u64> {
        let most = usize::try_from(most).unwrap_or(PIPE).min(PIPE);
        let flags = if wait { SpliceFlags::empty() } else { SpliceFlags::NONBLOCK };
        let came = match splice(socket, None, &self.write, None, most, flags) {
            Ok(0) => return Err(Error::unavailable("the server closed the connection")),
            Ok(n) => n,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(0),
            Err(e) => return Err(broken(e)),
        };
        let mut left = came;
        while left > 0 {
            match splice(&self.read, None, &self.nowhere, None, left, SpliceFlags::empty()) {
                Ok(n) => left -= n.min(left),
                Err(Errno::INTR) => {}
                Err(e) => return Err(broken(e)),
            }
        }
        Ok(came as u64)
    }
}

fn broken(e: Errno) -> Error {
    Error::unavailable("the connection to the server broke").caused_by(std::io::Error::from(e))
}
