//! Engines: what moves bytes from a source to a sink. They know nothing of formats or charts.

mod threads;
mod uring;

#[cfg(test)]
mod tests;

use chart::{Result, Source, Wait};

/// Which engine to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The fastest for what is moved: io_uring where a host file is read past the page cache and the kernel allows
    /// it, plain reads and writes elsewhere. Through the page cache no ring is faster than threads that copy.
    #[default]
    Auto,
    /// Plain reads and writes: the reference.
    Threads,
    /// io_uring for whatever host file is read, where the kernel allows it.
    Uring,
}

/// What a transfer did, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Read and written.
    pub copied: u64,
    /// Found to be zeros.
    pub zeros: u64,
}

impl Moved {
    fn add(&mut self, more: &Moved) {
        self.copied += more.copied;
        self.zeros += more.zeros;
    }
}

/// What to do about zeros among the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zeros {
    /// Copy them like any others.
    Copied,
    /// Look for them, and tell the sink instead of writing them.
    Told,
    /// Look for them, and leave them out: the sink reads as zeros already.
    LeftOut,
}

/// A run of bytes to move.
#[derive(Clone, Copy)]
pub struct Transfer<'a> {
    /// Where they are.
    pub from: &'a dyn Source,
    /// Where in it they begin.
    pub offset: u64,
    /// Where they go.
    pub to: &'a dyn Source,
    /// Where in it they will begin.
    pub at: u64,
    /// How many.
    pub len: u64,
    /// What to do about zeros.
    pub zeros: Zeros,
}

impl Transfer<'_> {
    /// What is left of it behind its first `done` bytes.
    #[must_use]
    pub fn behind(self, done: u64) -> Self {
        let done = done.min(self.len);
        Transfer { offset: self.offset + done, at: self.at + done, len: self.len - done, ..self }
    }

    /// Writes what was read from `position` of it on, as is to be done with zeros.
    fn put(&self, position: u64, bytes: &[u8], moved: &mut Moved) -> Result<()> {
        let at = self.at + position;
        if self.zeros == Zeros::Copied {
            moved.copied += bytes.len() as u64;
            return self.to.write_at(at, bytes, Wait::Allowed);
        }
        for (start, end, zero) in zero_runs(bytes) {
            let (at, len) = (at + start as u64, (end - start) as u64);
            if !zero {
                self.to.write_at(at, &bytes[start..end], Wait::Allowed)?;
                moved.copied += len;
                continue;
            }
            moved.zeros += len;
            if self.zeros == Zeros::Told {
                clear(self.to, at, len)?;
            }
        }
        Ok(())
    }
}

/// A worker's own engine, with the buffers it needs.
pub trait Mover: Send {
    /// Moves the bytes.
    fn transfer(&mut self, transfer: &Transfer<'_>) -> Result<Moved>;
}

impl Choice {
    /// An engine with a buffer of this size. Where the kernel has no io_uring, or forbids it, the reference.
    pub fn mover(self, buffer: usize) -> Box<dyn Mover> {
        let plain = threads::Threads::new(buffer);
        match self {
            Choice::Threads => Box::new(plain),
            Choice::Auto => Box::new(uring::Uring::new(uring::For::PastTheCache, plain)),
            Choice::Uring => Box::new(uring::Uring::new(uring::For::HostFiles, plain)),
        }
    }
}

/// Makes a range of a sink read as zeros: by giving its space back, else by telling it, else by writing them.
pub fn clear(sink: &dyn Source, at: u64, len: u64) -> Result<()> {
    match sink.punch(at, len) {
        Err(e) if e.kind() == chart::Kind::Unsupported => sink.zero(at, len, false),
        done => done,
    }
}

/// The unit in which zeros are looked for.
pub const ZERO_BLOCK: usize = 4096;

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Most data is not zero in its first bytes; the rest is compared in runs the compiler can widen.
    let (head, rest) = bytes.split_at(bytes.len().min(16));
    head.iter().all(|&b| b == 0) && rest.chunks(512).all(|chunk| chunk.iter().fold(0, |sum, &b| sum | b) == 0)
}

/// The runs of a buffer that are zero, or are not, in blocks of [`ZERO_BLOCK`]: start, end, zero.
pub(crate) fn zero_runs(bytes: &[u8]) -> impl Iterator<Item = (usize, usize, bool)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        if start == bytes.len() {
            return None;
        }
        let block_end = |at: usize| (at + ZERO_BLOCK).min(bytes.len());
        let zero = is_zero(&bytes[start..block_end(start)]);
        let mut end = block_end(start);
        while end < bytes.len() && is_zero(&bytes[end..block_end(end)]) == zero {
            end = block_end(end);
        }
        let run = (start, end, zero);
        start = end;
        Some(run)
    })
}
