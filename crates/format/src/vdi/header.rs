//! The header: read, and held against what an image can be.

use super::layout::{self as l, Head, image_type};
use super::uuid::Uuid;
use crate::field::{read_vec, to_u64};
use crate::grain::Grain;
use chart::{Error, Result, Source};
use zerocopy::FromBytes;

/// How the blocks of an image come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// When they are written.
    Dynamic,
    /// At the beginning, all of them.
    Static,
}

/// A header that makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// As it is on disk.
    pub head: Head,
    /// How the blocks come to be.
    pub kind: Kind,
    pub(super) block: Grain,
}

impl Header {
    /// Reads it from the beginning of a file.
    pub fn read(file: &dyn Source) -> Result<Header> {
        let sector = read_vec(file, 0, l::SECTOR, "header")?;
        let head = Head::read_from_bytes(&sector).map_err(|_| Error::corrupt("the header is cut off"))?;
        Header::of(head)
    }

    /// What these bytes say, if an image can be that.
    pub fn of(head: Head) -> Result<Header> {
        if head.signature.get() != l::SIGNATURE {
            return Err(Error::corrupt("bears no signature of VDI").at(to_u64(l::SIGNATURE_OFFSET)));
        }
        let version = head.version.get();
        if version != l::VERSION {
            let what = format!("VDI version {}.{}; 1.1 is read here", version >> 16, version & 0xffff);
            return Err(Error::unsupported(what).at(68));
        }
        let kind = kind(&head)?;
        let size = head.block_size.get();
        let bits = size.trailing_zeros();
        if !size.is_power_of_two() || !(l::MIN_BLOCK_BITS..=l::MAX_BLOCK_BITS).contains(&bits) {
            let (least, most) = (1_u64 << l::MIN_BLOCK_BITS, 1_u64 << l::MAX_BLOCK_BITS);
            let what = format!("blocks of {size} bytes; powers of two from {least} to {most} are read here");
            return Err(Error::unsupported(what).at(0x178));
        }
        let header = Header { head, kind, block: Grain::new(bits) };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<()> {
        let head = &self.head;
        if u64::from(head.sector_size.get()) != l::SECTOR {
            let what = format!("sectors of {} bytes; {} is what there is", head.sector_size, l::SECTOR);
            return Err(Error::unsupported(what).at(0x168));
        }
        let (map, data) = (self.map_offset(), self.data_offset());
        if [map, data, u64::from(head.block_extra.get())].iter().any(|at| !at.is_multiple_of(l::SECTOR)) {
            let what = format!("a block map at byte {map} or blocks at byte {data} that are on no sector");
            return Err(Error::unsupported(what).at(0x154));
        }
        if self.map_bytes() > l::MAX_MAP_BYTES {
            let what = format!("{} blocks: the most is {}", self.blocks(), l::MAX_MAP_BYTES / l::ENTRY);
            return Err(Error::unsupported(what).at(0x180));
        }
        if map < l::SECTOR || map.saturating_add(self.map_bytes()) > data {
            let what = "the block map does not lie between the header and the blocks";
            return Err(Error::corrupt(what).at(0x154));
        }
        if head.disk_size.get() > self.capacity() {
            let what = format!(
                "a disk of {} bytes with a block map for {}",
                head.disk_size,
                self.blocks().saturating_mul(self.block.size())
            );
            return Err(Error::corrupt(what).at(0x170));
        }
        Ok(())
    }

    fn capacity(&self) -> u64 {
        self.blocks().saturating_mul(self.block.size())
    }

    /// Bytes in the disk. What is no whole sector is rounded up, as QEMU does.
    pub fn size(&self) -> u64 {
        let size = self.head.disk_size.get();
        size.checked_next_multiple_of(l::SECTOR).unwrap_or(size).min(self.capacity())
    }

    /// Bytes in a block.
    pub fn block_size(&self) -> u64 {
        self.block.size()
    }

    /// Entries in the block map.
    pub fn blocks(&self) -> u64 {
        self.head.blocks_in_image.get().into()
    }

    pub(super) fn map_bytes(&self) -> u64 {
        self.blocks().saturating_mul(l::ENTRY)
    }

    pub(super) fn map_offset(&self) -> u64 {
        self.head.offset_bmap.get().into()
    }

    pub(super) fn data_offset(&self) -> u64 {
        self.head.offset_data.get().into()
    }

    /// What tells the image from all others.
    pub fn uuid(&self) -> Uuid {
        Uuid(self.head.uuid_image)
    }
}

/// How the blocks come to be. Refuses what is only a part of an image.
fn kind(head: &Head) -> Result<Kind> {
    let parent = Uuid(head.uuid_link);
    let has_parent = parent != Uuid::NULL || Uuid(head.uuid_parent) != Uuid::NULL;
    match head.image_type.get() {
        image_type::DYNAMIC if !has_parent => Ok(Kind::Dynamic),
        image_type::STATIC if !has_parent => Ok(Kind::Static),
        image_type::UNDO => Err(Error::unsupported("a VDI undo image, which holds no disk").at(0x4c)),
        image_type::DYNAMIC | image_type::STATIC | image_type::DIFF => {
            let what = format!(
                "a differencing image over the image with UUID {parent}, which it does not name by path; merge \
                 the two first (VBoxManage clonemedium)"
            );
            Err(Error::unsupported(what).at(0x4c))
        }
        other => Err(Error::unsupported(format!("VDI image type {other}")).at(0x4c)),
    }
}
