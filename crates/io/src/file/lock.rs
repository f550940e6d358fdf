//! Image locks, on the bytes and with the meaning that QEMU gives them, so that each refuses the other.
//!
//! A user of an image holds, for every thing it does, a shared lock on byte 100 + that thing; and for every
//! thing it will not have others do, one on byte 200 + that thing. It then looks whether anybody holds the
//! opposite. Locks belong to the open file description and go with it.

use super::File;
use chart::{Error, Remedy, Result};
use std::os::fd::{AsRawFd, BorrowedFd};

const PERMISSIONS: i64 = 100;
const UNSHARED: i64 = 200;
const CONSISTENT_READ: u8 = 1 << 0;
const WRITE: u8 = 1 << 1;
const RESIZE: u8 = 1 << 3;
/// The bits there are; bit 2 (unchanged writes) is always shared.
const BITS: u8 = 4;

/// What somebody means to do with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read it, and have nobody change it meanwhile.
    Read,
    /// Change it, and have nobody else do so, nor read what is half written.
    Write,
    /// Read it whatever others do: for looking at an image in use.
    Unlocked,
}

impl Access {
    fn wanted(self) -> u8 {
        match self {
            Access::Read => CONSISTENT_READ,
            Access::Write => CONSISTENT_READ | WRITE | RESIZE,
            Access::Unlocked => 0,
        }
    }

    fn unshared(self) -> u8 {
        match self {
            Access::Read | Access::Write => WRITE | RESIZE,
            Access::Unlocked => 0,
        }
    }
}

/// A lock that is held. It ends with the file.
#[derive(Debug)]
pub struct Hold(());

/// Takes the lock on a file that is open, or says who stands in the way.
pub fn lock(file: &File, access: Access) -> Result<Hold> {
    let fd = file.fd();
    for bit in 0..BITS {
        if access.wanted() & (1 << bit) != 0 {
            share(fd, PERMISSIONS + i64::from(bit)).map_err(|e| e.in_path(file.path()))?;
        }
        if access.unshared() & (1 << bit) != 0 {
            share(fd, UNSHARED + i64::from(bit)).map_err(|e| e.in_path(file.path()))?;
        }
    }
    for bit in 0..BITS {
        let mask = 1 << bit;
        if access.wanted() & mask != 0 && is_held(fd, UNSHARED + i64::from(bit))? {
            return Err(in_use(file, access));
        }
        if access.unshared() & mask != 0 && is_held(fd, PERMISSIONS + i64::from(bit))? {
            return Err(in_use(file, access));
        }
    }
    Ok(Hold(()))
}

fn in_use(file: &File, access: Access) -> Error {
    let (what, remedy) = match access {
        Access::Write => {
            ("is in use by another process, which does not allow it to be written", Remedy::StopUser)
        }
        _ => ("is being written by another process", Remedy::StopUserOrShare),
    };
    // Whoever gives up must not stand in others' way until the file is closed.
    for byte in (0..BITS).flat_map(|b| [PERMISSIONS + i64::from(b), UNSHARED + i64::from(b)]) {
        let _ = set(file.fd(), libc::F_UNLCK, byte);
    }
    Error::conflict(what).in_path(file.path()).with_remedy(remedy)
}

fn range(kind: i32, byte: i64) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: byte, l_len: 1, l_pid: 0 }
}

fn set(fd: BorrowedFd<'_>, kind: i32, byte: i64) -> std::io::Result<()> {
    let lock = range(kind, byte);
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel only reads `lock`.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn share(fd: BorrowedFd<'_>, byte: i64) -> Result<()> {
    match set(fd, libc::F_RDLCK, byte) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
            Err(Error::conflict("is locked by another process").with_remedy(Remedy::StopUser))
        }
        // Some file systems have no locks; QEMU goes on there too.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOLCK | libc::EINVAL)) => Ok(()),
        other => Ok(other?),
    }
}

/// Whether somebody else holds any lock on this byte.
fn is_held(fd: BorrowedFd<'_>, byte: i64) -> Result<bool> {
    let mut lock = range(libc::F_WRLCK, byte);
    // SAFETY: the descriptor is open for as long as it is borrowed, and `lock` is ours for the kernel to fill.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) } {
        0 => Ok(i32::from(lock.l_type) != libc::F_UNLCK),
        _ => Ok(false),
    }
}
