//! Reserving places for new data, and putting them into the map.

use super::Writer;
use crate::qcow2::entry::{L2Entry, Meaning, Subcluster};
use crate::qcow2::layout::{OFLAG_COPIED, SUBCLUSTERS};
use crate::qcow2::{DATA_FILE, FILE, Image};
use chart::{Error, Intent, Layer, Reservation, Reserve, Result, Wait};

/// A reservation of clusters that the map does not refer to yet.
const NEW: u64 = 0;
/// One in a cluster that the map refers to already: zeros kept for it, or subclusters not yet used.
const WITHIN: u64 = 1;

/// What a write finds at a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// Nothing to reserve, for so many bytes.
    Already(u64),
    /// Room in a host cluster that the active disk has for itself: where the cluster begins there, and for which
    /// bytes of the cluster there is room.
    Within { offset: u64, from: u64, to: u64 },
    /// A new cluster is needed, for these bytes of it.
    New { from: u64, to: u64 },
}

impl Image {
    pub(super) fn reserve_place(&self, at: u64, want: u64, intent: Intent) -> Result<Reserve> {
        // Brings the table in while nobody has to wait for it.
        self.look(at, 1, Wait::Allowed)?;
        let mut w = self.begin()?;
        let want = want.min(self.size().saturating_sub(at)).max(1);
        let start = self.clusters.start(at);
        let found = self.find(at, want, intent)?;
        if let Found::Within { offset, .. } = found {
            self.refuse_room(start, offset)?;
        }
        let reservation = match found {
            Found::Already(len) => {
                let len = len.min(want);
                if intent == Intent::Write {
                    w.mark(self, at, len);
                }
                return Ok(Reserve::Already { len });
            }
            Found::Within { offset, from, to } => Reservation {
                at: start.saturating_add(from),
                len: to.saturating_sub(from),
                source: if self.has_data_file { DATA_FILE } else { FILE },
                offset: offset.saturating_add(from),
                zeroed: false,
                token: WITHIN,
            },
            Found::New { from, to } => self.reserve_new(&mut w, start, from, to, (at, want, intent))?,
        };
        if intent == Intent::Write {
            // What is filled in around it, and a fill as a whole, change nothing that can be read.
            let end = reservation.at.saturating_add(reservation.len).min(at.saturating_add(want));
            w.mark(self, at, end.saturating_sub(at));
        }
        w.open = w.open.saturating_add(1);
        Ok(Reserve::Ready(reservation))
    }

    /// Refuses room for data where none can be: lookups, which do not go there, have not looked.
    fn refuse_room(&self, start: u64, offset: u64) -> Result<()> {
        if self.clusters.within(offset) != 0 {
            return Err(self.corrupt("a data cluster does not begin where a cluster does", offset));
        }
        if self.has_data_file {
            let wrong = "a cluster is not where it must be in the data file";
            return if offset == start { Ok(()) } else { Err(self.corrupt(wrong, offset)) };
        }
        if self.guards(self.clusters.index(offset)) {
            return Err(self.corrupt("a data cluster lies in a table of the image", offset));
        }
        if offset >= self.file.len() {
            return Err(self.corrupt("a data cluster lies past the end of its file", offset));
        }
        Ok(())
    }

    /// New clusters: the one that begins at `start`, and those behind it that the request needs too.
    fn reserve_new(
        &self,
        w: &mut Writer,
        start: u64,
        from: u64,
        mut to: u64,
        (at, want, intent): (u64, u64, Intent),
    ) -> Result<Reservation> {
        let size = self.clusters.size();
        let end = at.saturating_add(want);
        let mut count = 1_u64;
        // The run goes on while what is reserved of a cluster touches what is reserved of the next.
        while to == size {
            let next = start.saturating_add(count.saturating_mul(size));
            if next >= end || count.saturating_mul(size) >= want.saturating_add(size) {
                break;
            }
            match self.find(next, end.saturating_sub(next), intent)? {
                Found::New { from: 0, to: more } => to = more,
                _ => break,
            }
            count = count.saturating_add(1);
        }
        let whole = |clusters: u64| clusters.saturating_sub(1).saturating_mul(size);
        if self.has_data_file {
            let (at, len) =
                (start.saturating_add(from), whole(count).saturating_add(to).saturating_sub(from));
            let end = at.saturating_add(len);
            if let Some(data_file) = self.data_file.as_ref().filter(|file| file.len() < end) {
                data_file.set_len(end)?;
            }
            return Ok(Reservation { at, len, source: DATA_FILE, offset: at, zeroed: false, token: NEW });
        }
        let run = w.alloc.allocate(count)?;
        let to = if run.count < count { size } else { to };
        let offset = self.clusters.offset(run.first).ok_or_else(|| Error::no_space("the image is full"))?;
        Ok(Reservation {
            at: start.saturating_add(from),
            len: whole(run.count).saturating_add(to).saturating_sub(from),
            source: FILE,
            offset: offset.saturating_add(from),
            zeroed: run.fresh,
            token: NEW,
        })
    }

    /// What a write of `want` bytes finds at `at`, in the cluster that holds it.
    fn find(&self, at: u64, want: u64, intent: Intent) -> Result<Found> {
        let (entry, own_table) = self.entry_of(at)?;
        let size = self.clusters.size();
        let within = self.clusters.within(at);
        let rest = size.saturating_sub(within);
        let own = own_table && entry.is_copied();
        let whole = Found::New { from: 0, to: size };
        let meaning = entry.meaning(self.clusters, self.has_data_file);
        if self.clusters.extended_l2() {
            return Ok(self.find_subclusters(entry, meaning, own, (within, want.min(rest)), intent));
        }
        Ok(match (meaning, intent) {
            (Meaning::Unallocated, _) => whole,
            (_, Intent::Fill) => Found::Already(rest),
            (Meaning::Standard { .. }, _) if own => Found::Already(rest),
            (Meaning::Zero { kept: Some(offset) }, _) if own => Found::Within { offset, from: 0, to: size },
            _ => whole,
        })
    }

    /// The same with subclusters, for `len` bytes from `within` on.
    fn find_subclusters(
        &self,
        entry: L2Entry,
        meaning: Meaning,
        own: bool,
        (within, len): (u64, u64),
        intent: Intent,
    ) -> Found {
        let (size, sub) = (self.clusters.size(), self.clusters.subcluster_size());
        let begin = |within: u64| within.saturating_sub(within & sub.saturating_sub(1));
        let round_up = |within: u64| begin(within.saturating_add(sub).saturating_sub(1)).min(size);
        let (kind, count) = match meaning {
            Meaning::Compressed { .. } => (Subcluster::Allocated, 32),
            _ => entry.subclusters(self.clusters.subcluster(within)),
        };
        let run_end = begin(within).saturating_add(sub.saturating_mul(count.into())).min(size);
        let already = Found::Already(run_end.saturating_sub(within));
        let to = round_up(within.saturating_add(len));
        match (meaning, kind) {
            (_, Subcluster::Allocated | Subcluster::Zero) if intent == Intent::Fill => already,
            (Meaning::Standard { .. }, Subcluster::Allocated) if own => already,
            (Meaning::Standard { offset }, _) if own => {
                Found::Within { offset, from: begin(within), to: to.min(run_end) }
            }
            (Meaning::Unallocated | Meaning::Zero { .. }, _) => Found::New { from: begin(within), to },
            // Shared or compressed: all of it moves.
            _ => Found::New { from: 0, to: size },
        }
    }

    pub(super) fn commit_place(&self, r: &Reservation) -> Result<()> {
        let mut w = self.writer()?;
        let done = self.commit_clusters(&mut w, r);
        self.close_one(&mut w);
        done
    }

    fn commit_clusters(&self, w: &mut Writer, r: &Reservation) -> Result<()> {
        let size = self.clusters.size();
        let end = r.at.saturating_add(r.len);
        let mut cluster = self.clusters.start(r.at);
        // Where the host clusters begin; the reservation may begin in the middle of the first.
        let mut offset = r.offset.saturating_sub(self.clusters.within(r.at));
        while cluster < end.min(self.size()) {
            let from = r.at.max(cluster).saturating_sub(cluster);
            let to = end.saturating_sub(cluster).min(size);
            let (old, _) = self.entry_of(cluster)?;
            let new = self.committed(old, offset, from, to, r.token);
            self.replace_entry(w, cluster, new)?;
            cluster = cluster.saturating_add(size);
            offset = offset.saturating_add(size);
        }
        Ok(())
    }

    /// The entry of a cluster whose bytes `from..to` have been written to the host cluster at `offset`.
    fn committed(&self, old: L2Entry, offset: u64, from: u64, to: u64, token: u64) -> L2Entry {
        let word = offset | OFLAG_COPIED;
        if !self.clusters.extended_l2() {
            return L2Entry { word, bitmap: 0 };
        }
        let sub = self.clusters.subcluster_size();
        let mut covered = 0_u64;
        for i in 0..SUBCLUSTERS {
            let begin = i.saturating_mul(sub);
            if begin >= from && begin < to {
                covered |= 1_u64.wrapping_shl(u32::try_from(i).unwrap_or(0));
            }
        }
        let allocated = if token == WITHIN { u64::from(old.allocated()) } else { 0 };
        let compressed = matches!(old.meaning(self.clusters, self.has_data_file), Meaning::Compressed { .. });
        let zeros = if compressed { 0 } else { u64::from(old.zeros()) };
        let bitmap = allocated | covered | (zeros & !covered).wrapping_shl(32);
        L2Entry { word, bitmap }
    }

    pub(super) fn abort_place(&self, r: &Reservation) {
        let Ok(mut w) = self.writer() else { return };
        if r.token == NEW && !self.has_data_file {
            let first = self.clusters.index(r.offset);
            let end = r.offset.saturating_add(r.len).saturating_sub(1);
            let count = self.clusters.index(end).saturating_sub(first).saturating_add(1);
            // What cannot be given back now is a leak, which a check finds.
            let _ = w.alloc.give_back(first, count);
        }
        self.close_one(&mut w);
    }
}
