//! What is served: a disk under a name.

use crate::order::Order;
use chart::{Backing, Disk, MAX_DEPTH, Result, Run, Source};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
    pub(crate) order: Order,
    /// Whether what is written in place goes to memory or to the system's cache, and seldom waits for a device.
    pub(crate) in_place: bool,
    /// How many bytes were written in place since the last flush.
    pub(crate) unflushed: AtomicU64,
}

impl Export {
    /// Serves `disk` as `name`, writable where the disk is.
    pub fn new(name: impl Into<String>, disk: Arc<Disk>) -> Self {
        Export {
            name: name.into(),
            description: String::new(),
            writable: disk.is_writable(),
            in_place: Source::limits(&*disk).never,
            disk,
            dirt: Vec::new(),
            places: false,
            order: Order::default(),
            unflushed: AtomicU64::new(0),
        }
    }

    /// Makes everything durable that was written through any connection.
    pub fn flush(&self) -> Result<()> {
        // Before: what is written while the flush is under way is not covered by it.
        self.unflushed.store(0, Ordering::Relaxed);
        self.disk.flush()
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
