//! Leaves: runs of a disk whose place is known, down to the source that holds them.

use super::Disk;
use crate::{Codec, Frame, Result, Source, SourceId};
use std::ptr;
use std::sync::Arc;

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
    /// Whether anything is stored there; if not, it reads as zeros. Of a run of a source this is what the source
    /// says once it was asked ([`Leaf::ask`]), and true before.
    pub data: bool,
    /// Which layer answers: 1 is the disk that was asked, 2 what that falls through to, and so on; 0 where nobody
    /// holds anything. NBD calls it the allocation depth.
    ///
    /// Layers are counted where a disk leaves a range to the one below, as overlays do. Slices, tables and views
    /// count for nothing: behind them the layers are those of the disk they show. What an image
    /// ([`DiskBuilder::image`](super::DiskBuilder::image)) holds is that image's, whatever layers the place that
    /// the image lies in has. Zeros behind the end of a layer that is shorter than those above are that layer's.
    pub layer: usize,
    /// The disk which that layer is: the one that was asked or fallen through to. None where nobody answers, and
    /// where the layer is a source that is no disk.
    pub disk: Option<&'d Disk>,
}

// It is copied for every range that is read or moved: no larger than need be.
const _: () = assert!(size_of::<Leaf<'static>>() <= 112);

/// Where the bytes of a leaf live.
#[derive(Clone, Copy)]
pub enum LeafPlace<'d> {
    /// Nothing is stored.
    Hole,
    /// Stored as zeros; or stored by an image where the disk that the image lies in stores nothing.
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
    /// As its own disk described it, but for the stored length, which is cut where a disk on the way ends.
    pub frame: Frame,
    /// What decodes it.
    pub codec: &'d Arc<dyn Codec>,
    /// The disk that described it, which keeps decoded frames.
    pub(super) home: &'d Disk,
}

impl<'d> Leaf<'d> {
    /// A run that nobody speaks of: what lies behind the end of a disk.
    pub(super) fn nothing(at: u64, len: u64) -> Self {
        Leaf { at, len, place: LeafPlace::Hole, writable: false, data: false, layer: 0, disk: None }
    }

    /// One past its last byte.
    pub fn end(&self) -> u64 {
        self.at.saturating_add(self.len)
    }

    /// Its first `len` bytes.
    #[inline]
    #[must_use]
    pub fn head(self, len: u64) -> Self {
        Leaf { len: self.len.min(len), ..self }
    }

    /// What comes behind its first `by` bytes.
    #[inline]
    #[must_use]
    pub fn skip(self, by: u64) -> Self {
        let by = by.min(self.len);
        Leaf { at: self.at.saturating_add(by), len: self.len - by, place: self.place.skip(by), ..self }
    }

    /// Asks its source what it stores there, and cuts it to its first part: as much as is stored throughout, or not
    /// at all.
    pub fn ask(&mut self) -> Result<()> {
        if let LeafPlace::Raw { source, offset } = self.place {
            let run = source.data_at(offset, self.len)?;
            self.len = run.len.max(1).min(self.len);
            self.data = run.data;
        }
        Ok(())
    }

    /// Whether `next` goes on where this ends, in the disk and in the place, so that the two are one.
    #[inline]
    pub fn joins(&self, next: &Leaf<'_>) -> bool {
        self.end() == next.at
            && (self.data, self.writable, self.layer) == (next.data, next.writable, next.layer)
            && self.disk.map(ptr::from_ref) == next.disk.map(ptr::from_ref)
            && self.place.leads_to(self.len, &next.place)
    }
}

impl LeafPlace<'_> {
    /// The place of the byte `by` further on.
    #[inline]
    fn skip(self, by: u64) -> Self {
        match self {
            LeafPlace::Raw { source, offset } => LeafPlace::Raw { source, offset: offset.saturating_add(by) },
            LeafPlace::Coded(coded) => {
                let skip = coded.frame.skip.saturating_add(u32::try_from(by).unwrap_or(u32::MAX));
                LeafPlace::Coded(Coded { frame: Frame { skip, ..coded.frame }, ..coded })
            }
            zero => zero,
        }
    }

    /// Whether `next` is the place of the byte `by` further on. No more is compared, and nothing copied, than it
    /// takes: every leaf of every walk comes by here.
    #[inline]
    fn leads_to(&self, by: u64, next: &LeafPlace<'_>) -> bool {
        match (self, next) {
            (LeafPlace::Hole, LeafPlace::Hole) | (LeafPlace::Zero, LeafPlace::Zero) => true,
            (LeafPlace::Raw { source: a, offset: x }, LeafPlace::Raw { source: b, offset: y }) => {
                x.checked_add(by) == Some(*y) && ptr::addr_eq(*a, *b)
            }
            (LeafPlace::Coded(a), LeafPlace::Coded(b)) => {
                u64::from(a.frame.skip).checked_add(by) == Some(b.frame.skip.into()) && a.is_of(b)
            }
            _ => false,
        }
    }
}

impl Coded<'_> {
    /// Whether the two are of one frame of one disk.
    fn is_of(&self, other: &Coded<'_>) -> bool {
        self.frame == Frame { skip: self.frame.skip, ..other.frame } && ptr::eq(self.home, other.home)
    }

    /// Whether the two are the same part of one frame of one disk.
    pub(super) fn is(&self, other: &Coded<'_>) -> bool {
        self.frame.skip == other.frame.skip && self.is_of(other)
    }

    /// The key its own disk keeps it under when decoded.
    pub(super) fn key(&self) -> (SourceId, u64) {
        (self.frame.source, self.frame.offset)
    }

    /// How many bytes are stored at most, within the source.
    pub fn stored_len(&self) -> usize {
        let rest = self.source.len().saturating_sub(self.offset);
        usize::try_from(rest.min(self.frame.stored_len.into())).unwrap_or(usize::MAX)
    }
}
