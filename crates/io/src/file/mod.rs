//! Host files and block devices.

mod direct;
mod lock;
mod physical;
#[cfg(test)]
mod tests;

pub(crate) use direct::is_past_the_cache;
pub use lock::{Access, Hold, lock};
pub use physical::shared;

use chart::{Backing, Error, Identity, Limits, Result, ResultExt, Run, Source, Wait, check_range};
use direct::Direct;
use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags, SeekFrom, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// For writing too.
    pub writable: bool,
    /// Made if it is not there; it must not be there already.
    pub create_new: bool,
    /// Past the page cache (O_DIRECT). Requests that are not aligned go through a buffer that is.
    pub direct: bool,
    /// Nobody will ask for it after a crash: to flush it is nothing.
    pub volatile: bool,
}

/// A host file or a block device as a source.
pub struct File {
    path: PathBuf,
    fd: OwnedFd,
    len: AtomicU64,
    identity: Identity,
    writable: bool,
    volatile: bool,
    never: bool,
    device: bool,
    /// Of what whole ranges are zeroed: the blocks of a device, the bytes of a file.
    block: u64,
    direct: Option<Direct>,
    /// After a failed flush nobody knows what the disk holds: no more writes.
    latched: AtomicBool,
}

impl File {
    /// Opens `path`.
    pub fn open(path: impl Into<PathBuf>, options: Options) -> Result<File> {
        let path = path.into();
        let mut flags = OFlags::CLOEXEC | OFlags::NONBLOCK;
        flags |= if options.writable || options.create_new { OFlags::RDWR } else { OFlags::RDONLY };
        if options.create_new {
            flags |= OFlags::CREATE | OFlags::EXCL;
        }
        if options.direct {
            flags |= OFlags::DIRECT;
        }
        let fd = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o644)).map_err(std::io::Error::from);
        let fd = fd.in_path(&path).map_err(|e| if options.direct { explain_direct(e) } else { e })?;
        File::from_fd(fd, path, options)
    }

    /// Takes an open descriptor; `path` is what to call it.
    pub fn from_fd(fd: OwnedFd, path: PathBuf, options: Options) -> Result<File> {
        let stat = rustix::fs::fstat(&fd).map_err(std::io::Error::from).in_path(&path)?;
        let device = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => false,
            FileType::BlockDevice => true,
            FileType::Directory => return Err(Error::invalid("is a directory").in_path(path)),
            _ => return Err(Error::invalid("is neither a file nor a block device").in_path(path)),
        };
        let len = if device {
            rustix::fs::seek(&fd, SeekFrom::End(0)).map_err(std::io::Error::from).in_path(&path)?
        } else {
            u64::try_from(stat.st_size).unwrap_or(0)
        };
        // A device that does not say has the blocks that all had once.
        let block = if device { rustix::fs::ioctl_blksszget(&fd).unwrap_or(512) } else { 1 };
        let never = !options.direct && answers_nowait(fd.as_fd());
        Ok(File {
            identity: identity_of(fd.as_fd(), &stat),
            direct: options.direct.then(Direct::default),
            writable: options.writable || options.create_new,
            volatile: options.volatile,
            len: AtomicU64::new(len),
            latched: AtomicBool::new(false),
            path,
            fd,
            never,
            device,
            block: u64::from(block.max(1)),
        })
    }

    /// Takes the descriptor of a file that was just made, to be written and to become `len` bytes long: writing its
    /// last byte, or [`Source::set_len`], makes it so. The system is not asked about it.
    pub fn just_made(fd: OwnedFd, path: PathBuf, len: u64) -> File {
        File {
            identity: Identity::unique(),
            direct: None,
            writable: true,
            len: AtomicU64::new(len),
            latched: AtomicBool::new(false),
            path,
            fd,
            volatile: false,
            never: false,
            device: false,
            block: 1,
        }
    }

    /// From now on it is read and written past the host's page cache.
    pub fn go_past_the_cache(&mut self) -> Result<()> {
        let flags = rustix::fs::fcntl_getfl(&self.fd).map_err(|e| self.fails(e, 0, "open"))?;
        let done = rustix::fs::fcntl_setfl(&self.fd, flags | OFlags::DIRECT).map_err(std::io::Error::from);
        done.in_path(&self.path).map_err(explain_direct)?;
        (self.direct, self.never) = (Some(Direct::default()), false);
        Ok(())
    }

    /// What it was opened as.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is a block device.
    pub fn is_device(&self) -> bool {
        self.device
    }

    /// The descriptor, for what only the operating system can do.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn fails(&self, errno: Errno, offset: u64, doing: &str) -> Error {
        Error::from(std::io::Error::from(errno)).at(offset).in_path(&self.path).during(doing.to_owned())
    }

    fn may_write(&self, offset: u64, len: u64) -> Result<()> {
        if !self.writable {
            return Err(Error::read_only("is open read-only").in_path(&self.path));
        }
        if self.latched.load(Ordering::Acquire) {
            let what = "an earlier flush failed: what was written since the last good one may be lost, and nothing more is written";
            return Err(Error::read_only(what).in_path(&self.path));
        }
        check_range(Source::len(self), offset, len).in_path(&self.path)
    }

    fn read_now(&self, mut offset: u64, mut buf: &mut [u8]) -> Result<()> {
        while !buf.is_empty() {
            let slices = &mut [IoSliceMut::new(buf)];
            match rustix::io::preadv2(&self.fd, slices, offset, ReadWriteFlags::NOWAIT) {
                Ok(0) => return Err(self.shrunk(offset)),
                Ok(n) => (offset, buf) = (offset + n as u64, &mut buf[n..]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(Error::WOULD_BLOCK),
                Err(e) => return Err(self.fails(e, offset, "read")),
            }
        }
        Ok(())
    }

    fn read_all(&self, mut offset: u64, mut buf: &mut [u8]) -> Result<()> {
        while !buf.is_empty() {
            match rustix::io::pread(&self.fd, &mut *buf, offset) {
                Ok(0) => return Err(self.shrunk(offset)),
                Ok(n) => (offset, buf) = (offset + n as u64, &mut buf[n..]),
                Err(Errno::INTR) => {}
                Err(e) => return Err(self.fails(e, offset, "read")),
            }
        }
        Ok(())
    }

    fn write_all(&self, mut offset: u64, mut buf: &[u8]) -> Result<()> {
        while !buf.is_empty() {
            match rustix::io::pwrite(&self.fd, buf, offset) {
                Ok(0) => return Err(Error::io("the device takes no more").at(offset).in_path(&self.path)),
                Ok(n) => (offset, buf) = (offset + n as u64, &buf[n..]),
                Err(Errno::INTR) => {}
                Err(e) => return Err(self.fails(e, offset, "write")),
            }
        }
        Ok(())
    }

    #[cold]
    fn shrunk(&self, offset: u64) -> Error {
        Error::conflict("the file became shorter while it was open").at(offset).in_path(&self.path)
    }

    fn allocate(&self, flags: FallocateFlags, offset: u64, len: u64, doing: &str) -> Result<()> {
        let _alone = self.direct.as_ref().map(|direct| direct.alone(offset, len));
        loop {
            match rustix::fs::fallocate(&self.fd, flags, offset, len) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => {
                    let what = format!("the file system cannot {doing}");
                    return Err(Error::unsupported(what).in_path(&self.path));
                }
                Err(e) => return Err(self.fails(e, offset, doing)),
            }
        }
    }

    /// Has `whole` make zeros of a range, as far as it is whole blocks. What is less, at the ends, is written: once the
    /// rest is done, since a refusal changes nothing.
    fn by_blocks(&self, offset: u64, len: u64, whole: impl FnOnce(u64, u64) -> Result<()>) -> Result<()> {
        let end = offset + len;
        let (first, last) = (offset.next_multiple_of(self.block), end - end % self.block);
        if first >= last {
            return write_zeros(self, offset, len);
        }
        whole(first, last - first)?;
        write_zeros(self, offset, first - offset)?;
        write_zeros(self, last, end - last)
    }

    /// Reserves space for `len` bytes from `offset` on, which read as zeros.
    pub fn reserve_space(&self, offset: u64, len: u64) -> Result<()> {
        self.may_write(offset, len)?;
        self.allocate(FallocateFlags::KEEP_SIZE, offset, len, "reserve space")
    }
}

impl Source for File {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8], wait: Wait) -> Result<()> {
        check_range(Source::len(self), offset, buf.len() as u64).in_path(&self.path)?;
        match (wait, &self.direct) {
            (Wait::Never, _) if !self.never => Err(Error::WOULD_BLOCK),
            (Wait::Never, _) => self.read_now(offset, buf),
            (Wait::Allowed, None) => self.read_all(offset, buf),
            (Wait::Allowed, Some(direct)) => direct.read(self, offset, buf),
        }
    }

    fn write_at(&self, offset: u64, buf: &[u8], wait: Wait) -> Result<()> {
        self.may_write(offset, buf.len() as u64)?;
        match (wait, &self.direct) {
            // Writes that never wait are refused by most file systems: see the facts in docs/assumptions.md.
            (Wait::Never, _) => Err(Error::WOULD_BLOCK),
            (Wait::Allowed, None) => self.write_all(offset, buf),
            (Wait::Allowed, Some(direct)) => direct.write(self, offset, buf),
        }
    }

    fn zero(&self, offset: u64, len: u64, fast_only: bool) -> Result<()> {
        self.may_write(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        let doing = "zero a range without writing it";
        match self.by_blocks(offset, len, |offset, len| self.allocate(flags, offset, len, doing)) {
            Err(e) if e.kind() == chart::Kind::Unsupported && !fast_only => write_zeros(self, offset, len),
            done => done,
        }
    }

    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.may_write(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        self.by_blocks(offset, len, |offset, len| self.allocate(flags, offset, len, "give space back"))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.may_write(0, 0)?;
        if self.device {
            if len <= Source::len(self) {
                return Ok(());
            }
            let what = format!("the device has {} bytes, {len} are needed", Source::len(self));
            return Err(Error::no_space(what).in_path(&self.path));
        }
        rustix::fs::ftruncate(&self.fd, len).map_err(|e| self.fails(e, len, "resize"))?;
        self.len.store(len, Ordering::Release);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        if !self.writable || self.volatile {
            return Ok(());
        }
        if self.latched.load(Ordering::Acquire) {
            return Err(Error::io("an earlier flush failed").in_path(&self.path));
        }
        rustix::fs::fdatasync(&self.fd).map_err(|e| {
            self.latched.store(true, Ordering::Release);
            self.fails(e, 0, "flush")
        })
    }

    fn limits(&self) -> Limits {
        Limits { read_only: !self.writable, never: self.never, align: 1, preferred: 1 << 20 }
    }

    fn data_at(&self, offset: u64, want: u64) -> Result<Run> {
        let len = Source::len(self);
        check_range(len, offset, 1).in_path(&self.path)?;
        let most = want.min(len - offset).max(1);
        let run = |end: u64, data| Run { len: end.saturating_sub(offset).clamp(1, most), data };
        match rustix::fs::seek(&self.fd, SeekFrom::Data(offset)) {
            Ok(start) if start > offset => Ok(run(start, false)),
            Ok(_) => match rustix::fs::seek(&self.fd, SeekFrom::Hole(offset)) {
                Ok(end) => Ok(run(end, true)),
                Err(_) => Ok(Run { len: most, data: true }),
            },
            // No data from here to the end.
            Err(Errno::NXIO) => Ok(Run { len: most, data: false }),
            Err(_) => Ok(Run { len: most, data: true }),
        }
    }

    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn backing(&self) -> Backing<'_> {
        Backing::File(self.fd.as_fd())
    }
}

/// Writes zeros where nothing better is to be had.
pub fn write_zeros(source: &dyn Source, mut offset: u64, len: u64) -> Result<()> {
    let zeros = vec![0; len.min(1 << 20) as usize];
    let end = offset + len;
    while offset < end {
        let now = (end - offset).min(zeros.len() as u64);
        source.write_at(offset, &zeros[..now as usize], Wait::Allowed)?;
        offset += now;
    }
    Ok(())
}

/// Whether a read that must not wait can succeed here at all. Asked once: some file systems refuse them all.
fn answers_nowait(fd: BorrowedFd<'_>) -> bool {
    let mut byte = [0];
    let answer = rustix::io::preadv2(fd, &mut [IoSliceMut::new(&mut byte)], 0, ReadWriteFlags::NOWAIT);
    matches!(answer, Ok(_) | Err(Errno::AGAIN))
}

fn identity_of(fd: BorrowedFd<'_>, stat: &rustix::fs::Stat) -> Identity {
    let born = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BTIME).ok();
    let born = born.filter(|x| x.stx_mask & StatxFlags::BTIME.bits() != 0);
    let nanos = |x: rustix::fs::Statx| {
        (x.stx_btime.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(u64::from(x.stx_btime.tv_nsec))
    };
    let device = if FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice {
        // A device node is the device it names, whichever node that is.
        return Identity::File { device: stat.st_rdev, inode: 0, generation: 0 };
    } else {
        stat.st_dev
    };
    Identity::File { device, inode: stat.st_ino, generation: born.map_or(0, nanos) }
}

/// When the content of a regular file changed last, in nanoseconds since 1970. Of what is none, nobody knows.
pub fn modified(fd: BorrowedFd<'_>) -> Option<u64> {
    let stat = rustix::fs::fstat(fd).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let seconds = u64::try_from(stat.st_mtime).ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(stat.st_mtime_nsec)
}

fn explain_direct(e: Error) -> Error {
    if e.os_code() == Some(Errno::INVAL.raw_os_error()) {
        e.during("opening past the page cache, which this file system may not offer")
    } else {
        e
    }
}
