//! A disk as a source of another.

use super::{Disk, Purpose};
use crate::{Backing, Identity, Limits, Result, Run, SetMode, Source, To, Wait, check_range};

impl Source for Disk {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn len(&self) -> u64 {
        Disk::len(self)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8], wait: Wait) -> Result<()> {
        Disk::read_at(self, offset, buf, wait)
    }

    fn write_at(&self, offset: u64, buf: &[u8], wait: Wait) -> Result<()> {
        Disk::write_at(self, offset, buf, wait)
    }

    fn zero(&self, offset: u64, len: u64, fast_only: bool) -> Result<()> {
        self.set(offset, len, To::Zero, SetMode { may_unmap: false, fast_only })
    }

    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.set(offset, len, To::Zero, SetMode { may_unmap: true, fast_only: true })
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.resize(len)
    }

    fn flush(&self) -> Result<()> {
        Disk::flush(self)
    }

    fn limits(&self) -> Limits {
        Limits { read_only: !self.writable, never: self.never, align: 1, preferred: self.geometry.preferred }
    }

    fn data_at(&self, offset: u64, want: u64) -> Result<Run> {
        check_range(Disk::len(self), offset, 1)?;
        let _pin = self.pin();
        let mut leaf = self.leaf(offset, want.max(1), Wait::Allowed, Purpose::Read)?;
        leaf.ask()?;
        Ok(Run { len: leaf.len, data: leaf.data })
    }

    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn backing(&self) -> Backing<'_> {
        Backing::Disk(self)
    }
}
