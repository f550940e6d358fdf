//! From a path to an inode, inside one file system.
//!
//! Symbolic links are followed, and lead nowhere but inside: an absolute one begins at the root of the file system it
//! is in, and `..` goes no higher than that.

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;

use crate::{FileSystem, Inode, Kind};
use chart::{Error, Result};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// So many symbolic links are followed for one path (Linux's limit).
pub const MAX_LINKS: usize = 40;
/// A symbolic link that is followed has so many bytes at most (Linux's limit).
pub const MAX_TARGET_BYTES: usize = 4096;

/// What a path names, symbolic links followed, the last one too.
pub fn resolve(fs: &dyn FileSystem, path: &Path) -> Result<Inode> {
    resolve_to(fs, path).map(|(inode, _)| inode)
}

/// The same, and the directory and name under which it is found: the path without links, `.` and `..`.
pub fn resolve_to(fs: &dyn FileSystem, path: &Path) -> Result<(Inode, PathBuf)> {
    let mut walk = Walk { fs, at: Vec::new(), links: 0 };
    // What is still to be gone, the next name last.
    let mut ahead: Vec<Vec<u8>> = Vec::new();
    push(&mut ahead, path.as_os_str().as_bytes());
    while let Some(name) = ahead.pop() {
        if let Some(target) = walk.step(&name)? {
            push(&mut ahead, &target);
        }
    }
    Ok((walk.here(), walk.path()))
}

/// Puts a path before what is ahead.
fn push(ahead: &mut Vec<Vec<u8>>, path: &[u8]) {
    ahead.extend(path.split(|&byte| byte == b'/').rev().filter(|name| !name.is_empty()).map(<[u8]>::to_vec));
}

struct Walk<'f> {
    fs: &'f dyn FileSystem,
    /// The way from the root to here: names and what they name.
    at: Vec<(Vec<u8>, Inode)>,
    links: usize,
}

impl Walk<'_> {
    fn here(&self) -> Inode {
        self.at.last().map_or(self.fs.root(), |(_, inode)| *inode)
    }

    fn path(&self) -> PathBuf {
        let names = self.at.iter().map(|(name, _)| Path::new(OsStr::from_bytes(name)));
        std::iter::once(Path::new("/")).chain(names).collect()
    }

    /// Goes on by one name. Where that is a symbolic link, it stays, and tells where that leads.
    fn step(&mut self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        if self.fs.stat(self.here())?.kind != Kind::Directory {
            return Err(Error::invalid(format!("{} is no directory", self.path().display())));
        }
        match name {
            b"." => return Ok(None),
            b".." => {
                self.at.pop();
                return Ok(None);
            }
            _ => {}
        }
        let shown = || self.path().join(OsStr::from_bytes(name)).display().to_string();
        let Some(inode) = self.fs.lookup(self.here(), name)? else {
            return Err(Error::not_found(format!("there is no {} in this file system", shown())));
        };
        if self.fs.stat(inode)?.kind != Kind::Symlink {
            self.at.push((name.to_vec(), inode));
            return Ok(None);
        }
        if self.links >= MAX_LINKS {
            return Err(Error::invalid(format!("{}: more than {MAX_LINKS} symbolic links", shown())));
        }
        let target = self.fs.target(inode)?;
        if target.is_empty() || target.len() > MAX_TARGET_BYTES {
            let what = format!("{} is a symbolic link of {} bytes", shown(), target.len());
            return Err(Error::corrupt(what));
        }
        self.links = self.links.saturating_add(1);
        if target.starts_with(b"/") {
            self.at.clear();
        }
        Ok(Some(target))
    }
}
