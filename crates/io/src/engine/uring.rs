//! The io_uring engine: several reads of a host file are on their way while what has come is written.
//!
//! It is for files that are read past the page cache, where every read waits for the device. The writes are the
//! sink's own. What is no host file, and what does not fill aligned blocks, is left to the reference engine.

use super::threads::Threads;
use super::{Moved, Mover, Transfer};
use crate::aligned::{ALIGN, Aligned};
use crate::file::is_past_the_cache;
use chart::{Backing, Error, Result};
use io_uring::{IoUring, opcode, types};
use std::cell::OnceCell;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Reads on their way at once.
const SLOTS: usize = 4;

/// What one brings.
const SLOT_BYTES: usize = 256 << 10;

/// Which host files are read through the ring.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    PastTheCache,
    HostFiles,
}

/// A ring for the blocks of such files, and the reference engine for all else.
pub(super) struct Uring {
    files: For,
    /// Made when it is first needed. None where the kernel refuses one, or it broke.
    ring: OnceCell<Option<Ring>>,
    plain: Threads,
}

impl Uring {
    pub(super) fn new(files: For, plain: Threads) -> Self {
        Uring { files, ring: OnceCell::new(), plain }
    }

    fn ring(&mut self) -> Option<&mut Ring> {
        self.ring.get_or_init(Ring::new);
        self.ring.get_mut()?.as_mut()
    }

    /// Has the ring move what begins and ends with whole blocks.
    fn blocks(&mut self, t: &Transfer<'_>, from: BorrowedFd<'_>) -> Result<Moved> {
        if t.len == 0 {
            return Ok(Moved::default());
        }
        let Some(ring) = self.ring() else { return self.plain.transfer(t) };
        let done = ring.run(t, from);
        if done.is_err() && !ring.drain() {
            self.ring = OnceCell::from(None);
        }
        done
    }
}

impl Mover for Uring {
    fn transfer(&mut self, t: &Transfer<'_>) -> Result<Moved> {
        let Backing::File(from) = t.from.backing() else { return self.plain.transfer(t) };
        if self.files == For::PastTheCache && !is_past_the_cache(from) {
            return self.plain.transfer(t);
        }
        // What the source itself checks.
        chart::check_range(t.from.len(), t.offset, t.len)?;
        let align = ALIGN as u64;
        let head = (t.offset.next_multiple_of(align) - t.offset).min(t.len);
        let body = (t.len - head) / align * align;
        let mut moved = self.plain.transfer(&Transfer { len: head, ..*t })?;
        moved.add(&self.blocks(&Transfer { len: body, ..t.behind(head) }, from)?);
        moved.add(&self.plain.transfer(&t.behind(head + body))?);
        Ok(moved)
    }
}

/// A buffer, and the read that fills it.
struct Slot {
    bytes: Aligned,
    /// The kernel has it.
    in_air: bool,
    /// Where in the transfer its bytes belong, how many it is to hold, and how many of them were read.
    position: u64,
    len: usize,
    filled: usize,
}

pub(super) struct Ring {
    ring: IoUring,
    slots: Vec<Slot>,
}

impl Ring {
    /// A ring, where the kernel allows one.
    pub(super) fn new() -> Option<Self> {
        let ring = IoUring::new(SLOTS as u32).ok()?;
        let mut probe = io_uring::Probe::new();
        ring.submitter().register_probe(&mut probe).ok()?;
        if !probe.is_supported(opcode::Read::CODE) {
            return None;
        }
        let slot = || Slot { bytes: Aligned::new(SLOT_BYTES), in_air: false, position: 0, len: 0, filled: 0 };
        Some(Ring { ring, slots: std::iter::repeat_with(slot).take(SLOTS).collect() })
    }

    fn run(&mut self, t: &Transfer<'_>, from: BorrowedFd<'_>) -> Result<Moved> {
        let mut moved = Moved::default();
        let mut begun = 0;
        loop {
            for i in 0..SLOTS {
                let slot = &mut self.slots[i];
                if begun < t.len && !slot.in_air {
                    (slot.position, slot.filled) = (begun, 0);
                    slot.len = (t.len - begun).min(SLOT_BYTES as u64) as usize;
                    begun += slot.len as u64;
                    self.read(i, t, from)?;
                }
            }
            if !self.slots.iter().any(|slot| slot.in_air) {
                return Ok(moved);
            }
            for (i, result) in self.landed()? {
                let slot = &mut self.slots[i];
                if slot.is_full_with(result, t)? {
                    t.put(slot.position, slot.bytes.slice(slot.len), &mut moved)?;
                } else {
                    self.read(i, t, from)?;
                }
            }
        }
    }

    /// Waits until something is done: which buffers, with what result.
    fn landed(&mut self) -> Result<Vec<(usize, i32)>> {
        match self.ring.submit_and_wait(1) {
            Err(e) if e.kind() != std::io::ErrorKind::Interrupted => return Err(Error::from(e)),
            _ => {}
        }
        let done: Vec<_> = self.ring.completion().map(|c| (c.user_data() as usize, c.result())).collect();
        done.iter().for_each(|(i, _)| self.slots[*i].in_air = false);
        Ok(done)
    }

    /// Queues the read of what a buffer does not hold yet.
    fn read(&mut self, i: usize, t: &Transfer<'_>, from: BorrowedFd<'_>) -> Result<()> {
        let slot = &mut self.slots[i];
        let room = &mut slot.bytes.slice(slot.len)[slot.filled..];
        let entry = opcode::Read::new(types::Fd(from.as_raw_fd()), room.as_mut_ptr(), room.len() as u32)
            .offset(t.offset + slot.position + slot.filled as u64)
            .build();
        // SAFETY: the buffer lives as long as the ring, which is drained before either goes or is used for
        // anything else; one entry at a time refers to it; the descriptor is borrowed for the whole transfer.
        let pushed = unsafe { self.ring.submission().push(&entry.user_data(i as u64)) };
        self.slots[i].in_air = pushed.is_ok();
        pushed.map_err(|_| Error::io("the submission queue is full"))
    }

    /// Waits for everything in the air: the kernel may still be writing to the buffers. Whether it could be waited
    /// for; if not, the buffers are never given back.
    fn drain(&mut self) -> bool {
        while self.slots.iter().any(|slot| slot.in_air) {
            if self.landed().is_err() {
                self.slots.drain(..).for_each(|slot| std::mem::forget(slot.bytes));
                return false;
            }
        }
        true
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.drain();
    }
}

impl Slot {
    /// What a read that ended leads to: whether the buffer holds what it is to hold.
    fn is_full_with(&mut self, result: i32, t: &Transfer<'_>) -> Result<bool> {
        let at = t.offset + self.position;
        match usize::try_from(result) {
            Ok(0) => {
                let what = "the file became shorter while it was open";
                Err(Error::conflict(what).in_path(t.from.name()).at(at))
            }
            Ok(count) => {
                self.filled += count;
                Ok(self.filled >= self.len)
            }
            Err(_) if result == -libc::EINTR || result == -libc::EAGAIN => Ok(false),
            Err(_) => {
                let e = std::io::Error::from_raw_os_error(-result);
                Err(Error::from(e).in_path(t.from.name()).at(at).during("read".to_owned()))
            }
        }
    }
}
