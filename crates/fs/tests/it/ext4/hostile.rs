//! Bytes that are not what was written: answers or errors, soon, and never a panic.

use super::populate::{Can, bytes, populate};
use super::{Image, open};
use chart::{Disk, Wait};
use fs::{FileSystem, Inode, Kind};
use io::memory::Memory;
use std::sync::Arc;
use std::time::{Duration, Instant};
use testkit::{Rng, peer};

/// Looks at so many names at most.
const NAMES: usize = 400;
/// So much is read of a file.
const READ: u64 = 20_000;
/// So many images are broken in so many ways.
const ROUNDS: u64 = 600;

/// What was found of a tree, to be looked at in turn.
struct Found {
    queue: Vec<Inode>,
    names: usize,
}

/// Asks everything that can be asked of a file system, within bounds.
fn look_at_all(system: &dyn FileSystem) {
    let mut found = Found { queue: vec![system.root()], names: 0 };
    while let Some(inode) = found.queue.pop() {
        let _ = system.attributes(inode);
        let Ok(stat) = system.stat(inode) else { continue };
        match stat.kind {
            Kind::Directory => look_at_directory(system, inode, &mut found),
            Kind::Symlink => assert!(system.target(inode).map_or(true, |target| !target.contains(&0))),
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

fn look_at_directory(system: &dyn FileSystem, inode: Inode, found: &mut Found) {
    let mut last = None;
    let _ = system.list(inode, &mut |entry| {
        assert!(!entry.name.is_empty() && entry.name != b"." && entry.name != b"..");
        assert!(!entry.name.iter().any(|byte| matches!(byte, 0 | b'/')));
        found.names += 1;
        if found.names > NAMES {
            return Err(chart::Error::invalid("enough"));
        }
        found.queue.push(entry.inode);
        last = Some(entry.name.to_vec());
        Ok(())
    });
    let _ = system.lookup(inode, &last.unwrap_or_default());
    let _ = system.lookup(inode, b"absent");
}

fn read(file: &Disk) {
    let mut buf = vec![0; 4096];
    let (mut at, mut steps) = (0, 0);
    while at < file.len().min(READ) && steps < 20 {
        let now = (file.len() - at).min(buf.len() as u64) as usize;
        let _ = file.read_at(at, &mut buf[..now], Wait::Allowed);
        (at, steps) = (at + now as u64, steps + 1);
    }
    let tail = file.len().min(700) as usize;
    let _ = file.read_at(file.len() - tail as u64, &mut buf[..tail], Wait::Never);
}

fn opened(image: &[u8]) -> chart::Result<fs::ext4::Ext4> {
    let source: Arc<dyn chart::Source> = Arc::new(Memory::from_bytes("hostile", image));
    let window = chart::Slice::new(chart::SourceId(0), 0, image.len() as u64, false)?;
    fs::ext4::open(Disk::builder("hostile", Arc::new(window)).source(source).build()?)
}

/// A small image with one of most things; without checksums, so that what is broken is looked at.
fn small(options: &[&str], mount: &str) -> Vec<u8> {
    let image = Image::made(&[&["-b", "1024", "-N", "256"], options].concat(), 4 << 20);
    let mounted = image.mount(&format!("rw,{mount}"));
    let root = mounted.path();
    std::fs::create_dir(root.join("dir")).unwrap();
    for i in 0..60 {
        std::fs::write(root.join(format!("dir/{i}-{}", "n".repeat(40))), bytes(i, 10 * i as usize)).unwrap();
    }
    std::fs::write(root.join("file"), bytes(1, 40_000)).unwrap();
    std::os::unix::fs::symlink("s".repeat(100), root.join("long")).unwrap();
    std::os::unix::fs::symlink("short", root.join("short")).unwrap();
    let value = bytes(2, 300);
    rustix::fs::setxattr(root.join("file"), "user.block", &value, rustix::fs::XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(
        root.join("dir/3-nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"),
        "user.a",
        b"a",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    let many = std::fs::File::create(root.join("many")).unwrap();
    for i in 0..100 {
        std::os::unix::fs::FileExt::write_all_at(&many, &bytes(i, 500), i * 2048).unwrap();
    }
    std::fs::File::open(root.join("many")).unwrap().sync_all().unwrap();
    let dirty = std::fs::read(image.path()).unwrap();
    drop(mounted);
    if mount.contains("data=journal") { dirty } else { std::fs::read(image.path()).unwrap() }
}

/// Breaks some bytes that are not zero, most of them near the beginning, where the tables are.
fn break_some(image: &mut [u8], used: &[usize], rng: &mut Rng) {
    for _ in 0..=rng.below(6) {
        let among = if rng.once_in(3) { used.len() } else { used.len().min(4000) };
        let at = used[rng.below(among as u64) as usize];
        image[at] = match rng.below(4) {
            0 => 0xff,
            1 => 0,
            2 => image[at] ^ (1 << rng.below(8)),
            _ => rng.next_u64() as u8,
        };
    }
}

#[test]
fn broken_images_are_answers_or_errors() {
    if !peer::require(&["mkfs.ext4", "mount", "umount", "root"]) {
        return;
    }
    let plain = "^metadata_csum,^resize_inode";
    let kinds = [
        small(&["-O", &format!("{plain},^has_journal")], "defaults"),
        small(&["-O", &format!("{plain},^has_journal,inline_data,ea_inode"), "-I", "256"], "defaults"),
        small(&["-t", "ext2", "-O", "^resize_inode"], "defaults"),
        small(&["-O", &format!("{plain},has_journal"), "-J", "size=1"], "data=journal"),
        small(&["-O", "metadata_csum,^resize_inode,^has_journal"], "defaults"),
    ];
    let deadline = Duration::from_secs(5);
    for (kind, image) in kinds.iter().enumerate() {
        look_at_all(&opened(image).unwrap());
        let used: Vec<usize> = (1024..image.len()).filter(|at| image[*at] != 0).collect();
        for seed in 0..ROUNDS {
            let mut rng = Rng::new(seed << 8 | kind as u64);
            let mut broken = image.clone();
            break_some(&mut broken, &used, &mut rng);
            let began = Instant::now();
            if let Ok(system) = opened(&broken) {
                look_at_all(&system);
            }
            assert!(began.elapsed() < deadline, "image {kind}, seed {seed}: {:?}", began.elapsed());
        }
    }
}

#[test]
fn images_that_were_cut_short_say_so() {
    if !peer::require(&["mkfs.ext4", "mount", "umount", "root"]) {
        return;
    }
    let image = Image::made(&["-b", "4096"], 64 << 20);
    let mounted = image.mount("rw");
    populate(mounted.path(), Can { block_size: 4096, extents: true, extra_times: true, names: 500 });
    drop(mounted);
    let whole = std::fs::metadata(image.path()).unwrap().len();
    for len in [0, 1000, 1024, 2048, 4096, 100_000, 1 << 20, 10 << 20, whole - 4096] {
        let cut = image.copy();
        std::fs::File::options().write(true).open(cut.path()).unwrap().set_len(len).unwrap();
        let disk = open(&cut.path());
        match fs::ext4::open(disk) {
            Ok(system) => look_at_all(&system),
            Err(e) => assert!(matches!(e.kind(), chart::Kind::Corrupt | chart::Kind::Invalid), "{len}: {e}"),
        }
    }
}

#[test]
fn no_file_is_longer_than_its_blocks_can_be_counted() {
    if !peer::require(&["mkfs.ext4", "debugfs", "mount", "umount", "root"]) {
        return;
    }
    let image = Image::made(&["-b", "1024", "-O", "inline_data", "-I", "256"], 4 << 20);
    let mounted = image.mount("rw");
    std::fs::write(mounted.path().join("inline"), "inline").unwrap();
    std::fs::write(mounted.path().join("blocks"), bytes(1, 40_000)).unwrap();
    drop(mounted);
    for name in ["inline", "blocks"] {
        for (len, possible) in [(4_u64 << 40, true), ((4 << 40) + 1, false), (1 << 56, false)] {
            let set = format!("sif /{name} size {len}");
            peer::run("debugfs", &["-w".as_ref(), "-R".as_ref(), set.as_ref(), image.path().as_os_str()]);
            let system = fs::ext4::open(open(&image.path())).unwrap();
            let inode = system.lookup(system.root(), name.as_bytes()).unwrap().unwrap();
            let told = system.stat(inode).map(|stat| stat.len);
            assert_eq!(told.ok(), possible.then_some(len), "{name}");
        }
    }
}
