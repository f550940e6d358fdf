//! A disk for somebody who may not write it.

use chart::{Chart, Disk, Error, Extent, Result, SourceId, Wait};
use std::sync::Arc;

/// All of a disk, however long it is now.
struct Whole(Arc<Disk>);

impl Chart for Whole {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn extent_at(&self, at: u64, want: u64, _: Wait) -> Result<Extent> {
        let len = self.0.len();
        if at >= len {
            return Err(Error::out_of_range(format!("byte {at} of a disk of {len}")));
        }
        Ok(Extent::raw(at, want.min(len - at).max(1), SourceId(0), at))
    }
}

/// The same disk, read-only.
pub(super) fn read_only(disk: &Arc<Disk>) -> Result<Arc<Disk>> {
    let whole = Arc::new(Whole(Arc::clone(disk)));
    Disk::builder(disk.name(), whole).source(Arc::<Disk>::clone(disk)).geometry(disk.geometry()).build()
}
