//! Leaving an image as readers, and other writers, want to find it: every block of the file up to the last is one of
//! the disk's, and the header counts just them.

use super::map::Entry;
use super::writer::Writer;
use super::{Image, Kind};
use chart::Result;

impl Image {
    /// Flushes and closes. An image that nobody has written to stays as it is, to the byte.
    pub(super) fn close_image(&self) -> Result<()> {
        let _between = self.mutator()?.flushes.between();
        self.flush_one()?;
        let mut w = self.writer()?;
        if w.started && !w.damaged { self.rest(&mut w) } else { Ok(()) }
    }

    /// The same, while nobody writes.
    pub(super) fn rest(&self, w: &mut Writer) -> Result<()> {
        self.flush_with(w)?;
        self.wait_for_readers(w)?;
        self.plug(w)?;
        let count = w.count();
        if w.header.head.blocks_allocated.get() != count {
            // The map names none of those for long.
            w.write_header(self.file.as_ref(), |head| head.blocks_allocated.set(count))?;
        }
        let end = self.offset_of(count.saturating_add(w.origin));
        if self.kind == Kind::Dynamic && self.file.len() > end {
            self.file.set_len(end)?;
            w.slots.cut();
        }
        self.file.flush()
    }

    /// Gives each hole among the blocks of the file, left by what was discarded, to a block of the disk that reads as
    /// zeros: the hole's space goes back to the file system, the block reads as zeros from there. So no data is moved,
    /// and programs that put the next block behind as many as there are find their way.
    fn plug(&self, w: &mut Writer) -> Result<()> {
        let holes = w.slots.holes();
        if holes.is_empty() {
            return Ok(());
        }
        let zero = |block: &u64| !matches!(self.map.entry(*block), Entry::At(_));
        let mut blocks = (0..w.header.blocks()).filter(zero);
        for (first, count) in holes {
            let at = self.offset_of(u32::try_from(first).unwrap_or(u32::MAX));
            io::engine::clear(self.file.as_ref(), at, count.saturating_mul(self.stride))?;
            for slot in first..first.saturating_add(count) {
                let Some(block) = blocks.by_ref().find(|block| !w.open.contains(block)) else { break };
                w.slots.take_this(slot);
                self.put(w, block, Entry::At(u32::try_from(slot).unwrap_or(u32::MAX)));
            }
        }
        self.flush_with(w)
    }
}
