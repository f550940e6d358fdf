//! Opening what lies beneath a directory, whatever symbolic links appear on the way.

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// A path may have so many bytes for one call, its end included; a longer one is gone in parts.
const MOST_AT_ONCE: usize = 4096;

/// So often a name is resolved anew when something on its way was renamed meanwhile.
const TRIES: u32 = 64;

/// Whether the kernel was found to be older than 5.6.
static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

/// Opens `path`, relative to `root` and without any symbolic link on it; an empty one is `root` itself. What is
/// not beneath fails with `XDEV` or `LOOP`.
pub(super) fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    if path.is_empty() {
        return rustix::fs::openat(root, c".", flags | OFlags::CLOEXEC, Mode::empty());
    }
    if path.len() < MOST_AT_ONCE && !NO_OPENAT2.load(Ordering::Relaxed) {
        return match step(root, path, flags) {
            Err(Errno::NOSYS) => {
                NO_OPENAT2.store(true, Ordering::Relaxed);
                in_parts(root, path, flags, 1)
            }
            done => done,
        };
    }
    in_parts(root, path, flags, if NO_OPENAT2.load(Ordering::Relaxed) { 1 } else { MOST_AT_ONCE - 1 })
}

/// The same in parts of at most so many bytes, or of one name.
pub(super) fn in_parts(root: BorrowedFd<'_>, path: &[u8], flags: OFlags, most: usize) -> Result<OwnedFd> {
    let (mut at, mut rest) = (None::<OwnedFd>, path);
    loop {
        let from = at.as_ref().map_or(root, AsFd::as_fd);
        let (part, behind) = cut(rest, most);
        let last = behind.is_empty();
        let way = OFlags::PATH | OFlags::DIRECTORY;
        let next = match most {
            1 => name(from, part, if last { flags } else { way }),
            _ => step(from, part, if last { flags } else { way }),
        }?;
        if last {
            return Ok(next);
        }
        (at, rest) = (Some(next), behind);
    }
}

/// The first part of a path, as many whole names as `most` bytes hold but at least one, and what is behind it.
fn cut(path: &[u8], most: usize) -> (&[u8], &[u8]) {
    if path.len() <= most {
        return (path, &[]);
    }
    let slash = |bytes: &[u8]| bytes.iter().rposition(|&b| b == b'/');
    let first = || path.iter().position(|&b| b == b'/');
    match slash(&path[..most]).or_else(first) {
        Some(i) => (&path[..i], &path[i + 1..]),
        None => (path, &[]),
    }
}

fn step(from: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let path = CString::new(path).map_err(|_| Errno::INVAL)?;
    let mut tries = TRIES;
    loop {
        match rustix::fs::openat2(from, &path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
            // Somebody renamed a directory meanwhile: the kernel cannot tell whether it is still beneath.
            Err(Errno::AGAIN) if tries > 0 => tries -= 1,
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

/// One name, where `openat2` is not known.
fn name(from: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> Result<OwnedFd> {
    if matches!(name, b"." | b".." | b"") || name.contains(&b'/') {
        return Err(Errno::XDEV);
    }
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    rustix::fs::openat(from, &name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}
