//! The same place: what need not be read to be compared (law 6).

use super::{Disk, Leaf, LeafPlace, Purpose};
use crate::{Result, Source, Wait};
use std::ptr;

/// Whether two leaves of one length hold the same bytes for certain, because they are one and the same place, or
/// zeros both. Nothing that may be written in place is ever the same as anything: it may change meanwhile.
pub fn same_place(a: &Leaf<'_>, b: &Leaf<'_>) -> bool {
    if a.writable || b.writable {
        return false;
    }
    match (&a.place, &b.place) {
        _ if !a.data && !b.data => true,
        (LeafPlace::Raw { source: a, offset: x }, LeafPlace::Raw { source: b, offset: y }) => {
            x == y && same_source(*a, *b)
        }
        (LeafPlace::Coded(a), LeafPlace::Coded(b)) => a.is(b),
        _ => false,
    }
}

fn same_source(a: &dyn Source, b: &dyn Source) -> bool {
    ptr::addr_eq(a, b) || a.identity() == b.identity()
}

/// What two disks have from `at` on, as far as that is known without reading: two leaves of one length, at most
/// `want`, their sources asked. Behind the end of a disk, and where there is none, is nothing. The caller holds a
/// pin on both (law 3).
pub fn both_at<'d>(disks: [Option<&'d Disk>; 2], at: u64, want: u64) -> Result<[Leaf<'d>; 2]> {
    let [a, b] = disks;
    let a = side(a, at, want)?;
    let b = side(b, at, a.len)?;
    Ok([a.head(b.len), b])
}

fn side(disk: Option<&Disk>, at: u64, want: u64) -> Result<Leaf<'_>> {
    let rest = disk.map_or(0, |disk| disk.len().saturating_sub(at));
    let Some(disk) = disk.filter(|_| rest > 0) else { return Ok(Leaf::nothing(at, want)) };
    let mut leaf = disk.leaf(at, want.min(rest), Wait::Allowed, Purpose::Locate)?;
    leaf.ask()?;
    Ok(leaf)
}
