//! Files as charts over the disk they lie in.

use super::inode::Node;
use super::layout::INODE_BLOCK_AT;
use super::map::{Held, Map, Run};
use super::volume::Volume;
use crate::Kind;
use chart::{
    Chart, Disk, Error, Extent, Geometry, Layer, Result, Source, SourceId, Table, TableBuilder, Wait,
};
use std::ops::ControlFlow;
use std::sync::Arc;

/// A file of more runs than this is looked up in its map when asked. Of fewer there is a table.
const MAX_TABLE_RUNS: usize = 16 << 10;
/// And so is one that has more leaves in its map than this.
const MAX_TABLE_LEAVES: usize = 4096;
/// The disk a file lies in, in the file's own list of sources.
const VOLUME: SourceId = SourceId(0);

/// The disk that a file is.
pub(super) fn file(volume: &Arc<Volume>, node: &Node) -> Result<Arc<Disk>> {
    if node.kind != Kind::File {
        return Err(Error::invalid(format!("inode {} is no regular file", node.number)));
    }
    content(volume, node)
}

/// The bytes of an inode that has some.
pub(super) fn content(volume: &Arc<Volume>, node: &Node) -> Result<Arc<Disk>> {
    node.readable()?;
    let layer: Arc<dyn Layer> = if node.is_inline() {
        Arc::new(inline(volume, node)?)
    } else {
        let map = Map::of(node);
        match table(volume, &map, node.len)? {
            Some(table) => Arc::new(table),
            None => Arc::new(Mapped { volume: Arc::clone(volume), map, len: node.len }),
        }
    };
    let grain = if node.is_inline() { 1 } else { volume.superblock.block_size };
    let geometry = Geometry { grain, ..Geometry::default() };
    let source: Arc<dyn Source> = Arc::<Disk>::clone(&volume.disk);
    Disk::builder(format!("inode {}", node.number), layer).geometry(geometry).source(source).build()
}

/// All of a file, unless that is too much.
fn table(volume: &Volume, map: &Map, len: u64) -> Result<Option<Table>> {
    let blocks = len.div_ceil(volume.superblock.block_size);
    let (mut builder, mut next, mut runs, mut leaves) = (Table::builder(), 0, 0, 0);
    while next < blocks {
        if runs > MAX_TABLE_RUNS || leaves > MAX_TABLE_LEAVES {
            return Ok(None);
        }
        let mut failed = None;
        next = map.leaf(volume, next, Wait::Allowed, &mut |run| {
            runs = usize::saturating_add(runs, 1);
            match push(&mut builder, volume, &run, len) {
                Ok(()) if run.end() < blocks => ControlFlow::Continue(()),
                Ok(()) => ControlFlow::Break(()),
                Err(e) => {
                    failed = Some(e);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(e) = failed {
            return Err(e);
        }
        leaves = usize::saturating_add(leaves, 1);
    }
    builder.finish(len).map(Some)
}

fn push(builder: &mut TableBuilder, volume: &Volume, run: &Run, len: u64) -> Result<()> {
    match extent(volume, run, len)? {
        Some(extent) => builder.push(extent),
        None => Ok(()),
    }
}

/// A run as an extent, without what lies behind the file's end; none where that is all of it.
fn extent(volume: &Volume, run: &Run, len: u64) -> Result<Option<Extent>> {
    let at = volume.at(run.block);
    let rest = len.saturating_sub(at).min(volume.at(run.len));
    if rest == 0 {
        return Ok(None);
    }
    Ok(Some(match run.held {
        Held::Hole => Extent::hole(at, rest),
        Held::Unwritten => Extent::zero(at, rest),
        Held::Data(start) => {
            let offset = volume.at(start);
            if chart::check_range(Disk::len(&volume.disk), offset, rest).is_err() {
                return Err(Error::corrupt("data past the end of the disk, which was cut short").at(offset));
            }
            Extent::raw(at, rest, VOLUME, offset)
        }
    }))
}

/// A file that lives in its inode: the first bytes where block numbers would be, the others in an attribute.
fn inline(volume: &Volume, node: &Node) -> Result<Table> {
    let [first, second] = volume.inline_parts(node)?;
    let mut builder = Table::builder();
    let mut done = 0_u64;
    for (within, part) in [first, second] {
        let len = u64::try_from(part).unwrap_or(0).min(node.len.saturating_sub(done));
        let offset = node.at.saturating_add(u64::try_from(within).unwrap_or(u64::MAX));
        builder.push(Extent::raw(done, len, VOLUME, offset))?;
        done = done.saturating_add(len);
    }
    builder.push(Extent::hole(done, node.len.saturating_sub(done)))?;
    builder.finish(node.len)
}

impl Volume {
    /// Where the content of an inline inode is in it, and how long: `i_block`, and the value of an attribute.
    pub(super) fn inline_parts(&self, node: &Node) -> Result<[(usize, usize); 2]> {
        let second = self.inline_value(node)?.unwrap_or((0, 0));
        Ok([(INODE_BLOCK_AT, node.raw.block.len()), second])
    }
}

/// A file whose map is looked up when it is asked for.
struct Mapped {
    volume: Arc<Volume>,
    map: Map,
    len: u64,
}

impl Chart for Mapped {
    fn len(&self) -> u64 {
        self.len
    }

    fn extent_at(&self, at: u64, want: u64, wait: Wait) -> Result<Extent> {
        chart::check_range(self.len, at, 1)?;
        let block = at.checked_div(self.volume.superblock.block_size).unwrap_or(0);
        let run = self.map.run(&self.volume, block, wait)?;
        let found = extent(&self.volume, &run, self.len)?;
        let found = found.ok_or_else(|| self.map.corrupt("has a map that does not go on"))?;
        Ok(found.clip(at, want.max(1)))
    }
}
