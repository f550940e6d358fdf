//! Where the bytes of files are on the disk.

use super::layout::{MAX_SECTORS, SECTOR};
use super::links::Links;
use super::number::to_u32;
use chart::{Chart, Error, Extent, Result, Source, SourceId, Wait};
use io::tree::{Files, Kind, NodeId, Tree};
use std::sync::Arc;

/// Files of this size and more begin at multiples of it, so that a file system can share their blocks with a file
/// that the disk is written to.
const BLOCK: u64 = 4096;

/// The source of all that is computed.
const METADATA: SourceId = SourceId(0);
/// The source of all files.
const FILES: SourceId = SourceId(1);

/// The chart of the disk: metadata, and behind it the files, each where its source has it.
#[derive(Clone)]
pub(super) struct Placement {
    /// Every file at its place on the disk, and as long as that.
    pub(super) files: Arc<Files>,
    /// Where metadata begins, and one behind its end.
    pub(super) metadata: [u64; 2],
}

impl Placement {
    /// Lays out the files of a tree behind metadata, which is at these sectors: in the order of the tree, each name of
    /// a file at the place of its first.
    pub(super) fn of(tree: &Arc<Tree>, links: &Links, metadata: [u64; 2]) -> Result<Placement> {
        let [_, mut end] = metadata;
        let mut files = tree.files();
        for id in tree.nodes() {
            let len = if tree.kind(id) == Kind::File { tree.node(id).len } else { 0 };
            if len == 0 || links.first(id) != id {
                continue;
            }
            let start = if len < BLOCK { end } else { end.next_multiple_of(BLOCK / SECTOR) };
            end = start.saturating_add(len.div_ceil(SECTOR));
            // How many bytes too many there are is still to be counted.
            if end < MAX_SECTORS {
                files.file(start.saturating_mul(SECTOR), id)?;
            }
        }
        // Whole blocks, for those who read by them.
        end = end.next_multiple_of(BLOCK / SECTOR);
        if end >= MAX_SECTORS {
            let tib = end.saturating_mul(SECTOR) >> 40;
            let what = format!(
                "this directory has {tib} TiB: ISO 9660 counts 2 KiB sectors in 32 bits, which is 8 TiB"
            );
            return Err(Error::unsupported(what));
        }
        let files = files.build(end.saturating_mul(SECTOR))?;
        Ok(Placement { files, metadata: metadata.map(|sector| sector.saturating_mul(SECTOR)) })
    }

    /// How many sectors the disk has.
    pub(super) fn sectors(&self) -> u64 {
        self.files.len() / SECTOR
    }

    /// The first sector of a file, by its first name; 0 of what has no bytes.
    pub(super) fn sector(&self, first: NodeId) -> u32 {
        self.files.start_of(first).map_or(0, |start| to_u32(start / SECTOR))
    }
}

impl Chart for Placement {
    fn len(&self) -> u64 {
        self.files.len()
    }

    fn extent_at(&self, at: u64, want: u64, _: Wait) -> Result<Extent> {
        let ([start, end], len) = (self.metadata, self.files.len());
        if at >= len {
            return Err(Error::out_of_range(format!("byte {at} of a disk of {len}")));
        }
        let up_to = |end: u64| want.max(1).min(end.saturating_sub(at));
        Ok(if at < start {
            Extent::zero(at, up_to(start))
        } else if at < end {
            Extent::raw(at, up_to(end), METADATA, at)
        } else {
            match self.files.laid_at(at, want.max(1)) {
                run if run.data => Extent::raw(at, run.len, FILES, at),
                run => Extent::zero(at, run.len),
            }
        })
    }
}
