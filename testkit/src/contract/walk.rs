//! Laws 1 to 3, as far as they are about going over a whole disk.

use super::{Verdict, ensure};
use chart::{Disk, Leaf, LeafPlace, Purpose, Result, Source, Wait, Walk};

/// So much of what is called empty is read.
const READ: u64 = 1 << 20;

/// What is compared of a leaf: what kind of place, in which source, from where on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    at: u64,
    len: u64,
    place: (&'static str, *const (), u64, u32),
    layer: usize,
    data: bool,
    writable: bool,
}

impl Told {
    fn of(leaf: &Leaf<'_>) -> Told {
        let address = |source: &dyn Source| std::ptr::from_ref(source).cast();
        let place = match &leaf.place {
            LeafPlace::Hole => ("hole", std::ptr::null(), 0, 0),
            LeafPlace::Zero => ("zero", std::ptr::null(), 0, 0),
            LeafPlace::Raw { source, offset } => ("raw", address(*source), *offset, 0),
            LeafPlace::Coded(c) => ("coded", address(c.source), c.offset, c.frame.skip),
        };
        let Leaf { at, len, layer, data, writable, .. } = *leaf;
        Told { at, len, place, layer, data, writable }
    }
}

fn told(walk: Walk<'_>) -> Result<Vec<Told>> {
    let mut all = Vec::new();
    walk.each(|leaf| {
        all.push(Told::of(&leaf));
        Ok(())
    })?;
    Ok(all)
}

/// A walk tells every byte once, in order, in runs as long as they go on; it tells the same however its batches are
/// cut, and the same as a lookup does. What it calls empty, asking the sources or not, reads as zeros. The disk,
/// of at most a few MiB, must not change meanwhile.
pub fn walk_law(disk: &Disk) -> Verdict {
    for why in [Purpose::Locate, Purpose::Read] {
        let walk = || disk.walk(0..u64::MAX, why);
        let whole = told(walk())?;
        for (leaves, bytes) in [(1, u64::MAX), (5, disk.len() / 7 + 1), (usize::MAX, 4099)] {
            let cut = told(walk().in_batches(leaves, bytes))?;
            let differs = whole.iter().zip(&cut).find(|(a, b)| a != b);
            ensure!(
                whole == cut,
                "in batches of {leaves} leaves, {bytes} bytes, a walk differs: {differs:?}"
            );
        }
        covers(disk.len(), &whole)?;
        for run in &whole {
            let _pin = disk.pin();
            let leaf = Told::of(&disk.leaf(run.at, run.len, Wait::Allowed, why)?);
            let same = Told { len: leaf.len, ..*run } == leaf && leaf.len <= run.len;
            ensure!(same, "a walk tells {run:?}, a lookup {leaf:?}");
        }
        let asked = told(walk().ask_sources())?;
        covers(disk.len(), &asked)?;
        for run in whole.iter().chain(&asked).filter(|run| !run.data) {
            let mut bytes = vec![0xa5; run.len.min(READ) as usize];
            disk.read_at(run.at, &mut bytes, Wait::Allowed)?;
            ensure!(super::is_zero(&bytes), "a walk calls data empty: {run:?}");
        }
    }
    parts(disk)
}

/// One run behind the other, from the beginning to the end.
fn covers(len: u64, runs: &[Told]) -> Verdict {
    let mut at = 0;
    for run in runs {
        ensure!(run.at == at && run.len > 0, "a walk comes to byte {at} and tells {run:?}");
        at += run.len;
    }
    ensure!(at == len, "a walk ends at byte {at} of {len}");
    Ok(())
}

/// A walk over a part tells what one over the whole does, cut.
fn parts(disk: &Disk) -> Verdict {
    let (start, end) = (disk.len() / 3, disk.len() - disk.len() / 5);
    let part = told(disk.walk(start..end, Purpose::Locate))?;
    let inside = part.iter().all(|run| start <= run.at && run.at + run.len <= end);
    let sum: u64 = part.iter().map(|run| run.len).sum();
    ensure!(inside && sum == end - start, "a walk from {start} to {end} tells of {sum} bytes: {part:?}");
    Ok(())
}
