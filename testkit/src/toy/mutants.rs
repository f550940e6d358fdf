//! Bugs that are not the toy's own: in what uses disks.

use chart::{
    Backing, Chart, Disk, Identity, LeafPlace, Limits, Purpose, Result, SetMode, Slice, Source, SourceId, To,
    Wait,
};
use std::sync::Arc;

/// Law 7 broken: a copier that reads and writes as anybody does, without reserving what it fills.
pub fn fill_without_reserving(disk: &Disk, at: u64, len: u64) -> Result<u64> {
    let mut buf = vec![0; len as usize];
    disk.read_at(at, &mut buf, Wait::Allowed)?;
    disk.write_at(at, &buf, Wait::Allowed)?;
    Ok(len)
}

/// Law 6 broken: places are taken for the same if their numbers are, though each disk counts its own sources.
pub fn same_by_source_id(a: &Disk, b: &Disk, at: u64, len: u64) -> Result<bool> {
    let mut done = 0;
    while done < len {
        let x = a.extent_at(at + done, len - done, Wait::Allowed)?;
        let y = b.extent_at(at + done, len - done, Wait::Allowed)?;
        if x.place != y.place || x.writable || y.writable {
            return Ok(false);
        }
        done += x.len.min(y.len);
    }
    Ok(true)
}

/// Law 5 broken: a disk of the same length over `inner` that writes where the inner disk's bytes live, past the
/// inner disk's own map.
pub fn flattening(inner: Arc<Disk>) -> Result<Arc<Disk>> {
    let chart = Slice::new(SourceId(0), 0, inner.len(), true)?;
    Disk::builder("flattening", Arc::new(chart)).source(Arc::new(Flattening(inner))).straight().build()
}

struct Flattening(Arc<Disk>);

impl Source for Flattening {
    fn name(&self) -> String {
        self.0.name().into()
    }

    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8], wait: Wait) -> Result<()> {
        self.0.read_at(offset, buf, wait)
    }

    fn write_at(&self, offset: u64, buf: &[u8], wait: Wait) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let (at, rest) = (offset + done as u64, &buf[done..]);
            let plan = self.0.plan(at, rest.len() as u64, 1, Wait::Allowed, Purpose::Locate)?;
            let Some(leaf) = plan.leaves.first() else { break };
            let now = leaf.len as usize;
            match leaf.place {
                LeafPlace::Raw { source, offset } => source.write_at(offset, &rest[..now], wait)?,
                _ => self.0.write_at(at, &rest[..now], wait)?,
            }
            done += now;
        }
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64, fast_only: bool) -> Result<()> {
        self.0.set(offset, len, To::Zero, SetMode { may_unmap: false, fast_only })
    }

    fn flush(&self) -> Result<()> {
        self.0.flush()
    }

    fn limits(&self) -> Limits {
        Limits { read_only: false, ..Limits::default() }
    }

    fn identity(&self) -> Identity {
        Source::identity(self.0.as_ref())
    }

    fn backing(&self) -> Backing<'_> {
        Backing::Wraps(self.0.as_ref())
    }
}
