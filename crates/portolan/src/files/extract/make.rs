//! Making files: what a worker does.

use super::Job;
use super::dress::Dressed;
use super::queue::{Item, Unit};
use super::report::{Tally, shown};
use super::scan::TWICE;
use super::target::name;
use chart::{Error, Kind, Result};
use io::copy::{self, Copier};
use io::engine::Choice;
use io::file::File;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// A file of so many bytes is worth all threads.
const LARGE: u64 = 256 << 20;
/// Of a shorter one nobody is told before it is done.
const WORTH_TELLING: u64 = 16 << 20;

/// Why something was left out.
const DEVICES: &str = "devices, which only root may make";

/// One of those who make files.
pub(super) struct Maker<'j> {
    job: &'j Job<'j>,
    copier: Copier,
    pub(super) tally: Tally,
}

/// What became of something.
enum Made {
    Done,
    LeftOut,
}

impl<'j> Maker<'j> {
    pub(super) fn new(job: &'j Job<'j>) -> Self {
        Maker { job, copier: Copier::new(Choice::Auto), tally: Tally::default() }
    }

    /// Makes everything in a directory's unit.
    pub(super) fn unit(&mut self, unit: &Unit) -> Result<()> {
        let directory = self.job.target.open(&unit.folder)?;
        for item in &unit.items {
            self.job.options.watch.go_on()?;
            if self.job.is_over() {
                return Ok(());
            }
            let folder = unit.folder.as_ref();
            match self.item(directory.as_fd(), folder, item) {
                Ok(_) => {}
                Err(e) if self.job.forgives(&e, &folder.join(name(&item.name)?)) => {
                    // Half of a file is none.
                    let _ = rustix::fs::unlinkat(&directory, name(&item.name)?, AtFlags::empty());
                    self.tally.unreadable(folder, &item.name, &e);
                }
                Err(e) => return Err(e.during(format!("extracting {}", shown(folder, &item.name)))),
            }
            self.job.advance(item.stat.len);
        }
        Ok(())
    }

    fn item(&mut self, directory: BorrowedFd<'_>, folder: &Path, item: &Item) -> Result<Made> {
        match item.stat.kind {
            fs::Kind::File => self.file(directory, folder, item),
            fs::Kind::Symlink => self.symlink(directory, folder, item),
            fs::Kind::Directory => Err(Error::corrupt("a directory among files")),
            _ => self.special(directory, folder, item),
        }
    }

    /// Notes a name that is there already: nothing is made through it or over it.
    fn taken(&mut self, e: Errno, folder: &Path, item: &Item) -> Result<Made> {
        if e == Errno::EXIST {
            self.tally.skip(TWICE, folder, &item.name);
            return Ok(Made::LeftOut);
        }
        Err(Error::from(std::io::Error::from(e)).in_path(folder.join(name(&item.name)?)))
    }

    fn file(&mut self, directory: BorrowedFd<'_>, folder: &Path, item: &Item) -> Result<Made> {
        let (stat, job) = (&item.stat, self.job);
        let found = job.fs.attributes(stat.inode)?;
        let attributes = job.rights.settable(found, (folder, &item.name), &mut self.tally);
        // Whoever may not write a file may not set its attributes either.
        let more = if attributes.is_empty() { 0 } else { 0o600 };
        let made = u32::from(stat.mode & 0o777) | more;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let own = name(&item.name)?;
        let fd = match rustix::fs::openat(directory, own, flags, Mode::from_raw_mode(made)) {
            Ok(fd) => fd,
            Err(e) => return self.taken(e, folder, item),
        };
        let file = File::just_made(fd, folder.join(own), stat.len);
        if stat.len > 0 {
            self.content(&file, item)?;
        }
        let what = Dressed { folder, name: &item.name, stat, made };
        job.rights.dress(file.fd(), &what, &attributes, &mut self.tally)?;
        self.tally.report.files += 1;
        Ok(Made::Done)
    }

    fn content(&mut self, file: &File, item: &Item) -> Result<()> {
        let disk = self.job.fs.file(item.stat.inode)?;
        let done = self.job.content(&mut self.copier, &disk, file)?;
        self.tally.bytes(&done, disk.len());
        Ok(())
    }

    fn symlink(&mut self, directory: BorrowedFd<'_>, folder: &Path, item: &Item) -> Result<Made> {
        let job = self.job;
        let target = job.fs.target(item.stat.inode)?;
        if target.contains(&0) || target.is_empty() {
            return Err(Error::corrupt("a symbolic link that leads to no name"));
        }
        let found = job.fs.attributes(item.stat.inode)?;
        let attributes = job.rights.settable(found, (folder, &item.name), &mut self.tally);
        if let Err(e) = rustix::fs::symlinkat(target, directory, name(&item.name)?) {
            return self.taken(e, folder, item);
        }
        let what = Dressed { folder, name: &item.name, stat: &item.stat, made: 0 };
        job.rights.dress_at(directory, &what, &attributes, &mut self.tally)?;
        self.tally.report.symlinks += 1;
        Ok(Made::Done)
    }

    fn special(&mut self, directory: BorrowedFd<'_>, folder: &Path, item: &Item) -> Result<Made> {
        let (stat, job) = (&item.stat, self.job);
        let kind = match stat.kind {
            fs::Kind::CharacterDevice => FileType::CharacterDevice,
            fs::Kind::BlockDevice => FileType::BlockDevice,
            fs::Kind::Fifo => FileType::Fifo,
            _ => FileType::Socket,
        };
        let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        if is_device && !job.rights.is_privileged() {
            self.tally.skip(DEVICES, folder, &item.name);
            return Ok(Made::LeftOut);
        }
        let (major, minor) = stat.device.unwrap_or((0, 0));
        let made = u32::from(stat.mode & 0o777);
        let device = if is_device { rustix::fs::makedev(major, minor) } else { 0 };
        match rustix::fs::mknodat(directory, name(&item.name)?, kind, Mode::from_raw_mode(made), device) {
            Ok(()) => {}
            Err(Errno::PERM | Errno::OPNOTSUPP) => {
                self.tally.skip(DEVICES, folder, &item.name);
                return Ok(Made::LeftOut);
            }
            Err(e) => return self.taken(e, folder, item),
        }
        let found = job.fs.attributes(stat.inode)?;
        let attributes = job.rights.settable(found, (folder, &item.name), &mut self.tally);
        let what = Dressed { folder, name: &item.name, stat, made };
        job.rights.dress_at(directory, &what, &attributes, &mut self.tally)?;
        self.tally.report.special += 1;
        Ok(Made::Done)
    }
}

impl Job<'_> {
    /// Puts the bytes of a file into its place.
    pub(super) fn content(
        &self,
        copier: &mut Copier,
        disk: &chart::Disk,
        file: &File,
    ) -> Result<copy::Report> {
        let told = std::sync::atomic::AtomicU64::new(0);
        let tell = |progress: copy::Progress| {
            // Of the last step, whoever asked for the file tells.
            let before = told.fetch_max(progress.done, std::sync::atomic::Ordering::Relaxed);
            self.tell_within(progress.done.saturating_sub(before));
        };
        let options = copy::Options {
            reflink: self.options.reflink,
            sink_reads_zero: true,
            progress: if disk.len() >= WORTH_TELLING { Some(&tell) } else { None },
            cancel: self.options.watch.cancel,
            ..copy::Options::default()
        };
        let done = if disk.len() >= LARGE {
            copy::copy(disk, file, &options)
        } else {
            copier.copy(disk, file, &options)
        };
        let done = done?;
        self.take_back(told.into_inner());
        // A hole at the end was not written. Whoever asked for the length without need would wait, on XFS, for all that
        // was written to reach the disk.
        if done.skipped > 0 && is_shorter(file, disk.len())? {
            chart::Source::set_len(file, disk.len())?;
        }
        Ok(done)
    }

    /// Whether to go on without something that failed: it could not be read, and that is allowed. What fails at the
    /// target fails for good.
    pub(super) fn forgives(&self, e: &Error, target: &Path) -> bool {
        let unread = matches!(e.kind(), Kind::Corrupt | Kind::Unsupported | Kind::Io | Kind::OutOfRange);
        self.options.keep_going && unread && e.path() != Some(target)
    }
}

fn is_shorter(file: &File, len: u64) -> Result<bool> {
    let stat = rustix::fs::fstat(file.fd()).map_err(std::io::Error::from)?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0) < len)
}
