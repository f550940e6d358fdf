//! The Gate: which other files an image may name.
//!
//! An image is somebody else's bytes, and it can name files: a backing file, a data file. What it names is opened
//! only beneath a *root*: the directory of the image the user named, or one the user allowed. Names are resolved
//! with their symbolic links first, and opened so that no link can slip in between.

#[cfg(test)]
mod tests;

use crate::{Location, Spec};
use chart::{Error, Remedy, Result, ResultExt};
use io::file::{File, Options};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What the user allows images to name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    allowed: Vec<PathBuf>,
    any: bool,
}

impl Gate {
    /// Files beside the image that the user named, or below its directory.
    pub fn beside() -> Gate {
        Gate::default()
    }

    /// Files beneath `dir` too.
    #[must_use]
    pub fn allow(mut self, dir: impl Into<PathBuf>) -> Gate {
        self.allowed.push(dir.into());
        self
    }

    /// Whatever it names: any file, any server.
    pub fn any() -> Gate {
        Gate { allowed: Vec::new(), any: true }
    }

    /// What the image at `location`, which the user named, and all that it leads to may name.
    pub fn pass(&self, location: &Location) -> Result<Pass> {
        let mut roots = Vec::new();
        for dir in &self.allowed {
            let real = dir.canonicalize().in_path(dir).during(|| "allowing a directory".into())?;
            if !real.is_dir() {
                return Err(Error::invalid("is no directory that could be allowed").in_path(dir));
            }
            roots.push(real);
        }
        if let (Location::File(path), false) = (location, self.any) {
            // Where a link stands, and where it leads: both are "beside the image".
            roots.extend(folder_of(path).canonicalize().ok());
            roots.extend(path.canonicalize().ok().map(|p| folder_of(&p).to_path_buf()));
            roots.dedup();
        }
        Ok(Pass { roots, any: self.any })
    }
}

/// What one image, and all that it leads to, may name.
#[derive(Clone, Debug)]
pub struct Pass {
    /// Without symbolic links.
    roots: Vec<PathBuf>,
    any: bool,
}

/// A file that was named and may be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// What it is, and how it is to be read.
    pub spec: Spec,
    /// The root it lies beneath, and its path from there; none where anything goes.
    beneath: Option<(PathBuf, PathBuf)>,
}

impl Pass {
    /// Whether the image at `by` may name `name` as its `role` ("backing file"), and what that is.
    pub fn admit(&self, by: &Location, name: impl AsRef<OsStr>, role: &str) -> Result<Admitted> {
        let name = name.as_ref();
        let what = || format!("{by} names {} as its {role}", name.display());
        let spec = read_name(name).map_err(|e| e.during(what()))?;
        if !spec.steps.is_empty() {
            return Err(Error::unsupported("a part of another image cannot be named").during(what()));
        }
        if let Some(odd) = spec.options.keys().find(|k| !matches!(k.as_str(), "offset" | "size")) {
            return Err(Error::denied(format!("an image may not set the option {odd}")).during(what()));
        }
        let Location::File(path) = &spec.location else {
            if self.any {
                return Ok(Admitted { spec, beneath: None });
            }
            let refusal = Error::denied("an image may name no server unless anything is allowed");
            return Err(refusal.with_remedy(Remedy::AllowAnything).during(what()));
        };
        let (path, beneath) = self.find(by, path).map_err(|e| e.during(what()))?;
        Ok(Admitted { spec: Spec { location: Location::File(path), ..spec }, beneath })
    }

    /// Whether the image at `by` may name files beneath a directory, and that directory, open for resolving their
    /// names, with what to call it. The name is a path and nothing else.
    pub fn admit_directory(&self, by: &Location, name: &Path) -> Result<(OwnedFd, PathBuf)> {
        let what = || format!("{by} names {} as its directory", name.display());
        let (path, beneath) = self.find(by, name).map_err(|e| e.during(what()))?;
        let fd = match beneath {
            None => io::tree::open_root(&path),
            Some((root, relative)) => {
                open_fd_beneath(&root, &relative, &path, OFlags::PATH | OFlags::DIRECTORY)
            }
        };
        Ok((fd.map_err(|e| e.during(what()))?, path))
    }

    /// The file that the image at `by` means by a path, and the root that allows it and the way from there.
    fn find(&self, by: &Location, path: &Path) -> Result<(PathBuf, Option<(PathBuf, PathBuf)>)> {
        let path = resolve(by, path)?;
        let real = path.canonicalize().in_path(&path)?;
        let beneath = self.root_of(&real);
        if beneath.is_none() && !self.any {
            let roots: Vec<_> = self.roots.iter().map(|r| r.display().to_string()).collect();
            let roots = if roots.is_empty() { "any allowed directory".into() } else { roots.join(", ") };
            let refusal =
                format!("it lies outside {roots}; it is not opened unless its directory is allowed");
            return Err(Error::denied(refusal).in_path(real).with_remedy(Remedy::AllowThere));
        }
        Ok((path, beneath.filter(|_| !self.any)))
    }

    fn root_of(&self, real: &Path) -> Option<(PathBuf, PathBuf)> {
        self.roots.iter().find_map(|r| Some((r.clone(), real.strip_prefix(r).ok()?.to_path_buf())))
    }
}

impl Admitted {
    /// Opens the file, beneath its root whatever links appeared since.
    pub fn open(&self, options: Options) -> Result<File> {
        let Location::File(path) = &self.spec.location else {
            return Err(Error::invalid(format!("{} is no file", self.spec.location)));
        };
        match &self.beneath {
            None => File::open(path, options),
            Some((root, relative)) => open_beneath(root, relative, path, options),
        }
    }
}

fn open_beneath(root: &Path, relative: &Path, path: &Path, options: Options) -> Result<File> {
    let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    flags |= if options.writable { OFlags::RDWR } else { OFlags::RDONLY };
    if options.direct {
        flags |= OFlags::DIRECT;
    }
    File::from_fd(open_fd_beneath(root, relative, path, flags)?, path.to_path_buf(), options)
}

/// Opens what was found at `relative` beneath `root`, if it is still there; `path` is what to call it.
fn open_fd_beneath(root: &Path, relative: &Path, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let dir = io::tree::open_root(root)?;
    // A root may be named itself, if it is a directory that is wanted.
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    let flags = flags | OFlags::CLOEXEC;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let fd = match rustix::fs::openat2(&dir, relative, flags, Mode::empty(), how) {
        // Linux before 5.6. The name was resolved a moment ago; at least its end may not have become a link.
        Err(Errno::NOSYS) => {
            rustix::fs::openat(CWD, root.join(relative), flags | OFlags::NOFOLLOW, Mode::empty())
        }
        // What was free of links when it was resolved no longer is.
        Err(Errno::LOOP | Errno::XDEV) => {
            return Err(Error::denied("changed while it was being opened").in_path(path));
        }
        other => other,
    };
    fd.map_err(std::io::Error::from).in_path(path)
}

/// What an image means by a name. Only `json:`, `file:` and addresses are more than a path: our own suffixes are
/// for people.
fn read_name(name: &OsStr) -> Result<Spec> {
    let bytes = name.as_bytes();
    let Some(colon) = bytes.iter().position(|b| matches!(b, b':' | b'/')).filter(|&i| bytes[i] == b':')
    else {
        return if bytes.is_empty() { Err(Error::corrupt("an empty name")) } else { Ok(Spec::file(name)) };
    };
    // As QEMU reads it: a colon before any slash ends a protocol's name.
    match &bytes[..colon] {
        b"json" | b"file" => Spec::parse(name),
        _ if bytes[colon..].starts_with(b"://") => Spec::parse(name),
        other => {
            let what = format!("{}: is no protocol known to this build", String::from_utf8_lossy(other));
            Err(Error::unsupported(what))
        }
    }
}

/// What an image at `by` would mean by `name`, which the user says: they may name anything.
pub(crate) fn beside(by: &Location, name: &str) -> Result<Spec> {
    let spec = read_name(name.as_ref())?;
    match &spec.location {
        Location::File(path) => Ok(Spec { location: Location::File(resolve(by, path)?), ..spec }),
        _ => Ok(spec),
    }
}

/// A relative name belongs to the directory of the image that names it.
fn resolve(by: &Location, path: &Path) -> Result<PathBuf> {
    match by {
        _ if path.is_absolute() => Ok(path.to_path_buf()),
        // `with_file_name` adds no `./` where the image was named without a directory.
        Location::File(naming) => Ok(naming.with_file_name(path)),
        _ => {
            let what = "an image at an address has no directory: the relative names in it lead nowhere";
            Err(Error::unsupported(what).in_path(path))
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}
