//! Where the bytes of the disk live, from its L1 and L2 tables.

use super::entry::{L2Entry, Meaning, Subcluster};
use super::{DATA_FILE, FILE, Image};
use crate::field::to_index;
use chart::{Answer, CodecId, Error, Extent, Frame, Layer, Result, SourceId, Wait};
use std::sync::atomic::{AtomicU64, Ordering};

/// One answer joins at most so many L2 entries, or slices of them: a bound on the time that a lookup takes.
const MAX_JOINED: usize = 512;
/// So many words of an L2 table are taken out of the cache at once.
const WINDOW: usize = 32;

/// A run of clusters that holds tables, in one word so that it is never seen half changed: 47 bits of first
/// cluster, 17 bits of count.
pub(super) struct Reserved(AtomicU64);

impl Reserved {
    /// `count` clusters from cluster `first` on.
    pub(super) fn new(first: u64, count: u64) -> Self {
        let reserved = Reserved(AtomicU64::new(0));
        reserved.set(first, count);
        reserved
    }

    /// The tables have moved.
    pub(super) fn set(&self, first: u64, count: u64) {
        self.0.store(first.wrapping_shl(17) | count & 0x1_ffff, Ordering::Release);
    }

    #[inline]
    pub(super) fn holds(&self, cluster: u64) -> bool {
        let run = self.0.load(Ordering::Acquire);
        cluster.wrapping_sub(run.wrapping_shr(17)) < run & 0x1_ffff
    }

    /// Whether any of `count` clusters from `first` on is one of them.
    pub(super) fn meets(&self, first: u64, count: u64) -> bool {
        let run = self.0.load(Ordering::Acquire);
        let (begin, clusters) = (run.wrapping_shr(17), run & 0x1_ffff);
        first < begin.saturating_add(clusters) && begin < first.saturating_add(count)
    }
}

/// Some words of an L2 table, copied out of the cache.
struct Window<const N: usize> {
    /// The offset of the first word in the file; 0 for none.
    offset: u64,
    len: usize,
    words: [u64; N],
}

impl<const N: usize> Window<N> {
    fn new() -> Self {
        Window { offset: 0, len: 0, words: [0; N] }
    }

    #[inline]
    fn word(&self, offset: u64) -> Option<u64> {
        let index = to_index(offset.checked_sub(self.offset)? / 8);
        self.words.get(..self.len)?.get(index).copied()
    }
}

impl Layer for Image {
    fn len(&self) -> u64 {
        self.size()
    }

    fn look(&self, at: u64, want: u64, wait: Wait) -> Result<Answer> {
        if want <= self.clusters.size().wrapping_sub(self.clusters.within(at)) {
            return self.piece(at, want, wait, &mut Window::<2>::new());
        }
        self.look_far(at, want, wait)
    }
}

impl Image {
    /// The answer for more than one cluster, where that is one.
    fn look_far(&self, at: u64, want: u64, wait: Wait) -> Result<Answer> {
        let mut window = Window::<WINDOW>::new();
        let mut answer = self.piece(at, want, wait, &mut window)?;
        for _ in 1..MAX_JOINED {
            let rest = want.saturating_sub(answer.len());
            if rest == 0 || matches!(answer, Answer::Here(Extent { place: chart::Place::Frame { .. }, .. })) {
                break;
            }
            let next = at.saturating_add(answer.len());
            let next = self.stretch(next, rest).map_or_else(|| self.piece(next, rest, wait, &mut window), Ok);
            // What goes wrong further on is for the lookup that begins there to say.
            let Ok(next) = next else { break };
            if !join(&mut answer, &next) {
                break;
            }
        }
        Ok(answer)
    }
}

/// Adds `next` to `answer` if the two are one.
fn join(answer: &mut Answer, next: &Answer) -> bool {
    match (answer, next) {
        (Answer::Below { len }, Answer::Below { len: more }) => *len = len.saturating_add(*more),
        (Answer::Here(extent), Answer::Here(next)) if extent.joins(next) => {
            extent.len = extent.len.saturating_add(next.len);
        }
        _ => return false,
    }
    true
}

/// The part of one cluster that a lookup is about.
struct Part {
    at: u64,
    /// How far into its cluster.
    within: u64,
    len: u64,
    /// Whether nothing else refers to the L2 table.
    own_table: bool,
}

impl Image {
    /// The answer for the part of one cluster, or of one hole in the L1 table.
    #[inline]
    fn piece<const N: usize>(
        &self,
        at: u64,
        want: u64,
        wait: Wait,
        window: &mut Window<N>,
    ) -> Result<Answer> {
        let clusters = self.clusters;
        let l1 = self.l1.entry(clusters.l1_index(at));
        let Some(table) = l1.table() else {
            let span = clusters.l2_span();
            let rest = span.wrapping_sub(at & span.wrapping_sub(1));
            return Ok(self.unallocated(at, want.min(rest)));
        };
        if clusters.within(table) != 0 {
            return Err(self.corrupt("an L2 table does not begin where a cluster does", table));
        }
        let within = clusters.within(at);
        let len = want.min(clusters.size().wrapping_sub(within));
        let part = Part { at, within, len, own_table: l1.is_copied() };
        let entry = self.entry((table, clusters.l2_index(at)), want, wait, window)?;
        self.answer(&part, entry)
    }

    /// The L2 entry of that number. Others behind it that `want` bytes will need are taken along.
    #[inline]
    fn entry<const N: usize>(
        &self,
        (table, index): (u64, u64),
        want: u64,
        wait: Wait,
        window: &mut Window<N>,
    ) -> Result<L2Entry> {
        let words = self.clusters.entry_words();
        // An index in a table times its entries' size is less than a cluster.
        let offset = table.wrapping_add(index.wrapping_mul(words).wrapping_mul(8));
        if window.word(offset).is_none() {
            let (slice, word) = self.slices.slice_of(offset);
            let in_slice = (self.slices.slice_bytes() / 8).wrapping_sub(word);
            let useful = self.clusters.count(want).saturating_add(1).saturating_mul(words);
            let useful = if want <= self.clusters.size() { words } else { useful };
            let count = to_index(in_slice.min(useful)).min(N);
            let out = window.words.get_mut(..count).unwrap_or_default();
            (window.offset, window.len) = (0, 0);
            self.slices.read(self.file.as_ref(), slice, word, out, wait)?;
            (window.offset, window.len) = (offset, count);
        }
        let word = window.word(offset).unwrap_or(0);
        let bitmap = if words == 2 { window.word(offset.wrapping_add(8)).unwrap_or(0) } else { 0 };
        Ok(L2Entry { word, bitmap })
    }

    pub(super) fn unallocated(&self, at: u64, len: u64) -> Answer {
        if self.has_backing { Answer::Below { len } } else { Answer::Here(Extent::hole(at, len)) }
    }

    /// What an entry says of a part of its cluster.
    #[inline]
    fn answer(&self, part: &Part, entry: L2Entry) -> Result<Answer> {
        match entry.meaning(self.clusters, self.has_data_file) {
            Meaning::Standard { offset } if !self.clusters.extended_l2() => {
                self.standard(part, entry, offset)
            }
            Meaning::Compressed { offset, stored_len } => self.compressed(part, entry, offset, stored_len),
            Meaning::Zero { .. } if self.version < 3 => {
                Err(self.corrupt("a zero cluster in an image of version 2, which has none", part.at))
            }
            Meaning::Zero { .. } => Ok(Answer::Here(Extent::zero(part.at, part.len))),
            Meaning::Standard { offset } => self.subclusters(part, entry, Some(offset)),
            Meaning::Unallocated if entry.bitmap != 0 => self.subclusters(part, entry, None),
            Meaning::Unallocated => Ok(self.unallocated(part.at, part.len)),
        }
    }

    /// The run of equal subclusters that a part begins in.
    fn subclusters(&self, part: &Part, entry: L2Entry, offset: Option<u64>) -> Result<Answer> {
        if entry.allocated() & entry.zeros() != 0 {
            return Err(self.corrupt("a subcluster is both allocated and zero", part.at));
        }
        let (kind, count) = entry.subclusters(self.clusters.subcluster(part.within));
        let size = self.clusters.subcluster_size();
        let into = part.within & size.wrapping_sub(1);
        let len = part.len.min(u64::from(count).saturating_mul(size).saturating_sub(into));
        match (kind, offset) {
            (Subcluster::Zero, _) => Ok(Answer::Here(Extent::zero(part.at, len))),
            (Subcluster::Unallocated, _) => Ok(self.unallocated(part.at, len)),
            (Subcluster::Allocated, Some(offset)) => self.standard(&Part { len, ..*part }, entry, offset),
            (Subcluster::Allocated, None) => {
                Err(self.corrupt("subclusters are allocated in a cluster that is not", part.at))
            }
        }
    }

    #[inline]
    fn standard(&self, part: &Part, entry: L2Entry, offset: u64) -> Result<Answer> {
        let cluster = self.clusters.index(offset);
        let (source, end) = if self.has_data_file {
            if offset != part.at.wrapping_sub(part.within) {
                return Err(self.corrupt("a cluster is not where it must be in the data file", part.at));
            }
            (DATA_FILE, 1)
        } else {
            if cluster == 0 || self.reserved.iter().any(|tables| tables.holds(cluster)) {
                return Err(self.corrupt("a data cluster lies in a table of the image", offset));
            }
            (FILE, 0)
        };
        if self.clusters.within(offset) != 0 {
            return Err(self.corrupt("a data cluster does not begin where a cluster does", offset));
        }
        let begin = offset.wrapping_add(part.within);
        let known = self.ends.get(end).map_or(0, |end| end.load(Ordering::Relaxed));
        let len = if begin.wrapping_add(part.len) <= known {
            part.len
        } else {
            match self.before_end(part, offset, source)? {
                0 => return Ok(Answer::Here(Extent::zero(part.at, part.len))),
                len => len,
            }
        };
        let writable = entry.is_copied() && part.own_table && self.in_place.load(Ordering::Acquire);
        if writable && source == FILE && self.guards(cluster) {
            return Err(self.corrupt("a data cluster lies in a table of the image", offset));
        }
        let extent = Extent { writable, ..Extent::raw(part.at, len, source, begin) };
        Ok(Answer::Here(match &self.mutator {
            // Where a bitmap does not know of a write yet, it must be told first (law 4).
            Some(mutator) if writable => mutator.marks.cut(extent),
            _ => extent,
        }))
    }

    /// How much of a part of the cluster at `offset` lies before the end of its file. Only the file's last
    /// cluster may be cut off; what is missing of it reads as zeros.
    #[cold]
    fn before_end(&self, part: &Part, offset: u64, source: SourceId) -> Result<u64> {
        let len = match (source, &self.data_file) {
            (FILE, _) => self.file.len(),
            (_, Some(data_file)) => data_file.len(),
            (_, None) => return Ok(part.len),
        };
        if let Some(end) = self.ends.get(usize::from(source.0)) {
            end.store(len, Ordering::Relaxed);
        }
        if offset >= self.clusters.round_up(len) {
            let what = format!("a data cluster lies past the end of its file, which has {len} bytes");
            return Err(Error::corrupt(what).at(offset).in_path(self.file.name()));
        }
        Ok(len.saturating_sub(offset.saturating_add(part.within)).min(part.len))
    }

    /// Whether a cluster holds a table, as far as is known: from the first write on.
    #[inline]
    pub(super) fn guards(&self, cluster: u64) -> bool {
        self.mutator.as_ref().is_some_and(|mutator| mutator.guard.holds(cluster))
    }

    fn compressed(&self, part: &Part, entry: L2Entry, offset: u64, stored_len: u64) -> Result<Answer> {
        if self.has_data_file {
            return Err(self.corrupt("a compressed cluster in an image with a data file", part.at));
        }
        if entry.is_copied() {
            return Err(self.corrupt("a compressed cluster is marked as writable", part.at));
        }
        if offset < self.clusters.size() || offset >= self.file.len() {
            return Err(self.corrupt("a compressed cluster lies outside the file's data", offset));
        }
        let frame = Frame {
            offset,
            stored_len: u32::try_from(stored_len).unwrap_or(u32::MAX),
            decoded_len: u32::try_from(self.clusters.size()).unwrap_or(u32::MAX),
            skip: u32::try_from(part.within).unwrap_or(u32::MAX),
            source: FILE,
            codec: CodecId(self.compression.number()),
        };
        Ok(Answer::Here(Extent::frame(part.at, part.len, frame)))
    }

    #[cold]
    pub(super) fn corrupt(&self, what: &'static str, offset: u64) -> Error {
        Error::corrupt(what).at(offset).in_path(self.file.name())
    }
}
