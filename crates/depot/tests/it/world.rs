//! A history and a model of it, and what may happen to both.

use chart::{Disk, Kind, Place, Result, SetMode, Source, To, Wait};
use depot::{Branch, Options, VersionId, Versions};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use testkit::Rng;
use testkit::source::Memory;

/// How a history is tried.
#[derive(Clone)]
pub(crate) struct Trial {
    pub(crate) seed: u64,
    pub(crate) interval: u64,
    pub(crate) cache_bytes: usize,
    pub(crate) len: u64,
    /// What lies below, as long as this.
    pub(crate) below: Option<u64>,
    /// Versions are deleted so that there are never many more.
    pub(crate) most_versions: usize,
    pub(crate) data: Arc<dyn Source>,
    pub(crate) maps: Arc<dyn Source>,
}

impl Trial {
    pub(crate) fn new(seed: u64, interval: u64, cache_bytes: usize) -> Trial {
        let memory = || Arc::new(Memory::new(0));
        let (data, maps) = (memory(), memory());
        Trial { seed, interval, cache_bytes, len: 150_000, below: None, most_versions: 40, data, maps }
    }
}

pub(crate) struct Head {
    pub(crate) branch: Branch,
    pub(crate) model: Vec<u8>,
}

pub(crate) struct World {
    pub(crate) trial: Trial,
    pub(crate) rng: Rng,
    pub(crate) versions: Versions,
    pub(crate) heads: Vec<Head>,
    pub(crate) frozen: BTreeMap<VersionId, Arc<Vec<u8>>>,
    pub(crate) deleted: Vec<VersionId>,
    /// Where something may fail, so that what is written may be there or not: ends that.
    pub(crate) mend: Option<Box<dyn Fn()>>,
}

/// What a block is, in a chart of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Below,
    Zero,
    Data(u64),
}

impl World {
    pub(crate) fn new(trial: Trial) -> World {
        let mut rng = Rng::new(trial.seed);
        let below = trial.below.map(|len| {
            let mut bytes = vec![0; len as usize];
            rng.fill(&mut bytes);
            bytes
        });
        let source = below.clone().map(|bytes| Arc::new(Memory::of(bytes)) as Arc<dyn Source>);
        let Trial { interval, cache_bytes, .. } = trial;
        let options = Options { interval, cache_bytes, maps: Some(Arc::clone(&trial.maps)) };
        let data = Arc::clone(&trial.data);
        let versions = crate::laws::history(trial.len, data, source.as_ref(), options).unwrap();
        let mut model = below.unwrap_or_default();
        model.resize(trial.len.min(model.len() as u64) as usize, 0);
        model.resize(trial.len as usize, 0);
        let heads = vec![Head { branch: versions.main(), model }];
        let (frozen, deleted) = (BTreeMap::new(), Vec::new());
        World { trial, rng, versions, heads, frozen, deleted, mend: None }
    }

    fn head(&mut self) -> usize {
        self.rng.below(self.heads.len() as u64) as usize
    }

    pub(crate) fn any_version(&mut self) -> Option<VersionId> {
        let nth = self.rng.below(self.frozen.len() as u64) as usize;
        self.frozen.keys().nth(nth).copied()
    }

    pub(crate) fn step(&mut self) -> Result<()> {
        match self.rng.below(26) {
            0..=9 => self.write(),
            10..=11 => self.set(),
            12 => self.resize(),
            13..=17 => self.snapshot(),
            18 => self.branch(),
            19 => self.roll_back(),
            20..=21 => self.delete(),
            22 => self.delete_branch(),
            23 => self.diff(),
            24 if self.rng.once_in(3) => self.versions.evict(),
            _ => self.look(),
        }
    }

    /// What was to become of a range of a head; where it failed, each byte is old or new.
    fn changed(&mut self, head: usize, at: u64, new: &[u8], done: Result<()>) -> Result<()> {
        let Head { branch, model } = &mut self.heads[head];
        let old = &mut model[at as usize..][..new.len()];
        if done.is_ok() {
            old.copy_from_slice(new);
            return Ok(());
        }
        let Some(mend) = &self.mend else { panic!("{done:?}") };
        mend();
        let mut got = vec![0; new.len()];
        branch.disk().read_at(at, &mut got, Wait::Allowed).unwrap();
        let fits = got.iter().zip(&*old).zip(new).all(|((g, o), n)| g == o || g == n);
        assert!(fits, "after a failure, bytes at {at} are neither old nor new");
        old.copy_from_slice(&got);
        done
    }

    fn write(&mut self) -> Result<()> {
        let head = self.head();
        let most = [700, 5000, 60_000][self.rng.below(3) as usize];
        let (at, len) = self.rng.range(self.heads[head].model.len() as u64, most);
        let mut data = vec![0; len as usize];
        self.rng.fill(&mut data);
        let done = self.heads[head].branch.disk().write_at(at, &data, Wait::Allowed);
        self.changed(head, at, &data, done)
    }

    fn set(&mut self) -> Result<()> {
        let head = self.head();
        let interval = self.trial.interval;
        let len = self.heads[head].model.len() as u64;
        let (at, want) = self.rng.range(len, 90_000);
        // Whole blocks: else a discard may leave what is no whole block.
        let (from, end) = (at / interval * interval, (at + want).next_multiple_of(interval).min(len));
        let to = if self.rng.once_in(2) { To::Zero } else { To::Hole };
        let mode = SetMode { may_unmap: self.rng.once_in(2), fast_only: self.rng.once_in(2) };
        let done = self.heads[head].branch.disk().set(from, end - from, to, mode);
        self.changed(head, from, &vec![0; (end - from) as usize], done)
    }

    fn resize(&mut self) -> Result<()> {
        let head = self.head();
        let unit = [1, 512, 4096][self.rng.below(3) as usize];
        let len = (20_000 + self.rng.below(self.trial.len * 2)) / unit * unit;
        let Head { branch, model } = &mut self.heads[head];
        let old = model.len() as u64;
        let done = branch.disk().resize(len);
        if done.is_ok() {
            model.resize(len as usize, 0);
            return Ok(());
        }
        assert_eq!(branch.disk().len(), old);
        // What was to be cut off may be zeros.
        let from = len.min(old);
        self.changed(head, from, &vec![0; (old - from) as usize], done)
    }

    fn snapshot(&mut self) -> Result<()> {
        let head = self.head();
        let Head { branch, model } = &self.heads[head];
        let id = branch.snapshot(&format!("after {} bytes", model.len()))?;
        assert!(self.frozen.insert(id, Arc::new(model.clone())).is_none());
        assert_eq!(branch.parent().unwrap(), Some(id));
        if self.frozen.len() > self.trial.most_versions { self.delete() } else { Ok(()) }
    }

    fn branch(&mut self) -> Result<()> {
        let Some(id) = self.any_version().filter(|_| self.heads.len() < 5) else { return Ok(()) };
        let branch = self.versions.branch(id, "branch")?;
        let model = self.frozen[&id].as_ref().clone();
        self.heads.push(Head { branch, model });
        Ok(())
    }

    fn roll_back(&mut self) -> Result<()> {
        let Some(id) = self.any_version() else { return Ok(()) };
        let head = self.head();
        let Head { branch, model } = &mut self.heads[head];
        let kept = branch.roll_back(id)?;
        let before = std::mem::replace(model, self.frozen[&id].as_ref().clone());
        assert!(self.frozen.insert(kept, Arc::new(before)).is_none());
        assert_eq!(branch.disk().len(), model.len() as u64);
        Ok(())
    }

    fn delete(&mut self) -> Result<()> {
        let Some(id) = self.any_version() else { return Ok(()) };
        let disk = self.versions.open(id)?;
        self.versions.delete(id)?;
        self.frozen.remove(&id);
        let gone = disk.read_at(0, &mut [0; 9], Wait::Allowed).unwrap_err();
        assert_eq!(gone.kind(), Kind::NotFound, "{gone}");
        self.deleted.push(id);
        Ok(())
    }

    fn delete_branch(&mut self) -> Result<()> {
        let head = self.head();
        if head == 0 {
            return Ok(());
        }
        self.heads[head].branch.clone().delete()?;
        let disk = Arc::clone(self.heads.swap_remove(head).branch.disk());
        assert_eq!(disk.read_at(0, &mut [0; 9], Wait::Allowed).unwrap_err().kind(), Kind::NotFound);
        assert_eq!(disk.write_at(0, &[0; 9], Wait::Allowed).unwrap_err().kind(), Kind::NotFound);
        Ok(())
    }

    /// Reads a part of a head and of a version.
    pub(crate) fn look(&mut self) -> Result<()> {
        let head = self.head();
        let (at, len) = self.rng.range(self.heads[head].model.len() as u64, 50_000);
        let Head { branch, model } = &self.heads[head];
        read_is(branch.disk(), at, &model[at as usize..][..len as usize])?;
        let Some(id) = self.any_version() else { return Ok(()) };
        let model = Arc::clone(&self.frozen[&id]);
        let (at, len) = self.rng.range(model.len() as u64, 50_000);
        let disk = self.versions.open(id)?;
        assert_eq!(disk.len(), model.len() as u64);
        read_is(&disk, at, &model[at as usize..][..len as usize])?;
        if let Some(&gone) = self.deleted.last() {
            assert_eq!(self.versions.open(gone).map(drop).unwrap_err().kind(), Kind::NotFound);
            assert_eq!(self.versions.delete(gone).unwrap_err().kind(), Kind::NotFound);
        }
        Ok(())
    }

    /// A diff tells all blocks that are not in the same place, no others, and so all bytes that differ.
    pub(crate) fn diff(&mut self) -> Result<()> {
        let (Some(a), Some(b)) = (self.any_version(), self.any_version()) else { return Ok(()) };
        let mut told: Vec<Range<u64>> = Vec::new();
        self.versions.diff(a, b, |range| {
            assert!(told.last().is_none_or(|last| last.end < range.start) && range.start < range.end);
            told.push(range);
            Ok(())
        })?;
        let (x, y) = (&self.frozen[&a], &self.frozen[&b]);
        let (shorter, longer) = (x.len().min(y.len()), x.len().max(y.len()));
        let mut is_told = vec![false; longer];
        for range in told {
            is_told[range.start as usize..range.end as usize].fill(true);
        }
        let differs = |i: usize| x.get(i) != y.get(i);
        assert!((0..longer).all(|i| is_told[i] || !differs(i)), "a diff misses bytes that differ");
        let places = [a, b].map(|id| self.versions.open(id).and_then(|disk| self.places(&disk)));
        let [Ok(p), Ok(q)] = places else { return Ok(()) };
        for (i, &told) in is_told.iter().enumerate() {
            let block = i / self.trial.interval as usize;
            assert_eq!(
                told,
                i >= shorter || p[block] != q[block],
                "byte {i}: {:?}, {:?}",
                p.get(block),
                q.get(block)
            );
        }
        Ok(())
    }

    /// What each block is, by the chart.
    pub(crate) fn places(&self, disk: &Disk) -> Result<Vec<At>> {
        let blocks = disk.len().div_ceil(self.trial.interval);
        let place = |block| {
            let (extent, own) = disk.answer(block * self.trial.interval, 1, Wait::Allowed)?;
            Ok(match extent.place {
                _ if !own => At::Below,
                Place::Raw { offset, .. } => At::Data(offset / self.trial.interval),
                _ => At::Zero,
            })
        };
        (0..blocks).map(place).collect()
    }

    /// All heads and all versions hold what they should, and no more space is taken than for that.
    pub(crate) fn whole(&mut self) {
        let ids: Vec<_> = self.versions.list().iter().map(|v| v.id).collect();
        assert_eq!(ids, self.frozen.keys().copied().collect::<Vec<_>>());
        let mut places = BTreeSet::new();
        for head in &self.heads {
            assert_eq!(head.branch.disk().len(), head.model.len() as u64);
            read_is(head.branch.disk(), 0, &head.model).unwrap();
            places.extend(self.data_of(head.branch.disk()));
        }
        for (&id, model) in &self.frozen {
            let disk = self.versions.open(id).unwrap();
            assert_eq!(disk.len(), model.len() as u64);
            read_is(&disk, 0, model).unwrap();
            places.extend(self.data_of(&disk));
        }
        // Where the table of nodes could not be written, a number may be lost.
        let sound = self.versions.audit();
        assert!(sound.is_ok() || self.mend.is_some(), "{sound:?}");
        let used = self.versions.usage().data / self.trial.interval;
        assert_eq!(used, places.len() as u64, "blocks in use, and blocks that anyone names");
    }

    fn data_of(&self, disk: &Disk) -> BTreeSet<u64> {
        let data = |at| if let At::Data(place) = at { Some(place) } else { None };
        self.places(disk).unwrap().into_iter().filter_map(data).collect()
    }

    /// Without versions and branches there is nothing but what the head holds.
    pub(crate) fn end(mut self) {
        while let Some(&id) = self.frozen.keys().nth(self.rng.below(self.frozen.len() as u64) as usize) {
            self.versions.delete(id).unwrap();
            self.frozen.remove(&id);
            if self.frozen.len().is_multiple_of(50) {
                self.whole();
            }
        }
        while self.heads.len() > 1 {
            self.heads.pop().unwrap().branch.delete().unwrap();
        }
        self.whole();
        let disk = self.versions.head();
        disk.set(0, disk.len(), To::Hole, SetMode { may_unmap: true, fast_only: true }).unwrap();
        let usage = self.versions.usage();
        assert_eq!(usage.data, 0);
        assert!(usage.nodes <= 1 || self.mend.is_some(), "{usage:?}");
    }
}

#[track_caller]
pub(crate) fn read_is(disk: &Disk, at: u64, wanted: &[u8]) -> Result<()> {
    let mut got = vec![0xa5; wanted.len()];
    match disk.read_at(at, &mut got, Wait::Never) {
        Ok(()) => assert!(got == wanted, "{} from {at} on, with Never: not what was written", disk.name()),
        Err(e) if e.is_would_block() => {}
        Err(e) => return Err(e),
    }
    got.fill(0xa5);
    disk.read_at(at, &mut got, Wait::Allowed)?;
    let differs = got.iter().zip(wanted).position(|(g, w)| g != w);
    assert!(differs.is_none(), "{} from {at} on, byte {differs:?}: not what was written", disk.name());
    Ok(())
}
