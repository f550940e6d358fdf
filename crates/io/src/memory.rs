//! Memory as a source: sparse, growable, for scratch disks and tests.

use chart::{Backing, Identity, Limits, Result, Run, Source, Wait, check_range};
use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

const PAGE: u64 = 64 << 10;

/// Bytes in this process, kept in pages; a page that was never written is a hole.
pub struct Memory {
    name: String,
    pages: RwLock<Pages>,
    identity: Identity,
}

#[derive(Default)]
struct Pages {
    len: u64,
    held: BTreeMap<u64, Box<[u8]>>,
}

impl Memory {
    /// `len` bytes that read as zeros.
    pub fn new(name: impl Into<String>, len: u64) -> Self {
        let pages = RwLock::new(Pages { len, held: BTreeMap::new() });
        Memory { name: name.into(), pages, identity: Identity::unique() }
    }

    /// These bytes.
    pub fn from_bytes(name: impl Into<String>, bytes: &[u8]) -> Self {
        let memory = Memory::new(name, bytes.len() as u64);
        memory.write().store(0, bytes);
        memory
    }

    fn read(&self) -> RwLockReadGuard<'_, Pages> {
        self.pages.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Pages> {
        self.pages.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pieces of a range, page by page: page, offset in it, where in the buffer, how many bytes.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % PAGE) as usize;
        let now = (len - done).min(PAGE as usize - within);
        let piece = (at / PAGE, within, done, now);
        done += now;
        Some(piece)
    })
}

impl Pages {
    fn store(&mut self, offset: u64, buf: &[u8]) {
        for (page, within, from, len) in pieces(offset, buf.len()) {
            let page = self.held.entry(page).or_insert_with(|| vec![0; PAGE as usize].into());
            page[within..within + len].copy_from_slice(&buf[from..from + len]);
        }
    }

    fn clear(&mut self, offset: u64, end: u64) {
        // Only the pages there are: the range may be of any length.
        let held: Vec<u64> =
            self.held.range(offset / PAGE..end.div_ceil(PAGE)).map(|(page, _)| *page).collect();
        for page in held {
            let (from, to) = (offset.max(page * PAGE), end.min((page + 1) * PAGE));
            if from == page * PAGE && (to.is_multiple_of(PAGE) || to >= self.len) {
                self.held.remove(&page);
            } else if let Some(held) = self.held.get_mut(&page) {
                held[(from - page * PAGE) as usize..(to - page * PAGE) as usize].fill(0);
            }
        }
    }
}

impl Source for Memory {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn len(&self) -> u64 {
        self.read().len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8], _: Wait) -> Result<()> {
        let pages = self.read();
        check_range(pages.len, offset, buf.len() as u64)?;
        for (page, within, from, len) in pieces(offset, buf.len()) {
            match pages.held.get(&page) {
                Some(held) => buf[from..from + len].copy_from_slice(&held[within..within + len]),
                None => buf[from..from + len].fill(0),
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8], _: Wait) -> Result<()> {
        let mut pages = self.write();
        check_range(pages.len, offset, buf.len() as u64)?;
        pages.store(offset, buf);
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64, _: bool) -> Result<()> {
        self.punch(offset, len)
    }

    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        let mut pages = self.write();
        check_range(pages.len, offset, len)?;
        pages.clear(offset, offset + len);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut pages = self.write();
        if len < pages.len {
            let end = pages.len;
            pages.clear(len, end);
        }
        pages.len = len;
        Ok(())
    }

    fn limits(&self) -> Limits {
        Limits { read_only: false, never: true, align: 1, preferred: 64 << 10 }
    }

    fn data_at(&self, offset: u64, want: u64) -> Result<Run> {
        let pages = self.read();
        check_range(pages.len, offset, 1)?;
        let end = offset + want.min(pages.len - offset).max(1);
        let data = pages.held.contains_key(&(offset / PAGE));
        let mut behind = pages.held.range(offset / PAGE + 1..end.div_ceil(PAGE).max(offset / PAGE + 1));
        let change = if data {
            (offset / PAGE + 1..end.div_ceil(PAGE))
                .find(|page| behind.next().is_none_or(|(held, _)| held != page))
        } else {
            behind.next().map(|(page, _)| *page)
        };
        let stop = change.map_or(end, |page| page * PAGE);
        Ok(Run { len: stop - offset, data })
    }

    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn backing(&self) -> Backing<'_> {
        Backing::Memory
    }
}
