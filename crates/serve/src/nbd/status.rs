//! Block status: what a chart knows, as metadata contexts.

use super::buffer::Output;
use super::failure::Stop;
use super::limits::{STATUS_EXTENTS, STATUS_LEAVES};
use super::reply;
use super::session::{Chosen, Context, Session};
use crate::Export;
use chart::{Leaf, LeafPlace, Purpose, Result, Walk};
use io::nbd::wire::{
    AllocationState, BlockStatus, Code, CommandFlags, Headers, Request, StatusExtent, StatusFilter,
};

/// How many leaves are looked at under one pin.
const LEAVES: usize = 64;

/// The kinds of place, in the upper four bits of a status of `portolan:place`.
const PLACE_HOLE: u64 = 0;
const PLACE_ZERO: u64 = 1;
const PLACE_RAW: u64 = 2;
const PLACE_CODED: u64 = 3;

/// How long a reply can be at most.
pub(super) fn longest(session: &Session) -> u64 {
    let extents = session.contexts.len().saturating_mul(STATUS_EXTENTS);
    u64::try_from(extents.saturating_mul(size_of::<StatusExtent>())).unwrap_or(u64::MAX)
}

/// Appends the reply to a block status request: a chunk for each context.
pub(super) fn answer(
    session: &Session,
    request: &Request,
    payload: &[u8],
    out: &mut Output,
) -> Result<(), Stop> {
    let (len, chosen) = asked(session, request, payload)?;
    if chosen.is_empty() {
        return Err(Stop::refused(Code::EINVAL, "no metadata context was chosen"));
    }
    if len == 0 {
        return Err(Stop::refused(Code::EINVAL, "a block status of no bytes"));
    }
    let size = session.export.disk.len();
    if request.offset.checked_add(len).is_none_or(|end| end > size) {
        return Err(Stop::refused(Code::EINVAL, format!("a block status past the end, {size}")));
    }
    let most = if request.flags.has(CommandFlags::REQ_ONE) { 1 } else { STATUS_EXTENTS };
    // Compact headers have 32 bits for a length.
    let longest = if session.headers == Headers::Extended { u64::MAX } else { u64::from(u32::MAX) };
    let last = chosen.len().saturating_sub(1);
    for (i, context) in chosen.iter().enumerate() {
        let mut runs = Runs { extents: Vec::new(), most, longest };
        session.describe(context.context, request.offset, len, &mut runs)?;
        let status = BlockStatus { context: context.id, extents: runs.extents };
        put(session.headers, request, &status, i == last, out)?;
    }
    Ok(())
}

fn put(
    headers: Headers,
    request: &Request,
    status: &BlockStatus,
    last: bool,
    out: &mut Output,
) -> Result<()> {
    let mut payload = Vec::new();
    status.put(headers, &mut payload)?;
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let chunk = reply::chunk(request, BlockStatus::kind(headers), len, last);
    out.put(|head| chunk.put(headers, head));
    out.room(payload.len()).copy_from_slice(&payload);
    Ok(())
}

/// For how many bytes which contexts are asked.
fn asked(session: &Session, request: &Request, payload: &[u8]) -> Result<(u64, Vec<Chosen>), Stop> {
    if !request.flags.has(CommandFlags::PAYLOAD_LEN) {
        return Ok((request.len, session.contexts.clone()));
    }
    let filter = StatusFilter::parse(payload).map_err(|e| Stop::refused(Code::EINVAL, e.to_string()))?;
    let mut chosen = Vec::new();
    for id in filter.contexts {
        let known = session.contexts.iter().find(|c| c.id == id);
        let known = known.filter(|_| !chosen.iter().any(|c: &Chosen| c.id == id));
        chosen.push(*known.ok_or_else(|| {
            Stop::refused(Code::EINVAL, format!("context {id} is not one of those chosen"))
        })?);
    }
    Ok((filter.len, chosen))
}

/// The extents of one context, neighbours merged.
struct Runs {
    extents: Vec<StatusExtent>,
    most: usize,
    longest: u64,
}

impl Runs {
    /// Adds a run; `false` when there is no room for more.
    fn add(&mut self, mut len: u64, status: u64) -> bool {
        if let Some(last) = self.extents.last_mut().filter(|last| last.status == status) {
            let more = self.longest.saturating_sub(last.len).min(len);
            last.len = last.len.saturating_add(more);
            len = len.saturating_sub(more);
        }
        while len > 0 {
            if self.extents.len() >= self.most {
                return false;
            }
            let now = len.min(self.longest);
            self.extents.push(StatusExtent { len: now, status });
            len = len.saturating_sub(now);
        }
        true
    }
}

impl Session {
    fn describe(&self, context: Context, at: u64, len: u64, runs: &mut Runs) -> Result<()> {
        let end = at.saturating_add(len);
        let walk = self.export.disk.walk(at..end, Purpose::Locate);
        match context {
            Context::Dirt(i) => self.describe_dirt(i, at, len, runs),
            // A source may know of holes of its own.
            Context::Allocation => tell(walk.ask_sources(), |leaf| runs.add(leaf.len, allocation(leaf))),
            Context::Depth => {
                tell(walk, |leaf| runs.add(leaf.len, u64::try_from(leaf.layer).unwrap_or(u64::MAX)))
            }
            Context::Place => {
                let wide = self.headers == Headers::Extended;
                tell(walk, |leaf| runs.add(leaf.len, place(&self.export, leaf, wide)))
            }
        }
    }

    fn describe_dirt(&self, number: usize, mut at: u64, len: u64, runs: &mut Runs) -> Result<()> {
        let Some(dirt) = self.export.dirt.get(number) else { return Ok(()) };
        let end = at.saturating_add(len);
        while at < end {
            let run = dirt.dirt_at(at, end.saturating_sub(at))?;
            let len = run.len.max(1);
            if !runs.add(len, u64::from(run.data)) {
                break;
            }
            at = at.saturating_add(len);
        }
        Ok(())
    }
}

/// Looks at leaf after leaf until `each` has enough.
fn tell(walk: Walk<'_>, mut each: impl FnMut(&Leaf<'_>) -> bool) -> Result<()> {
    // A short answer is an answer: the client asks again for the rest.
    for plan in walk.in_batches(LEAVES, u64::MAX).take(STATUS_LEAVES / LEAVES) {
        if !plan?.leaves.iter().all(&mut each) {
            break;
        }
    }
    Ok(())
}

/// `base:allocation`: what is not stored reads as zeros. A hole is called so as QEMU does, whether a map says zero there
/// or nothing at all; who wants to know which asks for the depth.
fn allocation(leaf: &Leaf<'_>) -> u64 {
    (AllocationState::HOLE | AllocationState::ZERO).only_if(!leaf.data).0
}

/// `portolan:place`: what a range is in the upper four bits, the number of its source in the next twelve, and, with
/// extended headers, where in it in the lower 48.
fn place(export: &Export, leaf: &Leaf<'_>, wide: bool) -> u64 {
    let (kind, source, offset) = match leaf.place {
        LeafPlace::Hole => (PLACE_HOLE, None, 0),
        LeafPlace::Zero => (PLACE_ZERO, None, 0),
        LeafPlace::Raw { source, offset } => (PLACE_RAW, Some(source), offset),
        LeafPlace::Coded(coded) => (PLACE_CODED, Some(coded.source), coded.offset),
    };
    let number = source.map_or(0, |s| export.source_number(s));
    if wide { kind << 60 | number << 48 | (offset & 0xffff_ffff_ffff) } else { kind << 28 | number << 16 }
}
