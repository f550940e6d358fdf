//! What is served: a disk under a name.

use crate::order::Order;
use chart::{Backing, Disk, MAX_DEPTH, Result, Run, Source};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Something that tells which ranges of a disk were written since some moment: a dirty bitmap.
pub trait Dirt: Send + Sync {
    /// What it is called.
    fn name(&self) -> &str;

    /// Whether the bytes from `at` on were written, and for how many of at most `want` that holds. `data` is
    /// "written".
    fn dirt_at(&self, at: u64, want: u64) -> Result<Run>;
}

/// A disk under a name.
pub struct Export {
    /// What clients ask for. The export they get without asking has the empty name.
    pub name: String,
    /// What it is, for a person; may be empty.
    pub description: String,
    /// The disk.
    pub disk: Arc<Disk>,
    /// Whether it may be written; never where the disk is read-only.
    pub writable: bool,
    /// The dirty bitmaps that are told to clients.
    pub dirt: Vec<Arc<dyn Dirt>>,
    /// Whether clients may ask where each range lives: they learn offsets and how many sources there are.
    pub places: bool,
    /// A number of its own among all of this process.
    pub(crate) number: u64,
    withdrawn: AtomicBool,
    pub(crate) order: Order,
    pub(crate) in_place: InPlace,
}

impl Export {
    /// Serves `disk` as `name`, writable where the disk is.
    pub fn new(name: impl Into<String>, disk: Arc<Disk>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Export {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            name: name.into(),
            description: String::new(),
            writable: disk.is_writable(),
            in_place: InPlace::new(Source::limits(&*disk).never),
            disk,
            dirt: Vec::new(),
            places: false,
            withdrawn: AtomicBool::new(false),
            order: Order::default(),
        }
    }

    /// It is served no more, but to those who have chosen it; what it stands on may go.
    pub(crate) fn withdraw(&self) {
        self.withdrawn.store(true, Ordering::Relaxed);
    }

    /// Whether it is served no more.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Relaxed)
    }

    /// Makes everything durable that was written through any connection.
    pub fn flush(&self) -> Result<()> {
        self.disk.flush()
    }
}

/// Whether writes in place go to memory or to the system's cache, and do not wait for a device there.
pub(crate) struct InPlace {
    /// They may at all.
    ever: bool,
    began: Instant,
    /// Not before so many milliseconds after that.
    again: AtomicU64,
}

impl InPlace {
    fn new(ever: bool) -> Self {
        InPlace { ever, began: Instant::now(), again: AtomicU64::new(0) }
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether they are quick now, as far as is known.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        self.ever && self.millis(now) >= self.again.load(Ordering::Relaxed)
    }

    /// They are not, for a while.
    pub(crate) fn pause(&self, pause: Duration) {
        self.again.store(self.millis(Instant::now() + pause), Ordering::Relaxed);
    }
}

/// How many sources of a disk are told apart by number.
const SOURCES_MAX: usize = 1 << 12;

impl Export {
    /// The number of a source among those that hold the disk's bytes, over all layers, top first.
    pub(crate) fn source_number(&self, source: &dyn Source) -> u64 {
        let mut count = 0;
        let _ = count_to(&self.disk, source, MAX_DEPTH, &mut count);
        count.min(SOURCES_MAX as u64 - 1)
    }
}

/// Counts the sources before `wanted`, depth first; whether it was found.
fn count_to(disk: &Disk, wanted: &dyn Source, depth: usize, count: &mut u64) -> bool {
    for source in disk.sources() {
        let found = match source.backing() {
            Backing::Disk(inner) if depth > 0 => count_to(inner, wanted, depth - 1, count),
            _ if std::ptr::addr_eq(std::ptr::from_ref(source.as_ref()), std::ptr::from_ref(wanted)) => true,
            _ => {
                *count += 1;
                false
            }
        };
        if found || *count >= SOURCES_MAX as u64 {
            return found;
        }
    }
    false
}
