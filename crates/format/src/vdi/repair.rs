//! Repairing: each block of the disk in a block of the file that is its own, and a header that counts them.

use super::Image;
use super::alloc::Bits;
use crate::check::{Repair, Report};
use chart::{Error, Result};

impl Image {
    /// Gives lost space back, and a block of the file of its own, with what is in it now, to each block of the disk
    /// that shares one or names one beyond those there can be. What the file does not hold cannot be mended: then
    /// nothing is changed; nor if it is interrupted. Returns what was wrong before.
    pub fn repair(&self, what: Repair) -> Result<Report> {
        let _between = self.mutator()?.flushes.between();
        // What the writer has not written yet would look like damage.
        self.flush_one()?;
        let found = self.check()?;
        if found.is_clean() {
            return Ok(found);
        }
        self.repair_found(what, &found).map_err(|e| e.in_path(self.file.name()))?;
        Ok(found)
    }

    fn repair_found(&self, what: Repair, found: &Report) -> Result<()> {
        if what == Repair::Leaks && found.corruptions > 0 {
            let say = format!(
                "{} things are wrong that are more than leaks; leaks alone cannot be repaired then",
                found.corruptions
            );
            return Err(Error::corrupt(say));
        }
        let mut w = self.writer()?;
        let (blocks, limit) = (w.header.blocks(), w.limit());
        let (mut seen, mut astray) = (Bits::default(), Vec::new());
        for (block, slot) in self.map.stored(blocks) {
            if self.offset_of(slot) >= self.file.len() {
                let say = format!(
                    "block {block} of the disk lies past the end of the file, which seems to be cut off; this cannot \
                     be mended here, and was left as it is"
                );
                return Err(Error::corrupt(say).at(self.entry_offset(&w.header, block)));
            }
            if u64::from(slot) >= limit || !seen.set(slot.into()) {
                astray.push((block, slot));
            }
        }
        self.onlooker.watch().go_on()?;
        self.start(&mut w)?;
        let len = self.file.len();
        {
            let _kept = self.keep_in_place_writers_out()?;
            let watch = self.onlooker.watch();
            self.move_blocks(&mut w, &astray, limit, watch).inspect_err(|_| {
                // Nothing names what was written behind the end; where it cannot be cut off again, it is lost space.
                if self.file.len() > len {
                    let _ = self.file.set_len(len);
                }
            })?;
        }
        w.damaged = false;
        self.rest(&mut w)
    }
}
