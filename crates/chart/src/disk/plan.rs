//! Plan: where the bytes of a range really live, through every disk below, and the pin that keeps it true.

use super::{Disk, MAX_DEPTH};
use crate::{Backing, Codec, Error, Extent, Frame, Pin, Place, Result, Source, SourceId, Wait, check_range};
use std::sync::Arc;

/// What the leaves are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Reading: stops at caches and other wrappers, which are there to be read through.
    Read,
    /// Cloning or locating: sees through wrappers, to the place itself.
    Locate,
}

/// A run whose place is resolved: it borrows the source that holds it.
#[derive(Clone, Copy)]
pub struct Leaf<'d> {
    /// Where it begins in the disk that was asked.
    pub at: u64,
    /// How long it is.
    pub len: u64,
    /// Where the bytes live.
    pub place: LeafPlace<'d>,
    /// Whether every layer on the way says that a write may go straight there.
    pub writable: bool,
    /// How many disks were passed through.
    pub depth: usize,
}

/// Where the bytes of a leaf live.
#[derive(Clone, Copy)]
pub enum LeafPlace<'d> {
    /// Nothing is stored.
    Hole,
    /// Stored as zeros.
    Zero,
    /// In a source that is no disk.
    Raw {
        /// The source.
        source: &'d dyn Source,
        /// Where in it.
        offset: u64,
    },
    /// In an encoded run.
    Coded(Coded<'d>),
}

/// An encoded run, resolved.
#[derive(Clone, Copy)]
pub struct Coded<'d> {
    /// The source that holds the stored bytes.
    pub source: &'d dyn Source,
    /// Where they begin in it.
    pub offset: u64,
    /// As its own disk described it.
    pub frame: Frame,
    /// What decodes it.
    pub codec: &'d Arc<dyn Codec>,
    /// How much of it may be read: its stored length, cut where a disk on the way ends.
    room: u64,
    /// The disk that described it, which keeps decoded frames.
    pub(super) home: &'d Disk,
}

/// The leaves of a range, true as long as the plan is held.
pub struct Plan<'d> {
    /// In order, without gaps.
    pub leaves: Vec<Leaf<'d>>,
    _pin: Pin,
}

impl Disk {
    /// Where the bytes of a range really live. At most `most` leaves: a longer range is planned in parts.
    pub fn plan(&self, at: u64, len: u64, most: usize, wait: Wait, why: Purpose) -> Result<Plan<'_>> {
        check_range(self.len(), at, len)?;
        let pin = self.pin();
        let mut leaves = Vec::new();
        let mut done = 0;
        while done < len && leaves.len() < most.max(1) {
            let leaf = self.leaf(at + done, len - done, wait, why)?;
            done += leaf.len;
            leaves.push(leaf);
        }
        Ok(Plan { leaves, _pin: pin })
    }

    /// The leaf that begins at `at`. The caller holds a pin on this disk (law 3).
    pub fn leaf(&self, at: u64, want: u64, wait: Wait, why: Purpose) -> Result<Leaf<'_>> {
        let (mut disk, mut pos, mut want, mut writable) = (self, at, want, true);
        for depth in 1..=MAX_DEPTH {
            let extent = disk.chart_extent(pos, want, wait)?;
            want = want.min(extent.len);
            writable &= disk.writable && extent.writable;
            let leaf = |place| Ok(Leaf { at, len: want, place, writable, depth });
            match extent.place {
                Place::Hole => return leaf(LeafPlace::Hole),
                Place::Zero => return leaf(LeafPlace::Zero),
                place @ Place::Frame { .. } => {
                    let Some(frame) = place.as_frame() else { continue };
                    return leaf(LeafPlace::Coded(disk.coded(frame, wait, why)?));
                }
                Place::Raw { source, offset } => match descend(disk.source(source)?.as_ref(), why) {
                    Down::Disk(inner) => (disk, pos) = (inner, offset),
                    Down::Leaf(source) => return leaf(LeafPlace::Raw { source, offset }),
                },
            }
        }
        Err(Error::unsupported(format!("{}: more than {MAX_DEPTH} disks deep", self.name)))
    }

    fn chart_extent(&self, at: u64, want: u64, wait: Wait) -> Result<Extent> {
        let (extent, _) = self.chart.answer(at, want, wait)?;
        debug_assert!(extent.at == at && extent.len > 0 && extent.len <= want, "law 1: {extent:?}");
        Ok(extent)
    }

    /// Passes a frame down as long as its stored bytes are one raw run (law 5).
    fn coded(&self, frame: Frame, wait: Wait, why: Purpose) -> Result<Coded<'_>> {
        let codec = self.codec(frame.codec)?;
        let (mut source, mut offset) = (self.source(frame.source)?.as_ref(), frame.offset);
        let mut room = u64::from(frame.stored_len);
        for _ in 0..MAX_DEPTH {
            let Down::Disk(inner) = descend(source, why) else { break };
            room = room.min(inner.len().saturating_sub(offset));
            if room == 0 {
                break;
            }
            let whole = |e: &Extent| e.len >= room;
            match inner.chart_extent(offset, room, wait) {
                Ok(extent) if whole(&extent) => match extent.place {
                    Place::Raw { source: id, offset: at } => {
                        (source, offset) = (inner.source(id)?.as_ref(), at);
                    }
                    _ => break,
                },
                Ok(_) => break,
                Err(e) => return Err(e),
            }
        }
        Ok(Coded { source, offset, frame, codec, room, home: self })
    }
}

impl Coded<'_> {
    /// The key its own disk keeps it under when decoded.
    pub(super) fn key(&self) -> (SourceId, u64) {
        (self.frame.source, self.frame.offset)
    }

    /// How many bytes are stored at most, within the source.
    pub fn stored_len(&self) -> usize {
        let rest = self.source.len().saturating_sub(self.offset);
        usize::try_from(rest.min(self.room)).unwrap_or(usize::MAX)
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
