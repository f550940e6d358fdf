//! Checking an image: every entry of its map against the others, the file, and what the header counts.

use super::Image;
use super::alloc::Bits;
use super::layout::ENTRY;
use crate::check::{Report, Wrong};
use chart::Result;

/// After so many entries that name a block it is asked whether to go on.
const STEP: u64 = 1 << 14;

impl Image {
    /// Checks the image, changing nothing. Nobody may write to it meanwhile.
    pub fn check(&self) -> Result<Report> {
        let (header, origin) = self.writer().map_or((self.opened, 0), |w| (w.header, w.origin));
        let limit = header.blocks().saturating_add(origin.into());
        let mut report = Report { total_clusters: self.blocks(), ..Report::default() };
        let mut used = Bits::default();
        let (mut last, mut count, watch) = (None, 0_u64, self.onlooker.watch());
        for (block, slot) in self.map.stored(header.blocks()) {
            if report.allocated_clusters.is_multiple_of(STEP) {
                watch.step(block, header.blocks())?;
            }
            let at = self.entry_offset(&header, block);
            let of = format!(
                "block {block} of the disk is block {} of the file, which",
                slot.saturating_sub(origin)
            );
            if let Some(fault) = self.fault(slot, limit, self.file.len()) {
                report.add(Wrong::Corruption, 1, at, || format!("{of} {fault}"));
            } else if used.set(slot.into()) {
                count = count.saturating_add(1);
            } else {
                report.add(Wrong::Corruption, 1, at, || format!("{of} is another block's too"));
            }
            report.allocated_clusters = report.allocated_clusters.saturating_add(1);
            let follows = last.is_none_or(|last: u32| last.checked_add(1) == Some(slot));
            report.fragmented_clusters = report.fragmented_clusters.saturating_add(u64::from(!follows));
            last = Some(slot);
        }
        let end = used.end().saturating_sub(origin.into());
        let counted = u64::from(header.head.blocks_allocated.get());
        if counted < end {
            report.add(Wrong::Corruption, 1, COUNT_OFFSET, || {
                format!(
                    "the header counts {counted} blocks, but block {} is in use: a program that trusts the header \
                     would give it out again",
                    end.saturating_sub(1)
                )
            });
        }
        let lost = counted.max(end).saturating_sub(count);
        if lost > 0 {
            report.add(Wrong::Leak, lost, COUNT_OFFSET, || {
                format!(
                    "{} blocks are counted or lie between others, and {count} are the disk's",
                    counted.max(end)
                )
            });
        }
        report.image_end_offset = header.data_offset().saturating_add(end.saturating_mul(self.stride));
        Ok(report)
    }
}

/// Where `blocks_allocated` is.
const COUNT_OFFSET: u64 = 0x184;
const _: () = assert!(COUNT_OFFSET.is_multiple_of(ENTRY));
