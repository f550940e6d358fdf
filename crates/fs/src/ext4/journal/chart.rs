//! The replayed disk: the disk itself, but for the blocks that the journal has copies of.

use super::layout::MAGIC;
use super::log::Log;
use super::scan::Copy;
use crate::ext4::volume::Volume;
use chart::{Disk, Error, Extent, Geometry, Result, Source, SourceId, Table};
use io::memory::Memory;
use std::collections::HashMap;
use std::sync::Arc;

/// The disk as it lies there.
const DISK: SourceId = SourceId(0);
/// Four bytes, which the copies of blocks that begin with them must not have.
const ESCAPED: SourceId = SourceId(1);

/// The disk with these copies in the place of the blocks they are of.
pub(super) fn replayed(volume: &Volume, log: &Log, copies: HashMap<u64, Copy>) -> Result<Arc<Disk>> {
    let mut copies: Vec<(u64, Copy)> = copies.into_iter().collect();
    copies.sort_unstable_by_key(|(block, _)| *block);
    let size = volume.superblock.block_size;
    let len = Disk::len(&volume.disk);
    let mut builder = Table::builder();
    let magic = u64::from(u32::BITS >> 3);
    for (block, copy) in copies {
        let at = block.checked_mul(size).filter(|at| chart::check_range(len, *at, size).is_ok());
        let at = at.filter(|_| block < volume.superblock.blocks_count);
        let outside = || Error::corrupt(format!("the journal holds block {block}, which does not exist"));
        let at = at.ok_or_else(outside)?;
        builder.push(Extent::raw(builder.end(), at.saturating_sub(builder.end()), DISK, builder.end()))?;
        let place = log.place(copy.at)?;
        if !copy.escaped {
            builder.push(Extent::raw(at, size, DISK, place))?;
            continue;
        }
        builder.push(Extent::raw(at, magic, ESCAPED, 0))?;
        let rest = size.saturating_sub(magic);
        builder.push(Extent::raw(at.saturating_add(magic), rest, DISK, place.saturating_add(magic)))?;
    }
    builder.push(Extent::raw(builder.end(), len.saturating_sub(builder.end()), DISK, builder.end()))?;
    let escaped = Arc::new(Memory::from_bytes("the journal's magic number", &MAGIC.to_be_bytes()));
    let geometry = Geometry { grain: size, ..Geometry::default() };
    let disk: Arc<dyn Source> = Arc::<Disk>::clone(&volume.disk);
    Disk::builder(format!("{}, its journal replayed", volume.disk.name()), Arc::new(builder.finish(len)?))
        .geometry(geometry)
        .source(disk)
        .source(escaped)
        .build()
}
