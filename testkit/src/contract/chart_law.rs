//! Laws 1 and 2: what a chart answers, and that reading agrees with it.

use super::{Verdict, difference, ensure};
use crate::Rng;
use chart::{Chart, Disk, Extent, Kind, LeafPlace, Place, Purpose, Source, Wait};

/// How many extents are looked at.
const EXTENTS: usize = 4096;

/// How many ranges are read.
const READS: usize = 200;

/// Law 1: an answer starts at `at`, is not empty, is at most `want` long, and claims nothing that a closer look
/// takes back. Past the end is `OutOfRange`. The chart must not change meanwhile.
pub fn chart_law(chart: &dyn Chart) -> Verdict {
    let len = chart.len();
    for at in [len, len.saturating_add(1), u64::MAX] {
        for wait in [Wait::Allowed, Wait::Never] {
            let kind = chart.extent_at(at, 1, wait).map_err(|e| e.kind());
            let refused =
                kind == Err(Kind::OutOfRange) || (wait == Wait::Never && kind == Err(Kind::WouldBlock));
            ensure!(refused, "an answer for byte {at} of {len}: {kind:?}");
        }
    }
    let mut rng = Rng::new(len);
    let mut at = 0;
    for _ in 0..EXTENTS {
        if at >= len {
            return Ok(());
        }
        let extent = one_answer(chart, at, u64::MAX)?;
        closer_look(chart, &extent, &mut rng)?;
        at = extent.end();
    }
    Ok(())
}

fn one_answer(chart: &dyn Chart, at: u64, want: u64) -> Verdict<Extent> {
    let e = chart.extent_at(at, want, Wait::Allowed)?;
    ensure!(e.at == at, "asked for byte {at}, the answer begins at {}", e.at);
    ensure!(e.len > 0, "the answer for byte {at} is empty");
    ensure!(e.len <= want, "asked for {want} bytes from {at} on, the answer speaks of {}", e.len);
    ensure!(e.end() <= chart.len(), "the answer for {at} ends at {}, the chart at {}", e.end(), chart.len());
    if let Some(frame) = e.place.as_frame() {
        let rest = u64::from(frame.decoded_len).saturating_sub(u64::from(frame.skip));
        ensure!(e.len <= rest, "the extent at {at} is {} bytes long, its frame holds {rest}", e.len);
    }
    match chart.extent_at(at, want, Wait::Never) {
        Ok(never) => ensure!(same(&never, &e), "with Never the answer is {never:?}, else {e:?}"),
        Err(error) => ensure!(error.is_would_block(), "with Never it fails: {error}"),
    }
    Ok(e)
}

/// The same claim, though one may stop sooner.
fn same(a: &Extent, b: &Extent) -> bool {
    a.at == b.at && a.place == b.place && a.writable == b.writable
}

/// Whatever is asked inside an extent must say the same as the extent does.
fn closer_look(chart: &dyn Chart, extent: &Extent, rng: &mut Rng) -> Verdict {
    let len = extent.len;
    let mut asks = vec![(0, 1), (len - 1, 1), (len / 2, 512), (0, len)];
    asks.extend((1..=3).map(|i| ((len / 4).wrapping_mul(i), len)));
    asks.extend([511, 512, 4095, 4096, 65_535, 65_536].map(|by| (by, len)));
    asks.extend((0..6).map(|_| (rng.below(len), 1 + rng.below(len))));
    for (by, want) in asks.into_iter().filter(|&(by, _)| by < len) {
        let at = extent.at + by;
        let e = one_answer(chart, at, want)?;
        let claimed = extent.clip(at, want);
        ensure!(same(&e, &claimed), "{extent:?} claims {claimed:?}; asked there, the answer is {e:?}");
    }
    Ok(())
}

/// The bytes of a range as the chart says, taken from the sources by hand.
fn by_chart(disk: &Disk, mut at: u64, mut buf: &mut [u8]) -> Verdict {
    while !buf.is_empty() {
        let extent = disk.extent_at(at, buf.len() as u64, Wait::Allowed)?;
        let (now, rest) = buf.split_at_mut(extent.len as usize);
        match extent.place {
            Place::Hole | Place::Zero => now.fill(0),
            Place::Raw { source, offset } => {
                let Some(source) = disk.sources().get(usize::from(source.0)) else {
                    return Err(super::Report::new(format!("{extent:?} names a source that is not there")));
                };
                source.read_at(offset, now, Wait::Allowed)?;
            }
            Place::Frame { .. } => by_leaf(disk, at, now)?,
        }
        at += extent.len;
        buf = rest;
    }
    Ok(())
}

/// The same by the leaves: frames decoded by hand.
fn by_leaf(disk: &Disk, mut at: u64, mut buf: &mut [u8]) -> Verdict {
    while !buf.is_empty() {
        let plan = disk.plan(at, buf.len() as u64, 8, Wait::Allowed, Purpose::Locate)?;
        for leaf in &plan.leaves {
            ensure!(leaf.at == at && leaf.len > 0, "a leaf for byte {at} begins at {}", leaf.at);
            let (now, rest) = buf.split_at_mut(leaf.len as usize);
            if let LeafPlace::Coded(coded) = &leaf.place {
                let mut whole = vec![0; coded.decoded_len()?];
                coded.decode_into(&mut whole, &mut Vec::new())?;
                now.copy_from_slice(&whole[coded.frame.skip as usize..][..now.len()]);
            } else {
                leaf.place.read(now, Wait::Allowed)?;
            }
            at += leaf.len;
            buf = rest;
        }
    }
    Ok(())
}

/// What the chart and the leaves say is what reading gives, and so is what a walk tells. The disk must not change
/// meanwhile.
pub fn chart_agrees_with_read(disk: &Disk) -> Verdict {
    let mut at = 0;
    while at < disk.len() {
        let len = (disk.len() - at).min(1 << 20) as usize;
        let mut read = vec![0xa5; len];
        disk.read_at(at, &mut read, Wait::Allowed)?;
        let (mut chart, mut leaf) = (vec![0x5a; len], vec![0x5a; len]);
        by_chart(disk, at, &mut chart)?;
        ensure!(chart == read, "by the chart, from {at}: {}", difference(&chart, &read));
        by_leaf(disk, at, &mut leaf)?;
        ensure!(leaf == read, "by the leaves, from {at}: {}", difference(&leaf, &read));
        holes(disk, at, &read)?;
        at += len as u64;
    }
    super::walk_law(disk)
}

/// What `data_at` calls empty is empty.
fn holes(disk: &Disk, start: u64, read: &[u8]) -> Verdict {
    let (mut at, end) = (start, start + read.len() as u64);
    while at < end {
        let run = disk.data_at(at, end - at)?;
        ensure!(run.len > 0 && run.len <= end - at, "data_at {at} speaks of {} bytes", run.len);
        let bytes = &read[(at - start) as usize..][..run.len as usize];
        ensure!(run.data || super::is_zero(bytes), "data_at {at} calls data empty");
        at += run.len;
    }
    Ok(())
}

/// Law 2: however a read is cut, the bytes are the same; and with `Never` too, where it answers.
pub fn split_reads(disk: &Disk, seed: u64) -> Verdict {
    let mut rng = Rng::new(seed);
    if disk.is_empty() {
        return Ok(());
    }
    for _ in 0..READS {
        let (at, len) = rng.range(disk.len(), 100_000);
        let mut whole = vec![0; len as usize];
        disk.read_at(at, &mut whole, Wait::Allowed)?;
        let most = [1 + rng.below(64), 511, 4097, 30_000][rng.below(4) as usize];
        let mut done = 0;
        while done < len {
            let now = (1 + rng.below(most)).min(len - done);
            let mut part = vec![0xa5; now as usize];
            disk.read_at(at + done, &mut part, Wait::Allowed)?;
            let wanted = &whole[done as usize..][..part.len()];
            ensure!(part == wanted, "{now} bytes at {} alone: {}", at + done, difference(&part, wanted));
            done += now;
        }
        let mut never = vec![0xa5; len as usize];
        match disk.read_at(at, &mut never, Wait::Never) {
            Ok(()) => {
                ensure!(never == whole, "{len} bytes at {at} with Never: {}", difference(&never, &whole));
            }
            Err(e) => ensure!(e.is_would_block(), "{len} bytes at {at} with Never: {e}"),
        }
    }
    Ok(())
}
