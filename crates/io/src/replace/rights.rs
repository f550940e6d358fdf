//! Whose a file is that takes the place of another, and who may open it.

use rustix::fs::{Gid, Mode, Stat, Uid, XattrFlags};
use rustix::io::Errno;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// The attribute that an access control list is kept in.
const ACCESS_LIST: &str = "system.posix_acl_access";
/// Longer ones are not taken over.
const MAX_LIST: usize = 64 << 10;

/// What everybody may do with a file.
pub(super) fn of(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode) & (Mode::RWXU | Mode::RWXG | Mode::RWXO)
}

/// Gives an open file the owner, the group and the rights of `there`, which is at `path`, as far as this process may.
/// Nobody but its owner may then do more with it than with that.
pub(super) fn take_over(fd: BorrowedFd<'_>, path: &Path, there: &Stat) -> Result<(), Errno> {
    let (own, mut mode) = (rustix::fs::fstat(fd)?, of(there));
    if own.st_uid != there.st_uid {
        // Only root may; else it is who replaces it that it belongs to.
        let _ = rustix::fs::fchown(fd, Some(Uid::from_raw(there.st_uid)), None);
    }
    let is_group =
        own.st_gid == there.st_gid || rustix::fs::fchown(fd, None, Some(Gid::from_raw(there.st_gid))).is_ok();
    if !is_group {
        mode = for_others(mode);
    }
    if !take_over_list(fd, path) {
        // Who is on it, and with which rights, is not known: nobody.
        mode &= Mode::RWXU;
    }
    rustix::fs::fchmod(fd, mode)
}

/// Whoever is in a group or not: only what both may do.
pub(super) fn for_others(mode: Mode) -> Mode {
    let both = mode.as_raw_mode() & (mode.as_raw_mode() >> 3) & 0o7;
    mode & Mode::RWXU | Mode::from_raw_mode(both | both << 3)
}

/// Takes over the access control list, or that there is none. Whether that could be done.
fn take_over_list(fd: BorrowedFd<'_>, path: &Path) -> bool {
    let mut list = vec![0; MAX_LIST];
    match rustix::fs::getxattr(path, ACCESS_LIST, &mut list) {
        Ok(len) => {
            let list = list.get(..len).unwrap_or_default();
            rustix::fs::fsetxattr(fd, ACCESS_LIST, list, XattrFlags::empty()).is_ok()
        }
        // A directory can give its new files one.
        Err(Errno::NODATA | Errno::OPNOTSUPP) => matches!(
            rustix::fs::fremovexattr(fd, ACCESS_LIST),
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP)
        ),
        Err(_) => false,
    }
}
