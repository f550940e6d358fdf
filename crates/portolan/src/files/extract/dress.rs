//! What belongs to a file beside its content: owner, mode, attributes, times.

use super::report::Tally;
use chart::{Error, Result, ResultExt};
use fs::{Attribute, Stat, Time};
use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Set-user-id and set-group-id.
const SET_ID: u16 = 0o6000;

/// The names of attributes that anybody may give their files.
const ANYBODYS: [&[u8]; 2] = [b"user.", b"system.posix_acl_"];

/// What was left out, and why.
mod left_out {
    pub(super) const OWNER: &str = "owners, which cannot be given here";
    pub(super) const SET_ID: &str = "set-id bits, where the owner is not kept";
    pub(super) const ROOTS: &str = "attributes that only root may set";
    pub(super) const REFUSED: &str = "attributes that the target's file system does not take";
}

/// What may be done here.
pub(super) struct Rights {
    /// Owners are to be kept.
    owners: bool,
    privileged: bool,
    umask: u32,
    /// Who owns what is made, if nothing is done about it.
    own: (u32, u32),
}

/// What is dressed: how it is told, and where it is.
pub(super) struct Dressed<'a> {
    /// The directory it is in, from the outermost one.
    pub(super) folder: &'a Path,
    pub(super) name: &'a [u8],
    pub(super) stat: &'a Stat,
    /// The mode it was asked to be made with.
    pub(super) made: u32,
}

impl Rights {
    /// What this process may do; `owners` says whether they are to be kept, which is so for root unless it is said.
    pub(super) fn find(owners: Option<bool>) -> Rights {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let privileged = uid.is_root();
        let own = (uid.as_raw(), gid.as_raw());
        Rights { owners: owners.unwrap_or(privileged), privileged, umask: umask(), own }
    }

    /// Whether devices can be made.
    pub(super) fn is_privileged(&self) -> bool {
        self.privileged
    }

    /// The attributes of an inode that can be set here.
    pub(super) fn settable(
        &self,
        all: Vec<Attribute>,
        what: (&Path, &[u8]),
        tally: &mut Tally,
    ) -> Vec<Attribute> {
        let (may, may_not): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|a| self.privileged || ANYBODYS.iter().any(|prefix| a.name.starts_with(prefix)));
        if !may_not.is_empty() {
            tally.skip(left_out::ROOTS, what.0, what.1);
        }
        may
    }

    /// Whether an inode's owner must be given.
    fn gives_owner(&self, stat: &Stat) -> bool {
        self.owners && (stat.uid, stat.gid) != self.own
    }

    /// The mode it is to have in the end, where its owner could be kept or not.
    fn mode(&self, what: &Dressed<'_>, owned: bool, tally: &mut Tally) -> u32 {
        let mut mode = what.stat.mode & 0o7777;
        let kept = owned && (self.owners || (what.stat.uid, what.stat.gid) == self.own);
        if mode & SET_ID != 0 && !kept {
            tally.skip(left_out::SET_ID, what.folder, what.name);
            mode &= !SET_ID;
        }
        mode.into()
    }

    /// Dresses what is open. The order matters: a new owner takes set-id bits and capabilities away, and a mode may
    /// take the right to set attributes.
    pub(super) fn dress(
        &self,
        fd: BorrowedFd<'_>,
        what: &Dressed<'_>,
        attributes: &[Attribute],
        tally: &mut Tally,
    ) -> Result<()> {
        let Dressed { stat, made, .. } = what;
        let mut owned = true;
        if self.gives_owner(stat) {
            let done = rustix::fs::fchown(fd, Some(uid(stat)), Some(gid(stat)));
            owned = self.owner_given(done, what, tally)?;
        }
        for attribute in attributes {
            let name = OsStr::from_bytes(&attribute.name);
            let done = rustix::fs::fsetxattr(fd, name, &attribute.value, XattrFlags::empty());
            self.attribute_set(done, attribute, what, tally)?;
        }
        let mode = self.mode(what, owned, tally);
        if mode != made & !self.umask {
            rustix::fs::fchmod(fd, Mode::from_raw_mode(mode)).map_err(std::io::Error::from)?;
        }
        rustix::fs::futimens(fd, &times(stat)).map_err(std::io::Error::from)?;
        Ok(())
    }

    /// Dresses what cannot be opened, or had better not be: links, devices. It was made in this directory just now.
    pub(super) fn dress_at(
        &self,
        directory: BorrowedFd<'_>,
        what: &Dressed<'_>,
        attributes: &[Attribute],
        tally: &mut Tally,
    ) -> Result<()> {
        let Dressed { stat, made, .. } = what;
        let name = super::target::name(what.name)?;
        let mut owned = true;
        if self.gives_owner(stat) {
            let (uid, gid) = (Some(uid(stat)), Some(gid(stat)));
            let done = rustix::fs::chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW);
            owned = self.owner_given(done, what, tally)?;
        }
        if !attributes.is_empty() {
            // There is no such call that takes a directory and a name.
            let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd())).join(name);
            for attribute in attributes {
                let of = OsStr::from_bytes(&attribute.name);
                let done = rustix::fs::lsetxattr(&path, of, &attribute.value, XattrFlags::empty());
                self.attribute_set(done, attribute, what, tally)?;
            }
        }
        if stat.kind != fs::Kind::Symlink {
            let mode = self.mode(what, owned, tally);
            if mode != made & !self.umask {
                let mode = Mode::from_raw_mode(mode);
                rustix::fs::chmodat(directory, name, mode, AtFlags::empty()).map_err(std::io::Error::from)?;
            }
        }
        let times = times(stat);
        let done = rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW);
        done.map_err(std::io::Error::from)?;
        Ok(())
    }

    fn owner_given(&self, done: Result<(), Errno>, what: &Dressed<'_>, tally: &mut Tally) -> Result<bool> {
        match done {
            Ok(()) => Ok(true),
            // No right to it, or (in a user namespace, or on a file system without them) no such owner.
            Err(Errno::PERM | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                tally.skip(left_out::OWNER, what.folder, what.name);
                Ok(false)
            }
            Err(e) => Err(Error::from(std::io::Error::from(e)).during("giving it its owner")),
        }
    }

    fn attribute_set(
        &self,
        done: Result<(), Errno>,
        attribute: &Attribute,
        what: &Dressed<'_>,
        tally: &mut Tally,
    ) -> Result<()> {
        match done {
            Ok(()) => Ok(()),
            Err(Errno::PERM | Errno::ACCESS) => {
                tally.skip(left_out::ROOTS, what.folder, what.name);
                Ok(())
            }
            // Unknown there, or too large for it.
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::TOOBIG | Errno::RANGE | Errno::NOSPC) => {
                tally.skip(left_out::REFUSED, what.folder, what.name);
                Ok(())
            }
            Err(e) => Err(std::io::Error::from(e))
                .during(|| format!("setting its attribute {}", String::from_utf8_lossy(&attribute.name))),
        }
    }
}

fn uid(stat: &Stat) -> Uid {
    Uid::from_raw(stat.uid)
}

fn gid(stat: &Stat) -> Gid {
    Gid::from_raw(stat.gid)
}

fn times(stat: &Stat) -> Timestamps {
    let spec = |time: Time| Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.min(999_999_999).into() };
    Timestamps { last_access: spec(stat.accessed), last_modification: spec(stat.modified) }
}

/// The bits that new files do not get. All of them where nobody says: then every mode is set.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    value.and_then(|value| u32::from_str_radix(value.trim(), 8).ok()).unwrap_or(0o777)
}
