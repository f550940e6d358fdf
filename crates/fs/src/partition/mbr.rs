//! The master boot record, and the chain of boot records in an extended partition.

use super::layout::{ACTIVE, BOOT_SIGNATURE, BootEntry, BootRecord, os_type};
use super::{MAX_PARTITIONS, Partition, Scheme, Table, Type, boot_record};
use chart::{Disk, Result};

/// So many records of a chain may follow each other without a partition in them (Linux's limit).
const MAX_EMPTY_LINKS: usize = 100;
/// The number of the first logical partition.
const FIRST_LOGICAL: u32 = 5;
/// The sizes that sectors have.
const SECTORS: [u64; 2] = [512, 4096];

/// Whether this is a boot record with a table. Where another program begins a disk (a boot sector of a file
/// system, say), boot indicators are hardly ever what they may be in a table.
pub(super) fn is_table(record: &BootRecord) -> bool {
    let sane = |entry: &BootEntry| matches!(entry.boot_indicator, 0 | ACTIVE);
    record.boot_signature == BOOT_SIGNATURE && record.entries.iter().all(sane)
}

/// Whether it says that the table is a GPT. Other entries beside that one (a hybrid MBR) are for those who know no
/// GPT.
pub(super) fn is_protective(record: &BootRecord) -> bool {
    record.entries.iter().any(|entry| entry.os_type == os_type::PROTECTIVE)
}

/// The partitions of a boot record. None where there are none and the record is a file system's boot sector.
pub(super) fn read(disk: &Disk, record: &BootRecord) -> Result<Option<Table>> {
    let used = record.entries.iter().any(|entry| entry.len_sectors.get() > 0);
    if !used && is_boot_sector(record) {
        return Ok(None);
    }
    let signature = record.signature.get();
    let sector = u64::from(disk.geometry().logical_block);
    let sector = if SECTORS.contains(&sector) { sector } else { 512 };
    let table = Table::new(Scheme::Mbr, format!("{signature:08x}"), sector);
    let mut reader = Reader { disk, signature, table };
    for (entry, number) in record.entries.iter().zip(1..) {
        reader.add(number, entry, 0);
    }
    let mut next = FIRST_LOGICAL;
    for entry in &record.entries {
        if entry.len_sectors.get() > 0 && is_extended(entry) {
            next = reader.follow(entry, next)?;
        }
    }
    Ok(Some(reader.table))
}

fn is_extended(entry: &BootEntry) -> bool {
    Type::Mbr(entry.os_type).is_extended()
}

/// Whether a file system's boot sector begins here, as those of FAT, exFAT and NTFS do: with a jump, and a name or
/// the size of a sector behind it.
fn is_boot_sector(record: &BootRecord) -> bool {
    let [a, _, c, name @ ..] = &record.code;
    let jumps = (*a == 0xeb && *c == 0x90) || *a == 0xe9;
    let sector = name
        .get(8..10)
        .is_some_and(|s| [512u16, 1024, 2048, 4096].map(u16::to_le_bytes).iter().any(|k| k == s));
    jumps && (sector || name.starts_with(b"EXFAT   "))
}

struct Reader<'d> {
    disk: &'d Disk,
    signature: u32,
    table: Table,
}

impl Reader<'_> {
    fn bytes(&self, sectors: u32) -> u64 {
        // 32 bits of sectors of 12 bits at most.
        u64::from(sectors).saturating_mul(self.table.sector)
    }

    /// Adds a partition whose entry counts from `base`; whether it has one. As Linux does: what begins past the
    /// disk's end is left out, what ends past it is cut.
    fn add(&mut self, number: u32, entry: &BootEntry, base: u64) -> bool {
        let start = base.saturating_add(self.bytes(entry.start_sectors.get()));
        let mut len = self.bytes(entry.len_sectors.get());
        if len == 0 {
            return false;
        }
        let room = self.disk.len().saturating_sub(start);
        if room == 0 {
            self.table.note(format!("partition {number} begins at byte {start}, past the end of the disk"));
            return true;
        }
        if len > room {
            let by = len.saturating_sub(room);
            self.table
                .note(format!("partition {number} reaches {by} bytes past the end of the disk: cut there"));
            len = room;
        }
        let over = self
            .table
            .partitions
            .iter()
            .find(|p| !p.kind.is_extended() && start < p.end() && p.start < start.saturating_add(len));
        if let Some(over) = over.map(|p| p.number) {
            self.table.note(format!("partitions {over} and {number} overlap"));
        }
        self.table.partitions.push(Partition {
            number,
            start,
            len,
            kind: Type::Mbr(entry.os_type),
            name: None,
            uuid: Some(format!("{:08x}-{number:02x}", self.signature)),
            bootable: entry.boot_indicator == ACTIVE,
        });
        true
    }

    /// Follows the chain of records in an extended partition: each has an entry for a logical partition, which
    /// counts from that record, and one for the next record, which counts from the extended partition. The number
    /// of the next logical partition.
    fn follow(&mut self, extended: &BootEntry, mut number: u32) -> Result<u32> {
        let first = self.bytes(extended.start_sectors.get());
        let whole = first..first.saturating_add(self.bytes(extended.len_sectors.get()));
        let (mut at, mut len, mut empty) = (first, self.bytes(extended.len_sectors.get()), 0);
        let mut seen = Vec::new();
        loop {
            let why = if seen.contains(&at) {
                Some("leads back to a record that it came by".to_owned())
            } else if empty >= MAX_EMPTY_LINKS {
                Some(format!("has more than {MAX_EMPTY_LINKS} records without a partition"))
            } else if chart::check_range(self.disk.len(), at, 512).is_err() {
                Some("leads past the end of the disk".to_owned())
            } else {
                None
            };
            if let Some(why) = why {
                self.table.note(format!("the chain of logical partitions {why}: it ends there"));
                return Ok(number);
            }
            seen.push(at);
            empty = empty.saturating_add(1);
            let record = boot_record(self.disk, at)?;
            if record.boot_signature != BOOT_SIGNATURE {
                if at != first {
                    self.table.note(format!("the chain of logical partitions is broken at byte {at}"));
                }
                return Ok(number);
            }
            for (entry, i) in record.entries.iter().zip(0..) {
                if is_extended(entry) || (i >= 2 && !self.lies_within(entry, at, len, &whole)) {
                    continue;
                }
                if self.table.partitions.len() >= MAX_PARTITIONS {
                    self.table.note(format!("only {MAX_PARTITIONS} partitions are read"));
                    return Ok(number);
                }
                if self.add(number, entry, at) {
                    number = number.saturating_add(1);
                    empty = 0;
                }
            }
            let next = record.entries.iter().find(|e| e.len_sectors.get() > 0 && is_extended(e));
            let Some(next) = next else { return Ok(number) };
            at = first.saturating_add(self.bytes(next.start_sectors.get()));
            len = self.bytes(next.len_sectors.get());
        }
    }

    /// Whether an entry that nobody should use, and that sometimes holds what was there before, makes sense.
    fn lies_within(&self, entry: &BootEntry, at: u64, len: u64, whole: &std::ops::Range<u64>) -> bool {
        let (offset, size) = (self.bytes(entry.start_sectors.get()), self.bytes(entry.len_sectors.get()));
        let end = at.saturating_add(offset).saturating_add(size);
        offset.saturating_add(size) <= len && at.saturating_add(offset) >= whole.start && end <= whole.end
    }
}
