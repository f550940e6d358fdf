//! Setting clusters to read as zeros, and discarding them.

use super::Writer;
use crate::qcow2::Image;
use crate::qcow2::entry::{L2Entry, Meaning};
use crate::qcow2::layout::{OFLAG_COPIED, OFLAG_ZERO};
use chart::{Error, Layer, Result, SetMode, To, Wait};

/// At most so many clusters are set before others may have the lock.
const BATCH: usize = 4096;

/// All subclusters read as zeros, none is allocated.
const ALL_ZERO: u64 = 0xffff_ffff_0000_0000;

impl Image {
    pub(super) fn set_clusters(&self, at: u64, len: u64, to: To, mode: SetMode) -> Result<u64> {
        self.look(at, 1, Wait::Allowed)?;
        let mut w = self.begin()?;
        w.mark(self, at, len);
        let end = at.saturating_add(len);
        let mut cluster = at;
        for _ in 0..BATCH {
            if cluster >= end {
                break;
            }
            if self.l1.entry(self.clusters.l1_index(cluster)).table().is_none() && !self.shows_below(cluster)
            {
                // Nothing is here, nor below: on to the next table.
                let span = self.clusters.l2_span();
                cluster = cluster.saturating_sub(cluster & span.saturating_sub(1)).saturating_add(span);
                continue;
            }
            match self.set_cluster(&mut w, cluster, to, mode) {
                Err(e) if cluster > at && e.kind() == chart::Kind::Unsupported => break,
                done => done?,
            }
            cluster = cluster.saturating_add(self.clusters.size());
        }
        Ok(cluster.min(end).saturating_sub(at))
    }

    /// Whether an unallocated cluster there would show the backing file's bytes.
    pub(super) fn shows_below(&self, at: u64) -> bool {
        self.below.as_ref().is_some_and(|below| at < below.len())
    }

    fn set_cluster(&self, w: &mut Writer, at: u64, to: To, mode: SetMode) -> Result<()> {
        let (old, own_table) = self.entry_of(at)?;
        let meaning = old.meaning(self.clusters, self.has_data_file);
        let below = self.shows_below(at);
        if meaning == Meaning::Unallocated && old.bitmap == 0 && !below {
            return Ok(());
        }
        if self.version < 3 && below {
            // Version 2 has no word for zeros over a backing file.
            return match to {
                To::Hole => Ok(()),
                To::Zero => Err(Error::unsupported("version 2 has no zero clusters").at(at)),
            };
        }
        let host = match meaning {
            Meaning::Standard { offset } | Meaning::Zero { kept: Some(offset) } => Some(offset),
            _ => None,
        };
        let unmap = to == To::Hole || mode.may_unmap;
        let own = own_table && old.is_copied();
        let kept = host.filter(|_| own && (!unmap || self.has_data_file));
        if kept.is_none() && self.version < 3 && !unmap {
            return Err(Error::unsupported("version 2 has no zero clusters").at(at));
        }
        if self.version < 3 && kept.is_some() {
            return Err(Error::unsupported("version 2 has no zero clusters").at(at));
        }
        let new = self.zero_entry(kept, below || !unmap);
        if old != new {
            self.replace_entry(w, at, new)?;
        }
        if let (Some(offset), true) = (host, self.has_data_file) {
            self.clear_data(offset)?;
        }
        Ok(())
    }

    /// The entry of a cluster of zeros that keeps its host cluster, or, if nothing has to be said, of none.
    pub(super) fn zero_entry(&self, kept: Option<u64>, say_zero: bool) -> L2Entry {
        let place = kept.map_or(0, |offset| offset | OFLAG_COPIED);
        match (self.clusters.extended_l2(), kept.is_some() || say_zero) {
            (_, false) => L2Entry::default(),
            (true, true) => L2Entry { word: place, bitmap: ALL_ZERO },
            (false, true) => L2Entry { word: place | OFLAG_ZERO, bitmap: 0 },
        }
    }

    /// A data file that others read as it is has to hold the zeros too.
    fn clear_data(&self, offset: u64) -> Result<()> {
        let Some(data_file) = &self.data_file else { return Ok(()) };
        let len = self.clusters.size().min(data_file.len().saturating_sub(offset));
        if len == 0 {
            return Ok(());
        }
        io::engine::clear(data_file.as_ref(), offset, len)
    }
}
