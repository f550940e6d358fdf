//! The first and the last sectors of a disk: its partition table read, and every partition opened. The checksums of
//! a GPT are made right first, or nothing behind them would ever be looked at.
#![no_main]

use chart::{Disk, Slice, Source, SourceId, Wait};
use flate2::Crc;
use fs::partition::{MAX_PARTITIONS, read};
use io::memory::Memory;
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

/// How long the disk is: with room for a chain of logical partitions, and for lists of entries.
const LEN: u64 = 1 << 20;
/// The last input bytes are the disk's last.
const TAIL: usize = 2048;

fuzz_target!(|data: &[u8]| {
    let memory = Memory::new("fuzz", LEN);
    let (head, tail) = data.split_at(data.len().saturating_sub(TAIL).min(LEN as usize - TAIL));
    let tail = &tail[tail.len().saturating_sub(TAIL)..];
    let put = |at, bytes| memory.write_at(at, bytes, Wait::Allowed).unwrap();
    // Short inputs are a boot record, long ones have a second header too.
    if head.is_empty() {
        put(0, tail);
    } else {
        put(0, head);
        put(LEN - tail.len() as u64, tail);
    }
    for at in [512, 4096, LEN - 512, LEN - 4096] {
        make_right(&memory, at);
    }
    let slice = Slice::new(SourceId(0), 0, LEN, true).unwrap();
    let builder = Disk::builder("fuzz", Arc::new(slice)).source(Arc::new(memory)).straight();
    let disk = builder.build().unwrap();
    let Ok(Some(table)) = read(&disk) else { return };
    assert!(table.partitions.len() <= MAX_PARTITIONS);
    let mut buf = [0; 16];
    for partition in &table.partitions {
        assert!(partition.number > 0 && partition.len > 0 && partition.end() <= LEN, "{partition:?}");
        assert_eq!(table.find(partition.number), Some(partition));
        let window = partition.disk(&disk, false).unwrap();
        assert_eq!(window.len(), partition.len);
        window.read_at(partition.len - 1, &mut buf[..1], Wait::Allowed).unwrap();
        let _ = (partition.kind.name(), partition.kind.to_string());
    }
});

/// Gives a header of a GPT the checksums it needs, if there is one at this place.
fn make_right(memory: &Memory, at: u64) {
    let mut header = [0; 512];
    memory.read_at(at, &mut header, Wait::Allowed).unwrap();
    if !header.starts_with(b"EFI PART") {
        return;
    }
    let field = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
    let sector = if at == 4096 || at == LEN - 4096 { 4096 } else { 512 };
    let list = u64::from(field(72)).saturating_mul(sector);
    let bytes = u64::from(field(80)).saturating_mul(field(84).into());
    if list.saturating_add(bytes) <= LEN {
        let mut entries = vec![0; bytes as usize];
        memory.read_at(list, &mut entries, Wait::Allowed).unwrap();
        header[88..92].copy_from_slice(&crc(&entries).to_le_bytes());
    }
    let size = u32::from_le_bytes(header[12..16].try_into().unwrap()) as usize;
    header[16..20].fill(0);
    if let Some(counted) = header.get(..size) {
        let sum = crc(counted);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
    }
    memory.write_at(at, &header, Wait::Allowed).unwrap();
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}
