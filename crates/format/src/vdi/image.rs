//! Opening an image, and the disk it makes.

use super::alloc::{Bits, Slots};
use super::map::Map;
use super::writer::Mutator;
use super::{Header, Image, Kind, Options};
use chart::{Disk, DiskBuilder, Error, Geometry, Result, Source};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

impl Image {
    /// Opens the image in `file`.
    pub fn open(file: Arc<dyn Source>, options: &Options) -> Result<Image> {
        let name = file.name();
        Image::open_inner(file, options).map_err(|e| e.in_path(name))
    }

    fn open_inner(file: Arc<dyn Source>, options: &Options) -> Result<Image> {
        let header = Header::read(file.as_ref())?;
        let map = Map::read(file.as_ref(), header.map_offset(), header.blocks())?;
        let extra = u64::from(header.head.block_extra.get());
        let mut image = Image {
            kind: header.kind,
            block: header.block,
            stride: header.block_size().saturating_add(extra),
            first: header.data_offset().saturating_add(extra),
            map,
            size: AtomicU64::new(header.size()),
            end: AtomicU64::new(file.len()),
            in_place: AtomicBool::new(false),
            mutator: None,
            onlooker: options.onlooker.clone(),
            opened: header,
            file,
        };
        if options.writable {
            if extra > 0 {
                let what = format!("each block has {extra} bytes beside it whose meaning is not known here");
                return Err(Error::unsupported(format!("{what}; it can be read, and converted")));
            }
            image.mutator = Some(image.mutator_of(&header, options.repair)?);
        }
        Ok(image)
    }

    /// What an image needs to be written: which blocks of the file are taken. Refuses one whose map contradicts
    /// itself, unless it is to be repaired.
    fn mutator_of(&self, header: &Header, repair: bool) -> Result<Mutator> {
        let mut taken = Bits::default();
        let mut wrong = None;
        for (block, slot) in self.map.stored(header.blocks()) {
            let fault = self.fault(slot, header.blocks(), self.file.len());
            // What is not in the file is not to be given out again either, as far as it could be.
            let new = u64::from(slot) < header.blocks() && taken.set(slot.into());
            let fault = fault.or((!new).then_some("is another block's too"));
            wrong = wrong.or(fault.map(|fault| (block, slot, fault)));
        }
        if let (Some((block, slot, fault)), false) = (wrong, repair) {
            let what = format!(
                "block {block} of the disk is block {slot} of the file, which {fault}; the image cannot be written \
                 before it is repaired"
            );
            return Err(Error::corrupt(what).at(self.entry_offset(header, block)));
        }
        let held = self.file.len().saturating_sub(self.first).div_ceil(self.stride.max(1));
        Ok(Mutator::new(header, Slots::new(taken, held), wrong.is_some()))
    }

    /// What is wrong with a block of the file, whoever names it.
    pub(super) fn fault(&self, slot: u32, limit: u64, len: u64) -> Option<&'static str> {
        if self.offset_of(slot) >= len {
            return Some("lies past the end of the file");
        }
        (u64::from(slot) >= limit).then_some("is beyond the number of blocks there can be")
    }

    /// Where the map's entry of a block is in the file.
    pub(super) fn entry_offset(&self, header: &Header, block: u64) -> u64 {
        header.map_offset().saturating_add(block.saturating_mul(super::layout::ENTRY))
    }

    /// Where the bytes of a block of the file begin.
    #[inline]
    pub(super) fn offset_of(&self, slot: u32) -> u64 {
        self.first.saturating_add(u64::from(slot).saturating_mul(self.stride))
    }

    /// The image as the layer of a disk, with its file as the source.
    pub fn builder(self: &Arc<Self>, name: impl Into<String>) -> DiskBuilder {
        let grain = self.block.size();
        let preferred = u32::try_from(grain).unwrap_or(1 << 20).max(64 << 10);
        let geometry = Geometry { grain, preferred, ..Geometry::default() };
        let layer: Arc<dyn chart::Layer> = Arc::<Self>::clone(self);
        let builder = Disk::builder(name, layer).image().source(Arc::clone(&self.file)).geometry(geometry);
        if self.mutator.is_some() {
            let mutator: Arc<dyn chart::ChartMut> = Arc::<Self>::clone(self);
            return builder.mutator(mutator);
        }
        builder
    }

    /// The disk: to be written too, where the image was opened so.
    pub fn disk(self: &Arc<Self>, name: impl Into<String>) -> Result<Arc<Disk>> {
        self.builder(name).build()
    }

    /// The image file.
    pub fn file(&self) -> &Arc<dyn Source> {
        &self.file
    }

    /// The header, as it is on disk or about to be.
    pub fn header(&self) -> Header {
        self.writer().map_or(self.opened, |writer| writer.header)
    }

    /// How its blocks come to be.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Bytes in the disk.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Blocks in the disk.
    pub(super) fn blocks(&self) -> u64 {
        self.block.count(self.size())
    }

    /// Whether its map contradicts itself, so that it must be repaired before it is written.
    pub fn is_damaged(&self) -> bool {
        self.writer().is_ok_and(|writer| writer.damaged)
    }
}
