//! Changing what the whole image hangs from, all at once.
//!
//! Snapshots and repairs change refcounts and the "copied" flags that must agree with them, all over the image.
//! No order of writes in place would leave nothing but leaks at every moment. So nothing is changed in place: new
//! L1 tables, corrected L2 tables and a whole new set of refcounts are written to clusters that nobody uses, and
//! then one sector, the header's first, names them instead of the old ones.

use super::{Mutator, Writer};
use crate::field::{be64s, read_vec, to_index, to_u64};
use crate::qcow2::alloc::Allocator;
use crate::qcow2::check::Census;
use crate::qcow2::entry::{L2Entry, Meaning};
use crate::qcow2::guard::Tables;
use crate::qcow2::layout::{OFLAG_COMPRESSED, OFLAG_COPIED, incompatible};
use crate::qcow2::refcount::Width;
use crate::qcow2::{Clusters, Header, Image, L1Entry, Snapshot, snapshot};
use chart::{Error, Result, Wait};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// What is written at once, of refcounts.
const PIECE: u64 = 1 << 20;

/// What the image is to hang from.
pub(super) struct Roots {
    /// The active L1 table's entries; their flags do not matter.
    pub(super) l1: Vec<u64>,
    /// The disk's size.
    pub(super) size: u64,
    /// The snapshots there are to be.
    pub(super) snapshots: Vec<Snapshot>,
    /// One of them is new: the active disk as it is. Its L1 table is made here.
    pub(super) fresh: Option<usize>,
    /// The disk will read otherwise than it does now.
    pub(super) other_content: bool,
}

/// Where new structures go, and what is known of their refcounts.
struct Site {
    clusters: Clusters,
    /// The next cluster that nobody uses.
    next: u64,
    /// Where the clusters that nobody uses end: at what is in use behind them. None where the file grows.
    end: Option<u64>,
    /// Clusters in use end here.
    used: u64,
    /// Refcounts that are other than the census says, or that it does not know of.
    counts: BTreeMap<u64, u64>,
}

impl Site {
    fn take(&mut self, bytes: u64) -> Result<u64> {
        let first = self.next;
        self.next = self.next.saturating_add(self.clusters.count(bytes));
        if self.end.is_some_and(|end| self.next > end) {
            return Err(Error::no_space("there is no room for the image's new tables"));
        }
        self.clusters.offset(first).ok_or_else(|| Error::no_space("the image is full"))
    }

    /// One past the last cluster that is in use, with what was given out.
    fn top(&self) -> u64 {
        self.next.max(self.used)
    }

    fn count(&self, census: &Census, cluster: u64) -> u64 {
        self.counts.get(&cluster).copied().unwrap_or_else(|| census.of(cluster))
    }
}

/// New roots on disk, which the header does not name yet.
struct Prepared {
    header: Header,
    l1: Vec<u64>,
    alloc: Allocator,
    tables: Tables,
}

impl Image {
    /// Gives the image new roots. `decide` is told what it hangs from now, durably.
    pub(super) fn replace_roots(&self, decide: impl FnOnce(Roots) -> Result<Roots>) -> Result<()> {
        drop(self.begin()?);
        self.replace_damaged_roots(decide)
    }

    /// The same, also on an image that has yet to be repaired.
    pub(super) fn replace_damaged_roots(&self, decide: impl FnOnce(Roots) -> Result<Roots>) -> Result<()> {
        let _between = self.between_flushes()?;
        let _frozen = self.freeze_any()?;
        let mut w = self.writer()?;
        // Who is writing in place now had found its place before; nobody else finds one until this is done.
        self.set_in_place(false);
        let done = self.replace_quietly(&mut w, decide);
        self.set_in_place(true);
        done
    }

    fn replace_quietly(&self, w: &mut Writer, decide: impl FnOnce(Roots) -> Result<Roots>) -> Result<()> {
        let epochs = &self.mutator()?.epochs;
        epochs.wait_over(epochs.now());
        self.flush_with(w)?;
        let old = self.header().clone();
        let roots = decide(Roots {
            l1: self.l1.entries().map(|entry| entry.0).collect(),
            size: self.size(),
            snapshots: snapshot::read(self.file.as_ref(), &old)?,
            fresh: None,
            other_content: false,
        })?;
        let (size, other_content) = (roots.size, roots.other_content);
        if other_content {
            self.take_bitmaps(w, size != old.size)?;
        }
        let len = self.file.len();
        let mut site = self.site(w, &old, &roots)?;
        let new = self.prepare(&mut site, &old, roots).inspect_err(|_| {
            // Nothing names what was written behind the end; where it cannot be cut off again, it is a leak.
            if self.file.len() > len {
                let _ = self.file.set_len(len);
            }
        })?;
        self.file.flush()?;
        // The one write that makes it all true.
        self.write_fields(&new.header)?;
        self.take_roots(w, new)?;
        if other_content { self.fit_bitmaps(w, size, true) } else { Ok(()) }
    }

    /// Where new structures can go: behind the end of the file; where that cannot be moved, on a device say, to clusters
    /// that are free.
    fn site(&self, w: &mut Writer, old: &Header, roots: &Roots) -> Result<Site> {
        let end = w.alloc.end();
        let one_more = self.clusters.offset(end.saturating_add(1)).unwrap_or(u64::MAX);
        let grows = self.file.len() >= one_more || self.file.set_len(one_more).is_ok();
        if w.alloc.is_fixed() || !grows {
            return self.site_within(w, old, roots);
        }
        Ok(Site { clusters: self.clusters, next: end, end: None, used: 0, counts: BTreeMap::new() })
    }

    /// The first free clusters in a row that are enough, whatever the new structures turn out to need; else those behind
    /// all that is in use.
    fn site_within(&self, w: &mut Writer, old: &Header, roots: &Roots) -> Result<Site> {
        let clusters = self.clusters;
        let census = self.census(old)?.0;
        // What a damaged image does not count is in use all the same, until the header names other refcounts.
        let table = clusters.index(old.refcount_table_offset);
        let mut counting: BTreeSet<u64> =
            (table..table.saturating_add(old.refcount_table_clusters.into())).collect();
        counting.extend(w.alloc.block_offsets().map(|offset| clusters.index(offset)));
        let mut used =
            w.alloc.end_of_counted()?.max(counting.last().map_or(0, |last| last.saturating_add(1)));
        let mut cluster = census.next_from(used);
        while cluster < census.clusters() {
            used = if census.of(cluster) > 0 { cluster.saturating_add(1) } else { used };
            cluster = census.next_from(cluster.saturating_add(1));
        }
        let need = self.most_needed(used, old, roots)?;
        let (mut first, mut next) = (1, 1_u64);
        while next < used && next.saturating_sub(first) < need {
            let free = census.of(next) == 0 && !counting.contains(&next) && w.alloc.count(next)? == 0;
            next = next.saturating_add(1);
            first = if free { first } else { next };
        }
        let end = if next < used { next } else { clusters.index(self.file.len()) };
        Ok(Site { clusters, next: first, end: Some(end), used, counts: BTreeMap::new() })
    }

    /// At most so many clusters do new roots need, with refcounts for `used` clusters and themselves.
    fn most_needed(&self, used: u64, old: &Header, roots: &Roots) -> Result<u64> {
        let l1 = to_u64(roots.l1.len());
        let tables = self.clusters.count(l1.saturating_mul(8)).saturating_mul(2).saturating_add(l1);
        let list = self.clusters.count(to_u64(snapshot::encode(&roots.snapshots)?.len()));
        let need = tables.saturating_add(list);
        let per_block = Width::new(old.refcount_order)?.per_block(self.clusters).max(1);
        // Blocks that count blocks, and the table of them, are few beside those.
        let counted = used.saturating_add(need);
        let blocks = counted.div_ceil(per_block).saturating_mul(2).saturating_add(2);
        Ok(need.saturating_add(blocks).saturating_add(self.clusters.count(blocks.saturating_mul(8))))
    }

    /// Writes everything that is new, and makes sure that it can be taken.
    fn prepare(&self, site: &mut Site, old: &Header, roots: Roots) -> Result<Prepared> {
        let (header, l1) = self.write_roots(site, old, roots)?;
        let alloc = Allocator::open(Arc::clone(&self.file), &header, Arc::clone(&self.mutator()?.guard))?;
        let tables = self.tables(&header, l1.iter().copied().map(L1Entry), &alloc)?;
        Ok(Prepared { header, l1, alloc, tables })
    }

    /// Writes everything that is new. Nothing names it yet.
    fn write_roots(&self, site: &mut Site, old: &Header, mut roots: Roots) -> Result<(Header, Vec<u64>)> {
        let file = self.file.as_ref();
        let l1_bytes = to_u64(roots.l1.len()).saturating_mul(8);
        let l1_offset = site.take(l1_bytes)?;
        if let Some(fresh) = roots.fresh.and_then(|i| roots.snapshots.get_mut(i)) {
            fresh.l1_table_offset = site.take(l1_bytes)?;
        }
        let table = snapshot::encode(&roots.snapshots)?;
        let table_offset = if table.is_empty() { 0 } else { site.take(to_u64(table.len()))? };
        self.reach(site)?;
        let fresh = roots.fresh.and_then(|i| roots.snapshots.get(i)).map(|s| s.l1_table_offset);
        for offset in [Some(l1_offset), fresh].into_iter().flatten() {
            file.write_at(
                offset,
                &bytes_of(roots.l1.iter().map(|entry| entry & !OFLAG_COPIED)),
                Wait::Allowed,
            )?;
        }
        file.write_at(table_offset, &table, Wait::Allowed)?;
        let count = |n: usize| u32::try_from(n).map_err(|_| Error::unsupported("too many tables"));
        let mut header = Header {
            size: roots.size,
            l1_size: count(roots.l1.len())?,
            l1_table_offset: l1_offset,
            nb_snapshots: count(roots.snapshots.len())?,
            snapshots_offset: table_offset,
            incompatible_features: old.incompatible_features & !(incompatible::DIRTY | incompatible::CORRUPT),
            ..old.clone()
        };
        let (census, report) = self.census(&header)?;
        if let Some(finding) = report.findings.first() {
            let what = format!("the image is damaged in a way that cannot be mended here: {}", finding.what);
            return Err(Error::corrupt(what).at(finding.offset));
        }
        let first_new = self.clusters.index(l1_offset);
        let behind = if site.end.is_some() { site.next } else { census.clusters().saturating_add(1) };
        if let Some(cluster) = (first_new..behind).find(|&c| census.of(c) > u64::from(c < site.next)) {
            let what = format!(
                "the tables refer to cluster {cluster}, which the file did not have; it seems to be cut off"
            );
            return Err(Error::corrupt(what).at(self.clusters.offset(cluster).unwrap_or(u64::MAX)));
        }
        let l1 = self.correct_flags(site, &census, &roots.l1, fresh.is_some())?;
        self.reach(site)?;
        file.write_at(l1_offset, &bytes_of(l1.iter().copied()), Wait::Allowed)?;
        if let Some(offset) = fresh {
            file.write_at(offset, &bytes_of(l1.iter().map(|entry| entry & !OFLAG_COPIED)), Wait::Allowed)?;
        }
        self.write_refcounts(site, &census, &mut header)?;
        Ok((header, l1))
    }

    /// Makes the file long enough for what the site has given out.
    fn reach(&self, site: &Site) -> Result<()> {
        let end = site.clusters.offset(site.next).ok_or_else(|| Error::no_space("the image is full"))?;
        if end > self.file.len() { self.file.set_len(end) } else { Ok(()) }
    }

    /// The L1 table with the flags that the counts call for; L2 tables with other flags are written anew.
    fn correct_flags(&self, site: &mut Site, census: &Census, l1: &[u64], shared: bool) -> Result<Vec<u64>> {
        let size = self.clusters.size();
        let mut corrected = Vec::with_capacity(l1.len());
        let (watch, total) = (self.onlooker.watch(), to_u64(l1.len()).saturating_mul(size));
        for &entry in l1 {
            watch.step(to_u64(corrected.len()).saturating_mul(size), total)?;
            let Some(mut table) = L1Entry(entry).table() else {
                corrected.push(0);
                continue;
            };
            let bytes = read_vec(self.file.as_ref(), table, size, "L2 table")?;
            let right = self.flagged(census, &bytes);
            if right != bytes {
                // The active disk refers to the new table, and the snapshot that is being made, if one is.
                let (cluster, moved) = (self.clusters.index(table), if shared { 2 } else { 1 });
                let left = site.count(census, cluster).saturating_sub(moved);
                site.counts.insert(cluster, left);
                table = site.take(size)?;
                site.counts.insert(self.clusters.index(table), moved);
                self.reach(site)?;
                self.file.write_at(table, &right, Wait::Allowed)?;
            }
            let own = site.count(census, self.clusters.index(table)) == 1;
            corrected.push(table | if own { OFLAG_COPIED } else { 0 });
        }
        Ok(corrected)
    }

    fn flagged(&self, census: &Census, table: &[u8]) -> Vec<u8> {
        let words = self.clusters.entry_words();
        let right = be64s(table).enumerate().map(|(i, word)| {
            // Of extended entries, the second word is a bitmap.
            if words == 2 && i & 1 != 0 {
                return word;
            }
            let meaning = L2Entry { word, bitmap: 0 }.meaning(self.clusters, self.has_data_file);
            let place = match meaning {
                Meaning::Standard { offset } | Meaning::Zero { kept: Some(offset) } => Some(offset),
                _ => None,
            };
            // A data file's clusters are nobody else's.
            let sole = |offset| self.has_data_file || census.of(self.clusters.index(offset)) == 1;
            let own = place.is_some_and(sole);
            match word & OFLAG_COMPRESSED {
                0 => word & !OFLAG_COPIED | if own { OFLAG_COPIED } else { 0 },
                _ => word,
            }
        });
        bytes_of(right)
    }

    /// Writes refcounts for everything, themselves included.
    fn write_refcounts(&self, site: &mut Site, census: &Census, header: &mut Header) -> Result<()> {
        let width = Width::new(header.refcount_order)?;
        let per_block = width.per_block(self.clusters).max(1);
        let (mut blocks, mut table) = (1_u64, 1_u64);
        loop {
            let total = site.next.saturating_add(blocks).saturating_add(table).max(site.used);
            let (need, room) = (total.div_ceil(per_block), self.clusters.count(blocks.saturating_mul(8)));
            if need <= blocks && room <= table {
                break;
            }
            (blocks, table) = (need.max(blocks), room.max(table));
        }
        let first_new = self.clusters.index(header.l1_table_offset);
        let table_offset = site.take(table.saturating_mul(self.clusters.size()))?;
        let blocks_offset = site.take(blocks.saturating_mul(self.clusters.size()))?;
        self.reach(site)?;
        let count_of = |cluster: u64| match site.counts.get(&cluster) {
            Some(&count) => count,
            None if cluster >= first_new && cluster < site.next => 1,
            None => census.of(cluster),
        };
        let per_piece = (PIECE.checked_div(self.clusters.size()).unwrap_or(1)).max(1);
        let mut first = 0_u64;
        let (watch, size) = (self.onlooker.watch(), self.clusters.size());
        while first < blocks {
            watch.step(first.saturating_mul(size), blocks.saturating_mul(size))?;
            let now = blocks.saturating_sub(first).min(per_piece);
            let mut bytes = vec![0; to_index(now.saturating_mul(self.clusters.size()))];
            for (index, block) in (first..).zip(bytes.chunks_mut(to_index(self.clusters.size()))) {
                let base = index.saturating_mul(per_block);
                let end = site.top().saturating_sub(base).min(per_block);
                for i in 0..end {
                    let count = count_of(base.saturating_add(i));
                    if count > width.max() {
                        let what =
                            format!("refcounts of {} bits cannot count so many references", width.bits());
                        return Err(Error::unsupported(format!("{what}; make an image with wider ones")));
                    }
                    width.write(block, i, count);
                }
            }
            let offset = blocks_offset.saturating_add(first.saturating_mul(self.clusters.size()));
            self.file.write_at(offset, &bytes, Wait::Allowed)?;
            first = first.saturating_add(now);
        }
        let entry = |i: u64| blocks_offset.saturating_add(i.saturating_mul(self.clusters.size()));
        let mut entries = bytes_of((0..blocks).map(entry));
        entries.resize(to_index(table.saturating_mul(self.clusters.size())), 0);
        self.file.write_at(table_offset, &entries, Wait::Allowed)?;
        header.refcount_table_offset = table_offset;
        header.refcount_table_clusters =
            u32::try_from(table).map_err(|_| Error::unsupported("too many refcounts"))?;
        Ok(())
    }

    /// Looks at the new roots from now on; what only the old ones held may be used again once nobody looks there.
    fn take_roots(&self, w: &mut Writer, new: Prepared) -> Result<()> {
        let Prepared { header, l1, alloc, tables } = new;
        self.l1.resize(to_u64(l1.len()))?;
        for (index, &entry) in (0..).zip(&l1) {
            self.l1.set(index, L1Entry(entry));
        }
        self.size.store(header.size, Ordering::Release);
        let l1_clusters = self.clusters.count(self.l1.bytes());
        let [reserved_l1, reserved_refcounts] = &self.reserved;
        reserved_l1.set(self.clusters.index(header.l1_table_offset), l1_clusters);
        let table = self.clusters.index(header.refcount_table_offset);
        reserved_refcounts.set(table, header.refcount_table_clusters.into());
        *self.header.write().unwrap_or_else(PoisonError::into_inner) = header;
        let Mutator { guard, epochs, .. } = self.mutator()?;
        epochs.wait_over(epochs.now());
        self.slices.clear();
        w.alloc = alloc;
        w.unmapped.clear();
        w.retired.clear();
        w.damaged = false;
        guard.set(tables, self.l1.len());
        Ok(())
    }
}

fn bytes_of(words: impl Iterator<Item = u64>) -> Vec<u8> {
    words.flat_map(u64::to_be_bytes).collect()
}
