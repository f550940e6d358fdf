//! Persistent dirty bitmaps: the directory, decoded and encoded, and what a bitmap says.

use super::cluster::Clusters;
use super::header::{Header, Table};
use super::layout::{self as l, BitmapHeader, bitmap_flag as flag};
use crate::field::{be64s, read_vec, text, to_index, to_u64};
use chart::{Error, Result, Source};
use zerocopy::{FromBytes, IntoBytes};

/// A loaded bitmap takes no more memory than this, about: a limit of ours.
pub const MAX_LOADED_BYTES: u64 = 64 << 20;

/// An entry of the bitmap directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    /// Its name.
    pub name: String,
    /// Where its table is.
    pub table_offset: u64,
    /// Entries in its table.
    pub table_size: u32,
    /// See [`l::bitmap_flag`].
    pub flags: u32,
    /// A bit stands for `1 << granularity_bits` bytes.
    pub granularity_bits: u8,
    /// Kept as it is.
    pub extra_data: Vec<u8>,
}

impl Bitmap {
    /// Not saved properly: what it says cannot be relied on.
    pub fn is_in_use(&self) -> bool {
        self.flags & flag::IN_USE != 0
    }

    /// It must follow all writes.
    pub fn is_auto(&self) -> bool {
        self.flags & flag::AUTO != 0
    }

    /// Whether what it says can be relied on and understood.
    pub fn is_usable(&self) -> bool {
        !self.is_in_use() && (self.extra_data.is_empty() || self.flags & flag::EXTRA_DATA_COMPATIBLE != 0)
    }

    /// Bytes of the disk that a bit stands for.
    pub fn granularity(&self) -> u64 {
        1u64.wrapping_shl(self.granularity_bits.into())
    }

    /// How many bytes its bits take for a disk of that size.
    pub fn bytes_for(&self, disk_size: u64) -> u64 {
        disk_size.div_ceil(self.granularity()).div_ceil(8)
    }

    /// Appends the directory entry to `out`, padded.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        let too_long = |_| Error::invalid(format!("the name of bitmap {:?} is too long", self.name));
        let name_size = u16::try_from(self.name.len()).map_err(too_long)?;
        if !(1..=l::MAX_BITMAP_NAME_BYTES).contains(&name_size) {
            let what = format!(
                "a bitmap's name has {name_size} bytes; 1 to {} are allowed",
                l::MAX_BITMAP_NAME_BYTES
            );
            return Err(Error::invalid(what));
        }
        let header = BitmapHeader {
            bitmap_table_offset: self.table_offset.into(),
            bitmap_table_size: self.table_size.into(),
            flags: self.flags.into(),
            kind: l::BITMAP_DIRTY_TRACKING,
            granularity_bits: self.granularity_bits,
            name_size: name_size.into(),
            extra_data_size: u32::try_from(self.extra_data.len()).map_err(too_long)?.into(),
        };
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(&self.extra_data);
        out.extend_from_slice(self.name.as_bytes());
        out.resize(out.len().next_multiple_of(8), 0);
        Ok(())
    }

    /// The entries of its table.
    pub fn read_table(&self, file: &dyn Source, clusters: Clusters) -> Result<Vec<u64>> {
        let bytes = u64::from(self.table_size).saturating_mul(8);
        let table = Table { clusters, file_len: file.len(), what: "bitmap table", field: self.table_offset };
        table.check(self.table_offset, bytes, u64::from(l::MAX_BITMAP_TABLE_ENTRIES).saturating_mul(8))?;
        if self.table_size == 0 {
            return Ok(Vec::new());
        }
        // A table that describes no more than a bitmap may have is this much shorter than the limit above.
        let most = l::MAX_BITMAP_BYTES.div_ceil(clusters.size());
        if u64::from(self.table_size) > most {
            let what = format!(
                "bitmap {:?} has a table of {} entries; the most is {most}",
                self.name, self.table_size
            );
            return Err(Error::unsupported(what).at(self.table_offset));
        }
        let bytes = read_vec(file, self.table_offset, bytes, "bitmap table")?;
        let entries: Vec<u64> = be64s(&bytes).collect();
        for (index, &entry) in entries.iter().enumerate() {
            check_entry(entry, clusters)
                .map_err(|e| e.at(self.table_offset.saturating_add(to_u64(index).saturating_mul(8))))?;
        }
        Ok(entries)
    }

    /// What it says of a disk of `disk_size` bytes.
    pub fn load(&self, file: &dyn Source, clusters: Clusters, disk_size: u64) -> Result<DirtyMap> {
        let what = || format!("bitmap {:?}", self.name);
        if !self.is_usable() {
            return Err(Error::conflict(format!("{} was not saved properly, or has unknown data", what())));
        }
        let bytes = self.bytes_for(disk_size);
        if u64::from(self.table_size) != clusters.count(bytes) {
            let size = self.table_size;
            let what = format!("{} has a table of {size} entries, for a disk of another size", what());
            return Err(Error::corrupt(what).at(self.table_offset));
        }
        let table = self.read_table(file, clusters).map_err(|e| e.during(what()))?;
        let (mut parts, mut held) = (Vec::new(), 0u64);
        for (index, entry) in (0u64..).zip(table) {
            let part = match (entry & l::OFFSET_MASK, entry & 1) {
                (0, 0) => Part::Clean,
                (0, _) => Part::Dirty,
                (offset, _) => {
                    let done = index.saturating_mul(clusters.size());
                    let len = bytes.saturating_sub(done).min(clusters.size());
                    held = held.saturating_add(len);
                    if held > MAX_LOADED_BYTES {
                        let what = format!("{} needs more than {MAX_LOADED_BYTES} bytes of memory", what());
                        return Err(Error::unsupported(what));
                    }
                    Part::Bits(read_vec(file, offset, len, "bitmap").map_err(|e| e.during(what()))?.into())
                }
            };
            parts.push(part);
        }
        let part_span = clusters.size().saturating_mul(8).saturating_mul(self.granularity());
        Ok(DirtyMap { disk_size, granularity: self.granularity(), part_span, parts })
    }
}

fn check_entry(entry: u64, clusters: Clusters) -> Result<()> {
    let offset = entry & l::OFFSET_MASK;
    if entry & l::BITMAP_TABLE_RESERVED != 0 || (offset != 0 && entry & 1 != 0) {
        return Err(Error::corrupt(format!("bitmap table entry {entry:#x} has bits set that must not be")));
    }
    if clusters.within(offset) != 0 {
        return Err(Error::corrupt(format!("bitmap table entry {entry:#x} is not where a cluster begins")));
    }
    Ok(())
}

/// The bitmaps of an image. Empty where there are none or, as its autoclear bit says, somebody who did not know of
/// them wrote to the image: then what is stored of them means nothing.
pub fn read(file: &dyn Source, header: &Header) -> Result<Vec<Bitmap>> {
    let clusters = header.clusters()?;
    let Some(extension) = header.bitmaps().filter(|_| header.is_autoclear(l::autoclear::BITMAPS)) else {
        return Ok(Vec::new());
    };
    let count = extension.nb_bitmaps.get();
    let (offset, size) = (extension.bitmap_directory_offset.get(), extension.bitmap_directory_size.get());
    if count == 0 || count > l::MAX_BITMAPS {
        return Err(Error::unsupported(format!("{count} bitmaps; 1 to {} are supported", l::MAX_BITMAPS)));
    }
    let table = Table { clusters, file_len: file.len(), what: "bitmap directory", field: offset };
    table.check(offset, size, l::MAX_BITMAP_DIRECTORY_BYTES)?;
    let directory = read_vec(file, offset, size, "bitmap directory")?;
    let (mut found, mut rest) = (Vec::new(), directory.as_slice());
    for _ in 0..count {
        let at = offset.saturating_add(size).saturating_sub(to_u64(rest.len()));
        let (bitmap, behind) = decode(rest, at)?;
        found.push(bitmap);
        rest = behind;
    }
    if !rest.is_empty() {
        return Err(Error::corrupt("the bitmap directory is longer than its entries").at(offset));
    }
    Ok(found)
}

/// The bitmap of that name.
pub fn find<'b>(bitmaps: &'b [Bitmap], name: &str) -> Result<&'b Bitmap> {
    let known = || {
        let known: Vec<_> = bitmaps.iter().take(8).map(|b| format!("{:?}", b.name)).collect();
        if known.is_empty() { "none".to_owned() } else { known.join(", ") }
    };
    let missing = || Error::not_found(format!("no bitmap {name:?}; there is {}", known()));
    bitmaps.iter().find(|bitmap| bitmap.name == name).ok_or_else(missing)
}

fn decode(bytes: &[u8], at: u64) -> Result<(Bitmap, &[u8])> {
    let cut = || Error::corrupt("the bitmap directory is cut off").at(at);
    let (head, variable) = BitmapHeader::read_from_prefix(bytes).map_err(|_| cut())?;
    let (extra, name) = (to_index(head.extra_data_size.get().into()), usize::from(head.name_size.get()));
    let flags = head.flags.get();
    let bad = |what: String| Err(Error::corrupt(format!("a bitmap with {what}")).at(at));
    if head.kind != l::BITMAP_DIRTY_TRACKING {
        return Err(Error::unsupported(format!("a bitmap of type {}", head.kind)).at(at));
    }
    if flags & !(flag::IN_USE | flag::AUTO | flag::EXTRA_DATA_COMPATIBLE) != 0 {
        return bad(format!("unknown flags: {flags:#x}"));
    }
    if !l::BITMAP_GRANULARITY_BITS.contains(&head.granularity_bits) {
        return Err(Error::unsupported(format!("a bitmap of granularity 2^{}", head.granularity_bits)).at(at));
    }
    if name == 0 || name > usize::from(l::MAX_BITMAP_NAME_BYTES) {
        return bad(format!("a name of {name} bytes"));
    }
    let extra_data = variable.get(..extra).ok_or_else(cut)?;
    let named = variable.get(extra..).and_then(|rest| rest.get(..name)).ok_or_else(cut)?;
    let len = size_of::<BitmapHeader>().saturating_add(extra).saturating_add(name).next_multiple_of(8);
    let behind = bytes.get(len..).ok_or_else(cut)?;
    let bitmap = Bitmap {
        name: text(named, "bitmap's name", at)?,
        table_offset: head.bitmap_table_offset.get(),
        table_size: head.bitmap_table_size.get(),
        flags,
        granularity_bits: head.granularity_bits,
        extra_data: extra_data.to_vec(),
    };
    Ok((bitmap, behind))
}

/// The bytes of a directory of these bitmaps.
pub fn encode(bitmaps: &[Bitmap]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for bitmap in bitmaps {
        bitmap.encode(&mut out)?;
    }
    if bitmaps.len() > to_index(l::MAX_BITMAPS.into()) || to_u64(out.len()) > l::MAX_BITMAP_DIRECTORY_BYTES {
        return Err(Error::unsupported(format!(
            "{} bitmaps, {} bytes of directory",
            bitmaps.len(),
            out.len()
        )));
    }
    Ok(out)
}

/// What a bitmap says: which parts of a disk are dirty.
#[derive(Clone, Debug)]
pub struct DirtyMap {
    disk_size: u64,
    granularity: u64,
    /// Bytes of the disk that one part stands for.
    part_span: u64,
    parts: Vec<Part>,
}

/// A cluster of a bitmap.
#[derive(Clone, Debug)]
enum Part {
    Clean,
    Dirty,
    Bits(Box<[u8]>),
}

impl DirtyMap {
    /// What these bits say, which are laid out as a stored bitmap's.
    pub(super) fn of_bits(disk_size: u64, granularity: u64, bits: Vec<u8>) -> DirtyMap {
        let part_span = to_u64(bits.len()).saturating_mul(8).saturating_mul(granularity).max(1);
        DirtyMap { disk_size, granularity, part_span, parts: vec![Part::Bits(bits.into())] }
    }

    /// Bytes of the disk that a bit stands for.
    pub fn granularity(&self) -> u64 {
        self.granularity
    }

    /// Bytes of the disk.
    pub fn disk_size(&self) -> u64 {
        self.disk_size
    }

    /// Whether the byte at `at` is dirty.
    pub fn is_dirty(&self, at: u64) -> bool {
        self.same(at).0
    }

    /// Whether the byte at `at` is dirty, and for how many bytes that one bit, or byte of bits, or part, says so.
    fn same(&self, at: u64) -> (bool, u64) {
        let rest = |span: u64| span.saturating_sub(at.checked_rem(span).unwrap_or(0));
        let index = at.checked_div(self.part_span).unwrap_or(0);
        match self.parts.get(to_index(index)) {
            Some(Part::Bits(bytes)) => {
                let bit =
                    at.checked_rem(self.part_span).unwrap_or(0).checked_div(self.granularity).unwrap_or(0);
                let byte = bytes.get(to_index(bit / 8)).copied().unwrap_or(0);
                let span = if matches!(byte, 0 | 0xff) {
                    self.granularity.saturating_mul(8)
                } else {
                    self.granularity
                };
                (byte.wrapping_shr(u32::try_from(bit % 8).unwrap_or(0)) & 1 != 0, rest(span))
            }
            Some(Part::Dirty) => (true, rest(self.part_span)),
            Some(Part::Clean) | None => (false, rest(self.part_span)),
        }
    }

    /// Whether the byte at `at` is dirty, and for how many bytes from there, at most `want`, that stays so. `at`
    /// lies in the disk.
    pub fn run(&self, at: u64, want: u64) -> (bool, u64) {
        let want = want.min(self.disk_size.saturating_sub(at));
        let (dirty, mut len) = self.same(at);
        while len < want {
            let (next, more) = self.same(at.saturating_add(len));
            if next != dirty {
                break;
            }
            len = len.saturating_add(more);
        }
        (dirty, len.min(want))
    }

    /// How many bytes of the disk are dirty.
    pub fn dirty_bytes(&self) -> u64 {
        let (mut at, mut sum) = (0u64, 0u64);
        while at < self.disk_size {
            let (dirty, len) = self.run(at, u64::MAX);
            sum = sum.saturating_add(if dirty { len } else { 0 });
            at = at.saturating_add(len.max(1));
        }
        sum
    }
}
