//! The order of writes: what a crash may find.

use super::Image;
use super::layout::{ENTRY, SECTOR};
use super::map::first_in;
use super::writer::Writer;
use crate::field::to_index;
use chart::{Result, Wait};

/// At most so many bytes of the map are written at once.
const RUN: u64 = 1 << 20;

/// What a flush is to write, as it was at one moment.
pub(super) struct Batch {
    /// Runs of sectors: where they go, and their bytes.
    runs: Vec<(u64, Vec<u8>)>,
    sectors: Vec<u64>,
    /// Blocks of the disk that this map has let go of.
    leaving: Vec<(u64, u64)>,
}

/// VDI has no refcounts. Two rules keep an image whole whatever a crash leaves, and both must hold for other programs
/// too, which give out the block behind the last that the header counts and look no further:
///
/// - *The header counts every block of the file that the map on disk names.* `blocks_allocated` is raised, and that is
///   durable, before the map names more. It is lowered only when the image is closed, when a map that names less has
///   been durable for long. So it may be too high after a crash, never too low: too high is space that nothing refers
///   to (QEMU's check calls the mismatch an error, and reads and writes the image none the less), too low would be
///   a block given to two.
/// - *The map names what is durable.* Data comes first, then the map; entries of a sector of the map are written
///   together or not at all, and those of different sectors do not depend on each other.
///
/// What the map has let go of is given to another block of the disk only when a map without it is durable and nobody
/// reads by an older one. The same block of the disk may have it again at once: what a crash then finds under the
/// older map is what was written to this block since, as with any write in place.
impl Image {
    /// Step 1: the header counts enough; and what step 2 is to write.
    fn gather(&self, w: &mut Writer) -> Result<Batch> {
        let count = w.count();
        if w.started && w.header.head.blocks_allocated.get() < count {
            w.write_header(self.file.as_ref(), |head| head.blocks_allocated.set(count))?;
        }
        let sectors: Vec<u64> = std::mem::take(&mut w.dirty).into_iter().collect();
        let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
        for &sector in &sectors {
            let mut bytes = vec![0; to_index(SECTOR)];
            self.map.write(first_in(sector), w.origin, &mut bytes);
            let offset = w.header.map_offset().saturating_add(sector.saturating_mul(SECTOR));
            // What lies behind the map in its last sector is not the map's.
            let rest = w.header.map_offset().saturating_add(w.header.map_bytes()).saturating_sub(offset);
            bytes.truncate(to_index(rest.min(SECTOR)));
            match runs.last_mut() {
                Some((start, run))
                    if start.saturating_add(crate::field::to_u64(run.len())) == offset
                        && crate::field::to_u64(run.len()) < RUN =>
                {
                    run.append(&mut bytes);
                }
                _ => runs.push((offset, bytes)),
            }
        }
        Ok(Batch { runs, sectors, leaving: w.slots.leaving() })
    }

    /// Makes durable what is older than the batch; step 2: the map; and makes that durable.
    fn write(&self, batch: &Batch) -> Result<()> {
        if !batch.runs.is_empty() {
            self.file.flush()?;
            for (offset, bytes) in &batch.runs {
                self.file.write_at(*offset, bytes, Wait::Allowed)?;
            }
        }
        self.file.flush()
    }

    fn settled(&self, w: &mut Writer, batch: Batch, written: Result<()>) -> Result<()> {
        if let Err(e) = written {
            // Some of it may have come to be: nothing that either map names is given out.
            w.dirty.extend(batch.sectors);
            w.slots.stay(batch.leaving);
            return Err(e);
        }
        // Taken now, after every change: whoever enters a later epoch cannot see the old map.
        let epochs = &self.mutator()?.epochs;
        w.slots.left(batch.leaving, epochs.now());
        w.slots.reclaim(epochs);
        Ok(())
    }

    /// Makes everything durable that was written before. Others write meanwhile.
    pub(super) fn flush_all(&self) -> Result<()> {
        self.mutator()?.flushes.flush(|| self.flush_one())
    }

    /// The same, by who keeps others out.
    pub(super) fn flush_one(&self) -> Result<()> {
        let batch = self.gather(&mut *self.writer()?)?;
        let written = self.write(&batch);
        self.settled(&mut *self.writer()?, batch, written)
    }

    /// The same, while nobody writes.
    pub(super) fn flush_with(&self, w: &mut Writer) -> Result<()> {
        let batch = self.gather(w)?;
        let written = self.write(&batch);
        self.settled(w, batch, written)
    }

    /// Waits until what the durable map has let go of is free. Who waits holds no pin on this disk; lookups, which
    /// those need that are waited for, take no lock.
    pub(super) fn wait_for_readers(&self, w: &mut Writer) -> Result<()> {
        let epochs = &self.mutator()?.epochs;
        if let Some(epoch) = w.slots.last_epoch() {
            epochs.wait_over(epoch);
            w.slots.reclaim(epochs);
        }
        Ok(())
    }
}

const _: () = assert!(SECTOR.is_multiple_of(ENTRY));
