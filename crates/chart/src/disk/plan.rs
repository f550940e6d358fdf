//! Plan: where the bytes of a range really live, through every disk below, and the pin that keeps it true.

use super::{Coded, Disk, Leaf, LeafPlace, MAX_DEPTH};
use crate::{Backing, Error, Extent, Frame, Pin, Place, Result, Source, Wait, check_range};
use std::ops::Range;

/// What the leaves are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Reading: stops at caches and other wrappers, which are there to be read through.
    Read,
    /// Cloning or locating: sees through wrappers, to the place itself.
    Locate,
}

/// The leaves of a range, true as long as the plan is held.
pub struct Plan<'d> {
    /// In order, without gaps. Neighbours that are one place are one leaf.
    pub leaves: Vec<Leaf<'d>>,
    _pin: Pin,
}

/// How a range is looked up.
pub(super) struct Look {
    /// At most so many lookups.
    pub(super) most: usize,
    pub(super) wait: Wait,
    pub(super) why: Purpose,
    /// Whether sources are asked what they store.
    pub(super) ask: bool,
}

impl Look {
    /// Adds a run, in the parts that its source makes of it: as many as there is room for.
    fn tell<'d>(&self, mut run: Leaf<'d>, most: usize, leaves: &mut Vec<Leaf<'d>>) -> Result<()> {
        while run.len > 0 && leaves.len() < most {
            let mut part = run;
            if self.ask {
                part.ask()?;
            }
            run = run.skip(part.len);
            leaves.push(part);
        }
        Ok(())
    }
}

impl Disk {
    /// Where the bytes of a range really live. At most `most` leaves: a longer range is planned in parts, by
    /// [`Disk::walk`].
    pub fn plan(&self, at: u64, len: u64, most: usize, wait: Wait, why: Purpose) -> Result<Plan<'_>> {
        check_range(self.len(), at, len)?;
        self.look_up(at..at + len, &Look { most, wait, why, ask: false })
    }

    /// The leaves of the first part of a range that lies within the disk.
    pub(super) fn look_up(&self, range: Range<u64>, look: &Look) -> Result<Plan<'_>> {
        let pin = self.pin();
        let most = look.most.max(1);
        let (mut leaves, mut at, mut looks) = (Vec::new(), range.start, 0);
        // The run that goes on: a source is asked about all of it at once, since asking is dear.
        let mut run: Option<Leaf<'_>> = None;
        while at < range.end && looks < most && leaves.len() < most {
            let leaf = self.leaf(at, range.end - at, look.wait, look.why)?;
            (at, looks) = (leaf.end(), looks + 1);
            match &mut run {
                Some(run) if run.joins(&leaf) => run.len += leaf.len,
                run => {
                    if let Some(done) = run.replace(leaf) {
                        look.tell(done, most, &mut leaves)?;
                    }
                }
            }
        }
        if let Some(last) = run.filter(|_| leaves.len() < most) {
            look.tell(last, most, &mut leaves)?;
        }
        Ok(Plan { leaves, _pin: pin })
    }

    /// The leaf that begins at `at`. The caller holds a pin on this disk (law 3).
    pub fn leaf(&self, at: u64, want: u64, wait: Wait, why: Purpose) -> Result<Leaf<'_>> {
        let (mut disk, mut pos, mut want, mut writable) = (self, at, want, true);
        // The layer that is asked, and whether an image of that layer was found to hold the range: then what the
        // image's file is made of is no layer of this disk.
        let (mut layer, mut of, mut held) = (1, Some(self), false);
        for _ in 0..MAX_DEPTH {
            let (extent, own) = disk.chart_extent(pos, want, wait)?;
            want = want.min(extent.len);
            writable &= disk.writable && extent.writable;
            if !own && !held {
                let below = disk.chart.below();
                (layer, of) = below.map_or((0, None), |s| (layer + 1, disk_behind(s.as_ref())));
            }
            let (place, data) = match extent.place {
                // The image does hold it, and its file nothing: zeros, rather than nothing at all.
                Place::Hole if held => (LeafPlace::Zero, false),
                Place::Hole => {
                    if own {
                        (layer, of) = (0, None);
                    }
                    (LeafPlace::Hole, false)
                }
                Place::Zero => (LeafPlace::Zero, false),
                place @ Place::Frame { .. } => {
                    let Some(frame) = place.as_frame() else { continue };
                    (LeafPlace::Coded(disk.coded(frame, wait, why)?), true)
                }
                Place::Raw { source, offset } => match descend(disk.source(source)?.as_ref(), why) {
                    Down::Disk(inner) => {
                        held |= own && disk.image;
                        (disk, pos) = (inner, offset);
                        continue;
                    }
                    Down::Leaf(source) => (LeafPlace::Raw { source, offset }, true),
                },
            };
            return Ok(Leaf { at, len: want, place, writable, data, layer, disk: of });
        }
        Err(Error::unsupported(format!("{}: more than {MAX_DEPTH} disks deep", self.name)))
    }

    /// This disk's answer, and whether it is its own layer's.
    fn chart_extent(&self, at: u64, want: u64, wait: Wait) -> Result<(Extent, bool)> {
        let (extent, own) = self.chart.answer(at, want, wait)?;
        debug_assert!(extent.at == at && extent.len > 0 && extent.len <= want, "law 1: {extent:?}");
        Ok((extent, own))
    }

    /// Passes a frame down as long as its stored bytes are one raw run (law 5).
    fn coded(&self, frame: Frame, wait: Wait, why: Purpose) -> Result<Coded<'_>> {
        let codec = self.codec(frame.codec)?;
        let (mut source, mut offset) = (self.source(frame.source)?.as_ref(), frame.offset);
        let mut room = frame.stored_len;
        for _ in 0..MAX_DEPTH {
            let Down::Disk(inner) = descend(source, why) else { break };
            room = room.min(u32::try_from(inner.len().saturating_sub(offset)).unwrap_or(u32::MAX));
            if room == 0 {
                break;
            }
            let whole = |e: &Extent| e.len >= room.into();
            match inner.chart_extent(offset, room.into(), wait) {
                Ok((extent, _)) if whole(&extent) => match extent.place {
                    Place::Raw { source: id, offset: at } => {
                        (source, offset) = (inner.source(id)?.as_ref(), at);
                    }
                    _ => break,
                },
                Ok(_) => break,
                Err(e) => return Err(e),
            }
        }
        let frame = Frame { stored_len: room, ..frame };
        Ok(Coded { source, offset, frame, codec, home: self })
    }
}

enum Down<'d> {
    Disk(&'d Disk),
    Leaf(&'d dyn Source),
}

/// What is behind a source, as far as this purpose goes.
fn descend(mut source: &dyn Source, why: Purpose) -> Down<'_> {
    for _ in 0..MAX_DEPTH {
        match source.backing() {
            Backing::Disk(disk) => return Down::Disk(disk),
            Backing::Wraps(inner) if why == Purpose::Locate => source = inner,
            _ => break,
        }
    }
    Down::Leaf(source)
}

/// The disk behind a source, seen through wrappers.
pub(super) fn disk_behind(source: &dyn Source) -> Option<&Disk> {
    match descend(source, Purpose::Locate) {
        Down::Disk(disk) => Some(disk),
        Down::Leaf(_) => None,
    }
}
