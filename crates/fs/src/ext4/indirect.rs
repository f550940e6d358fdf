//! The maps of ext2 and ext3: twelve block numbers in the inode, then blocks of block numbers, up to three deep.

use super::map::{Held, Map, Run, Told};
use super::volume::Volume;
use chart::{Result, Wait};
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

/// So many block numbers of an inode name blocks of the file.
const DIRECT: u64 = 12;
/// How long a block number is.
const POINTER_LEN: usize = 4;
/// Blocks of block numbers are no deeper.
const MAX_DEPTH: u32 = 3;

/// A tree of block numbers: which of the inode's leads to it, how deep it is, and what it speaks of.
struct Tree {
    slot: u64,
    depth: u32,
    start: u64,
    /// How many blocks of the file.
    len: u64,
}

/// The tree that speaks of a block; none behind the last.
fn tree_of(block: u64, fanout: u64) -> Option<Tree> {
    let (mut start, mut len) = (DIRECT, fanout);
    for depth in 1..=MAX_DEPTH {
        if block.checked_sub(start)? < len {
            return Some(Tree {
                slot: DIRECT.saturating_add(depth.into()).saturating_sub(1),
                depth,
                start,
                len,
            });
        }
        start = start.saturating_add(len);
        len = len.saturating_mul(fanout);
    }
    None
}

fn pointer(bytes: &[u8], index: u64) -> Option<u64> {
    let at = usize::try_from(index).ok()?.checked_mul(POINTER_LEN)?;
    let (number, _) = U32::read_from_prefix(bytes.get(at..)?).ok()?;
    Some(number.get().into())
}

impl Map {
    /// See [`Map::leaf`].
    pub(super) fn indirect_leaf(
        &self,
        volume: &Volume,
        from: u64,
        wait: Wait,
        told: Told<'_>,
    ) -> Result<u64> {
        if from < DIRECT {
            let direct = self.root.get(..48).unwrap_or_default();
            return self.pointers(volume, direct, from, 0, told);
        }
        let fanout = volume.superblock.block_size >> 2;
        let Some(tree) = tree_of(from, fanout) else {
            let _ = told(Run { block: from, len: u64::MAX.saturating_sub(from), held: Held::Hole });
            return Ok(u64::MAX);
        };
        let (mut start, mut len) = (tree.start, tree.len);
        let mut number = pointer(&self.root, tree.slot).unwrap_or(0);
        for _ in 0..tree.depth {
            if number == 0 {
                let end = start.saturating_add(len);
                let _ = told(Run { block: from, len: end.saturating_sub(from), held: Held::Hole });
                return Ok(end);
            }
            let block = volume.block(number, wait)?;
            if len == fanout {
                return self.pointers(volume, &block, from, start, told);
            }
            len = len.checked_div(fanout).unwrap_or(1).max(1);
            let index = from.saturating_sub(start).checked_div(len).unwrap_or(0);
            start = start.saturating_add(index.saturating_mul(len));
            number = pointer(&block, index).ok_or_else(|| self.corrupt("has a map that is cut short"))?;
        }
        Err(self.corrupt("has a map that is too deep"))
    }

    /// Tells the runs of a list of block numbers, the first of which is of block `start` of the file.
    fn pointers(&self, volume: &Volume, bytes: &[u8], from: u64, start: u64, told: Told<'_>) -> Result<u64> {
        let mut run: Option<Run> = None;
        let mut block = start;
        for entry in bytes.chunks_exact(POINTER_LEN) {
            let number = pointer(entry, 0).unwrap_or(0);
            if number != 0 && !volume.superblock.holds(number, 1) {
                return Err(self.corrupt("has a block that does not exist"));
            }
            let held = if number == 0 { Held::Hole } else { Held::Data(number) };
            let next = Run { block, len: 1, held };
            block = block.saturating_add(1);
            match &mut run {
                Some(run) if goes_on(run, held) => run.len = run.len.saturating_add(1),
                run => {
                    let done = run.replace(next).and_then(|run| run.from(from));
                    if done.is_some_and(|done| told(done).is_break()) {
                        return Ok(block);
                    }
                }
            }
        }
        if let Some(last) = run.and_then(|run| run.from(from)) {
            let _ = told(last);
        }
        Ok(block)
    }
}

/// Whether what comes next makes a run longer.
fn goes_on(run: &Run, next: Held) -> bool {
    match (run.held, next) {
        (Held::Data(start), Held::Data(number)) => start.saturating_add(run.len) == number,
        (Held::Hole, Held::Hole) => true,
        _ => false,
    }
}
