use super::layout::{BootEntry, GptEntry, GptHeader};
use super::*;
use chart::{Kind, Source};
use flate2::Crc;
use io::memory::Memory;
use zerocopy::{FromZeros, IntoBytes};

/// A disk in memory of this name and length, and the memory.
fn disk(len: u64) -> (Arc<Memory>, impl Fn() -> Arc<Disk>) {
    let memory = Arc::new(Memory::new("m", len));
    let source = Arc::clone(&memory);
    let open = move || {
        let window = Slice::new(SourceId(0), 0, source.len(), true).unwrap();
        let source: Arc<dyn Source> = Arc::<Memory>::clone(&source);
        Disk::builder("m", Arc::new(window)).source(source).straight().build().unwrap()
    };
    (memory, open)
}

fn entry(os_type: u8, start: u32, len: u32) -> BootEntry {
    let (start_sectors, len_sectors) = (start.into(), len.into());
    BootEntry { boot_indicator: 0, start_chs: [0; 3], os_type, end_chs: [0; 3], start_sectors, len_sectors }
}

fn put_record(to: &Memory, sector: u64, entries: &[BootEntry]) {
    let mut record = BootRecord::new_zeroed();
    record.boot_signature = layout::BOOT_SIGNATURE;
    record.signature = 0xcafe_f00d.into();
    record.entries[..entries.len()].copy_from_slice(entries);
    to.write_at(sector * 512, record.as_bytes(), Wait::Allowed).unwrap();
}

fn places(table: &Table) -> Vec<(u32, u64, u64)> {
    table.partitions.iter().map(|p| (p.number, p.start / 512, p.len / 512)).collect()
}

const SECTORS: u64 = 10_000;

#[test]
fn logical_partitions_are_counted_from_five() {
    let (memory, open) = disk(SECTORS * 512);
    put_record(&memory, 0, &[entry(0, 0, 0), entry(0x83, 100, 200), entry(0x0f, 1000, 5000)]);
    put_record(&memory, 1000, &[entry(0x83, 10, 50), entry(0x05, 2000, 300)]);
    put_record(&memory, 3000, &[entry(0x82, 20, 60)]);
    let table = read(&open()).unwrap().unwrap();
    assert_eq!(places(&table), [(2, 100, 200), (3, 1000, 5000), (5, 1010, 50), (6, 3020, 60)]);
    assert_eq!((table.id.as_str(), table.notes.len()), ("cafef00d", 0));
    assert_eq!(table.find(6).unwrap().uuid.as_deref(), Some("cafef00d-06"));
    assert_eq!(table.find(6).unwrap().kind.name(), Some("Linux swap"));
}

#[test]
fn chains_end() {
    // Back to the first record.
    let (memory, open) = disk(SECTORS * 512);
    put_record(&memory, 0, &[entry(5, 1000, 5000)]);
    put_record(&memory, 1000, &[entry(0x83, 10, 50), entry(5, 100, 300)]);
    put_record(&memory, 1100, &[entry(0x83, 10, 50), entry(5, 0, 300)]);
    let table = read(&open()).unwrap().unwrap();
    assert_eq!(places(&table), [(1, 1000, 5000), (5, 1010, 50), (6, 1110, 50)]);
    assert!(table.notes[0].contains("leads back"), "{:?}", table.notes);
    // Past the end.
    put_record(&memory, 1100, &[entry(5, 4_000_000_000, 300)]);
    assert!(read(&open()).unwrap().unwrap().notes[0].contains("past the end"));
    // Without a partition in it, for ever.
    for i in 1000..2000 {
        put_record(&memory, i.into(), &[entry(5, i - 999, 3)]);
    }
    let table = read(&open()).unwrap().unwrap();
    assert_eq!((table.partitions.len(), table.notes.len()), (1, 1));
    // And with too many.
    for i in 1000..2000 {
        put_record(&memory, i.into(), &[entry(0x83, 1, 1), entry(5, i - 999, 3)]);
    }
    let table = read(&open()).unwrap().unwrap();
    assert_eq!(table.partitions.len(), MAX_PARTITIONS);
    assert!(table.notes.len() <= MAX_NOTES && table.notes.iter().any(|n| n.contains("255")));
}

#[test]
fn what_does_not_fit_is_cut_or_left_out() {
    let (memory, open) = disk(SECTORS * 512 + 100);
    put_record(
        &memory,
        0,
        &[entry(7, 100, 200), entry(7, 9_000, 2_000), entry(7, 20_000, 5), entry(7, 250, u32::MAX)],
    );
    let table = read(&open()).unwrap().unwrap();
    let lens: Vec<_> = table.partitions.iter().map(|p| (p.number, p.end() == SECTORS * 512 + 100)).collect();
    assert_eq!(lens, [(1, false), (2, true), (4, true)]);
    assert_eq!(table.notes.len(), 4, "{:?}", table.notes);
    assert!(table.notes[3].contains("overlap"));
}

#[test]
fn what_is_no_table_is_none() {
    let (memory, open) = disk(SECTORS * 512);
    assert_eq!(read(&open()).unwrap(), None);
    assert_eq!(read(&disk(511).1()).unwrap(), None);
    put_record(&memory, 0, &[]);
    assert_eq!(read(&open()).unwrap().unwrap().partitions, []);
    // A FAT boot sector.
    memory.write_at(0, b"\xeb\x3c\x90mkfs.fat\0\x02", Wait::Allowed).unwrap();
    assert_eq!(read(&open()).unwrap(), None);
    // Code where boot indicators belong.
    put_record(&memory, 0, &[entry(0x83, 1, 1)]);
    memory.write_at(446, &[0x12], Wait::Allowed).unwrap();
    assert_eq!(read(&open()).unwrap(), None);
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// A GPT of these partitions (first and last sector) with both headers.
fn put_gpt(to: &Memory, sector: u64, partitions: &[(u64, u64)]) {
    let last = to.len() / sector - 1;
    put_record(to, 0, &[entry(0xee, 1, u32::MAX)]);
    let mut entries = vec![GptEntry::new_zeroed(); 128];
    for (entry, (first, end)) in entries.iter_mut().zip(partitions) {
        entry.partition_type_guid = [1; 16];
        (entry.starting_lba, entry.ending_lba) = ((*first).into(), (*end).into());
        entry.partition_name[0] = [b'x', 0];
    }
    let list = entries.as_bytes();
    let list_sectors = (list.len() as u64).div_ceil(sector);
    for (my, other, at) in [(1, last, 2), (last, 1, last - list_sectors)] {
        put_half(to, sector, (my, other, at), list, |_| {});
    }
}

/// Puts a header and its list where they belong, after something was done to it.
fn put_half(
    to: &Memory,
    sector: u64,
    (my, other, at): (u64, u64, u64),
    list: &[u8],
    change: impl Fn(&mut GptHeader),
) {
    let mut header = GptHeader::new_zeroed();
    header.signature = layout::GPT_SIGNATURE;
    header.header_size = 92.into();
    (header.my_lba, header.alternate_lba, header.partition_entry_lba) = (my.into(), other.into(), at.into());
    header.first_usable_lba = 40.into();
    header.last_usable_lba = (to.len() / sector - 40).into();
    header.number_of_partition_entries = 128.into();
    header.size_of_partition_entry = 128.into();
    header.partition_entry_array_crc32 = crc(list).into();
    change(&mut header);
    header.header_crc32 = 0.into();
    header.header_crc32 = crc(header.as_bytes()).into();
    to.write_at(my * sector, header.as_bytes(), Wait::Allowed).unwrap();
    to.write_at(at * sector, list, Wait::Allowed).unwrap();
}

#[test]
fn a_gpt_in_sectors_of_either_size() {
    for sector in [512, 4096] {
        let (memory, open) = disk(SECTORS * sector);
        put_gpt(&memory, sector, &[(100, 199), (300, 300)]);
        let table = read(&open()).unwrap().unwrap();
        assert_eq!((table.scheme, table.sector, &table.notes), (Scheme::Gpt, sector, &Vec::new()));
        let places: Vec<_> = table.partitions.iter().map(|p| (p.number, p.start, p.len)).collect();
        assert_eq!(places, [(1, 100 * sector, 100 * sector), (2, 300 * sector, sector)]);
        assert_eq!(table.partitions[0].name.as_deref(), Some("x"));
    }
}

#[test]
fn the_second_header_stands_in_for_the_first() {
    for sector in [512, 4096] {
        for damage in [sector + 20, sector + 30, 2 * sector + 5] {
            let (memory, open) = disk(SECTORS * sector);
            put_gpt(&memory, sector, &[(100, 199)]);
            let good = read(&open()).unwrap().unwrap();
            memory.write_at(damage, &[9], Wait::Allowed).unwrap();
            let table = read(&open()).unwrap().unwrap();
            assert_eq!(table.partitions, good.partitions);
            assert!(
                table.notes[0].contains("damaged") && table.notes[0].contains("checksum"),
                "{:?}",
                table.notes
            );
            // And when that is damaged too, nobody guesses.
            memory.write_at((SECTORS - 1) * sector, b"x", Wait::Allowed).unwrap();
            let e = read(&open()).unwrap_err();
            assert_eq!(e.kind(), Kind::Corrupt, "{e}");
            assert!(e.to_string().contains("checksum"), "{e}");
        }
    }
}

#[test]
fn a_second_header_that_is_not_good_is_told() {
    let (memory, open) = disk(SECTORS * 512);
    put_gpt(&memory, 512, &[(100, 199)]);
    memory.write_at((SECTORS - 1) * 512, b"x", Wait::Allowed).unwrap();
    let table = read(&open()).unwrap().unwrap();
    assert_eq!((table.partitions.len(), table.notes.len()), (1, 1), "{:?}", table.notes);
    // The disk grew.
    put_gpt(&memory, 512, &[(100, 199)]);
    memory.set_len(SECTORS * 1024).unwrap();
    assert!(read(&open()).unwrap().unwrap().notes[0].contains("grown"));
    // The disk was cut: what its table says cannot be true.
    memory.set_len(SECTORS * 256).unwrap();
    let e = read(&open()).unwrap_err();
    assert!(e.to_string().contains("5100032"), "{e}");
}

#[test]
fn entries_that_lead_nowhere_are_left_out_and_hybrids_told() {
    let (memory, open) = disk(SECTORS * 512);
    put_gpt(&memory, 512, &[(100, 199), (u64::MAX - 1, u64::MAX), (300, 299), (150, 400), (5, u64::MAX)]);
    put_record(&memory, 0, &[entry(0x83, 100, 100), entry(0xee, 1, 50)]);
    let table = read(&open()).unwrap().unwrap();
    assert_eq!(places(&table), [(1, 100, 100), (4, 150, 251)]);
    assert_eq!(table.notes.len(), 5, "{:?}", table.notes);
}

#[test]
fn sizes_in_headers_are_believed_within_limits() {
    let list = vec![0; 128 * 128];
    let changes: [fn(&mut GptHeader); 8] = [
        |h| h.size_of_partition_entry = 0.into(),
        |h| h.size_of_partition_entry = 100.into(),
        |h| h.size_of_partition_entry = (1 << 31).into(),
        |h| h.number_of_partition_entries = u32::MAX.into(),
        |h| h.partition_entry_lba = u64::MAX.into(),
        |h| h.last_usable_lba = 0.into(),
        |h| h.my_lba = 2.into(),
        |h| h.last_usable_lba = u64::MAX.into(),
    ];
    for (i, change) in changes.into_iter().enumerate() {
        let (memory, open) = disk(SECTORS * 512);
        put_record(&memory, 0, &[entry(0xee, 1, u32::MAX)]);
        put_half(&memory, 512, (1, SECTORS - 1, 2), &list, change);
        assert_eq!(read(&open()).unwrap_err().kind(), Kind::Corrupt, "{i}");
    }
}

#[test]
fn a_partition_is_a_window() {
    let (memory, open) = disk(SECTORS * 512);
    put_record(&memory, 0, &[entry(0x83, 100, 200), entry(5, 1000, 100)]);
    let whole = open();
    let table = read(&whole).unwrap().unwrap();
    let one = table.find(1).unwrap().disk(&whole, true).unwrap();
    assert_eq!((one.name(), one.len()), ("m#1", 200 * 512));
    one.write_at(3, b"abc", Wait::Allowed).unwrap();
    one.flush().unwrap();
    let mut found = [0; 3];
    memory.read_at(100 * 512 + 3, &mut found, Wait::Allowed).unwrap();
    assert_eq!(&found, b"abc");
    assert!(!table.find(1).unwrap().disk(&whole, false).unwrap().is_writable());
    assert_eq!(table.find(2).unwrap().disk(&whole, true).err().unwrap().kind(), Kind::ReadOnly);
}
