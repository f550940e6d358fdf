//! Doing the pieces.

use super::pieces::{CLONE_ALIGN, PIECE, Piece, Planner, Way};
use super::{Job, Reflink, Report};
use crate::engine::{Choice, Moved, Mover, Transfer, Zeros, clear};
use crate::file::is_past_the_cache;
use chart::{Backing, Coded, Error, Leaf, LeafPlace, Result, Wait};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

/// What is shorter the kernel copies no faster than we do: it first asks whether it could share it.
pub(super) const OFFLOAD_MIN: u64 = 64 << 10;

/// What work takes, whatever it is: an engine, and room.
pub(super) struct Hands {
    mover: Box<dyn Mover>,
    /// The kernel has not refused yet to copy by itself.
    offloads: bool,
    /// Room for a decoded frame and for the stored one.
    decoded: Vec<u8>,
    stored: Vec<u8>,
}

impl Hands {
    pub(super) fn new(engine: Choice) -> Self {
        let mover = engine.mover(PIECE as usize);
        Hands { mover, offloads: true, decoded: Vec::new(), stored: Vec::new() }
    }

    /// Whether the kernel has not refused yet to copy by itself.
    pub(super) fn offloads(&self) -> bool {
        self.offloads
    }
}

/// One of the threads that do the work.
pub(super) struct Worker<'j> {
    job: &'j Job<'j>,
    hands: &'j mut Hands,
    report: Report,
}

impl<'j> Worker<'j> {
    pub(super) fn new(job: &'j Job<'j>, hands: &'j mut Hands) -> Self {
        Worker { job, hands, report: Report::default() }
    }

    /// Takes pieces until there are none.
    pub(super) fn run<'d>(mut self, planner: &Mutex<Planner<'d>>) -> Result<Report> {
        while !self.job.is_over() {
            let Some(piece) = lock(planner).next()? else { break };
            if piece.way == Way::Clone {
                self.clone_or_give_back(planner, &piece)?;
                continue;
            }
            self.do_piece(&piece)?;
            self.begin_writeback(piece.leaf.at, piece.leaf.len);
            self.job.advance(piece.leaf.len);
        }
        Ok(self.report)
    }

    fn do_piece(&mut self, piece: &Piece<'_>) -> Result<()> {
        let leaf = &piece.leaf;
        match leaf.place {
            LeafPlace::Hole if self.job.options.keep_holes => {
                self.report.skipped += leaf.len;
                Ok(())
            }
            _ if piece.way == Way::Zero => self.zero(leaf.at, leaf.len),
            LeafPlace::Raw { source, offset } => {
                let (to, at, len) = (self.job.sink, leaf.at, leaf.len);
                let transfer = Transfer { from: source, offset, to, at, len, zeros: self.job.zeros() };
                let offloaded = self.offload(&transfer)?;
                self.report.offloaded += offloaded;
                let moved = self.hands.mover.transfer(&transfer.behind(offloaded))?;
                self.count(moved);
                Ok(())
            }
            LeafPlace::Coded(coded) => self.decode(&coded, leaf.at, leaf.len),
            LeafPlace::Hole | LeafPlace::Zero => self.zero(leaf.at, leaf.len),
        }
    }

    /// Has the kernel begin to write what the sink was given, so that the flush at the end finds little to do.
    fn begin_writeback(&self, at: u64, len: u64) {
        let (Ok(at), Ok(len)) = (i64::try_from(at), i64::try_from(len)) else { return };
        if let (true, Backing::File(to)) = (self.job.options.will_flush, self.job.sink.backing()) {
            // SAFETY: the descriptor is open for as long as it is borrowed; no memory is involved. What goes
            // wrong here goes wrong again, and is heard of, when the sink is flushed.
            unsafe { libc::sync_file_range(to.as_raw_fd(), at, len, libc::SYNC_FILE_RANGE_WRITE) };
        }
    }

    /// Lets the kernel copy, where nobody wants to look at the bytes: how many it did. On a file system across
    /// a network they may not even cross it.
    fn offload(&mut self, t: &Transfer<'_>) -> Result<u64> {
        let (Backing::File(from), Backing::File(to)) = (t.from.backing(), t.to.backing()) else {
            return Ok(0);
        };
        if t.zeros != Zeros::Copied || !self.hands.offloads || t.to.limits().read_only || t.len < OFFLOAD_MIN
        {
            return Ok(0);
        }
        // What others write into the same block goes past the cache by rewriting it, which the kernel knows nothing of.
        let whole = t.at.is_multiple_of(CLONE_ALIGN) && t.len.is_multiple_of(CLONE_ALIGN);
        if !whole && is_past_the_cache(to) {
            return Ok(0);
        }
        chart::check_range(t.from.len(), t.offset, t.len)?;
        chart::check_range(t.to.len(), t.at, t.len)?;
        let mut done = 0;
        while done < t.len {
            let (mut offset, mut at) = (t.offset + done, t.at + done);
            let want = usize::try_from(t.len - done).unwrap_or(usize::MAX);
            match rustix::fs::copy_file_range(from, Some(&mut offset), to, Some(&mut at), want) {
                Ok(0) => break,
                Ok(n) => done += n as u64,
                Err(Errno::INTR) => {}
                // Not between these two files, or not here at all. What is really wrong, the engine will meet too.
                Err(_) => {
                    self.hands.offloads = false;
                    break;
                }
            }
        }
        Ok(done)
    }

    fn count(&mut self, moved: Moved) {
        self.report.copied += moved.copied;
        let zeros =
            if self.job.options.sink_reads_zero { &mut self.report.skipped } else { &mut self.report.zeroed };
        *zeros += moved.zeros;
    }

    fn zero(&mut self, at: u64, len: u64) -> Result<()> {
        if self.job.options.sink_reads_zero {
            self.report.skipped += len;
            return Ok(());
        }
        clear(self.job.sink, at, len)?;
        self.report.zeroed += len;
        Ok(())
    }

    fn decode(&mut self, coded: &Coded<'_>, at: u64, len: u64) -> Result<()> {
        let Hands { decoded, stored, .. } = &mut *self.hands;
        decoded.resize(coded.decoded_len()?, 0);
        coded.decode_into(decoded, stored)?;
        let skip = coded.frame.skip as usize;
        let part = decoded.get(skip..skip + len as usize);
        let part =
            part.ok_or_else(|| Error::corrupt("a frame is shorter than its extent").at(coded.offset))?;
        self.job.sink.write_at(at, part, Wait::Allowed)?;
        self.report.copied += len;
        self.report.decoded += len;
        Ok(())
    }

    /// Clones a run, or what of it is aligned; what cannot be cloned goes back to the planner to be copied.
    fn clone_or_give_back<'d>(&mut self, planner: &Mutex<Planner<'d>>, piece: &Piece<'d>) -> Result<()> {
        match self.share(&piece.leaf)? {
            Shared::Done { head, len } => {
                self.report.cloned += len;
                self.job.advance(len);
                self.copy_end(piece.leaf.head(head))?;
                self.copy_end(piece.leaf.skip(head + len))
            }
            Shared::Refused(e) if self.job.options.reflink == Reflink::Always => {
                let hint = "the file system does not share ranges between these two files";
                Err(Error::unsupported(hint).caused_by(std::io::Error::from(e)))
            }
            Shared::Refused(_) => {
                let mut planner = lock(planner);
                planner.stop_cloning();
                planner.copy_instead(piece)
            }
            Shared::Copy => lock(planner).copy_instead(piece),
        }
    }

    /// Has the file system share a run, from a file or from one of many.
    fn share(&self, leaf: &Leaf<'_>) -> Result<Shared> {
        let (LeafPlace::Raw { source, offset }, Backing::File(to)) = (leaf.place, self.job.sink.backing())
        else {
            return Ok(Shared::Refused(Errno::OPNOTSUPP));
        };
        match source.backing() {
            Backing::File(from) => Ok(share(from, offset, to, leaf)),
            Backing::Family(family) => {
                let mut shared = Shared::Copy;
                family.lend(offset, &mut |from, offset| shared = share(from, offset, to, leaf))?;
                // Others of them may be on the sink's file system.
                let must = self.job.options.reflink == Reflink::Always;
                Ok(if !must && matches!(shared, Shared::Refused(Errno::XDEV)) {
                    Shared::Copy
                } else {
                    shared
                })
            }
            _ => Ok(Shared::Copy),
        }
    }

    /// Copies what is left of a run at an end of what was cloned: less than a block. It was not asked whether it holds
    /// anything, and no kernel copies so little faster than that takes to ask for.
    fn copy_end(&mut self, end: Leaf<'_>) -> Result<()> {
        let mut room = [0; CLONE_ALIGN as usize];
        let Some(bytes) = room.get_mut(..end.len as usize).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        end.place.read(bytes, Wait::Allowed)?;
        if self.job.zeros() == Zeros::LeftOut && bytes.iter().all(|&byte| byte == 0) {
            self.report.skipped += end.len;
        } else {
            self.job.sink.write_at(end.at, bytes, Wait::Allowed)?;
            self.report.copied += end.len;
        }
        self.job.advance(end.len);
        Ok(())
    }
}

fn lock<'a, 'd>(planner: &'a Mutex<Planner<'d>>) -> std::sync::MutexGuard<'a, Planner<'d>> {
    planner.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What came of asking the file system to share a run.
enum Shared {
    /// It shares `len` bytes, all but the first `head` and less than a block at the end.
    Done {
        head: u64,
        len: u64,
    },
    /// This run must be copied; others need not.
    Copy,
    Refused(Errno),
}

fn share(from: BorrowedFd<'_>, offset: u64, to: BorrowedFd<'_>, leaf: &Leaf<'_>) -> Shared {
    if leaf.at % CLONE_ALIGN != offset % CLONE_ALIGN {
        return Shared::Copy;
    }
    let head = leaf.at.next_multiple_of(CLONE_ALIGN) - leaf.at;
    let len = leaf.len.saturating_sub(head) / CLONE_ALIGN * CLONE_ALIGN;
    match clone_range(from, offset + head, len, to, leaf.at + head) {
        Ok(()) => Shared::Done { head, len },
        Err(e) => Shared::Refused(e),
    }
}

fn clone_range(
    from: BorrowedFd<'_>,
    offset: u64,
    len: u64,
    to: BorrowedFd<'_>,
    at: u64,
) -> Result<(), Errno> {
    if len == 0 {
        return Ok(());
    }
    let range = libc::file_clone_range {
        src_fd: i64::from(from.as_raw_fd()),
        src_offset: offset,
        src_length: len,
        dest_offset: at,
    };
    // SAFETY: both descriptors are open for as long as they are borrowed, and the kernel only reads `range`.
    match unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONERANGE, &raw const range) } {
        0 => Ok(()),
        _ => Err(Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))),
    }
}
