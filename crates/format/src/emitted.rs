//! The file that a disk would be in another format: tables that are computed when they are read, and behind them the
//! grains of the disk that hold anything, in its order, where they lie already.

use crate::survey::Survey;
use chart::{Chart, Disk, Error, Extent, Geometry, Result, SourceId, Wait};
use io::generated::{Generated, Rule};
use std::sync::Arc;

const TABLES: SourceId = SourceId(0);
const DATA: SourceId = SourceId(1);

/// The file as a disk: `tables_len` bytes of tables, then what the survey of `disk` found. Nothing of it is stored;
/// `disk` must not change while it is in use.
pub(crate) fn file(
    disk: Arc<Disk>,
    format: &str,
    tables: impl Rule + 'static,
    tables_len: u64,
    survey: Arc<Survey>,
) -> Result<Arc<Disk>> {
    let tables = Generated::new(format!("{format} tables"), tables_len, tables);
    let chart = Emitted { tables_len, size: disk.len(), survey };
    let name = format!("{} as {format}", disk.name());
    let geometry = Geometry { preferred: 1 << 20, ..Geometry::default() };
    let file = Disk::builder(name, Arc::new(chart)).source(Arc::new(tables)).source(disk);
    file.geometry(geometry).build()
}

/// Where the bytes of the emitted file live.
struct Emitted {
    tables_len: u64,
    /// The length of the disk that is emitted.
    size: u64,
    survey: Arc<Survey>,
}

impl Chart for Emitted {
    fn len(&self) -> u64 {
        let data = self.survey.count().saturating_mul(self.survey.grain().size());
        self.tables_len.saturating_add(data)
    }

    fn extent_at(&self, at: u64, want: u64, _: Wait) -> Result<Extent> {
        let end = Chart::len(self);
        if at >= end {
            return Err(Error::out_of_range(format!("byte {at} of an image file of {end}")));
        }
        let want = want.max(1).min(end.saturating_sub(at));
        let Some(data) = at.checked_sub(self.tables_len) else {
            return Ok(Extent::raw(at, want.min(self.tables_len.saturating_sub(at)), TABLES, at));
        };
        let grain = self.survey.grain();
        let within = grain.within(data);
        let most = grain.count(within.saturating_add(want));
        let (first, run) = self.survey.select(grain.index(data), most)?;
        let start = first.saturating_mul(grain.size()).saturating_add(within);
        let len = run.saturating_mul(grain.size()).saturating_sub(within).min(want);
        // The disk may end inside its last grain.
        match self.size.saturating_sub(start) {
            0 => Ok(Extent::zero(at, len)),
            rest => Ok(Extent::raw(at, len.min(rest), DATA, start)),
        }
    }
}
