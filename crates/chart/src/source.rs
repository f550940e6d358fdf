//! Sources: what holds bytes.

use crate::{Disk, Error, Result, Wait};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

/// What tells one object from every other, across restarts. Two places are the same if both are frozen and
/// identity and offset are equal (law 6).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A host file.
    File {
        /// The device it is on.
        device: u64,
        /// Its inode.
        inode: u64,
        /// What tells this use of the inode from an earlier one: its birth time, in nanoseconds.
        generation: u64,
    },
    /// An object behind a key that never changes content under one tag.
    Object {
        /// Its address.
        key: String,
        /// Its version.
        tag: String,
    },
    /// Bytes that come from a rule or live in this process: equal only to themselves.
    Unique(u64),
}

impl Identity {
    /// An identity that nothing else has, in this process.
    pub fn unique() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Identity::Unique(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What is behind a source.
pub enum Backing<'a> {
    /// Another disk: a resolver goes on there.
    Disk(&'a Disk),
    /// A host file whose offsets are the source's own: an engine may use the descriptor.
    File(BorrowedFd<'a>),
    /// The same bytes at the same offsets, by way of something worth keeping when reading (a cache, a throttle).
    /// Cloning sees through it.
    Wraps(&'a dyn Source),
    /// Many sources under one, each at offsets of its own: the files of a directory.
    Family(&'a dyn Family),
    /// Bytes in this process.
    Memory,
    /// Something only the source itself knows.
    Opaque,
}

/// A source that speaks for many: a directory's million files are not a million sources of a disk. Its offsets are
/// divided among its members, in order; between them there may be gaps, which no chart names.
pub trait Family: Send + Sync {
    /// What the names of its members are relative to.
    fn root(&self) -> &Path;

    /// The member that holds the byte at this offset, or else the next one behind it.
    fn member_at(&self, offset: u64) -> Option<Member>;

    /// Lends the file of the member that holds the byte at this offset, and says where in the file that is: to somebody
    /// who has the system share or copy what lies there. Before and after it is made sure that the member is what it
    /// was, as for a read: if this is an error, what was made of it is not to be used.
    fn lend(&self, offset: u64, to: &mut dyn FnMut(BorrowedFd<'_>, u64)) -> Result<()>;
}

/// One of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name, relative to the family's root.
    pub name: PathBuf,
    /// The family's offset at which it begins.
    pub start: u64,
    /// How many bytes it has; never 0.
    pub len: u64,
    /// What tells it from all others.
    pub identity: Identity,
    /// When its content changed last: nanoseconds since 1970.
    pub modified: u64,
    /// When it changed last, content or attributes: nanoseconds since 1970.
    pub changed: u64,
}

/// What a source can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Writing is refused.
    pub read_only: bool,
    /// Reads with [`Wait::Never`] can succeed at all. Decided when it is opened.
    pub never: bool,
    /// Requests must be multiples of this (1 where the source does not care).
    pub align: u32,
    /// Requests of this size are served best.
    pub preferred: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { read_only: true, never: false, align: 1, preferred: 64 << 10 }
    }
}

/// A run that a source holds data for, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// How long; never 0, never more than was asked.
    pub len: u64,
    /// Whether anything is stored there. If not, it reads as zeros.
    pub data: bool,
}

/// What holds bytes: a file, memory, an object, a rule, another disk.
///
/// All methods take `&self`, are called from many threads, and are positioned. Ranges past the end are
/// `OutOfRange`, not short.
pub trait Source: Send + Sync {
    /// What to call it when something is wrong with it.
    fn name(&self) -> String;

    /// How many bytes it holds now.
    fn len(&self) -> u64;

    /// Whether it holds none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads exactly `buf.len()` bytes from `offset`.
    fn read_at(&self, offset: u64, buf: &mut [u8], wait: Wait) -> Result<()>;

    /// Writes all of `buf` at `offset`. Durable only after [`Source::flush`].
    fn write_at(&self, offset: u64, buf: &[u8], wait: Wait) -> Result<()> {
        let _ = (offset, buf, wait);
        Err(self.refuse("written"))
    }

    /// Makes `len` bytes from `offset` read as zeros, keeping the space. With `fast_only`, `Unsupported` where
    /// that means writing them.
    fn zero(&self, offset: u64, len: u64, fast_only: bool) -> Result<()> {
        let _ = (offset, len, fast_only);
        Err(self.refuse("zeroed"))
    }

    /// Makes `len` bytes from `offset` read as zeros and gives their space back where it can; `Unsupported`
    /// where it cannot.
    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        let _ = (offset, len);
        Err(self.refuse("punched"))
    }

    /// Makes it longer (new bytes read as zeros) or shorter.
    fn set_len(&self, len: u64) -> Result<()> {
        let _ = len;
        Err(self.refuse("resized"))
    }

    /// Makes everything written durable. A failed flush latches the source: it is read-only from then on.
    fn flush(&self) -> Result<()> {
        Ok(())
    }

    /// What it can do.
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// Whether anything is stored from `offset` on, for at most `want` bytes. May always say "data".
    fn data_at(&self, offset: u64, want: u64) -> Result<Run> {
        check_range(self.len(), offset, 1)?;
        Ok(Run { len: want.min(self.len() - offset).max(1), data: true })
    }

    /// What tells it from all others.
    fn identity(&self) -> Identity;

    /// What is behind it.
    fn backing(&self) -> Backing<'_> {
        Backing::Opaque
    }

    /// The error of a source that cannot be `done`.
    fn refuse(&self, done: &str) -> Error {
        Error::read_only(format!("{} cannot be {done}", self.name()))
    }
}

/// Refuses a range that does not lie within `len` bytes.
#[inline]
pub fn check_range(len: u64, offset: u64, want: u64) -> Result<()> {
    if want <= len && offset <= len - want { Ok(()) } else { Err(out_of_range(len, offset, want)) }
}

#[cold]
fn out_of_range(len: u64, offset: u64, want: u64) -> Error {
    Error::out_of_range(format!("{want} bytes from byte {offset} on, of {len}")).at(offset)
}
