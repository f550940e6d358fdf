//! Table: a written chart. Sixteen bytes an extent; gaps read as zeros.

use crate::{Chart, Error, Extent, Place, Result, SourceId, Wait};

/// The top bits of a packed place.
const KIND_SHIFT: u32 = 62;
const KIND_ZERO: u64 = 0;
const KIND_HOLE: u64 = 1;
const KIND_RAW: u64 = 2;
const KIND_SPILL: u64 = 3;

/// Behind the kind of a raw place: one bit writable, 13 bits source, 48 bits offset.
const WRITABLE: u64 = 1 << 61;
const SOURCE_SHIFT: u32 = 48;
const SOURCE_MAX: u16 = (1 << 13) - 1;
const OFFSET_MAX: u64 = (1 << SOURCE_SHIFT) - 1;

/// A sorted list of extents.
#[derive(Clone, Debug)]
pub struct Table {
    len: u64,
    /// Where each run begins. Gaps are runs of their own, so that a run ends where the next begins.
    starts: Box<[u64]>,
    /// Where its bytes live, packed.
    places: Box<[u64]>,
    /// What does not fit into eight bytes.
    spill: Box<[(Place, bool)]>,
}

impl Table {
    /// A builder for a table of extents given in order.
    pub fn builder() -> TableBuilder {
        TableBuilder::default()
    }

    /// A table of these extents, `len` bytes long.
    pub fn from_extents(len: u64, extents: impl IntoIterator<Item = Extent>) -> Result<Self> {
        let mut builder = TableBuilder::default();
        for extent in extents {
            builder.push(extent)?;
        }
        builder.finish(len)
    }

    /// How many runs it is made of, gaps included.
    pub fn runs(&self) -> usize {
        self.starts.len()
    }

    fn run(&self, i: usize) -> Extent {
        let at = self.starts[i];
        let end = self.starts.get(i + 1).copied().unwrap_or(self.len);
        let (place, writable) = self.unpack(self.places[i]);
        Extent { at, len: end - at, place, writable }
    }

    fn unpack(&self, packed: u64) -> (Place, bool) {
        match packed >> KIND_SHIFT {
            KIND_ZERO => (Place::Zero, false),
            KIND_HOLE => (Place::Hole, false),
            KIND_RAW => {
                let source = SourceId((packed >> SOURCE_SHIFT) as u16 & SOURCE_MAX);
                (Place::Raw { source, offset: packed & OFFSET_MAX }, packed & WRITABLE != 0)
            }
            _ => self.spill[(packed & OFFSET_MAX) as usize],
        }
    }
}

impl Chart for Table {
    fn len(&self) -> u64 {
        self.len
    }

    fn extent_at(&self, at: u64, want: u64, _: Wait) -> Result<Extent> {
        if at >= self.len {
            return Err(Error::out_of_range(format!("byte {at} of a table of {}", self.len)));
        }
        let i = self.starts.partition_point(|&start| start <= at) - 1;
        Ok(self.run(i).clip(at, want.max(1)))
    }
}

/// Takes extents in order and packs them.
#[derive(Default, Debug)]
pub struct TableBuilder {
    starts: Vec<u64>,
    places: Vec<u64>,
    spill: Vec<(Place, bool)>,
    end: u64,
    last: Option<Extent>,
}

impl TableBuilder {
    /// Where the last extent ended.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Adds an extent that begins at or behind the end of the one before.
    pub fn push(&mut self, extent: Extent) -> Result<()> {
        if extent.len == 0 {
            return Ok(());
        }
        let Some(end) = extent.at.checked_add(extent.len) else {
            return Err(Error::out_of_range(format!("{} bytes from byte {} on", extent.len, extent.at)));
        };
        if extent.at < self.end {
            return Err(
                Error::invalid(format!("extents overlap: one ends at byte {}", self.end)).at(extent.at)
            );
        }
        if extent.at > self.end {
            self.add(Extent::zero(self.end, extent.at - self.end));
        }
        self.end = end;
        self.add(extent);
        Ok(())
    }

    fn add(&mut self, extent: Extent) {
        if let Some(last) = &mut self.last
            && last.joins(&extent)
        {
            last.len += extent.len;
            return;
        }
        let packed = self.pack(&extent);
        self.starts.push(extent.at);
        self.places.push(packed);
        self.last = Some(extent);
    }

    fn pack(&mut self, extent: &Extent) -> u64 {
        match extent.place {
            Place::Zero => KIND_ZERO << KIND_SHIFT,
            Place::Hole => KIND_HOLE << KIND_SHIFT,
            Place::Raw { source, offset } if source.0 <= SOURCE_MAX && offset <= OFFSET_MAX => {
                let writable = if extent.writable { WRITABLE } else { 0 };
                KIND_RAW << KIND_SHIFT | writable | u64::from(source.0) << SOURCE_SHIFT | offset
            }
            place => {
                self.spill.push((place, extent.writable));
                KIND_SPILL << KIND_SHIFT | (self.spill.len() as u64 - 1)
            }
        }
    }

    /// The table, `len` bytes long: longer than its extents means zeros at the end, shorter is an error.
    pub fn finish(mut self, len: u64) -> Result<Table> {
        if len < self.end {
            return Err(Error::out_of_range(format!("extents reach byte {}, the disk {len}", self.end)));
        }
        if len > self.end {
            self.add(Extent::zero(self.end, len - self.end));
        }
        Ok(Table {
            len,
            starts: self.starts.into_boxed_slice(),
            places: self.places.into_boxed_slice(),
            spill: self.spill.into_boxed_slice(),
        })
    }
}
