use super::*;
use ::chart::{Kind, Purpose, Run, SetMode, To, Wait};
use io::memory::Memory;
use std::path::Path;

fn memory(len: u64) -> Arc<Memory> {
    Arc::new(Memory::new("m", len))
}

fn read(disk: &Disk, at: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![9; len];
    disk.read_at(at, &mut buf, Wait::Allowed).unwrap();
    buf
}

#[test]
fn one_writable_extent() {
    let disk = open(memory(1 << 20), true).unwrap();
    let plan = disk.plan(100, 1000, 9, Wait::Never, Purpose::Read).unwrap();
    assert_eq!((plan.leaves.len(), plan.leaves[0].len, plan.leaves[0].writable), (1, 1000, true));
    disk.write_at(5, b"abc", Wait::Allowed).unwrap();
    assert_eq!(read(&disk, 4, 5), b"\0abc\0");
}

#[test]
fn zeroes_discards_and_resizes() {
    let disk = open(memory(1 << 20), true).unwrap();
    disk.write_at(0, &[7; 300_000], Wait::Allowed).unwrap();
    disk.set(10, 20, To::Zero, SetMode::default()).unwrap();
    assert_eq!((read(&disk, 9, 22)[0], read(&disk, 10, 20), read(&disk, 30, 1)[0]), (7, vec![0; 20], 7));
    disk.set(65_536, 65_536, To::Hole, SetMode { may_unmap: true, fast_only: false }).unwrap();
    assert_eq!(disk.data_at(65_536, 1 << 20).unwrap(), Run { len: 65_536, data: false });
    disk.resize(100).unwrap();
    assert_eq!((disk.len(), read(&disk, 99, 1)), (100, vec![7]));
    disk.resize(200).unwrap();
    assert_eq!(read(&disk, 99, 101), [&[7][..], &[0; 100]].concat());
}

#[test]
fn read_only_stays_so() {
    let disk = open(memory(4096), false).unwrap();
    assert_eq!(disk.write_at(0, b"x", Wait::Allowed).unwrap_err().kind(), Kind::ReadOnly);
    assert!(!disk.plan(0, 1, 1, Wait::Never, Purpose::Read).unwrap().leaves[0].writable);
}

#[test]
fn a_window_is_fixed_and_inside() {
    let source = memory(4096);
    let window = |offset, len| open_window(Arc::clone(&source) as _, Window { offset, len }, true);
    let disk = window(512, Some(1024)).unwrap();
    disk.write_at(1023, b"x", Wait::Allowed).unwrap();
    assert_eq!((disk.len(), source.read_byte(1535)), (1024, b'x'));
    assert_eq!(window(512, None).unwrap().len(), 3584);
    for (offset, len) in [(4097, None), (4096, Some(1)), (1, Some(u64::MAX))] {
        assert_eq!(window(offset, len).err().unwrap().kind(), Kind::OutOfRange);
    }
    assert!(disk.resize(5).is_err());
}

trait ReadByte {
    fn read_byte(&self, offset: u64) -> u8;
}

impl ReadByte for Memory {
    fn read_byte(&self, offset: u64) -> u8 {
        let mut byte = [0];
        self.read_at(offset, &mut byte, Wait::Allowed).unwrap();
        byte[0]
    }
}

#[test]
fn parts_lie_end_to_end() {
    let parts: Vec<Arc<dyn Source>> = vec![memory(1000), memory(0), memory(24)];
    let disk = split("d", parts.clone(), true).unwrap();
    disk.write_at(998, b"abcd", Wait::Allowed).unwrap();
    disk.flush().unwrap();
    assert_eq!((disk.len(), read(&disk, 997, 6)), (1024, b"\0abcd\0".to_vec()));
    let mut tail = [0; 3];
    parts[2].read_at(0, &mut tail, Wait::Allowed).unwrap();
    assert_eq!(&tail, b"cd\0");
    assert!(split("d", Vec::new(), false).is_err());
}

#[test]
fn names_of_parts() {
    let next = |name: &str| next_part(Path::new(name)).map(|p| p.display().to_string());
    assert_eq!(next("/a/disk.001").as_deref(), Some("/a/disk.002"));
    assert_eq!(next("disk.099").as_deref(), Some("disk.100"));
    assert_eq!((next("disk.999"), next("disk.img"), next("disk.1")), (None, None, None));
}
