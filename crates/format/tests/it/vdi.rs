//! VDI images against qemu-img: what it makes is read, what is made here it reads.

use super::vdi_laws::{bytes, image};
use chart::{Kind, SetMode, Source, To, Wait};
use format::check::Repair;
use format::vdi::create::{New, Preallocation, create};
use format::vdi::{Image, Options};
use io::copy::Progress;
use io::file::{File, Options as Open};
use io::watch::Onlooker;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use testkit::peer;
use testkit::source::Memory;

fn file(path: &Path, writable: bool) -> Arc<dyn Source> {
    Arc::new(File::open(path, Open { writable, ..Open::default() }).unwrap())
}

fn opened(path: &Path) -> Arc<Image> {
    Image::open(file(path, false), &Options::default()).map(Arc::new).unwrap()
}

fn made(path: &Path, new: &New) {
    let file = File::open(path, Open { create_new: true, ..Open::default() }).unwrap();
    create(&file, new).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Lengths on and off the borders of blocks and of the map's sectors.
const LENGTHS: [u64; 6] = [512, 1 << 20, (1 << 20) + 512, (7 << 20) - 512, 128 << 20, (129 << 20) + 1024];

#[test]
fn what_qemu_makes_is_read_and_what_is_made_here_qemu_reads() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: String| dir.path().join(name);
    for (len, fixed) in LENGTHS.into_iter().flat_map(|len| [(len, false), (len, true)]) {
        let (theirs, ours) = (path(format!("theirs-{len}-{fixed}")), path(format!("ours-{len}-{fixed}")));
        let option = if fixed { "static=on" } else { "static=off" };
        peer::qemu_img(&["create", "-q", "-f", "vdi", "-o", option, text(&theirs), &len.to_string()]);
        let preallocation = if fixed { Preallocation::Metadata } else { Preallocation::Off };
        made(&ours, &New { preallocation, ..New::of(len) });
        for (image, name) in [(&theirs, "theirs"), (&ours, "ours")] {
            assert_eq!(opened(image).size(), len, "{name}");
            let at = len / 1024 * 512 / 512 * 512;
            let near = at.saturating_sub(1 << 20);
            let commands = [format!("write -P 7 {near} 512"), format!("write -P 9 {} 512", len - 512)];
            peer::qemu_io("vdi", image, &commands.each_ref().map(String::as_str));
            peer::qemu_img(&["check", "-q", "-f", "vdi", text(image)]);
            let raw = path(format!("{name}-{len}-{fixed}.raw"));
            peer::qemu_img(&["convert", "-q", "-f", "vdi", "-O", "raw", text(image), text(&raw)]);
            let read = opened(image);
            assert!(
                bytes(&read.disk("disk").unwrap()) == std::fs::read(&raw).unwrap(),
                "{name} {len} {fixed}"
            );
            let report = read.check().unwrap();
            assert!(report.is_clean(), "{name} {len} {fixed}: {:?}", report.findings);
        }
    }
}

#[test]
fn qemu_agrees_with_what_random_writes_leave() {
    if !peer::require(&["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let len = (6 << 20) + 1024;
    for (seed, by_qemu) in [(1, false), (2, true), (3, false), (4, true)] {
        let path = dir.path().join(format!("{seed}.vdi"));
        match by_qemu {
            true => drop(peer::qemu_img(&["create", "-q", "-f", "vdi", text(&path), &len.to_string()])),
            false => made(&path, &New::of(len)),
        }
        let mut model = vec![0; len as usize];
        let mut rng = testkit::Rng::new(seed);
        for round in 0..3 {
            let disk = image(&file(&path, true)).unwrap().disk("disk").unwrap();
            for _ in 0..25 {
                let (at, many) = rng.range(len, 1_500_000);
                let range = at as usize..(at + many) as usize;
                let mode = SetMode { may_unmap: rng.once_in(2), fast_only: false };
                match rng.below(4) {
                    0 => {
                        disk.set(at, many, To::Zero, mode).unwrap();
                        model[range].fill(0);
                    }
                    1 => disk.flush().unwrap(),
                    _ => {
                        rng.fill(&mut model[range.clone()]);
                        disk.write_at(at, &model[range], Wait::Allowed).unwrap();
                    }
                }
            }
            disk.close().unwrap();
            let raw = dir.path().join(format!("{seed}-{round}.raw"));
            std::fs::write(&raw, &model).unwrap();
            peer::qemu_img(&["check", "-q", "-f", "vdi", text(&path)]);
            peer::qemu_img(&["compare", "-q", "-f", "raw", "-F", "vdi", text(&raw), text(&path)]);
            // And what qemu writes into it next does not hurt.
            let at = rng.below(len / 512) * 512;
            peer::qemu_io("vdi", &path, &[&format!("write -P 5 {at} 512")]);
            model[at as usize..at as usize + 512].fill(5);
            assert!(bytes(&opened(&path).disk("disk").unwrap()) == model);
        }
    }
}

/// A small image, its blocks written in this order, in memory.
fn small(order: &[u64]) -> Arc<Memory> {
    let memory = Arc::new(Memory::new(0));
    create(memory.as_ref(), &New { block_bits: 12, ..New::of(16 << 12) }).unwrap();
    let source: Arc<dyn Source> = Arc::<Memory>::clone(&memory);
    let disk = image(&source).unwrap().disk("disk").unwrap();
    for &block in order {
        disk.write_at(block << 12, &[block as u8 + 1; 4096], Wait::Allowed).unwrap();
    }
    disk.close().unwrap();
    memory
}

const fn entry(block: u64) -> u64 {
    512 + 4 * block
}

/// The image with some of its 32-bit numbers changed.
fn changed(memory: &Arc<Memory>, numbers: &[(u64, u32)]) -> Arc<dyn Source> {
    for (offset, number) in numbers {
        memory.write_at(*offset, &number.to_le_bytes(), Wait::Allowed).unwrap();
    }
    Arc::<Memory>::clone(memory)
}

const COUNT: u64 = 0x184;

/// As an image is opened that is to be repaired.
fn repairing() -> Options {
    Options { writable: true, repair: true, ..Options::default() }
}

#[test]
fn a_check_finds_what_is_wrong_and_a_repair_mends_it() {
    let read = |source: &Arc<dyn Source>| Image::open(Arc::clone(source), &Options::default()).map(Arc::new);
    type Case = (&'static str, &'static [(u64, u32)], (u64, u64));
    const CASES: [Case; 6] = [
        ("a count that is too high", &[(COUNT, 6)], (0, 2)),
        ("a count that is too low", &[(COUNT, 2)], (1, 0)),
        ("a hole", &[(entry(3), u32::MAX)], (0, 1)),
        ("a hole that the header does not count", &[(entry(3), u32::MAX), (COUNT, 3)], (1, 1)),
        ("two in one", &[(entry(7), 1)], (1, 0)),
        ("two in one, and a hole", &[(entry(9), 1)], (1, 1)),
    ];
    for (name, numbers, (corruptions, leaks)) in CASES {
        // Blocks 0 to 3 of the file.
        let source = changed(&small(&[5, 3, 9, 1]), numbers);
        let report = read(&source).unwrap().check().unwrap();
        assert_eq!((report.corruptions, report.leaks), (corruptions, leaks), "{name}: {:?}", report.findings);
        let before = bytes(&read(&source).unwrap().disk("disk").unwrap());
        let options = repairing();
        let image = Image::open(Arc::clone(&source), &options).unwrap();
        if corruptions > 0 {
            assert_eq!(image.repair(Repair::Leaks).unwrap_err().kind(), Kind::Corrupt, "{name}");
        }
        let what = if corruptions > 0 { Repair::All } else { Repair::Leaks };
        assert_eq!(image.repair(what).unwrap(), report, "{name}");
        let after = read(&source).unwrap();
        assert!(after.check().unwrap().is_clean(), "{name}: {:?}", after.check().unwrap().findings);
        assert!(bytes(&after.disk("disk").unwrap()) == before, "{name}");
        // And each block is its own now.
        let disk = super::vdi_laws::image(&source).unwrap().disk("disk").unwrap();
        disk.write_at(9 << 12, &[0xee; 4096], Wait::Allowed).unwrap();
        let mut wanted = before;
        wanted[9 << 12..10 << 12].fill(0xee);
        assert!(bytes(&disk) == wanted, "{name}");
    }
}

/// Somebody ends a check at once, and a repair before this many blocks have been moved.
fn impatient(moves: u64) -> Onlooker {
    let cancel = Arc::new(AtomicBool::new(moves == 0));
    let ends = Arc::clone(&cancel);
    let tell =
        move |at: Progress| ends.store(at.total == 4 << 12 && at.done == moves << 12, Ordering::Relaxed);
    if moves == 0 { Onlooker::new(Arc::new(|_| ()), cancel) } else { Onlooker::new(Arc::new(tell), cancel) }
}

#[test]
fn a_check_that_is_interrupted_ends_and_such_a_repair_has_not_happened() {
    // Four blocks of the disk in one of the file; others that need moving come before and behind.
    let wrong = [(entry(7), 1), (entry(8), 1), (entry(10), 1), (entry(11), 1)];
    for moves in 0..4 {
        let memory = small(&[5, 3, 9, 1]);
        let source = changed(&memory, &wrong);
        let before = memory.bytes();
        let disk = |source: &Arc<dyn Source>| {
            let read = Image::open(Arc::clone(source), &Options::default()).map(Arc::new).unwrap();
            (read.check().unwrap(), bytes(&read.disk("disk").unwrap()))
        };
        let shown = disk(&source);
        let options = Options { onlooker: impatient(moves), ..repairing() };
        let image = Image::open(Arc::clone(&source), &options).map(Arc::new).unwrap();
        if moves == 0 {
            assert!(image.check().unwrap_err().to_string().contains("cancelled"));
        }
        assert!(image.repair(Repair::All).unwrap_err().to_string().contains("cancelled"), "{moves}");
        // All but the modification UUID is as it was, also when it is closed.
        for _ in 0..2 {
            let after = memory.bytes();
            assert!(after.len() == before.len() && after[512..] == before[512..], "{moves}");
            assert_eq!(disk(&source), shown, "{moves}");
            image.disk("disk").unwrap().close().unwrap();
        }
        drop(image);
        Image::open(Arc::clone(&source), &repairing()).unwrap().repair(Repair::All).unwrap();
        let mended = disk(&source);
        assert!(mended.0.is_clean() && mended.1 == shown.1, "{moves}: {:?}", mended.0.findings);
    }
}

#[test]
fn an_image_that_contradicts_itself_is_read_and_not_written() {
    for numbers in [[(entry(9), 1)], [(entry(9), 40)], [(entry(9), 0xffff_fff0)]] {
        let source = changed(&small(&[5, 3, 9, 1]), &numbers);
        assert_eq!(image(&source).err().unwrap().kind(), Kind::Corrupt);
        let image = Image::open(Arc::clone(&source), &repairing()).map(Arc::new);
        let disk = image.unwrap().disk("disk").unwrap();
        assert_eq!(disk.write_at(0, &[1], Wait::Allowed).unwrap_err().kind(), Kind::Corrupt);
        let mut block = [0; 4096];
        disk.read_at(3 << 12, &mut block, Wait::Allowed).unwrap();
        assert_eq!(block, [4; 4096]);
        disk.close().unwrap();
    }
}

#[test]
fn a_file_that_is_cut_off_is_left_as_it_is() {
    let memory = small(&[5, 3, 9, 1]);
    memory.set_len((1 << 20) + (3 << 12)).unwrap();
    let source: Arc<dyn Source> = Arc::<Memory>::clone(&memory);
    let image = Image::open(Arc::clone(&source), &repairing()).map(Arc::new).unwrap();
    assert_eq!(image.check().unwrap().corruptions, 1);
    let before = memory.bytes();
    assert_eq!(image.repair(Repair::All).unwrap_err().kind(), Kind::Corrupt);
    assert!(memory.bytes() == before);
    let disk = image.disk("disk").unwrap();
    assert_eq!(disk.read_at(1 << 12, &mut [0], Wait::Allowed).unwrap_err().kind(), Kind::Corrupt);
    // Of the last block a part may be missing: it reads as zeros.
    let memory = small(&[5, 3, 9, 1]);
    memory.set_len((1 << 20) + (3 << 12) + 512).unwrap();
    let source: Arc<dyn Source> = memory;
    let disk = super::vdi_laws::image(&source).unwrap().disk("disk").unwrap();
    let mut block = [9; 4096];
    disk.read_at(1 << 12, &mut block, Wait::Allowed).unwrap();
    assert!(block[..512] == [2; 512] && block[512..] == [0; 4096 - 512]);
}

#[test]
fn entries_behind_the_end_of_the_disk_are_never_shown() {
    // Five blocks and a half of the disk; entries for sixteen, of which one behind the end names a block.
    let memory = small(&[5, 3, 9, 1]);
    memory.write_at(0x170, &(5 * 4096_u64 + 2048).to_le_bytes(), Wait::Allowed).unwrap();
    let source: Arc<dyn Source> = memory;
    let disk = image(&source).unwrap().disk("disk").unwrap();
    assert_eq!(disk.len(), 5 * 4096 + 2048);
    let mut wanted = bytes(&disk);
    disk.resize(12 << 12).unwrap();
    wanted.resize(12 << 12, 0);
    assert!(bytes(&disk) == wanted);
    disk.write_at(0, &[9; 12 << 12], Wait::Allowed).unwrap();
    disk.close().unwrap();
    let read = Image::open(Arc::clone(&source), &Options::default()).map(Arc::new).unwrap();
    let report = read.check().unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    assert!(bytes(&read.disk("disk").unwrap()) == [9; 12 << 12]);
}

#[test]
fn closing_what_nobody_wrote_changes_nothing() {
    let memory = small(&[5, 3]);
    changed(&memory, &[(COUNT, 7)]);
    let before = memory.bytes();
    let source: Arc<dyn Source> = Arc::<Memory>::clone(&memory);
    let disk = image(&source).unwrap().disk("disk").unwrap();
    disk.flush().unwrap();
    disk.close().unwrap();
    assert!(memory.bytes() == before);
    disk.write_at(0, &[1], Wait::Allowed).unwrap();
    disk.close().unwrap();
    let after = memory.bytes();
    // The first write is told to whoever made an image over this one.
    assert!(before[0x198..0x1a8] != after[0x198..0x1a8]);
    assert_eq!(after[COUNT as usize..][..4], 3_u32.to_le_bytes());
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let cases: [(&str, u64, u32, &str); 13] = [
        ("version", 0x44, 1, "version 0.1"),
        ("diff", 0x4c, 4, "differencing"),
        ("undo", 0x4c, 3, "undo"),
        ("type", 0x4c, 9, "type 9"),
        ("parent", 0x1a8, 0x1234_5678, "UUID 12345678-"),
        ("its state", 0x1b8, 7, "differencing"),
        ("no blocks", 0x178, 0, "blocks of 0 bytes"),
        ("odd blocks", 0x178, 3000, "blocks of 3000 bytes"),
        ("huge blocks", 0x178, 1 << 30, "blocks of 1073741824 bytes"),
        ("sectors", 0x168, 4096, "sectors of 4096"),
        ("many blocks", 0x180, u32::MAX, "4294967295 blocks"),
        ("few blocks", 0x180, 3, "a block map for 12288"),
        ("the map in the data", 0x158, 512, "between the header and the blocks"),
    ];
    for (name, offset, number, word) in cases {
        let source = changed(&small(&[5]), &[(offset, number)]);
        let error = Image::open(source, &Options::default()).err().unwrap();
        assert!(error.to_string().contains(word), "{name}: {error}");
        assert!(matches!(error.kind(), Kind::Unsupported | Kind::Corrupt), "{name}: {error}");
    }
    let extra = changed(&small(&[5]), &[(0x17c, 512)]);
    assert_eq!(image(&extra).err().unwrap().kind(), Kind::Unsupported);
    let read = Image::open(extra, &Options::default()).map(Arc::new).unwrap().disk("disk").unwrap();
    let mut block = [0; 4096];
    read.read_at(5 << 12, &mut block, Wait::Allowed).unwrap();
    assert!(block[..4096 - 512] == [6; 4096 - 512]);
}

#[test]
fn an_image_of_qemus_grows_though_its_map_has_no_room() {
    if !peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.vdi");
    peer::qemu_img(&["create", "-q", "-f", "vdi", text(&path), "128M"]);
    peer::qemu_io("vdi", &path, &["write -P 1 100M 2M", "write -P 2 3M 1M"]);
    let mut model = bytes(&opened(&path).disk("disk").unwrap());
    let mut rng = testkit::Rng::new(3);
    for len in [129_u64 << 20, 400 << 20, 150 << 20, (260 << 20) + 512] {
        let disk = image(&file(&path, true)).unwrap().disk("disk").unwrap();
        disk.resize(len).unwrap();
        model.resize(len as usize, 0);
        for _ in 0..4 {
            let (at, many) = rng.range(len, 2_000_000);
            let range = at as usize..(at + many) as usize;
            rng.fill(&mut model[range.clone()]);
            disk.write_at(at, &model[range], Wait::Allowed).unwrap();
        }
        disk.set(1 << 20, 5 << 20, To::Hole, SetMode { may_unmap: true, fast_only: false }).unwrap();
        model[1 << 20..6 << 20].fill(0);
        assert!(bytes(&disk) == model, "{len}");
        disk.close().unwrap();
        peer::qemu_img(&["check", "-q", "-f", "vdi", text(&path)]);
        peer::qemu_io("vdi", &path, &["write -P 7 120M 64k"]);
        model[120 << 20..][..64 << 10].fill(7);
        let read = opened(&path);
        assert!(read.check().unwrap().is_clean(), "{len}");
        assert!(bytes(&read.disk("disk").unwrap()) == model, "{len}");
    }
    // Of a static one every block is stored: there is nowhere to go.
    let path = dir.path().join("fixed.vdi");
    peer::qemu_img(&["create", "-q", "-f", "vdi", "-o", "static=on", text(&path), "128M"]);
    let disk = image(&file(&path, true)).unwrap().disk("disk").unwrap();
    let error = disk.resize(129 << 20).unwrap_err();
    assert!(error.kind() == Kind::Unsupported && error.to_string().contains("convert"), "{error}");
    disk.write_at(0, &[1], Wait::Allowed).unwrap();
    disk.close().unwrap();
    peer::qemu_img(&["check", "-q", "-f", "vdi", text(&path)]);
}

#[test]
fn a_disk_grows_as_far_as_its_map_does() {
    let path = tempfile::tempdir().unwrap();
    let path = path.path().join("disk.vdi");
    made(&path, &New::of(10 << 20));
    let disk = image(&file(&path, true)).unwrap().disk("disk").unwrap();
    disk.write_at(10 << 20 >> 1, &[3; 512], Wait::Allowed).unwrap();
    disk.resize(200 << 30).unwrap();
    disk.write_at((200 << 30) - 512, &[4; 512], Wait::Allowed).unwrap();
    disk.close().unwrap();
    if peer::require(&["qemu-img"]) {
        peer::qemu_img(&["check", "-q", "-f", "vdi", text(&path)]);
        assert!(peer::qemu_img(&["info", text(&path)]).contains("200 GiB"));
    }
    // Where there is no room for its map, the map goes elsewhere.
    disk.resize(400 << 30).unwrap();
    disk.write_at((400 << 30) - 512, &[5; 512], Wait::Allowed).unwrap();
    disk.close().unwrap();
    for (at, byte) in [(5 << 20, 3), ((200 << 30) - 512, 4), ((400 << 30) - 512, 5)] {
        let mut sector = [0; 512];
        disk.read_at(at, &mut sector, Wait::Allowed).unwrap();
        assert_eq!(sector, [byte; 512]);
    }
    if peer::require(&["qemu-img"]) {
        peer::qemu_img(&["check", "-q", "-f", "vdi", text(&path)]);
    }
    let error = disk.resize(40 << 40).unwrap_err();
    assert!(error.kind() == Kind::Unsupported && error.to_string().contains("longest"), "{error}");
    assert_eq!(disk.resize((10 << 20) + 1).unwrap_err().kind(), Kind::Unsupported);
}

/// Everything one can do with an image that one was given. Whatever it holds: an error or bytes, soon.
fn use_all(bytes: Vec<u8>) {
    let source: Arc<dyn Source> = Arc::new(Memory::of(bytes));
    if let Ok(image) = Image::open(Arc::clone(&source), &Options::default()).map(Arc::new) {
        let _ = image.check();
        let disk = image.disk("hostile").unwrap();
        let mut buf = [0; 3000];
        for at in (0..disk.len()).step_by(2500).take(200) {
            let now = (disk.len() - at).min(3000) as usize;
            let _ = disk.read_at(at, &mut buf[..now], Wait::Allowed);
        }
    }
    let options = repairing();
    if let Ok(image) = Image::open(Arc::clone(&source), &options).map(Arc::new) {
        let _ = image.repair(Repair::All);
        let disk = image.disk("hostile").unwrap();
        let at = disk.len().saturating_sub(700);
        let len = disk.len().min(600) as usize;
        if disk.write_at(at, &[7; 600][..len], Wait::Allowed).is_ok() {
            let mut back = vec![0; len];
            disk.read_at(at, &mut back, Wait::Allowed).unwrap();
            assert!(back.iter().all(|&byte| byte == 7));
        }
        if image.header().block_size() < 1 << 20 {
            let _ = disk.resize(disk.len() / 512 * 512 + (1 << 20));
            let _ = disk.resize(disk.len() / 1024 * 512);
        }
        let _ = disk.close();
    }
}

proptest::proptest! {
    #[test]
    fn a_header_or_map_of_anything_does_no_harm(
        changes in proptest::collection::vec((0_usize..1024, proptest::prelude::any::<u8>()), 1..6),
        words in proptest::collection::vec((0_u64..140, proptest::prelude::any::<u32>()), 0..3),
        cut in 0_usize..0x20_0000,
    ) {
        let memory = small(&[5, 3, 9, 1]);
        let mut bytes = memory.bytes();
        for (at, byte) in changes {
            // Not the signature: that only says that it is something else.
            bytes[if (64..72).contains(&at) { at + 8 } else { at }] = byte;
        }
        for (word, number) in words {
            let at = 0x140 + 4 * word as usize;
            bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        bytes.truncate(cut.max(512));
        use_all(bytes);
    }
}
