//! Where a file's bytes lie on the device: what tells that two files share them.

use rustix::fs::fstat;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `FS_IOC_FIEMAP`.
const FIEMAP: libc::Ioctl = 0xc020_660b_u32 as libc::Ioctl;
/// What is dirty is written first, so that what is answered is true of what is read.
const SYNC: u32 = 1;

/// Extents whose bytes are not simply those at their place on the device: unknown, not yet there, encoded,
/// encrypted, unaligned, packed with others, or not written.
const NOT_PLAIN: u32 = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800;
/// Others refer to it too.
const SHARED: u32 = 0x2000;

/// The kernel's `struct fiemap` with room for one `struct fiemap_extent`.
#[repr(C)]
#[derive(Default)]
struct Request {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    room: u32,
    reserved: u32,
    extent: Extent,
}

#[repr(C)]
#[derive(Default)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_too: [u32; 3],
}

const _: () = assert!(size_of::<Request>() == 32 + 56);

/// Where the byte at `offset` lies on the device, and for how many bytes it goes on so: of extents that are
/// shared with something.
fn shared_place(fd: BorrowedFd<'_>, offset: u64, want: u64) -> Option<(u64, u64)> {
    let mut request = Request { start: offset, length: want, flags: SYNC, room: 1, ..Request::default() };
    // SAFETY: the descriptor is open for as long as it is borrowed, and `request` has room for the one extent
    // that it says it has room for.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), FIEMAP, &raw mut request) };
    let extent = request.extent;
    let plain = extent.flags & NOT_PLAIN == 0 && extent.flags & SHARED != 0;
    if done != 0 || request.mapped != 1 || !plain || extent.logical > offset {
        return None;
    }
    let into = offset - extent.logical;
    Some((extent.physical.checked_add(into)?, extent.length.checked_sub(into)?.min(want)))
}

/// How many bytes, from `a_offset` of one file and `b_offset` of another on, are kept in one and the same place by
/// their file system: they need not be read to be compared. 0 where nobody knows.
pub fn shared(a: BorrowedFd<'_>, a_offset: u64, b: BorrowedFd<'_>, b_offset: u64, want: u64) -> u64 {
    let device = |fd| fstat(fd).ok().map(|stat| stat.st_dev);
    if device(a).is_none() || device(a) != device(b) {
        return 0;
    }
    let Some((place, len)) = shared_place(a, a_offset, want) else { return 0 };
    match shared_place(b, b_offset, len) {
        Some((other, len)) if other == place => len,
        _ => 0,
    }
}
