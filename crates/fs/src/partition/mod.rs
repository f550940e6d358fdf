//! Partition tables: MBR, with extended and logical partitions, and GPT.
//!
//! Read as Linux reads them, numbers included, so that `#5` is what `/dev/sda5` would be. What Linux passes over in
//! silence is told in [`Table::notes`]. A partition is a window of its disk.

mod gpt;
mod guid;
pub mod layout;
mod mbr;
#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]
mod tests;
mod types;

pub use guid::Guid;
pub use types::Type;

use chart::{Disk, Error, Geometry, Result, Slice, Source, SourceId, Wait};
use layout::BootRecord;
use std::fmt;
use std::sync::Arc;
use zerocopy::FromBytes;

/// A disk has so many partitions at most: as many as Linux gives numbers to.
pub const MAX_PARTITIONS: usize = 255;
/// So much is noted at most.
const MAX_NOTES: usize = 32;

/// The kind of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// A master boot record.
    Mbr,
    /// A GUID partition table.
    Gpt,
}

impl Scheme {
    /// Its name: `mbr`, `gpt`.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::Mbr => "mbr",
            Scheme::Gpt => "gpt",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, as Linux numbers them: logical ones from 5.
    pub number: u32,
    /// Where it begins in the disk, in bytes.
    pub start: u64,
    /// How many bytes it has.
    pub len: u64,
    /// What the table says is in it.
    pub kind: Type,
    /// Its name, where the table has one.
    pub name: Option<String>,
    /// What Linux calls its PARTUUID.
    pub uuid: Option<String>,
    /// Whether it is marked as the one to boot, by firmware that looks for such a mark.
    pub bootable: bool,
}

impl Partition {
    /// One past its last byte in the disk.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// The partition as a disk: a window of the disk that its table was read from. One that holds other partitions
    /// can only be read.
    pub fn disk(&self, whole: &Arc<Disk>, writable: bool) -> Result<Arc<Disk>> {
        let name = format!("{}#{}", whole.name(), self.number);
        if writable && self.kind.is_extended() {
            return Err(Error::read_only(format!("{name} holds other partitions: those can be written")));
        }
        if writable && !whole.is_writable() {
            return Err(Error::read_only(format!("{} cannot be written", whole.name())));
        }
        chart::check_range(whole.len(), self.start, self.len)?;
        let window = Slice::new(SourceId(0), self.start, self.len, writable)?;
        let source: Arc<dyn Source> = Arc::<Disk>::clone(whole);
        let geometry = Geometry { grain: 1, ..whole.geometry() };
        let builder = Disk::builder(name, Arc::new(window)).source(source).geometry(geometry);
        if writable { builder.straight().build() } else { builder.build() }
    }
}

/// What a partition table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// What kind it is.
    pub scheme: Scheme,
    /// What tells the disk from others: a GUID, or the eight digits of an MBR.
    pub id: String,
    /// How many bytes a sector has, in which the table counts.
    pub sector: u64,
    /// The partitions, by number.
    pub partitions: Vec<Partition>,
    /// What is wrong with the table and was dealt with: a damaged header whose copy was used, a partition past the
    /// disk's end. For people.
    pub notes: Vec<String>,
}

impl Table {
    fn new(scheme: Scheme, id: String, sector: u64) -> Table {
        Table { scheme, id, sector, partitions: Vec::new(), notes: Vec::new() }
    }

    /// The partition of this number.
    pub fn find(&self, number: u32) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.number == number)
    }

    fn note(&mut self, what: String) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(what);
        }
    }
}

/// Reads the partition table of a disk; none where there is none.
///
/// An MBR that only protects a GPT is followed to it; where the first of its two headers is damaged, the other one
/// is used, and that is noted. A disk whose MBR promises a GPT, none of which is whole, is
/// [`Corrupt`](chart::Kind::Corrupt).
pub fn read(disk: &Arc<Disk>) -> Result<Option<Table>> {
    if disk.len() < layout::BOOT_RECORD_BYTES.try_into().unwrap_or(u64::MAX) {
        return Ok(None);
    }
    let record = boot_record(disk, 0)?;
    if !mbr::is_table(&record) {
        return Ok(None);
    }
    if mbr::is_protective(&record) {
        return gpt::read(disk, &record).map(Some);
    }
    mbr::read(disk, &record)
}

/// The boot record at a place of the disk.
fn boot_record(disk: &Disk, at: u64) -> Result<BootRecord> {
    let mut bytes = [0; layout::BOOT_RECORD_BYTES];
    disk.read_at(at, &mut bytes, Wait::Allowed)?;
    BootRecord::read_from_bytes(&bytes).map_err(|_| Error::corrupt("a boot record of another size"))
}
