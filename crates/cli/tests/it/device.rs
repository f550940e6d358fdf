//! Block devices, which take whole blocks only and end where they end.

use crate::run::Dir;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use testkit::peer;

/// A file as a block device, for as long as this is there.
struct Loop(PathBuf);

impl Loop {
    fn over(dir: &Dir, file: &str, block: u32) -> Loop {
        let name = dir.tool("losetup", &format!("-f --show -b {block} {file}"));
        Loop(name.trim().into())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // In a test that has failed nobody asks for more.
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

#[test]
fn a_directory_is_written_onto_a_device() {
    if !peer::require(&["root", "losetup"]) {
        return;
    }
    let dir = Dir::new();
    std::fs::create_dir(dir.join("files")).unwrap();
    // Ends of files and of holes in them are where no block of the device ends.
    std::fs::write(dir.join("files/a"), vec![7; 5001]).unwrap();
    let holes = std::fs::File::create(dir.join("files/b")).unwrap();
    holes.set_len(3_000_001).unwrap();
    holes.write_all_at(b"x", 1_500_000).unwrap();
    dir.ok("convert files disk.iso");
    let iso = std::fs::read(dir.join("disk.iso")).unwrap();
    for block in [512, 4096] {
        for how in ["", " --direct", " --keep-zeros"] {
            std::fs::write(dir.join("stick"), vec![0xFF; 4 << 20]).unwrap();
            let stick = Loop::over(&dir, "stick", block);
            dir.ok(&format!("convert --force{how} files {}", stick.0.display()));
            let held = std::fs::read(&stick.0).unwrap();
            assert!(held[..iso.len()] == iso, "{block}{how}");
            assert!(held[iso.len()..].iter().all(|&byte| byte == 0xFF), "{block}{how}");
        }
    }
}

#[test]
fn a_device_of_any_number_of_sectors_is_written_past_the_cache() {
    if !peer::require(&["root", "losetup"]) {
        return;
    }
    let dir = Dir::new();
    dir.raw("disk.raw", (1 << 20) + 512);
    std::fs::write(dir.join("stick"), vec![0xFF; (1 << 20) + 512]).unwrap();
    let stick = Loop::over(&dir, "stick", 512);
    dir.ok(&format!("convert --direct --force -f raw disk.raw {}", stick.0.display()));
    assert!(std::fs::read(&stick.0).unwrap() == std::fs::read(dir.join("disk.raw")).unwrap());
}
