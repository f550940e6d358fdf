//! A disk that says it holds ext2, ext3 or ext4: opened, walked, and everything in it told about and read.
#![no_main]

use chart::{Disk, Error, Purpose, Slice, Source, SourceId, Wait};
use fs::{FileSystem, Inode, Kind};
use io::memory::Memory;
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

/// An input is blocks of so many bytes, each behind its number in two bytes: an image is mostly zeros.
const BLOCK: usize = 1024;
/// An image has so many of them.
const BLOCKS: usize = 4096;
/// So many names are looked at.
const NAMES: usize = 200;
/// So many answers of a map are asked for.
const STEPS: usize = 100;

fuzz_target!(|data: &[u8]| {
    let Ok(disk) = disk(data) else { return };
    let _ = fs::ext4::probe(&disk);
    if let Ok(system) = fs::ext4::open(disk) {
        let _ = (system.kind(), system.label());
        walk(&system);
    }
});

fn disk(data: &[u8]) -> chart::Result<Arc<Disk>> {
    let len = (BLOCK * BLOCKS) as u64;
    let memory = Memory::new("fuzz", len);
    for piece in data.chunks(2 + BLOCK) {
        let Some((number, bytes)) = piece.split_first_chunk::<2>() else { continue };
        let number = usize::from(u16::from_le_bytes(*number)) % BLOCKS;
        memory.write_at((number * BLOCK) as u64, bytes, Wait::Allowed)?;
    }
    let window = Slice::new(SourceId(0), 0, len, false)?;
    Disk::builder("fuzz", Arc::new(window)).source(Arc::new(memory)).build()
}

fn walk(system: &dyn FileSystem) {
    let (mut queue, mut names) = (vec![system.root(), Inode(1), Inode(8)], 0);
    while let Some(inode) = queue.pop() {
        let _ = system.attributes(inode);
        let Ok(stat) = system.stat(inode) else { continue };
        match stat.kind {
            Kind::Directory => list(system, inode, &mut queue, &mut names),
            Kind::Symlink => {
                let _ = system.target(inode);
            }
            Kind::File => {
                if let Ok(file) = system.file(inode) {
                    assert_eq!(file.len(), stat.len);
                    read(&file);
                }
            }
            _ => {}
        }
    }
}

fn list(system: &dyn FileSystem, directory: Inode, queue: &mut Vec<Inode>, names: &mut usize) {
    let mut last = b"absent".to_vec();
    let _ = system.list(directory, &mut |entry| {
        assert!(!matches!(entry.name, [] | [b'.'] | [b'.', b'.']));
        assert!(!entry.name.iter().any(|byte| matches!(byte, b'/' | 0)));
        *names += 1;
        if *names > NAMES {
            return Err(Error::invalid("enough"));
        }
        queue.push(entry.inode);
        last = entry.name.to_vec();
        Ok(())
    });
    let _ = system.lookup(directory, &last);
}

fn read(file: &Disk) {
    let (mut at, mut buf) = (0, [0; 3000]);
    for _ in 0..STEPS {
        if at >= file.len() {
            break;
        }
        let Ok(leaf) = file.leaf(at, file.len() - at, Wait::Allowed, Purpose::Read) else { break };
        assert!(leaf.at == at && leaf.len > 0 && leaf.end() <= file.len());
        let now = usize::try_from(leaf.len).unwrap_or(usize::MAX).min(buf.len());
        let _ = file.read_at(at, &mut buf[..now], Wait::Allowed);
        at = leaf.end();
    }
    let tail = file.len().min(700);
    let _ = file.read_at(file.len() - tail, &mut buf[..tail as usize], Wait::Never);
}
