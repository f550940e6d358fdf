//! Internal snapshots: taken, applied and deleted.

use super::roots::Roots;
use crate::field::{be64s, read_vec, to_u64};
use crate::qcow2::layout::MAX_SNAPSHOTS;
use crate::qcow2::{Image, Options, Snapshot, snapshot};
use chart::{Disk, Error, Result};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// An id or a name may have so many bytes: what QEMU shows of them.
const MAX_NAME_BYTES: usize = 255;

impl Image {
    /// Takes a snapshot of the disk as it is. Returns its id.
    pub fn snapshot_create(&self, name: &str) -> Result<String> {
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(Error::invalid(format!("a snapshot's name has 1 to {MAX_NAME_BYTES} bytes")));
        }
        self.without_data_file()?;
        let mut id = String::new();
        self.replace_roots(|mut roots| {
            if roots.snapshots.iter().any(|s| s.name == name || s.id == name) {
                return Err(Error::conflict(format!("there is a snapshot {name:?} already")));
            }
            if to_u64(roots.snapshots.len()) >= MAX_SNAPSHOTS.into() {
                return Err(Error::unsupported(format!("an image has at most {MAX_SNAPSHOTS} snapshots")));
            }
            id = next_id(&roots.snapshots);
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let l1_size =
                u32::try_from(roots.l1.len()).map_err(|_| Error::unsupported("too many L1 entries"))?;
            roots.fresh = Some(roots.snapshots.len());
            roots.snapshots.push(Snapshot {
                id: id.clone(),
                name: name.to_owned(),
                l1_table_offset: 0,
                l1_size,
                date_sec: u32::try_from(now.as_secs()).unwrap_or(u32::MAX),
                date_nsec: now.subsec_nanos(),
                vm_clock_nsec: 0,
                vm_state_size: 0,
                disk_size: Some(roots.size),
                icount: None,
                unknown_extra: Vec::new(),
            });
            Ok(roots)
        })?;
        Ok(id)
    }

    /// Makes the disk what it was when a snapshot was taken. What it is now is gone, unless another snapshot
    /// holds it.
    pub fn snapshot_apply(&self, wanted: &str) -> Result<()> {
        self.without_data_file()?;
        self.replace_roots(|roots| {
            let found = snapshot::find(&roots.snapshots, wanted)?.clone();
            found.check(self.clusters, self.file.len())?;
            let bytes = u64::from(found.l1_size).saturating_mul(8);
            let table = read_vec(self.file.as_ref(), found.l1_table_offset, bytes, "snapshot's L1 table")?;
            Ok(Roots {
                l1: be64s(&table).collect(),
                size: found.disk_size.unwrap_or(roots.size),
                other_content: true,
                ..roots
            })
        })
    }

    /// Deletes a snapshot. What only it held is free.
    pub fn snapshot_delete(&self, wanted: &str) -> Result<()> {
        self.replace_roots(|mut roots| {
            let id = snapshot::find(&roots.snapshots, wanted)?.id.clone();
            roots.snapshots.retain(|s| s.id != id);
            Ok(roots)
        })
    }

    fn without_data_file(&self) -> Result<()> {
        if !self.has_data_file {
            return Ok(());
        }
        Err(Error::unsupported("images with an external data file have no internal snapshots"))
    }

    /// A snapshot as a disk, to be read while this image is written.
    pub fn snapshot_disk(self: &Arc<Self>, wanted: &str) -> Result<Arc<Disk>> {
        let options = Options { snapshot: Some(wanted.to_owned()), ..Options::default() };
        let below = self.below.clone();
        let mut opener = |needed: crate::qcow2::Needed<'_>| {
            below.clone().ok_or_else(|| Error::not_found(format!("{} was not opened", needed.name)))
        };
        let frozen = Arc::new(Image::open(Arc::clone(&self.file), &options, &mut opener)?);
        let builder = frozen.builder(format!("{}@{wanted}", self.file.name()))?;
        match &self.mutator {
            // What it reads may be deleted and used again by this image.
            Some(mutator) => builder.epochs(Arc::clone(&mutator.epochs)).build(),
            None => builder.build(),
        }
    }
}

/// One more than the largest number among the ids.
fn next_id(snapshots: &[Snapshot]) -> String {
    let largest = snapshots.iter().filter_map(|s| s.id.parse::<u64>().ok()).max().unwrap_or(0);
    largest.saturating_add(1).to_string()
}
