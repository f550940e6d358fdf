//! The snapshot table: decoded, encoded with what is not understood kept, and searched.

use super::cluster::Clusters;
use super::header::{Header, Table};
use super::layout::{MAX_L1_BYTES, MAX_SNAPSHOT_EXTRA_BYTES, MAX_SNAPSHOT_TABLE_BYTES, SnapshotHeader};
use crate::field::{text, to_index, to_u64};
use chart::{Error, Result, Source, Wait};
use zerocopy::{FromBytes, IntoBytes};

/// So much of a snapshot table is read at once.
const PART_BYTES: u64 = 64 << 10;

/// An internal snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its unique id; usually a number.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where its L1 table is.
    pub l1_table_offset: u64,
    /// Entries in it.
    pub l1_size: u32,
    /// When it was taken, in seconds since 1970.
    pub date_sec: u32,
    /// The part of a second of that.
    pub date_nsec: u32,
    /// How long the guest had run.
    pub vm_clock_nsec: u64,
    /// The size of the saved machine state; 0 if there is none.
    pub vm_state_size: u64,
    /// The disk's size when it was taken; `None` in old images: the same as now.
    pub disk_size: Option<u64>,
    /// The guest's instruction count; `None` where it was not counted.
    pub icount: Option<u64>,
    /// The extra data behind the fields above, kept as it is.
    pub unknown_extra: Vec<u8>,
}

impl Snapshot {
    /// Refuses an L1 table that is not where one can be.
    pub fn check(&self, clusters: Clusters, file_len: u64) -> Result<()> {
        let bytes = u64::from(self.l1_size).saturating_mul(8);
        let table = Table { clusters, file_len, what: "snapshot's L1 table", field: self.l1_table_offset };
        table.check(self.l1_table_offset, bytes, MAX_L1_BYTES)?;
        let size = self.disk_size.unwrap_or(0);
        if u64::from(self.l1_size) < clusters.l1_entries(size) {
            let what = format!(
                "snapshot {}'s L1 table has {} entries, too few for {size} bytes",
                self.id, self.l1_size
            );
            return Err(Error::corrupt(what).at(self.l1_table_offset));
        }
        Ok(())
    }

    fn extra(&self) -> Vec<u8> {
        let mut extra = Vec::new();
        if self.disk_size.is_none() && self.icount.is_none() && self.unknown_extra.is_empty() {
            // What a 32-bit field can hold needs no extra data.
            if self.vm_state_size > u64::from(u32::MAX) {
                extra.extend_from_slice(&self.vm_state_size.to_be_bytes());
            }
            return extra;
        }
        extra.extend_from_slice(&self.vm_state_size.to_be_bytes());
        extra.extend_from_slice(&self.disk_size.unwrap_or(0).to_be_bytes());
        if self.icount.is_some() || !self.unknown_extra.is_empty() {
            extra.extend_from_slice(&self.icount.unwrap_or(u64::MAX).to_be_bytes());
            extra.extend_from_slice(&self.unknown_extra);
        }
        extra
    }

    /// Appends the table entry to `out`, padded.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        let extra = self.extra();
        let too_long = |_| Error::invalid(format!("the name or id of snapshot {} is too long", self.id));
        let header = SnapshotHeader {
            l1_table_offset: self.l1_table_offset.into(),
            l1_size: self.l1_size.into(),
            id_str_size: u16::try_from(self.id.len()).map_err(too_long)?.into(),
            name_size: u16::try_from(self.name.len()).map_err(too_long)?.into(),
            date_sec: self.date_sec.into(),
            date_nsec: self.date_nsec.into(),
            vm_clock_nsec: self.vm_clock_nsec.into(),
            vm_state_size: u32::try_from(self.vm_state_size).unwrap_or(0).into(),
            extra_data_size: u32::try_from(extra.len()).map_err(too_long)?.into(),
        };
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(&extra);
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(self.name.as_bytes());
        out.resize(out.len().next_multiple_of(8), 0);
        Ok(())
    }
}

/// The bytes of a table of these snapshots.
pub fn encode(snapshots: &[Snapshot]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for snapshot in snapshots {
        snapshot.encode(&mut out)?;
    }
    if to_u64(out.len()) > MAX_SNAPSHOT_TABLE_BYTES {
        let what = format!("a snapshot table of {} bytes; the most is {MAX_SNAPSHOT_TABLE_BYTES}", out.len());
        return Err(Error::unsupported(what));
    }
    Ok(out)
}

/// Reads bytes from a source in order, in parts, within a limit.
struct Reader<'a> {
    source: &'a dyn Source,
    /// The limit.
    end: u64,
    /// Where `part` begins.
    base: u64,
    part: Vec<u8>,
    offset: u64,
}

impl Reader<'_> {
    fn take(&mut self, len: u64) -> Result<&[u8]> {
        let end = self.offset.saturating_add(len);
        if end > self.end {
            let what = format!(
                "the snapshot table reaches past the file's end, or past {MAX_SNAPSHOT_TABLE_BYTES} bytes"
            );
            return Err(Error::corrupt(what).at(self.offset));
        }
        if end > self.base.saturating_add(to_u64(self.part.len())) {
            let now = self.end.saturating_sub(self.offset).min(PART_BYTES.max(len));
            self.part.resize(to_index(now), 0);
            self.source.read_at(self.offset, &mut self.part, Wait::Allowed)?;
            self.base = self.offset;
        }
        let skip = to_index(self.offset.saturating_sub(self.base));
        self.offset = end;
        let taken = self.part.get(skip..).and_then(|rest| rest.get(..to_index(len)));
        taken.ok_or_else(|| Error::corrupt("the snapshot table is cut off").at(end))
    }
}

/// The snapshots of an image, and the length of their table.
pub fn read_table(source: &dyn Source, header: &Header) -> Result<(Vec<Snapshot>, u64)> {
    let start = header.snapshots_offset;
    let end = source.len().min(start.saturating_add(MAX_SNAPSHOT_TABLE_BYTES));
    let mut reader = Reader { source, end, base: start, part: Vec::new(), offset: start };
    let mut found = Vec::new();
    for _ in 0..header.nb_snapshots {
        found.push(read_entry(&mut reader, header.version)?);
    }
    Ok((found, reader.offset.saturating_sub(start)))
}

/// The snapshots of an image.
pub fn read(source: &dyn Source, header: &Header) -> Result<Vec<Snapshot>> {
    read_table(source, header).map(|(found, _)| found)
}

fn read_entry(reader: &mut Reader<'_>, version: u32) -> Result<Snapshot> {
    let offset = reader.offset;
    let cut = |_| Error::corrupt("a snapshot table entry is cut off").at(offset);
    let (head, _) = SnapshotHeader::read_from_prefix(reader.take(40)?).map_err(|e| cut(e.to_string()))?;
    let extra_len = head.extra_data_size.get();
    if extra_len > MAX_SNAPSHOT_EXTRA_BYTES {
        let what = format!(
            "a snapshot with {extra_len} bytes of extra data; the most is {MAX_SNAPSHOT_EXTRA_BYTES}"
        );
        return Err(Error::unsupported(what).at(offset));
    }
    let extra = reader.take(extra_len.into())?.to_vec();
    let field = |i: usize| extra.as_chunks::<8>().0.get(i).map(|b| u64::from_be_bytes(*b));
    if version >= 3 && field(1).is_none() {
        return Err(Error::corrupt("a snapshot without its disk size").at(offset));
    }
    let id = text(reader.take(head.id_str_size.get().into())?, "snapshot's id", offset)?;
    let name = text(reader.take(head.name_size.get().into())?, "snapshot's name", offset)?;
    let padding = reader.offset.next_multiple_of(8).saturating_sub(reader.offset);
    // The last entry may end with the file.
    let padding = padding.min(reader.end.saturating_sub(reader.offset));
    reader.take(padding)?;
    Ok(Snapshot {
        id,
        name,
        l1_table_offset: head.l1_table_offset.get(),
        l1_size: head.l1_size.get(),
        date_sec: head.date_sec.get(),
        date_nsec: head.date_nsec.get(),
        vm_clock_nsec: head.vm_clock_nsec.get(),
        vm_state_size: field(0).unwrap_or(head.vm_state_size.get().into()),
        disk_size: field(1),
        icount: field(2).filter(|&count| count != u64::MAX),
        unknown_extra: extra.get(24..).unwrap_or_default().to_vec(),
    })
}

/// The snapshot of that id, else of that name.
pub fn find<'s>(snapshots: &'s [Snapshot], wanted: &str) -> Result<&'s Snapshot> {
    let by_id = snapshots.iter().find(|s| s.id == wanted);
    let found = by_id.or_else(|| snapshots.iter().find(|s| s.name == wanted));
    found.ok_or_else(|| {
        let known: Vec<_> = snapshots.iter().take(8).map(|s| format!("{} ({})", s.id, s.name)).collect();
        Error::not_found(format!(
            "no snapshot {wanted:?}; there is {}",
            if known.is_empty() { "none".to_owned() } else { known.join(", ") }
        ))
    })
}
