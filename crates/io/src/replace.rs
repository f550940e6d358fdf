//! A new file that takes its place only when it is whole.

use crate::file::{Access, File, Options, lock};
use chart::{Error, Result, ResultExt, Source};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A file being made under a temporary name beside its destination. Dropped before [`Replacement::commit`], it
/// is gone and the destination is as it was.
pub struct Replacement {
    target: PathBuf,
    temporary: PathBuf,
    file: Option<File>,
    /// What is there, locked so that nobody begins to write to a file that is about to be gone.
    replaced: Option<File>,
    force: bool,
}

impl Replacement {
    /// Begins a file that will be `target`. Refuses what is there, unless `force`; and even then what is no file,
    /// and a file that is being written.
    pub fn create(target: impl Into<PathBuf>, force: bool) -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let mut target = target.into();
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
        let Some(name) = target.file_name() else {
            return Err(Error::invalid("names no file to write").in_path(target));
        };
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        let serial = COUNT.fetch_add(1, Ordering::Relaxed);
        temporary.push(format!(".{}-{serial}.part", std::process::id()));
        let temporary = folder_of(&target).join(temporary);
        let replaced = File::open(&target, Options::default()).ok();
        if let Some(there) = &replaced {
            lock(there, Access::Read)?;
        }
        let folder = folder_of(&target);
        if !folder.is_dir() {
            let what = format!("the directory {} is not there", folder.display());
            return Err(Error::not_found(what).in_path(target));
        }
        let file = File::open(&temporary, Options { create_new: true, ..Options::default() })?;
        Ok(Replacement { target, temporary, file: Some(file), replaced, force })
    }

    /// The file to fill.
    pub fn file(&self) -> Result<&File> {
        self.file.as_ref().ok_or_else(|| Error::invalid("the file is finished"))
    }

    /// Makes it durable and gives it its name.
    pub fn commit(mut self) -> Result<()> {
        let file = self.file.take().ok_or_else(|| Error::invalid("the file is finished"))?;
        file.flush()?;
        if self.force {
            std::fs::rename(&self.temporary, &self.target).in_path(&self.target)?;
        } else {
            self.name_if_free()?;
        }
        self.temporary = PathBuf::new();
        drop(self.replaced.take()); // it has no name any more
        let folder = folder_of(&self.target);
        std::fs::File::open(folder).and_then(|f| f.sync_all()).in_path(folder)
    }

    /// A rename that does not replace what somebody else made meanwhile.
    fn name_if_free(&self) -> Result<()> {
        use rustix::fs::{CWD, RenameFlags};
        match rustix::fs::renameat_with(CWD, &self.temporary, CWD, &self.target, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::EXIST) => Err(exists(&self.target)),
            // Not every file system has it; a hard link refuses in the same way.
            Err(_) => {
                std::fs::hard_link(&self.temporary, &self.target).in_path(&self.target)?;
                std::fs::remove_file(&self.temporary).in_path(&self.temporary)
            }
        }
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.temporary.as_os_str().is_empty() {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

fn exists(target: &Path) -> Error {
    Error::conflict("exists already").in_path(target)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
