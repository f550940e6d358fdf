//! The descriptors that are kept open: a bounded number, found in a moment by many threads.

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// So many are kept at most: shelves with so many places each.
const SHELVES: usize = 16;
const PLACES: usize = 16;

/// All that are kept in this process may be such a part of those it may have: clients want theirs too.
const PART: u64 = 4;

/// How many are kept in this process.
static KEPT: AtomicU64 = AtomicU64::new(0);

/// The right to keep one descriptor more.
struct Ticket;

impl Ticket {
    fn take() -> Option<Ticket> {
        let most = getrlimit(Resource::Nofile).current.map_or(u64::MAX, |most| most / PART);
        let taken = KEPT.fetch_add(1, Ordering::Relaxed);
        // Given back at once if it was one too many.
        Some(Ticket).filter(|_| taken < most)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// After so long the name of a file is resolved anew: what a directory on its way was moved or replaced is noticed
/// by then, though the file itself is as it was.
pub(super) const TRUSTED: Duration = Duration::from_secs(1);

/// The time that descriptors are trusted by: cheap, and exact to some milliseconds.
pub(super) fn now() -> Duration {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// An open file that was the right one.
pub(super) struct Open {
    pub(super) fd: OwnedFd,
    /// When its name led to it.
    pub(super) named: Duration,
    /// Whether its file system refused to read without waiting.
    pub(super) waits: AtomicBool,
}

/// The open files, by a number that each has.
#[derive(Default)]
pub(super) struct Descriptors([Mutex<Shelf>; SHELVES]);

/// A file that is kept, and its number.
struct Kept {
    key: u32,
    open: Arc<Open>,
    ticket: Ticket,
}

#[derive(Default)]
struct Shelf {
    places: [Option<Kept>; PLACES],
    /// One bit a place: used since the hand came by.
    used: u16,
    hand: u8,
}

const _: () = assert!(PLACES == u16::BITS as usize);

impl Descriptors {
    fn shelf(&self, key: u32) -> std::sync::MutexGuard<'_, Shelf> {
        self.0[key as usize % SHELVES].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open file of this number, if it is kept and its name was resolved no longer ago than [`TRUSTED`].
    pub(super) fn find(&self, key: u32, now: Duration) -> Option<Arc<Open>> {
        let mut shelf = self.shelf(key);
        let i = shelf.position(key)?;
        let Kept { open, .. } = shelf.places[i].as_ref()?;
        let open = (now.saturating_sub(open.named) <= TRUSTED).then(|| Arc::clone(open))?;
        shelf.used |= 1 << i;
        Some(open)
    }

    /// Keeps an open file, instead of another one if there is no room.
    pub(super) fn keep(&self, key: u32, open: &Arc<Open>) {
        let mut shelf = self.shelf(key);
        let known = shelf.position(key);
        let new = if known.is_none() { Ticket::take() } else { None };
        let Some(i) = known.or_else(|| shelf.room(new.is_some())) else { return };
        let old = shelf.places[i].take();
        let (replaced, ticket) = old.map_or((None, new), |old| (Some(old.open), Some(old.ticket)));
        shelf.places[i] = ticket.map(|ticket| Kept { key, open: Arc::clone(open), ticket });
        shelf.used |= 1 << i;
        drop(shelf);
        // Closing may take a while.
        drop(replaced);
    }

    /// Keeps the file of this number no longer.
    pub(super) fn forget(&self, key: u32) {
        let mut shelf = self.shelf(key);
        let old = shelf.position(key).and_then(|i| shelf.places[i].take());
        drop(shelf);
        drop(old);
    }

    /// Closes all that nobody is reading.
    pub(super) fn clear(&self) {
        for shelf in &self.0 {
            let old = std::mem::take(&mut *shelf.lock().unwrap_or_else(PoisonError::into_inner));
            drop(old);
        }
    }
}

impl Shelf {
    fn position(&self, key: u32) -> Option<usize> {
        self.places.iter().position(|place| place.as_ref().is_some_and(|kept| kept.key == key))
    }

    /// An empty place if one more may be kept, or else the next that was not used since the hand last came by.
    fn room(&mut self, more: bool) -> Option<usize> {
        if let Some(i) = self.places.iter().position(Option::is_none).filter(|_| more) {
            return Some(i);
        }
        if self.places.iter().all(Option::is_none) {
            return None;
        }
        loop {
            let i = usize::from(self.hand);
            self.hand = (self.hand + 1) % PLACES as u8;
            if self.used & 1 << i == 0 && self.places[i].is_some() {
                return Some(i);
            }
            self.used &= !(1 << i);
        }
    }
}
