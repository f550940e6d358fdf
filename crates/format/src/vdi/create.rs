//! Making a new image: everything but the header first, then, when that is durable, the header.

use super::layout::{self as l, Head, image_type};
use super::{Header, Kind, Uuid};
use crate::field::to_index;
pub use crate::preallocation::Preallocation;
use crate::preallocation::{reserve, write_pieces};
use chart::{Error, Result, Source, Wait};
use zerocopy::{FromZeros, IntoBytes};

/// Where blocks begin is a multiple of this, as VirtualBox makes it: so that they lie on blocks of the file system,
/// and can be shared with it.
const ALIGN: u64 = 1 << 20;

/// What is written where programs say who they are.
const TEXT: &[u8] = b"<<< Portolan Virtual Disk Image >>>\n";

/// What a new image is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct New {
    /// Bytes in the disk: whole sectors.
    pub size: u64,
    /// A block has `1 << block_bits` bytes. QEMU reads only blocks of 1 MiB.
    pub block_bits: u32,
    /// What space it takes from the beginning. Any makes it a static image.
    pub preallocation: Preallocation,
    /// What tells it from all others.
    pub uuid: Uuid,
    /// Its first state.
    pub modified: Uuid,
}

impl New {
    /// A disk of `size` bytes, rounded up to whole sectors, with what `qemu-img create` would choose.
    pub fn of(size: u64) -> New {
        New {
            size: size.checked_next_multiple_of(l::SECTOR).unwrap_or(size),
            block_bits: l::DEFAULT_BLOCK_BITS,
            preallocation: Preallocation::Off,
            uuid: Uuid::fresh(),
            modified: Uuid::fresh(),
        }
    }

    /// How its blocks come to be.
    pub fn kind(&self) -> Kind {
        if self.preallocation == Preallocation::Off { Kind::Dynamic } else { Kind::Static }
    }

    /// The header of an image with so many blocks stored.
    pub(super) fn header(&self, stored: u64) -> Result<Header> {
        if !(l::MIN_BLOCK_BITS..=l::MAX_BLOCK_BITS).contains(&self.block_bits) {
            return Err(Error::invalid(format!("blocks of 2^{} bytes", self.block_bits)));
        }
        if !self.size.is_multiple_of(l::SECTOR) {
            let what = format!("{} bytes are no whole sectors of {}", self.size, l::SECTOR);
            return Err(Error::invalid(format!("{what}, which a VDI disk has")));
        }
        let block = crate::grain::Grain::new(self.block_bits);
        let blocks = block.count(self.size);
        let map_bytes = blocks.saturating_mul(l::ENTRY);
        if map_bytes > l::MAX_MAP_BYTES {
            let most = (l::MAX_MAP_BYTES / l::ENTRY).saturating_mul(block.size());
            let what = format!("a VDI disk of {} bytes; the longest that is made here has {most}", self.size);
            return Err(Error::invalid(what));
        }
        let data = l::SECTOR.saturating_add(map_bytes).next_multiple_of(ALIGN);
        let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).into();
        let mut head = Head::new_zeroed();
        head.text.iter_mut().zip(TEXT).for_each(|(to, from)| *to = *from);
        head.signature = l::SIGNATURE.into();
        head.version = l::VERSION.into();
        head.header_size = l::HEADER_SIZE.into();
        head.image_type = match self.kind() {
            Kind::Dynamic => image_type::DYNAMIC,
            Kind::Static => image_type::STATIC,
        }
        .into();
        head.offset_bmap = small(l::SECTOR);
        head.offset_data = small(data);
        head.sector_size = small(l::SECTOR);
        let [.., last] = &mut head.lchs_geometry;
        *last = small(l::SECTOR);
        head.disk_size = self.size.into();
        head.block_size = small(block.size());
        head.blocks_in_image = small(blocks);
        head.blocks_allocated = small(stored);
        head.uuid_image = self.uuid.0;
        head.uuid_last_snap = self.modified.0;
        Header::of(head)
    }

    /// How many blocks are stored from the beginning.
    fn stored(&self) -> u64 {
        match self.kind() {
            Kind::Dynamic => 0,
            Kind::Static => crate::grain::Grain::new(self.block_bits.min(63)).count(self.size),
        }
    }
}

/// Makes a new image in `file`, which holds nothing that matters. Only when this returns is it an image: the header is
/// written last, when everything else is durable.
pub fn create(file: &dyn Source, new: &New) -> Result<()> {
    let stored = new.stored();
    let header = new.header(stored)?;
    let data = header.data_offset();
    let data_len = stored.saturating_mul(header.block_size());
    // Whatever was there before must not look like an image meanwhile.
    file.set_len(0)?;
    file.set_len(data.saturating_add(data_len))?;
    reserve(file, data, data_len, new.preallocation)?;
    write_pieces(file, header.map_offset(), header.map_bytes(), |done, piece| {
        let entry = |block: u64| match block < stored {
            true => u32::try_from(block).unwrap_or(l::BLOCK_FREE),
            false => l::BLOCK_FREE,
        };
        fill_entries(done, piece, entry);
    })?;
    file.flush()?;
    file.write_at(0, header.head.as_bytes(), Wait::Allowed)?;
    file.flush()
}

/// Fills a buffer with the bytes of the map from `start` on, of entries as `entry` says.
pub(super) fn fill_entries(start: u64, out: &mut [u8], entry: impl Fn(u64) -> u32) {
    let mut block = start / l::ENTRY;
    let mut within = to_index(start % l::ENTRY);
    let mut rest = out;
    while !rest.is_empty() {
        let bytes = entry(block).to_le_bytes();
        let part = bytes.get(within..).unwrap_or_default();
        let now = part.len().min(rest.len());
        let (to, behind) = rest.split_at_mut(now);
        to.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
        rest = behind;
        (block, within) = (block.saturating_add(1), 0);
    }
}
