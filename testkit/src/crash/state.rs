//! One file that a crash may leave, and how an operation comes to be in it.

use crate::Rng;
use crate::source::Event;

/// What a disk writes as one.
const SECTOR: u64 = 512;

/// A file that a crash may leave.
#[derive(Clone)]
pub struct State {
    /// What it holds.
    pub bytes: Vec<u8>,
    /// How many flushes had ended.
    pub boundary: usize,
    /// The last mark that was set before the crash, if any: what it promised must be kept.
    pub mark: Option<u64>,
    /// Which of the later operations are in it, in words.
    pub description: String,
}

/// How much of an operation survived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Nothing.
    Skip,
    /// All.
    Full,
    /// Some of its sectors: which, the seed says.
    Torn(u64),
}

/// The operation that could be torn: it touches more than one sector.
pub(super) fn can_tear(event: &Event) -> bool {
    range(event).is_some_and(|(at, len)| len > 0 && at / SECTOR != (at + len - 1) / SECTOR)
}

fn range(event: &Event) -> Option<(u64, u64)> {
    match event {
        Event::Write { offset, data } => Some((*offset, data.len() as u64)),
        Event::Zero { offset, len } | Event::Punch { offset, len } => Some((*offset, *len)),
        _ => None,
    }
}

/// The parts of `[at, at + len)` that survive a tear: a beginning, an end, or any sectors.
fn torn(at: u64, len: u64, seed: u64) -> Vec<(u64, u64)> {
    let mut rng = Rng::new(seed);
    let first = at / SECTOR;
    let count = (at + len).div_ceil(SECTOR) - first;
    let (kind, cut) = (rng.below(3), 1 + rng.below(count.max(2) - 1));
    let keep = |i: u64, rng: &mut Rng| match kind {
        0 => i < cut,
        1 => i >= cut,
        _ => rng.once_in(2),
    };
    let mut parts = Vec::new();
    for i in 0..count {
        if keep(i, &mut rng) {
            let start = ((first + i) * SECTOR).max(at);
            let end = ((first + i + 1) * SECTOR).min(at + len);
            parts.push((start, end - start));
        }
    }
    parts
}

/// Lets an operation happen to `bytes`, as far as `choice` says.
pub(super) fn apply(bytes: &mut Vec<u8>, event: &Event, choice: Choice) {
    if choice == Choice::Skip {
        return;
    }
    if let Event::SetLen(len) = event {
        bytes.resize(*len as usize, 0);
        return;
    }
    let Some((at, len)) = range(event) else { return };
    let parts = if let Choice::Torn(seed) = choice { torn(at, len, seed) } else { vec![(at, len)] };
    for (start, len) in parts {
        part(bytes, event, at, start, len);
    }
}

fn part(bytes: &mut Vec<u8>, event: &Event, at: u64, start: u64, len: u64) {
    let end = (start + len) as usize;
    match event {
        Event::Write { data, .. } => {
            // What made the file longer may be missing: then the write does.
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[start as usize..end].copy_from_slice(&data[(start - at) as usize..][..len as usize]);
        }
        Event::Zero { .. } | Event::Punch { .. } => {
            let end = end.min(bytes.len());
            if (start as usize) < end {
                bytes[start as usize..end].fill(0);
            }
        }
        Event::SetLen(_) | Event::Flush | Event::Mark(_) => {}
    }
}
