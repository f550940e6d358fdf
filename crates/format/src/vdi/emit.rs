//! A disk as the VDI file it would be: header and block map computed when they are read, blocks in the order of the
//! disk where their bytes lie already. All that is kept for it is a bit for every block.

use super::create::{New, fill_entries};
use super::layout::BLOCK_FREE;
use super::{Header, Kind};
use crate::emitted;
use crate::field::{to_index, to_u64};
use crate::preallocation::Preallocation;
use crate::survey::Survey;
use chart::{Disk, Error, Result, Wait};
use io::generated::Rule;
use io::watch::Watch;
use std::sync::Arc;
use zerocopy::IntoBytes;

/// The bytes of the VDI file that holds what `disk` holds, as a disk, and how many at its beginning are tables: the
/// rest is the disk's own. Nothing of it is stored; `disk` must not change while it is in use. Watched while it looks
/// where the disk holds anything.
pub fn emit(disk: Arc<Disk>, new: &New, watch: Watch<'_>) -> Result<(Arc<Disk>, u64)> {
    if !matches!(new.preallocation, Preallocation::Off | Preallocation::Metadata) {
        let what =
            "an image that is made of another disk has no space reserved: preallocation off or metadata";
        return Err(Error::unsupported(what));
    }
    if new.size < disk.len() {
        return Err(Error::invalid(format!("{} bytes are too few for a disk of {}", new.size, disk.len())));
    }
    // What cannot be is refused before the disk is looked at.
    let grain = new.header(0)?.block;
    let survey = Arc::new(match new.kind() {
        Kind::Dynamic => Survey::of(&disk, grain, watch)?,
        Kind::Static => Survey::all(new.size, grain)?,
    });
    let header = new.header(survey.count())?;
    let tables = Tables { header, survey: Arc::clone(&survey) };
    let len = header.data_offset();
    Ok((emitted::file(disk, "vdi", tables, len, survey)?, len))
}

/// Computes the header and the block map.
struct Tables {
    header: Header,
    survey: Arc<Survey>,
}

impl Tables {
    fn entry(&self, block: u64) -> u32 {
        if block >= self.survey.grains() || !self.survey.holds(block) {
            return BLOCK_FREE;
        }
        u32::try_from(self.survey.rank_of(block)).unwrap_or(BLOCK_FREE)
    }
}

impl Rule for Tables {
    fn fill(&self, mut offset: u64, mut buf: &mut [u8], _: Wait) -> Result<()> {
        let map = self.header.map_offset();
        let ends = [map, map.saturating_add(self.header.map_bytes()), u64::MAX];
        for (region, end) in ends.into_iter().enumerate() {
            let now = to_index(end.saturating_sub(offset)).min(buf.len());
            let (part, behind) = buf.split_at_mut(now);
            match region {
                0 => {
                    let bytes = self.header.head.as_bytes().get(to_index(offset)..).unwrap_or_default();
                    let padded = bytes.iter().copied().chain(std::iter::repeat(0));
                    part.iter_mut().zip(padded).for_each(|(to, from)| *to = from);
                }
                1 => fill_entries(offset.saturating_sub(map), part, |block| self.entry(block)),
                _ => part.fill(0),
            }
            offset = offset.saturating_add(to_u64(now));
            buf = behind;
        }
        Ok(())
    }
}
