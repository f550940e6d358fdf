//! A file that says it is VDI: opened, checked, walked and read; then opened to be written, written, repaired, closed.
#![no_main]

use chart::{Layer, SetMode, Source, To, Wait};
use format::check::Repair;
use format::vdi::{Image, Options};
use io::memory::Memory;
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

/// So many answers of a map are asked for, and so many reads made, before it is long enough.
const STEPS: usize = 300;

/// A longer file is none that a small input should make: blocks are written where the map says.
const MOST: u64 = 64 << 20;

fuzz_target!(|data: &[u8]| {
    let file: Arc<dyn Source> = Arc::new(Memory::from_bytes("fuzz", data));
    if let Ok(image) = Image::open(Arc::clone(&file), &Options::default()).map(Arc::new) {
        let _ = image.check();
        walk(&image);
        read(&image);
    }
    for repair in [false, true] {
        let options = Options { writable: true, repair, ..Options::default() };
        let Ok(image) = Image::open(Arc::clone(&file), &options).map(Arc::new) else { continue };
        let header = image.header();
        let largest = u64::from(header.head.offset_data.get()) + (header.blocks() + 1) * header.block_size();
        if largest > MOST {
            continue;
        }
        if repair {
            let _ = image.repair(Repair::All);
        }
        write(&image);
    }
});

fn walk(image: &Image) {
    let (len, mut at) = (Layer::len(image), 0);
    for _ in 0..STEPS {
        if at >= len {
            break;
        }
        let want = len - at;
        match image.look(at, want, Wait::Allowed) {
            Ok(answer) => {
                assert!(answer.len() > 0 && answer.len() <= want);
                at += answer.len();
            }
            Err(_) => at = at.saturating_add(image.header().block_size()),
        }
    }
}

fn read(image: &Arc<Image>) {
    let Ok(disk) = image.disk("fuzz") else { return };
    let mut buf = vec![0; 5000];
    let mut at = 0;
    for _ in 0..STEPS {
        if at >= disk.len() {
            break;
        }
        let now = usize::try_from(disk.len() - at).unwrap_or(usize::MAX).min(buf.len());
        let _ = disk.read_at(at, &mut buf[..now], Wait::Allowed);
        at += now as u64;
    }
    let tail = disk.len().min(700);
    let _ = disk.read_at(disk.len() - tail, &mut buf[..tail as usize], Wait::Never);
}

/// What was written is read, whatever the image held.
fn write(image: &Arc<Image>) {
    let Ok(disk) = image.disk("fuzz") else { return };
    let (len, at) = (disk.len().min(700), disk.len() / 2);
    let len = len.min(disk.len() - at) as usize;
    if disk.write_at(at, &[7; 700][..len], Wait::Allowed).is_err() {
        return;
    }
    let mut back = vec![0; len];
    disk.read_at(at, &mut back, Wait::Allowed).expect("what was written can be read");
    assert!(back.iter().all(|&byte| byte == 7));
    let mode = SetMode { may_unmap: true, fast_only: false };
    if disk.set(0, disk.len() / 2, To::Hole, mode).is_ok() {
        let len = disk.len();
        // Far enough for the map to want more room, where blocks are small.
        let _ = disk.resize(len / 512 * 512 + 300 * image.header().block_size().min(4096));
        let _ = disk.resize(len / 1024 * 512);
    }
    let _ = disk.close();
}
