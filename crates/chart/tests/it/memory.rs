//! How much memory things take, counted by the allocator.
#![allow(unsafe_code, reason = "an allocator that counts can be written in no other way")]

use chart::{Extent, SourceId, Table};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    /// What this thread holds: others run other tests.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(by: isize) {
    // At the end of a thread it is gone already; then nobody counts.
    let _ = HELD.try_with(|held| held.set(held.get() + by));
}

// SAFETY: every call goes to the system's allocator as it came; the counter neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise is ours.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise is ours.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn an_extent_of_a_table_takes_sixteen_bytes() {
    const MANY: u64 = 100_000;
    let before = HELD.get();
    let piece = |i: u64| Extent {
        writable: i.is_multiple_of(3),
        ..Extent::raw(i * 4096, 4096, SourceId(0), (MANY - i) << 13)
    };
    let table = Table::from_extents(MANY * 4096, (0..MANY).map(piece)).unwrap();
    let held = HELD.get() - before;
    assert_eq!(table.runs() as u64, MANY);
    assert_eq!(held, 16 * MANY as isize);
    drop(table);
    assert_eq!(HELD.get(), before);
}
