//! Law 6: what makes two places the same.

use super::{Verdict, ensure};
use crate::source::{Memory, Short};
use chart::{Disk, Extent, Result, Slice, Source, SourceId, Table, both_at, same_place};
use std::sync::Arc;

/// Whether a range of two disks is in the same place in both, so that its bytes need not be compared.
pub type Same<'a> = &'a dyn Fn(&Disk, &Disk, u64, u64) -> Result<bool>;

/// As [`chart::same_place`] has it, leaf by leaf.
pub fn by_leaves(a: &Disk, b: &Disk, at: u64, len: u64) -> Result<bool> {
    let _pins = [a.pin(), b.pin()];
    let mut done = 0;
    while done < len {
        let [x, y] = both_at([Some(a), Some(b)], at + done, len - done)?;
        if !same_place(&x, &y) {
            return Ok(false);
        }
        done += x.len;
    }
    Ok(true)
}

const LEN: u64 = 64 << 10;

fn raw(sources: &[&Arc<dyn Source>], id: u16, offset: u64, writable: bool) -> Result<Arc<Disk>> {
    let extent = Extent { writable, ..Extent::raw(0, LEN, SourceId(id), offset) };
    let table = Arc::new(Table::from_extents(LEN, [extent])?);
    let disk = sources.iter().fold(Disk::builder("raw", table), |d, &s| d.source(Arc::clone(s)));
    if writable { disk.straight().build() } else { disk.build() }
}

/// Law 6, for whatever decides that two places are the same. It is asked about whole disks of one length.
pub fn place_law(same: Same<'_>) -> Verdict {
    let source = |byte| -> Arc<dyn Source> { Arc::new(Memory::of(vec![byte; 2 * LEN as usize])) };
    let (one, two) = (source(1), source(2));
    let check = |a: &Disk, b: &Disk, wanted: bool, what: &str| -> Verdict {
        let got = same(a, b, 0, LEN)?;
        ensure!(
            got == wanted,
            "{what} are said to be {} place",
            if got { "the same" } else { "not the same" }
        );
        Ok(())
    };
    let plain = raw(&[&one], 0, 0, false)?;
    check(&plain, &*raw(&[&one], 0, 0, false)?, true, "equal offsets of one source")?;
    check(&plain, &*raw(&[&two], 0, 0, false)?, false, "equal ids and offsets of two sources")?;
    check(&plain, &*raw(&[&two, &one], 1, 0, false)?, true, "one source under two ids")?;
    check(&plain, &*raw(&[&one], 0, 512, false)?, false, "two offsets of one source")?;
    check(&plain, &*raw(&[&one], 0, 0, true)?, false, "a frozen place and one that can be written")?;
    let wrapped: Arc<dyn Source> = Arc::new(Short::new(Arc::clone(&one), 512));
    check(&plain, &*raw(&[&wrapped], 0, 0, false)?, true, "a source and a wrapper of it")?;
    let empty = |extent| Disk::builder("empty", Arc::new(Table::from_extents(LEN, [extent])?)).build();
    let (hole, zero) = (empty(Extent::hole(0, LEN))?, empty(Extent::zero(0, LEN))?);
    check(&hole, &zero, true, "zeros by two charts")?;
    check(&plain, &zero, false, "data and zeros")?;
    let inner: Arc<dyn Source> = raw(&[&two, &one], 1, 512, false)?;
    let slice = |offset, of| {
        let slice = Slice::new(SourceId(0), offset, LEN - 512, false)?;
        Disk::builder("slice", Arc::new(slice)).source(of).build()
    };
    let (nested, direct) = (slice(512, inner)?, slice(1024, Arc::clone(&one))?);
    let got = same(&nested, &direct, 0, LEN - 512)?;
    ensure!(got, "a place and the same one through two disks are said not to be the same place");
    Ok(())
}
