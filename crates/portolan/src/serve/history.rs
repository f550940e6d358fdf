//! Serving a disk whose states are kept: each of them an export beside it.

use super::{Export, Offer, Server, temporary_file};
use chart::{Disk, Result, Run, Source};
use depot::{VersionId, Versions};
use serve::Dirt;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// What a version's dirty bitmap is called: it tells what was written since the version before.
pub const CHANGED: &str = "changed";

/// The states of a disk that is served, for as long as it is.
pub struct History {
    versions: Versions,
    /// What the disk is called as an export.
    name: String,
    /// What it is, for a person.
    described: String,
    places: bool,
    began: Instant,
    /// Oldest first.
    kept: VecDeque<Kept>,
    /// The one before them, which is no export any more: what was written since is told by what it was.
    before: Option<VersionId>,
    /// So many are kept.
    most: usize,
    next: u32,
}

/// A state that is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    id: VersionId,
    /// As which export.
    pub export: String,
    /// How long after the beginning.
    pub after: Duration,
}

impl History {
    /// Begins the history of a disk, which must not change any more but through [`History::head`]. What is written
    /// goes to files without a name: it is gone when nobody holds this or a disk of it.
    pub(super) fn over(base: Arc<Disk>, offer: &Offer, described: &str, most: usize) -> Result<History> {
        Ok(History {
            versions: over(base)?,
            name: offer.name.clone(),
            described: described.to_owned(),
            places: offer.places,
            began: Instant::now(),
            kept: VecDeque::new(),
            before: None,
            most: most.max(1),
            next: 0,
        })
    }

    /// The disk that is written.
    pub(super) fn head(&self) -> Arc<Disk> {
        self.versions.head()
    }

    /// The states that are kept, oldest first.
    pub fn kept(&self) -> impl ExactSizeIterator<Item = &Kept> {
        self.kept.iter()
    }

    /// Keeps what the disk holds now and serves it, if anything was written since the last time. The oldest state goes
    /// where there are too many.
    pub fn keep(&mut self, server: &Server) -> Result<Option<&Kept>> {
        let after = self.began.elapsed();
        let id = self.versions.snapshot(&format!("{} s", after.as_secs()))?;
        let before = self.kept.back().map(|kept| kept.id);
        if let Some(before) = before
            && !self.differs(before, id)?
        {
            self.versions.delete(id)?;
            return Ok(None);
        }
        let export = match self.name.as_str() {
            "" => format!("v{}", self.next),
            name => format!("{name}/v{}", self.next),
        };
        server.offer(self.export(&export, id, before, after)?)?;
        self.next += 1;
        self.kept.push_back(Kept { id, export, after });
        while self.kept.len() > self.most {
            self.drop_oldest(server)?;
        }
        Ok(self.kept.back())
    }

    fn differs(&self, a: VersionId, b: VersionId) -> Result<bool> {
        let mut differs = false;
        self.versions.diff(a, b, |_| {
            differs = true;
            Ok(())
        })?;
        Ok(differs)
    }

    fn export(
        &self,
        name: &str,
        id: VersionId,
        before: Option<VersionId>,
        after: Duration,
    ) -> Result<Export> {
        let mut export = Export::new(name, self.versions.open(id)?);
        let when = match before.or(self.before) {
            None => "in the beginning".to_owned(),
            Some(_) => format!("{:.1} s after the beginning", after.as_secs_f64()),
        };
        export.description = format!("{}, as it was {when}", self.described);
        export.places = self.places;
        if let Some(before) = before {
            let versions = self.versions.clone();
            let changed = Changed { versions, between: (before, id), ranges: OnceLock::new() };
            export.dirt.push(Arc::new(changed));
        }
        Ok(export)
    }

    fn drop_oldest(&mut self, server: &Server) -> Result<()> {
        let Some(oldest) = self.kept.pop_front() else { return Ok(()) };
        server.withdraw(&oldest.export);
        self.before.replace(oldest.id).map_or(Ok(()), |before| self.versions.delete(before))
    }
}

/// Versions over a disk, in files without a name.
pub(super) fn over(base: Arc<Disk>) -> Result<Versions> {
    let maps: Arc<dyn Source> = Arc::new(temporary_file("maps")?);
    let options = depot::Options { maps: Some(maps), ..depot::Options::default() };
    Versions::over(base, Arc::new(temporary_file("data")?), options)
}

/// What was written between a version and the next.
struct Changed {
    versions: Versions,
    between: (VersionId, VersionId),
    /// Looked for when somebody asks.
    ranges: OnceLock<Vec<Range<u64>>>,
}

impl Changed {
    fn ranges(&self) -> Result<&[Range<u64>]> {
        if let Some(known) = self.ranges.get() {
            return Ok(known);
        }
        let (mut ranges, (a, b)) = (Vec::new(), self.between);
        self.versions.diff(a, b, |range| {
            ranges.push(range);
            Ok(())
        })?;
        Ok(self.ranges.get_or_init(|| ranges))
    }
}

impl Dirt for Changed {
    fn name(&self) -> &str {
        CHANGED
    }

    fn dirt_at(&self, at: u64, want: u64) -> Result<Run> {
        let ranges = self.ranges()?;
        let next = ranges.partition_point(|range| range.end <= at);
        let (end, data) = match ranges.get(next) {
            Some(range) if range.start <= at => (range.end, true),
            Some(range) => (range.start, false),
            None => (u64::MAX, false),
        };
        Ok(Run { len: want.min(end - at).max(1), data })
    }
}
