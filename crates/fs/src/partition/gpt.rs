//! The GUID partition table: two headers, each with its own list of entries, checksums over all of them.

use super::layout::{
    self as l, BootRecord, GPT_ENTRY_BYTES, GPT_HEADER_BYTES, GPT_HEADER_CRC, GPT_SIGNATURE, GptEntry,
    GptHeader, os_type,
};
use super::{Guid, MAX_PARTITIONS, Partition, Scheme, Table, Type};
use chart::{Disk, Error, Kind, Result, Wait};
use flate2::Crc;
use zerocopy::FromBytes;

/// The sizes that sectors have.
const SECTORS: [u64; 2] = [512, 4096];
/// The sector of the first header.
const PRIMARY_LBA: u64 = 1;

/// A header that is whole, with its entries.
struct Half {
    header: GptHeader,
    sector: u64,
    entries: Vec<u8>,
}

/// Reads the table that a protective boot record promises.
pub(super) fn read(disk: &Disk, record: &BootRecord) -> Result<Table> {
    // The disk knows how large its sectors are only where it is a device; an image may be of one with others.
    let mut sectors = SECTORS;
    if u64::from(disk.geometry().logical_block) == SECTORS[1] {
        sectors.reverse();
    }
    let mut why = None;
    for sector in sectors {
        match half(disk, sector, PRIMARY_LBA) {
            Ok(primary) => return Ok(from_primary(disk, record, &primary)),
            Err(e) => worse(&mut why, e)?,
        }
    }
    for sector in sectors {
        match half(disk, sector, last_lba(disk, sector)) {
            Ok(backup) => {
                let why = why.map(|e| e.to_string()).unwrap_or_default();
                let note =
                    format!("the first GPT header is damaged ({why}): the one at the disk's end was used");
                return Ok(build(disk, record, &backup, vec![note]));
            }
            Err(e) if e.kind() == Kind::Corrupt => {}
            Err(e) => return Err(e),
        }
    }
    let what = "the boot record says that there is a GPT, but neither of its headers is whole";
    let e = Error::corrupt(what);
    Err(match why {
        Some(why) => e.caused_by(why),
        None => e,
    })
}

/// Keeps the error that tells most: one of a header that is there rather than of one that is not.
fn worse(kept: &mut Option<Error>, new: Error) -> Result<()> {
    if new.kind() != Kind::Corrupt {
        return Err(new);
    }
    if kept.as_ref().is_none_or(|kept| kept.offset().is_none()) {
        *kept = Some(new);
    }
    Ok(())
}

/// The header in a sector, and its entries: checked as Linux checks them. An error without a position says that
/// there is no header at all.
fn half(disk: &Disk, sector: u64, lba: u64) -> Result<Half> {
    let at = lba.saturating_mul(sector);
    if lba < PRIMARY_LBA || chart::check_range(disk.len(), at, sector).is_err() {
        return Err(Error::corrupt("there is no room for a header"));
    }
    let mut bytes = vec![0; index(sector)];
    disk.read_at(at, &mut bytes, Wait::Allowed)?;
    let wrong = |what: &str| Error::corrupt(what.to_owned()).at(at);
    let Ok((header, _)) = GptHeader::read_from_prefix(&bytes) else { return Err(wrong("the header is cut")) };
    if header.signature != GPT_SIGNATURE {
        return Err(Error::corrupt("there is no header"));
    }
    let size = index(header.header_size.get().into());
    let Some(counted) = bytes.get(..size).filter(|_| size >= GPT_HEADER_BYTES) else {
        return Err(wrong("the header has an impossible size"));
    };
    if crc(&[counted.get(..GPT_HEADER_CRC.start), Some(&[0; 4]), counted.get(GPT_HEADER_CRC.end..)])
        != header.header_crc32.get()
    {
        return Err(wrong("the header's checksum is wrong"));
    }
    if header.my_lba.get() != lba {
        return Err(wrong("the header belongs to another place"));
    }
    let last = last_lba(disk, sector);
    let usable = header.first_usable_lba.get()..=header.last_usable_lba.get();
    if *usable.end() > last {
        let needs = usable.end().saturating_add(1).saturating_mul(sector);
        let have = disk.len();
        return Err(wrong(&format!(
            "the table is of a disk of {needs} bytes or more, and this one has {have}"
        )));
    }
    if usable.is_empty() {
        return Err(wrong("the header leaves no room for partitions"));
    }
    let entries = entries(disk, sector, &header).map_err(|e| e.at(at))?;
    Ok(Half { header, sector, entries })
}

fn entries(disk: &Disk, sector: u64, header: &GptHeader) -> Result<Vec<u8>> {
    let size = header.size_of_partition_entry.get();
    let sane = (GPT_ENTRY_BYTES..=l::MAX_GPT_ENTRY_BYTES).contains(&size) && size.is_power_of_two();
    let bytes = u64::from(header.number_of_partition_entries.get()).saturating_mul(size.into());
    if !sane || bytes > l::MAX_GPT_ENTRIES_BYTES {
        let what = format!("the list of partitions has {bytes} bytes, in entries of {size}");
        return Err(Error::corrupt(what));
    }
    let at = header.partition_entry_lba.get().saturating_mul(sector);
    if chart::check_range(disk.len(), at, bytes).is_err() {
        return Err(Error::corrupt("the list of partitions reaches past the end of the disk"));
    }
    let mut entries = vec![0; index(bytes)];
    disk.read_at(at, &mut entries, Wait::Allowed)?;
    if crc(&[Some(&entries)]) != header.partition_entry_array_crc32.get() {
        return Err(Error::corrupt("the checksum of the list of partitions is wrong"));
    }
    Ok(entries)
}

/// What a good first header says. The other one is looked at too: whoever repairs disks wants to know.
fn from_primary(disk: &Disk, record: &BootRecord, primary: &Half) -> Table {
    let at = primary.header.alternate_lba.get();
    let mut notes = Vec::new();
    match half(disk, primary.sector, at) {
        Err(e) => {
            notes
                .push(format!("the second GPT header, which would stand in for the first, is not good: {e}"));
        }
        Ok(backup) => {
            let said = |half: &Half| (half.header.disk_guid, half.header.partition_entry_array_crc32.get());
            if said(primary) != said(&backup) {
                notes.push("the two GPT headers differ: what the first says is taken".to_owned());
            }
            if at != last_lba(disk, primary.sector) {
                notes.push("the second GPT header is not at the disk's end: the disk has grown".to_owned());
            }
        }
    }
    build(disk, record, primary, notes)
}

fn build(disk: &Disk, record: &BootRecord, half: &Half, notes: Vec<String>) -> Table {
    let sector = half.sector;
    let mut table = Table::new(Scheme::Gpt, Guid(half.header.disk_guid).to_string(), sector);
    notes.into_iter().for_each(|note| table.note(note));
    let others = |entry: &&l::BootEntry| !matches!(entry.os_type, 0 | os_type::PROTECTIVE);
    if record.entries.iter().any(|entry| others(&entry)) {
        table.note(
            "the boot record names partitions too (a hybrid MBR): what the GPT says is taken".to_owned(),
        );
    }
    let last = last_lba(disk, sector);
    let size = index(half.header.size_of_partition_entry.get().into());
    for (bytes, number) in half.entries.chunks_exact(size.max(1)).zip(1u32..) {
        let Ok((entry, _)) = GptEntry::read_from_prefix(bytes) else { continue };
        if Guid(entry.partition_type_guid) == Guid::ZERO {
            continue;
        }
        if number > u32::try_from(MAX_PARTITIONS).unwrap_or(u32::MAX) {
            table.note(format!("only the first {MAX_PARTITIONS} entries of the GPT are read"));
            break;
        }
        let (first, end) = (entry.starting_lba.get(), entry.ending_lba.get());
        if first > last || end > last || end < first {
            table.note(format!(
                "partition {number} lies in sectors {first} to {end}, which is not in the disk: left out"
            ));
            continue;
        }
        let start = first.saturating_mul(sector);
        let len = end.saturating_sub(first).saturating_add(1).saturating_mul(sector);
        let over = table.partitions.iter().find(|p| start < p.end() && p.start < start.saturating_add(len));
        if let Some(over) = over.map(|p| p.number) {
            table.note(format!("partitions {over} and {number} overlap"));
        }
        table.partitions.push(Partition {
            number,
            start,
            len,
            kind: Type::Gpt(Guid(entry.partition_type_guid)),
            name: name(&entry),
            uuid: Some(Guid(entry.unique_partition_guid).to_string()),
            bootable: entry.attributes.get() & l::LEGACY_BOOTABLE != 0,
        });
    }
    table
}

/// The name in an entry.
fn name(entry: &GptEntry) -> Option<String> {
    let units =
        entry.partition_name.iter().map(|unit| u16::from_le_bytes(*unit)).take_while(|unit| *unit != 0);
    let name: String = char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    (!name.is_empty()).then_some(name)
}

/// The checksum over these runs of bytes.
fn crc(runs: &[Option<&[u8]>]) -> u32 {
    let mut crc = Crc::new();
    runs.iter().flatten().for_each(|run| crc.update(run));
    crc.sum()
}

/// The last sector of the disk.
fn last_lba(disk: &Disk, sector: u64) -> u64 {
    disk.len().checked_div(sector).unwrap_or(0).saturating_sub(1)
}

/// A length that was found to be small, as an index.
fn index(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
