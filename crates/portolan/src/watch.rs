//! How long work is watched, and ended early.

use chart::{Backing, Identity, Limits, Result, Run, Source, Wait};
pub use io::copy::Progress;
pub use io::watch::{Onlooker, Watch};
use std::sync::atomic::{AtomicU64, Ordering};

/// A source that tells how much of it has been written, and takes no more once the work is to end.
pub(crate) struct Watched<'a> {
    source: &'a dyn Source,
    watch: Watch<'a>,
    written: AtomicU64,
}

impl<'a> Watched<'a> {
    pub(crate) fn new(source: &'a dyn Source, watch: Watch<'a>) -> Self {
        Watched { source, watch, written: AtomicU64::new(0) }
    }

    fn tell(&self, len: u64) {
        let written = self.written.fetch_add(len, Ordering::Relaxed) + len;
        let total = self.source.len();
        self.watch.tell(written.min(total), total);
    }
}

impl Source for Watched<'_> {
    fn name(&self) -> String {
        self.source.name()
    }

    fn len(&self) -> u64 {
        self.source.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8], wait: Wait) -> Result<()> {
        self.source.read_at(offset, buf, wait)
    }

    fn write_at(&self, offset: u64, buf: &[u8], wait: Wait) -> Result<()> {
        self.watch.go_on()?;
        self.source.write_at(offset, buf, wait)?;
        self.tell(buf.len() as u64);
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64, fast_only: bool) -> Result<()> {
        self.watch.in_steps(offset, len, |at, len| {
            self.source.zero(at, len, fast_only)?;
            self.tell(len);
            Ok(())
        })
    }

    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.watch.in_steps(offset, len, |at, len| self.source.punch(at, len))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.source.set_len(len)
    }

    fn flush(&self) -> Result<()> {
        self.watch.go_on()?;
        self.source.flush()
    }

    fn limits(&self) -> Limits {
        self.source.limits()
    }

    fn data_at(&self, offset: u64, want: u64) -> Result<Run> {
        self.source.data_at(offset, want)
    }

    fn identity(&self) -> Identity {
        self.source.identity()
    }

    fn backing(&self) -> Backing<'_> {
        self.source.backing()
    }
}
