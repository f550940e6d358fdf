//! Requests past the page cache, made to fit: the kernel wants offset, length and memory aligned.

use super::File;
use crate::aligned::{ALIGN, Aligned};
use chart::{Result, Source};
use rustix::fs::OFlags;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most that goes through the aligned buffer at once.
const PIECE: usize = 1 << 20;

/// What unaligned writes need: two of them must not read and rewrite one block at the same time, nor may a part of it
/// become zeros meanwhile.
#[derive(Default)]
pub(super) struct Direct(Mutex<()>);

/// Whether what is read of it comes from the device itself, and what is written goes there.
pub(crate) fn is_past_the_cache(file: BorrowedFd<'_>) -> bool {
    rustix::fs::fcntl_getfl(file).is_ok_and(|flags| flags.contains(OFlags::DIRECT))
}

fn fits(offset: u64, buf: &[u8]) -> bool {
    offset.is_multiple_of(ALIGN as u64)
        && buf.len().is_multiple_of(ALIGN)
        && buf.as_ptr().align_offset(ALIGN) == 0
}

impl Direct {
    fn one(&self) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody rewrites a block that a range fills in part, for as long as this is held.
    pub(super) fn alone(&self, offset: u64, len: u64) -> Option<MutexGuard<'_, ()>> {
        let is_whole = offset.is_multiple_of(ALIGN as u64) && len.is_multiple_of(ALIGN as u64);
        (!is_whole).then(|| self.one())
    }

    pub(super) fn read(&self, file: &File, offset: u64, buf: &mut [u8]) -> Result<()> {
        if fits(offset, buf) {
            return file.read_all(offset, buf);
        }
        let mut room = Aligned::new(buf.len().min(PIECE) + 2 * ALIGN);
        for (i, piece) in buf.chunks_mut(PIECE).enumerate() {
            let at = offset + (i * PIECE) as u64;
            let (start, skip) = (at - at % ALIGN as u64, (at % ALIGN as u64) as usize);
            let whole = (skip + piece.len()).next_multiple_of(ALIGN);
            // The file may end in the middle of a block; then the read is short, and that is no error.
            let inside = (file.len() - start).min(whole as u64) as usize;
            read_up_to(file, start, room.slice(whole), inside)?;
            piece.copy_from_slice(&room.slice(whole)[skip..skip + piece.len()]);
        }
        Ok(())
    }

    pub(super) fn write(&self, file: &File, offset: u64, buf: &[u8]) -> Result<()> {
        if fits(offset, buf) {
            return file.write_all(offset, buf);
        }
        let _one = self.one();
        let mut room = Aligned::new(buf.len().min(PIECE) + 2 * ALIGN);
        for (i, piece) in buf.chunks(PIECE).enumerate() {
            let at = offset + (i * PIECE) as u64;
            let (start, skip) = (at - at % ALIGN as u64, (at % ALIGN as u64) as usize);
            let whole = (skip + piece.len()).next_multiple_of(ALIGN);
            let len = file.len();
            let inside = (len - start).min(whole as u64) as usize;
            let blocks = room.slice(whole);
            if skip > 0 || skip + piece.len() < whole {
                blocks.fill(0);
                read_up_to(file, start, blocks, inside)?;
            }
            blocks[skip..skip + piece.len()].copy_from_slice(piece);
            // A device takes nothing past its end, and that is one of its blocks.
            file.write_all(start, if file.device { &blocks[..inside] } else { blocks })?;
            if inside < whole {
                // The last block was written whole: give the file its length back.
                file.set_len(len)?;
            }
        }
        Ok(())
    }
}

/// Reads whole blocks of which the file holds `inside` bytes.
fn read_up_to(file: &File, start: u64, blocks: &mut [u8], inside: usize) -> Result<()> {
    let mut done = 0;
    while done < inside {
        let left = &mut blocks[done..];
        match rustix::io::pread(&file.fd, left, start + done as u64) {
            Ok(0) => return Err(file.shrunk(start + done as u64)),
            Ok(n) => done += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(file.fails(e, start, "read")),
        }
    }
    Ok(())
}
