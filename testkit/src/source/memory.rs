//! Bytes in memory.

use chart::{Backing, Error, Identity, Limits, Result, Run, Source, Wait, check_range};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The unit in which it remembers what was stored.
const PAGE: u64 = 4096;

/// A growable array that knows which of its pages hold data.
pub struct Memory {
    name: String,
    identity: Identity,
    read_only: bool,
    held: RwLock<Held>,
}

struct Held {
    bytes: Vec<u8>,
    /// By page: whether anything was stored since it was last zeroed as a whole.
    stored: Vec<bool>,
}

impl Held {
    fn pages(&self, offset: u64, len: u64) -> std::ops::Range<usize> {
        if len == 0 {
            return 0..0;
        }
        (offset / PAGE) as usize..(offset + len).div_ceil(PAGE) as usize
    }

    fn zero(&mut self, offset: u64, len: u64) {
        self.bytes[offset as usize..(offset + len) as usize].fill(0);
        let all = self.bytes.len() as u64;
        for page in self.pages(offset, len) {
            let start = page as u64 * PAGE;
            if start >= offset && (start + PAGE).min(all) <= offset + len {
                self.stored[page] = false;
            }
        }
    }
}

impl Memory {
    /// `len` bytes of nothing.
    pub fn new(len: u64) -> Self {
        let held = Held { bytes: vec![0; len as usize], stored: vec![false; len.div_ceil(PAGE) as usize] };
        Memory {
            name: "memory".into(),
            identity: Identity::unique(),
            read_only: false,
            held: RwLock::new(held),
        }
    }

    /// These bytes, all of them data.
    pub fn of(bytes: Vec<u8>) -> Self {
        let stored = vec![true; (bytes.len() as u64).div_ceil(PAGE) as usize];
        Memory { held: RwLock::new(Held { bytes, stored }), ..Memory::new(0) }
    }

    /// The same, under another name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// The same, never to be written.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// All bytes as they are now.
    pub fn bytes(&self) -> Vec<u8> {
        self.read().bytes.clone()
    }

    fn read(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, done: &str) -> Result<RwLockWriteGuard<'_, Held>> {
        if self.read_only {
            return Err(self.refuse(done));
        }
        Ok(self.held.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Source for Memory {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn len(&self) -> u64 {
        self.read().bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8], _: Wait) -> Result<()> {
        let held = self.read();
        check_range(held.bytes.len() as u64, offset, buf.len() as u64)?;
        buf.copy_from_slice(&held.bytes[offset as usize..][..buf.len()]);
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8], _: Wait) -> Result<()> {
        let mut held = self.write("written")?;
        check_range(held.bytes.len() as u64, offset, buf.len() as u64)?;
        held.bytes[offset as usize..][..buf.len()].copy_from_slice(buf);
        let pages = held.pages(offset, buf.len() as u64);
        held.stored[pages].fill(true);
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64, _: bool) -> Result<()> {
        let mut held = self.write("zeroed")?;
        check_range(held.bytes.len() as u64, offset, len)?;
        held.zero(offset, len);
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        let mut held = self.write("punched")?;
        check_range(held.bytes.len() as u64, offset, len)?;
        held.zero(offset, len);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut held = self.write("resized")?;
        let new = usize::try_from(len).map_err(|_| Error::no_space(format!("{len} bytes of memory")))?;
        held.bytes.resize(new, 0);
        held.stored.resize(len.div_ceil(PAGE) as usize, false);
        Ok(())
    }

    fn limits(&self) -> Limits {
        Limits { read_only: self.read_only, never: true, align: 1, preferred: 64 << 10 }
    }

    fn data_at(&self, offset: u64, want: u64) -> Result<Run> {
        let held = self.read();
        let len = held.bytes.len() as u64;
        check_range(len, offset, 1)?;
        let end = offset.saturating_add(want.max(1)).min(len);
        let pages = &held.stored[held.pages(offset, end - offset)];
        let same = pages.iter().take_while(|&&data| data == pages[0]).count() as u64;
        let stop = ((offset / PAGE + same) * PAGE).min(end);
        Ok(Run { len: stop - offset, data: pages[0] })
    }

    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn backing(&self) -> Backing<'_> {
        Backing::Memory
    }
}
