//! Where the bytes of files are on the disk.

use super::layout::{MAX_SECTORS, SECTOR};
use super::links::Links;
use super::number::{to_index, to_u32};
use chart::{Error, Extent, Result, SourceId, Table};
use io::tree::{Files, Kind, NodeId, Tree};
use std::sync::Arc;

/// Files of this size and more begin at multiples of it, so that a file system can share their blocks with a file
/// that the disk is written to.
const BLOCK: u64 = 4096;

/// The first sector of every file.
pub(super) struct Placement {
    /// By node; 0 of what has no bytes.
    sectors: Vec<u32>,
    /// One behind the last sector of all.
    pub(super) end: u64,
}

impl Placement {
    /// Lays out the files of a tree from a sector on: in the order of the tree, each name of a file at the place of
    /// its first.
    pub(super) fn of(tree: &Tree, links: &Links, first: u64) -> Result<Placement> {
        let mut all = Placement { sectors: vec![0; tree.len()], end: first };
        for id in tree.nodes() {
            let node = tree.node(id);
            if node.kind != Kind::File || node.len == 0 {
                continue;
            }
            let original = links.first(id);
            let sector = if original == id { all.take(node.len) } else { all.sector(original).into() };
            if let Some(place) = all.sectors.get_mut(to_index(id.0)) {
                *place = to_u32(sector);
            }
        }
        // Whole blocks, for those who read by them.
        all.end = all.end.next_multiple_of(BLOCK / SECTOR);
        if all.end >= MAX_SECTORS {
            let tib = all.end.saturating_mul(SECTOR) >> 40;
            let what = format!(
                "this directory has {tib} TiB: ISO 9660 counts 2 KiB sectors in 32 bits, which is 8 TiB"
            );
            return Err(Error::unsupported(what));
        }
        Ok(all)
    }

    fn take(&mut self, len: u64) -> u64 {
        let start = if len < BLOCK { self.end } else { self.end.next_multiple_of(BLOCK / SECTOR) };
        self.end = start.saturating_add(len.div_ceil(SECTOR));
        start
    }

    /// The first sector of a file; 0 of what has no bytes.
    pub(super) fn sector(&self, id: NodeId) -> u32 {
        self.sectors.get(to_index(id.0)).copied().unwrap_or(0)
    }

    /// The files as a source, each at its place; and the chart of the disk: metadata from `start` up to `end`, and
    /// the files.
    pub(super) fn chart(
        &self,
        tree: &Arc<Tree>,
        links: &Links,
        metadata: [u64; 2],
    ) -> Result<(Table, Arc<Files>)> {
        let [start, end] = metadata;
        let (mut table, mut files) = (Table::builder(), tree.files());
        table.push(Extent::raw(start, end.saturating_sub(start), METADATA, start))?;
        for id in tree.nodes() {
            let sector = self.sector(id);
            if sector > 0 && links.first(id) == id {
                let at = u64::from(sector).saturating_mul(SECTOR);
                files.file(at, id)?;
                table.push(Extent::raw(at, tree.node(id).len, FILES, at))?;
            }
        }
        let len = self.end.saturating_mul(SECTOR);
        Ok((table.finish(len)?, files.build(len)?))
    }
}

/// The source of all that is computed.
const METADATA: SourceId = SourceId(0);
/// The source of all files.
const FILES: SourceId = SourceId(1);
