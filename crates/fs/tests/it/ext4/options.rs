//! File systems of many kinds, populated by `mkfs.ext4 -d` and through the kernel, read and held against both.

use super::populate::{Can, populate};
use super::tree::{But, compare};
use super::{Image, Mounted};
use fs::FileSystem as _;
use testkit::peer;

/// What a file system is made with, what it is then, and whether the kernel here may not know it.
struct Case {
    options: &'static [&'static str],
    block_size: usize,
    kind: &'static str,
    extents: bool,
    extra_times: bool,
}

const fn case(kind: &'static str, block_size: usize, options: &'static [&'static str]) -> Case {
    Case { options, block_size, kind, extents: true, extra_times: true }
}

impl Case {
    const fn old(self) -> Case {
        Case { extents: false, ..self }
    }

    const fn short_times(self) -> Case {
        Case { extra_times: false, ..self }
    }

    fn can(&self) -> Can {
        let Case { block_size, extents, extra_times, .. } = *self;
        Can { block_size, extents, extra_times, names: 4000 }
    }
}

const LEN: u64 = 256 << 20;

impl Case {
    fn image(&self, more: &[&str]) -> Image {
        let size = self.block_size.to_string();
        let options = ["-b", &size].into_iter().chain(self.options.iter().copied());
        Image::made(&options.chain(more.iter().copied()).collect::<Vec<_>>(), LEN)
    }
}

/// Populated through the kernel, and read by it.
fn mounted(case: &Case) {
    if !peer::require(&["mkfs.ext4", "mount", "umount", "root"]) {
        return;
    }
    let image = case.image(&[]);
    let fill: Mounted = image.mount("rw");
    populate(fill.path(), case.can());
    drop(fill);
    let mount = image.mount("ro,noatime");
    let system = image.open();
    assert_eq!(system.kind(), case.kind);
    let count = compare(mount.path(), &system, But::default());
    assert!(count > 3000, "{count}");
}

/// Populated by `mkfs.ext4` from a directory, and held against that.
fn made_of_a_directory(case: &Case) {
    if !peer::require(&["mkfs.ext4", "root"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // That tool does not take over times of more than 32 bits.
    let can = Can { extra_times: false, extents: true, block_size: case.block_size.min(4096), names: 2500 };
    populate(dir.path(), can);
    let image = case.image(&["-d", dir.path().to_str().unwrap()]);
    let count = compare(dir.path(), &image.open(), But { copy: true, ..But::default() });
    assert!(count > 2000, "{count}");
}

#[test]
fn directories_as_mkfs_takes_them_over() {
    made_of_a_directory(&case("ext4", 4096, &[]));
    made_of_a_directory(&case("ext4", 1024, &["-O", "^metadata_csum,^64bit"]));
    made_of_a_directory(&case("ext3", 1024, &["-t", "ext3"]));
    made_of_a_directory(&case("ext2", 2048, &["-t", "ext2"]));
}

#[test]
fn blocks_that_no_kernel_here_can_mount() {
    made_of_a_directory(&case("ext4", 8192, &[]));
    made_of_a_directory(&case("ext4", 65536, &[]));
    made_of_a_directory(&case("ext2", 65536, &["-t", "ext2"]));
}

#[test]
fn ext4_as_it_is_made_today() {
    mounted(&case("ext4", 4096, &[]));
}

#[test]
fn ext4_of_2k_blocks() {
    mounted(&case("ext4", 2048, &["-I", "512"]));
}

#[test]
fn ext4_of_1k_blocks_whose_extent_trees_are_deep() {
    mounted(&case("ext4", 1024, &[]));
}

#[test]
fn ext4_with_everything_inline() {
    mounted(&case("ext4", 4096, &["-O", "inline_data,ea_inode,large_dir,metadata_csum_seed"]));
}

#[test]
fn ext4_with_inline_data_in_large_inodes() {
    mounted(&case("ext4", 1024, &["-O", "inline_data", "-I", "1024"]));
}

#[test]
fn ext4_without_checksums() {
    mounted(&case("ext4", 4096, &["-O", "^metadata_csum,uninit_bg"]));
}

#[test]
fn ext4_with_32_bits_and_descriptors_spread() {
    mounted(&case("ext4", 1024, &["-O", "^64bit,meta_bg,^resize_inode,^flex_bg", "-g", "1024"]));
}

#[test]
fn ext4_with_64_bits_and_descriptors_spread() {
    mounted(&case("ext4", 1024, &["-O", "64bit,meta_bg,^resize_inode,sparse_super2", "-g", "512"]));
}

#[test]
fn ext4_with_large_clusters() {
    mounted(&case("ext4", 4096, &["-O", "bigalloc", "-N", "8192", "-C", "65536"]));
}

#[test]
fn ext4_with_large_clusters_of_small_blocks() {
    mounted(&case("ext4", 1024, &["-O", "bigalloc", "-C", "16384"]));
}

#[test]
fn ext4_without_types_in_directories() {
    mounted(&case("ext4", 4096, &["-O", "^filetype,^dir_index,^has_journal,^metadata_csum"]));
}

#[test]
fn ext4_with_short_inodes() {
    mounted(&case("ext4", 4096, &["-I", "128", "-O", "^metadata_csum"]).short_times());
}

#[test]
fn ext3() {
    mounted(&case("ext3", 4096, &["-t", "ext3"]).old());
}

#[test]
fn ext3_of_1k_blocks() {
    mounted(&case("ext3", 1024, &["-t", "ext3"]).old());
}

#[test]
fn ext2() {
    mounted(&case("ext2", 4096, &["-t", "ext2"]).old());
}

#[test]
fn ext2_of_the_first_revision() {
    mounted(&case("ext2", 1024, &["-t", "ext2", "-r", "0"]).old().short_times());
}

#[test]
fn what_cannot_be_read_truly_is_refused_by_name() {
    if !peer::require(&["mkfs.ext4", "debugfs", "mount", "umount", "root"]) {
        return;
    }
    let image = case("ext4", 4096, &["-O", "encrypt,verity,casefold"]).image(&[]);
    let script = image.path().with_file_name("script");
    let content = image.path().with_file_name("content");
    std::fs::write(&content, "content").unwrap();
    let write = |name: &str| format!("write {} {name}", content.display());
    // The flags of a file of extents that is encrypted, compressed, or verified.
    let commands = [
        &write("secret"),
        "sif secret flags 0x80800",
        &write("packed"),
        "sif packed flags 0x80004",
        &write("verified"),
        "sif verified flags 0x180000",
        "mkdir hidden",
        "sif hidden flags 0x80800",
        "mkdir folded",
        "sif folded flags 0x40080000",
        "cd folded",
        &write("Name"),
        "",
    ];
    std::fs::write(&script, commands.join("\n")).unwrap();
    peer::run("debugfs", &["-w".as_ref(), "-f".as_ref(), script.as_os_str(), image.path().as_os_str()]);
    let system = image.open();
    let find = |name: &str| system.lookup(system.root(), name.as_bytes()).unwrap().unwrap();
    let refused = |e: Option<chart::Error>, why: &str| {
        let e = e.expect(why);
        assert!(e.kind() == chart::Kind::Unsupported && e.to_string().contains(why), "{e}");
    };
    refused(system.file(find("secret")).err(), "encrypt");
    refused(system.file(find("packed")).err(), "compressed");
    refused(system.list(find("hidden"), &mut |_| Ok(())).err(), "encrypt");
    assert_eq!(system.stat(find("secret")).unwrap().len, 7);
    let mut verified = [0; 7];
    system.file(find("verified")).unwrap().read_at(0, &mut verified, chart::Wait::Allowed).unwrap();
    assert_eq!(&verified, b"content");
    assert!(system.lookup(find("folded"), b"Name").unwrap().is_some());
    assert!(system.lookup(find("folded"), b"NAME").unwrap().is_none());
}

#[test]
fn the_journal_of_another_is_refused_by_name() {
    if !peer::require(&["mkfs.ext4"]) {
        return;
    }
    let image = Image::made(&["-O", "journal_dev", "-b", "4096"], 8 << 20);
    let e = fs::open(&super::open(&image.path())).err().unwrap();
    assert!(e.kind() == chart::Kind::Unsupported && e.to_string().contains("journal_dev"), "{e}");
}
