//! The io_uring engine: a few buffers in the air at once, each on its way from one host file to another.
//!
//! Reads and writes of one transfer overlap, with one system call for several of them. Only host files can be
//! moved so; anything else is left to the reference engine.

use super::threads::Threads;
use super::{Moved, Mover, Transfer, Zeros, clear, zero_runs};
use chart::{Backing, Error, Result};
use io_uring::{IoUring, opcode, types};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Buffers in the air at once.
const SLOTS: usize = 8;

/// What a buffer holds.
const SLOT_BYTES: usize = 256 << 10;

/// What a buffer is doing.
#[derive(Clone, Copy)]
enum Stage {
    Idle,
    Reading,
    /// Writing the bytes from `from` to `to` of what was read.
    Writing {
        from: usize,
        to: usize,
    },
}

struct Slot {
    bytes: Box<[u8]>,
    /// The kernel has it.
    in_air: bool,
    stage: Stage,
    /// Where in the transfer the buffer's bytes belong.
    position: u64,
    /// How many bytes it is to hold, and how many of them were read.
    len: usize,
    filled: usize,
}

/// A worker's ring.
pub(super) struct Uring {
    ring: IoUring,
    slots: Vec<Slot>,
    /// For what is no host file.
    plain: Threads,
    broken: bool,
}

impl Uring {
    /// A ring, where the kernel allows one.
    pub(super) fn new(buffer: usize) -> Option<Self> {
        let ring = IoUring::new(2 * SLOTS as u32).ok()?;
        let mut probe = io_uring::Probe::new();
        ring.submitter().register_probe(&mut probe).ok()?;
        if !probe.is_supported(opcode::Read::CODE) || !probe.is_supported(opcode::Write::CODE) {
            return None;
        }
        let slot = || Slot {
            bytes: vec![0; SLOT_BYTES].into(),
            in_air: false,
            stage: Stage::Idle,
            position: 0,
            len: 0,
            filled: 0,
        };
        let slots = std::iter::repeat_with(slot).take(SLOTS).collect();
        Some(Uring { ring, slots, plain: Threads::new(buffer), broken: false })
    }

    fn run(&mut self, job: &Job<'_>) -> Result<Moved> {
        let mut moved = Moved::default();
        let (mut begun, mut flying) = (0, 0_usize);
        while begun < job.t.len || flying > 0 {
            for i in 0..SLOTS {
                if begun < job.t.len && matches!(self.slots[i].stage, Stage::Idle) {
                    let len = (job.t.len - begun).min(SLOT_BYTES as u64) as usize;
                    let slot = &mut self.slots[i];
                    (slot.position, slot.len, slot.filled, slot.stage) = (begun, len, 0, Stage::Reading);
                    self.push(i, job)?;
                    begun += len as u64;
                    flying += 1;
                }
            }
            for (i, result) in self.landed()? {
                if self.advance(i, result, job, &mut moved)? {
                    self.push(i, job)?;
                } else {
                    flying -= 1;
                }
            }
        }
        Ok(moved)
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

    /// What a completion leads to: whether the buffer has something more to do.
    fn advance(&mut self, i: usize, result: i32, job: &Job<'_>, moved: &mut Moved) -> Result<bool> {
        let slot = &mut self.slots[i];
        let count = match usize::try_from(result) {
            Ok(count) => count,
            Err(_) if result == -libc::EINTR || result == -libc::EAGAIN => return Ok(true),
            Err(_) => return Err(job.failed(slot, std::io::Error::from_raw_os_error(-result))),
        };
        match slot.stage {
            Stage::Idle => Ok(false),
            Stage::Reading if count == 0 => {
                let what = "the file became shorter while it was open";
                Err(Error::conflict(what).in_path(job.t.from.name()).at(job.t.offset + slot.position))
            }
            Stage::Reading => {
                slot.filled += count;
                Ok(slot.filled < slot.len || slot.next_write(0, job, moved)?)
            }
            Stage::Writing { .. } if count == 0 => {
                Err(job.failed(slot, std::io::ErrorKind::WriteZero.into()))
            }
            Stage::Writing { from, to } if from + count < to => {
                moved.copied += count as u64;
                slot.stage = Stage::Writing { from: from + count, to };
                Ok(true)
            }
            Stage::Writing { to, .. } => {
                moved.copied += count as u64;
                slot.next_write(to, job, moved)
            }
        }
    }

    /// Queues what a buffer is to do next.
    fn push(&mut self, i: usize, job: &Job<'_>) -> Result<()> {
        let slot = &mut self.slots[i];
        let entry = match slot.stage {
            Stage::Idle => return Ok(()),
            Stage::Reading => {
                let room = &mut slot.bytes[slot.filled..slot.len];
                opcode::Read::new(types::Fd(job.from.as_raw_fd()), room.as_mut_ptr(), room.len() as u32)
                    .offset(job.t.offset + slot.position + slot.filled as u64)
                    .build()
            }
            Stage::Writing { from, to } => {
                let bytes = &slot.bytes[from..to];
                opcode::Write::new(types::Fd(job.to.as_raw_fd()), bytes.as_ptr(), bytes.len() as u32)
                    .offset(job.t.at + slot.position + from as u64)
                    .build()
            }
        };
        // SAFETY: the buffer lives as long as the ring, which is drained before either goes or is used for
        // anything else; one entry at a time refers to it; the descriptors are borrowed for the whole transfer.
        let pushed = unsafe { self.ring.submission().push(&entry.user_data(i as u64)) };
        self.slots[i].in_air = pushed.is_ok();
        pushed.map_err(|_| Error::io("the submission queue is full"))
    }

    /// Waits for everything in the air: the kernel may still be writing to the buffers. If it cannot be waited
    /// for, the buffers are never given back.
    fn drain(&mut self) {
        while self.slots.iter().any(|slot| slot.in_air) {
            if self.landed().is_err() {
                self.broken = true;
                self.slots.drain(..).for_each(|slot| std::mem::forget(slot.bytes));
            }
        }
        self.slots.iter_mut().for_each(|slot| slot.stage = Stage::Idle);
    }
}

impl Slot {
    /// Goes on to the next bytes from `from` on that have to be written: whether there are any.
    fn next_write(&mut self, from: usize, job: &Job<'_>, moved: &mut Moved) -> Result<bool> {
        self.stage = Stage::Idle;
        if from == self.len {
            return Ok(false);
        }
        if job.t.zeros == Zeros::Copied {
            self.stage = Stage::Writing { from, to: self.len };
            return Ok(true);
        }
        for (start, end, zero) in zero_runs(&self.bytes[from..self.len]) {
            if !zero {
                self.stage = Stage::Writing { from: from + start, to: from + end };
                return Ok(true);
            }
            moved.zeros += (end - start) as u64;
            if job.t.zeros == Zeros::Told {
                let at = job.t.at + self.position + (from + start) as u64;
                clear(job.t.to, at, (end - start) as u64)?;
            }
        }
        Ok(false)
    }
}

/// One transfer, with the descriptors of its ends.
struct Job<'a> {
    t: &'a Transfer<'a>,
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
}

impl Job<'_> {
    fn failed(&self, slot: &Slot, e: std::io::Error) -> Error {
        let reading = matches!(slot.stage, Stage::Reading);
        let (source, at) = if reading { (self.t.from, self.t.offset) } else { (self.t.to, self.t.at) };
        let doing = if reading { "read" } else { "write" };
        Error::from(e).in_path(source.name()).at(at + slot.position).during(doing.to_owned())
    }
}

impl Mover for Uring {
    fn transfer(&mut self, t: &Transfer<'_>) -> Result<Moved> {
        let (Backing::File(from), Backing::File(to)) = (t.from.backing(), t.to.backing()) else {
            return self.plain.transfer(t);
        };
        // What the sources themselves check: their ends, and whether they may be written.
        chart::check_range(t.from.len(), t.offset, t.len)?;
        chart::check_range(t.to.len(), t.at, t.len)?;
        if self.broken || t.to.limits().read_only {
            return self.plain.transfer(t);
        }
        let done = self.run(&Job { t, from, to });
        if done.is_err() {
            self.drain();
        }
        done
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.drain();
    }
}
