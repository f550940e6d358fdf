//! Whatever somebody was doing when the image was taken: random work, read as `e2fsck` leaves it.

use super::Image;
use super::journal::{LEN, TOOLS, as_e2fsck_leaves_it};
use rustix::fs::{FallocateFlags, XattrFlags};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use testkit::{Rng, peer};

const KINDS: &[(&[&str], &str)] = &[
    (&["-b", "4096"], "data=ordered"),
    (&["-b", "1024", "-J", "size=1"], "data=ordered"),
    (&["-b", "4096", "-O", "inline_data,ea_inode"], "data=journal"),
    (&["-b", "2048", "-O", "^metadata_csum"], "data=writeback"),
    (&["-b", "1024", "-O", "meta_bg,^resize_inode"], "nodelalloc"),
    (&["-b", "4096", "-O", "^extents,^64bit"], "data=ordered"),
    (&["-b", "4096", "-O", "metadata_csum_seed"], "journal_checksum"),
    (&["-b", "4096", "-t", "ext3"], "data=journal"),
];

/// Somebody at work in a directory.
struct Work {
    rng: Rng,
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
    /// Files that are open and have no name any more.
    nameless: Vec<File>,
}

impl Work {
    fn new(root: &Path, seed: u64) -> Work {
        Work { rng: Rng::new(seed), folders: vec![root.into()], files: Vec::new(), nameless: Vec::new() }
    }

    fn below(&mut self, n: usize) -> usize {
        self.rng.below(n as u64) as usize
    }

    fn file(&mut self) -> Option<PathBuf> {
        let nth = self.below(self.files.len());
        self.files.get(nth).cloned()
    }

    fn new_name(&mut self, step: usize) -> PathBuf {
        let (folder, long) = (self.below(self.folders.len()), self.below(100));
        self.folders[folder].join(format!("{step}-{}", "n".repeat(long)))
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.below(most)];
        self.rng.fill(&mut bytes);
        bytes
    }

    /// One thing of many. What the system refuses is not done.
    fn step(&mut self, step: usize) -> std::io::Result<()> {
        let name = self.new_name(step);
        let known = self.file();
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
        match (self.below(20), known) {
            (0..=6, _) | (_, None) => {
                let most = [100, 5000, 300_000][self.below(3)];
                std::fs::write(&name, self.bytes(most))?;
                self.files.push(name);
            }
            (7..=8, _) => {
                std::fs::create_dir(&name)?;
                self.folders.push(name);
            }
            (9..=10, Some(known)) => {
                std::fs::remove_file(&known)?;
                self.files.retain(|file| *file != known);
            }
            (11, Some(known)) => {
                std::fs::rename(&known, &name)?;
                self.files.retain(|file| *file != known);
                self.files.push(name);
            }
            (12, Some(known)) => {
                std::fs::hard_link(&known, &name)?;
                self.files.push(name);
            }
            (13, _) => {
                let target = "t".repeat(1 + self.below(200));
                std::os::unix::fs::symlink(target, &name)?;
            }
            (14, Some(known)) => {
                let (bytes, at) = (self.bytes(20_000), self.rng.below(1 << 20));
                open(&known)?.write_all_at(&bytes, at)?;
            }
            (15, Some(known)) => open(&known)?.set_len(self.rng.below(500_000))?,
            (16, Some(known)) => {
                let (name, value) = (format!("user.{}", self.below(5)), self.bytes(900));
                rustix::fs::setxattr(&known, name, &value, XattrFlags::empty())?;
            }
            (17, Some(known)) => open(&known)?.sync_all()?,
            (18, Some(known)) => {
                let (at, len) = (self.rng.below(100_000), 1 + self.rng.below(200_000));
                rustix::fs::fallocate(&open(&known)?, FallocateFlags::empty(), at, len)?;
            }
            (_, Some(_)) => {
                let file = File::create(&name)?;
                file.write_all_at(&self.bytes(100_000), 0)?;
                std::fs::remove_file(&name)?;
                self.nameless.push(file);
            }
        }
        Ok(())
    }
}

#[test]
fn random_work() {
    if !peer::require(TOOLS) {
        return;
    }
    let rounds: u64 = std::env::var("PORTOLAN_ROUNDS").map_or(1, |rounds| rounds.parse().unwrap());
    for seed in 0..rounds * KINDS.len() as u64 {
        let (options, mount) = KINDS[seed as usize % KINDS.len()];
        let image = Image::made(options, LEN);
        let mounted = image.mount(&format!("rw,noatime,commit=1000,{mount}"));
        let mut work = Work::new(mounted.path(), seed);
        for step in 0..200 + work.below(600) {
            let _ = work.step(step);
        }
        // Something is in the journal, however little of it was made durable.
        File::create(mounted.path().join("last")).unwrap().sync_all().unwrap();
        let copy = image.copy();
        drop(work.nameless);
        drop(mounted);
        let told = std::panic::catch_unwind(|| as_e2fsck_leaves_it(&copy));
        assert!(told.is_ok(), "seed {seed}: {options:?} {mount}");
    }
}
