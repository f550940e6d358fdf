//! The way in: a history of a disk, its branches and versions.

mod audit;
mod history;
mod id;
mod state;

pub(crate) use history::History;
pub use id::VersionId;
pub(crate) use state::State;

use crate::frozen::Frozen;
use crate::head::{Core, Head};
use crate::map::{Part, Root, View, differences, height_for};
use crate::nodes::Nodes;
use crate::word::Word;
use chart::{Disk, Error, Geometry, Pin, Result, ResultExt, Source};
use state::Life;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Interval blocks are never smaller: the smallest unit a guest addresses.
const INTERVAL_MIN: u64 = 512;
/// Nor larger: a write into a block that a version shares copies it as a whole.
const INTERVAL_MAX: u64 = 2 << 20;

/// How a history is kept.
#[derive(Clone)]
pub struct Options {
    /// Bytes of an interval block: a power of two, from 512 bytes to 2 MiB. Larger ones make a smaller map; but the
    /// first write to a block after a snapshot copies what of it is not written.
    pub interval: u64,
    /// How many bytes of maps are in memory at most, of all versions together: more than 16 KiB.
    pub cache_bytes: usize,
    /// Where maps are stored that are not in memory. Nothing else may change it. Memory, if nothing is said.
    pub maps: Option<Arc<dyn Source>>,
}

impl Default for Options {
    fn default() -> Self {
        Options { interval: 64 << 10, cache_bytes: 32 << 20, maps: None }
    }
}

/// A past state of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// What it is called by, for good: no other version of any history has it.
    pub id: VersionId,
    /// Its number in time order: numbers only grow, and none comes twice.
    pub number: u32,
    /// As it was named; need not be unique.
    pub name: String,
    /// The version it came from, if that is still there.
    pub parent: Option<VersionId>,
    /// The next in time order.
    pub next: Option<VersionId>,
    /// When it was made.
    pub created: SystemTime,
    /// How many bytes the disk has.
    pub len: u64,
}

/// What a history takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of data that versions and heads hold, what is about to be used again included.
    pub data: u64,
    /// How many nodes all maps consist of.
    pub nodes: u64,
    /// How many of them are stored.
    pub stored_nodes: u64,
    /// In how many bytes.
    pub stored_bytes: u64,
    /// How many bytes of nodes are in memory at most.
    pub cache_bytes: u64,
    /// How often a node had to be read from where it is stored.
    pub loads: u64,
}

/// The history of a disk: its versions, and the branches that are being written.
///
/// Cheap to clone: all clones are one history, which lives as long as one of them or one of its disks.
#[derive(Clone)]
pub struct Versions {
    shared: Arc<Shared>,
    /// The head of the main branch.
    main: Arc<Disk>,
}

struct Shared {
    history: Arc<History>,
    /// What all ids of this history have in common.
    nonce: u32,
    interval: u64,
    /// By branch.
    disks: Mutex<BTreeMap<u32, Arc<Disk>>>,
}

impl Shared {
    fn disks(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Disk>>> {
        self.disks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn builder(&self, name: &str, top: Arc<dyn chart::Layer>) -> chart::DiskBuilder {
        let grain = self.interval;
        let preferred = u32::try_from(grain).unwrap_or(u32::MAX);
        let geometry = Geometry { grain, preferred, ..Geometry::default() };
        let disk = Disk::builder(name, top).image().source(Arc::clone(self.history.data()));
        let disk = self.history.base().into_iter().fold(disk, |disk, base| disk.below(Arc::clone(base)));
        disk.geometry(geometry)
    }

    fn head_disk(&self, name: &str, branch: u32, core: &Arc<Core>) -> Result<Arc<Disk>> {
        let head = Arc::new(Head::new(Arc::clone(&self.history), Arc::clone(core), branch));
        let disk = self.builder(name, Arc::clone(&head) as _).mutator(head).build()?;
        self.disks().insert(branch, Arc::clone(&disk));
        Ok(disk)
    }
}

/// The branch that there is from the beginning.
const MAIN: u32 = 0;

impl Versions {
    /// A history that begins with a disk of `len` bytes of nothing. Data is kept in `data`, which grows as needed and
    /// which nothing else may change.
    pub fn new(len: u64, data: Arc<dyn Source>, options: Options) -> Result<Self> {
        Self::begin(len, data, None, options)
    }

    /// A history of any disk: it begins with what that holds, which is read through, never copied. Nothing may change
    /// it while there is this history of it.
    pub fn over(base: Arc<Disk>, data: Arc<dyn Source>, options: Options) -> Result<Self> {
        Self::begin(base.len(), data, Some(base), options)
    }

    fn begin(
        len: u64,
        data: Arc<dyn Source>,
        base: Option<Arc<dyn Source>>,
        options: Options,
    ) -> Result<Self> {
        let Options { interval, cache_bytes, maps } = options;
        if !interval.is_power_of_two() || !(INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
            let what =
                format!("interval blocks of {interval} bytes: a power of two from 512 to 2 MiB is needed");
            return Err(Error::invalid(what));
        }
        let maps = maps.unwrap_or_else(|| Arc::new(io::memory::Memory::new("maps of versions", 0)));
        let nodes = Nodes::new(maps, cache_bytes);
        let history = Arc::new(History::new(interval, data, base, nodes));
        let root = Root { top: Word::BELOW, height: height_for(len.div_ceil(interval))? };
        let (branch, core) = history.branch(&mut history.lock(), "main", 0, (root, len))?;
        let (nonce, disks) = (id::nonce(), Mutex::default());
        let shared = Arc::new(Shared { history, nonce, interval, disks });
        let main = shared.head_disk("head", branch, &core)?;
        Ok(Versions { shared, main })
    }

    fn history(&self) -> &Arc<History> {
        &self.shared.history
    }

    fn id(&self, number: u32) -> VersionId {
        VersionId::new(self.shared.nonce, number)
    }

    fn number(&self, id: VersionId) -> Result<u32> {
        id.number_in(self.shared.nonce).ok_or_else(|| unknown(id))
    }

    /// The disk that is being written: the head of the main branch.
    pub fn head(&self) -> Arc<Disk> {
        Arc::clone(&self.main)
    }

    /// The main branch, which there is from the beginning.
    pub fn main(&self) -> Branch {
        Branch { versions: self.clone(), number: MAIN, disk: Arc::clone(&self.main) }
    }

    /// All branches, the main one first.
    pub fn branches(&self) -> Vec<Branch> {
        let branch = |(&number, disk): (&u32, &Arc<Disk>)| Branch {
            versions: self.clone(),
            number,
            disk: Arc::clone(disk),
        };
        self.shared.disks().iter().map(branch).collect()
    }

    /// Makes what the main branch holds now a version.
    pub fn snapshot(&self, name: &str) -> Result<VersionId> {
        self.main().snapshot(name)
    }

    /// Makes the main branch what it was in a version. What it is now becomes a version of its own, whose id is
    /// returned: nothing is lost.
    pub fn roll_back(&self, id: VersionId) -> Result<VersionId> {
        self.main().roll_back(id)
    }

    /// A new disk that begins with what a version holds, and is written apart from all others.
    pub fn branch(&self, id: VersionId, name: &str) -> Result<Branch> {
        let number = self.number(id)?;
        let mut state = self.history().version(number).during(|| naming(id))?;
        let period = state.period(number)?;
        let from = (period.root, period.len);
        let (branch, core) = self.history().branch(&mut state, name, number, from)?;
        drop(state);
        let disk = self.shared.head_disk(name, branch, &core)?;
        Ok(Branch { versions: self.clone(), number: branch, disk })
    }

    /// A version, to be read. Once it is deleted its disk says so.
    pub fn open(&self, id: VersionId) -> Result<Arc<Disk>> {
        self.opened(id).map(|(_, disk, _)| disk)
    }

    fn opened(&self, id: VersionId) -> Result<(Arc<Frozen>, Arc<Disk>, Root)> {
        let number = self.number(id)?;
        let mut state = self.history().version(number).during(|| naming(id))?;
        let period = state.period(number)?;
        let (root, len, name) = (period.root, period.len, format!("version {number} ({})", period.name));
        if let Some((frozen, disk)) = state.opened.get(&number)
            && let (Some(frozen), Some(disk)) = (frozen.upgrade(), disk.upgrade())
        {
            return Ok((frozen, disk, root));
        }
        let view = View { top: root.top.value(), height: root.height, len, floor: u32::MAX };
        let frozen = Arc::new(Frozen::new(Arc::clone(self.history()), number, view));
        let disk = self.shared.builder(&name, Arc::clone(&frozen) as _);
        let disk = disk.epochs(Arc::clone(frozen.epochs())).build()?;
        state.watched.push(Arc::downgrade(frozen.epochs()));
        state.opened.retain(|_, (frozen, _)| frozen.strong_count() > 0);
        state.opened.insert(number, (Arc::downgrade(&frozen), Arc::downgrade(&disk)));
        Ok((frozen, disk, root))
    }

    /// Deletes a version, and gives back the space of what only it has, when nobody is at it any more. Those that came
    /// from it stay as they are. The work is that of what differs.
    pub fn delete(&self, id: VersionId) -> Result<()> {
        let number = self.number(id)?;
        self.history().delete(number).during(|| naming(id))
    }

    /// All versions, in time order.
    pub fn list(&self) -> Vec<Version> {
        let state = self.history().lock();
        let mut list: Vec<Version> = Vec::new();
        for (&number, period) in state.periods.iter().filter(|(_, p)| p.life == Life::Frozen) {
            let id = self.id(number);
            if let Some(before) = list.last_mut() {
                before.next = Some(id);
            }
            let parent = state.ancestor(number).map(|number| self.id(number));
            let (name, created, len) = (period.name.clone(), period.created, period.len);
            list.push(Version { id, number, name, parent, next: None, created, len });
        }
        list
    }

    /// One version.
    pub fn version(&self, id: VersionId) -> Result<Version> {
        drop(self.history().version(self.number(id)?).during(|| naming(id))?);
        self.list().into_iter().find(|version| version.id == id).ok_or_else(|| unknown(id))
    }

    /// The current-version counter: the number that the next version will have, at least.
    pub fn current(&self) -> u32 {
        self.history().lock().counter
    }

    /// Tells where two versions are not in the same place, in whole interval blocks, in order. What differs in bytes
    /// is among it. No data is read; the work is that of what differs.
    pub fn diff(
        &self,
        a: VersionId,
        b: VersionId,
        mut told: impl FnMut(Range<u64>) -> Result<()>,
    ) -> Result<()> {
        let (a, _disk_a, root_a) = self.opened(a)?;
        let (b, _disk_b, root_b) = self.opened(b)?;
        // Should one be deleted meanwhile, its nodes stay as long as this pin.
        let _pin = Pin::on(&[Arc::clone(a.epochs()), Arc::clone(b.epochs())]);
        a.check()?;
        b.check()?;
        let (x, y) = (chart::Layer::len(a.as_ref()), chart::Layer::len(b.as_ref()));
        let (shorter, longer) = (x.min(y), x.max(y));
        let mut run: Range<u64> = 0..0;
        let mut join = |next: Range<u64>| {
            if next.is_empty() {
                return Ok(());
            }
            if next.start <= run.end && !run.is_empty() {
                run.end = run.end.max(next.end);
                return Ok(());
            }
            let done = std::mem::replace(&mut run, next);
            if done.is_empty() { Ok(()) } else { told(done) }
        };
        let shift = self.history().shift();
        let parts = (Part::from(root_a), Part::from(root_b));
        differences(self.history().nodes(), parts, 0, &mut |first, many| {
            let end = first.saturating_add(many).saturating_mul(1 << shift);
            join((first << shift).min(shorter)..end.min(shorter))
        })?;
        join(shorter..longer)?;
        if run.is_empty() { Ok(()) } else { told(run) }
    }

    /// How many nodes are looked into to find where a byte of a version lives: what a lookup costs, whatever else
    /// there is.
    pub fn steps(&self, id: VersionId, at: u64) -> Result<usize> {
        let (frozen, _disk, _) = self.opened(id)?;
        let _pin = Pin::on(&[Arc::clone(frozen.epochs())]);
        frozen.steps(at)
    }

    /// What it takes.
    pub fn usage(&self) -> Usage {
        let mut state = self.history().lock();
        self.history().reap(&mut state);
        let nodes = self.history().nodes();
        let (stored_nodes, stored_bytes) = nodes.store().stored();
        Usage {
            data: state.space.used() << self.history().shift(),
            nodes: nodes.store().nodes(),
            stored_nodes,
            stored_bytes,
            cache_bytes: nodes.cache_bytes(),
            loads: nodes.loads(),
        }
    }

    /// Frees what is kept of deleted versions only because those that came from them had it in common, and have all
    /// replaced it since. Deleting a version does this for what it came from; this does it for all.
    pub fn reclaim(&self) {
        self.history().reclaim();
    }

    /// Stores all of the maps that is not stored, and takes them out of memory.
    pub fn evict(&self) -> Result<()> {
        let _state = self.history().lock();
        self.history().nodes().evict()
    }
}

#[cold]
fn unknown(id: VersionId) -> Error {
    Error::not_found(format!("this disk has no version {id}"))
}

fn naming(id: VersionId) -> String {
    format!("version {id}")
}

/// A disk of a history that is being written.
#[derive(Clone)]
pub struct Branch {
    versions: Versions,
    number: u32,
    disk: Arc<Disk>,
}

impl Branch {
    /// The disk.
    pub fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// As it was named.
    pub fn name(&self) -> Result<String> {
        Ok(self.versions.history().lock().desk(self.number)?.name.clone())
    }

    /// The version it came from last: the newest that was made of it, or that it was made of.
    pub fn parent(&self) -> Result<Option<VersionId>> {
        let mut state = self.versions.history().lock();
        let number = state.desk(self.number)?.number;
        Ok(state.ancestor(number).map(|number| self.versions.id(number)))
    }

    /// Makes what it holds now a version. Nobody may hold a pin on the disk who is to be waited for by this.
    pub fn snapshot(&self, name: &str) -> Result<VersionId> {
        self.versions.history().freeze(self.number, name).map(|number| self.versions.id(number))
    }

    /// Makes it what it was in a version, of whatever branch. What it is now becomes a version of its own, whose id is
    /// returned.
    pub fn roll_back(&self, id: VersionId) -> Result<VersionId> {
        let number = self.versions.number(id)?;
        let kept = self.versions.history().roll_back(self.number, number).during(|| naming(id))?;
        Ok(self.versions.id(kept))
    }

    /// Deletes the branch with all that only its head has. Versions that were made of it stay. The main branch stays,
    /// too.
    pub fn delete(self) -> Result<()> {
        if self.number == MAIN {
            return Err(Error::invalid("the main branch cannot be deleted"));
        }
        self.versions.history().delete_branch(self.number)?;
        self.versions.shared.disks().remove(&self.number);
        Ok(())
    }
}
