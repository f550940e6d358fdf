//! Files listed, read and taken out of disks, held against what the kernel sees when it mounts them.

mod compare;
mod debian;
mod extract;
mod hostile;
mod look;
mod mount;
mod tree;

use crate::run::Dir;

/// Where the partition begins in a disk that is divided.
const START: u64 = 1 << 20;

/// What the tests here need.
fn able() -> bool {
    testkit::peer::require(&["root", "mkfs.ext4", "sfdisk", "qemu-img"])
}

/// An ext4 of so many MiB as `raw`, the only partition of a disk, filled by `fill`; and the same as `disk.qcow2`.
fn divided(dir: &Dir, mib: u64, fill: impl FnOnce(&std::path::Path)) {
    let len = mib << 20;
    std::fs::File::create(dir.join("raw")).unwrap().set_len(START + len + (1 << 20)).unwrap();
    dir.tool("mkfs.ext4", &format!("-q -F -L wurzel -b 4096 -E offset={START} raw {}k", len >> 10));
    let script = format!("label: gpt\nstart=2048,size={},name=root\n", len / 512);
    std::fs::write(dir.join("script"), script).unwrap();
    dir.tool("sh", "-c|sfdisk -q raw < script");
    std::fs::remove_file(dir.join("script")).unwrap();
    let mounted = mount::Mounted::new(&dir.join("raw"), &format!("offset={START}"));
    fill(mounted.path());
    drop(mounted);
    dir.tool("qemu-img", "convert -f raw -O qcow2 raw disk.qcow2");
}

/// The same disk as the kernel sees it.
fn seen(dir: &Dir) -> mount::Mounted {
    mount::Mounted::new(&dir.join("raw"), &format!("ro,offset={START}"))
}
