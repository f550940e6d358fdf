//! The images both sides work on: the same on every machine, and looking like real disks.
//!
//! A real disk is neither zeros nor noise. Data comes in runs of 64 KiB to 4 MiB; in the mixed images a run is
//! text, records, zeros or noise. Nothing larger than a pool is ever in memory, since Linux counts the memory of the
//! process that starts a program as that program's own peak.

use std::fs::{self, File};
use std::io::{BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};

use super::case::{MIB, Place, word};
use super::qemu;
use super::scattered::scatter;
use crate::{guest, process};

/// How large everything is.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// The half-full image that is copied.
    pub(super) half: u64,
    /// The full image that is cloned.
    pub(super) full: u64,
    /// The image that is compressed.
    pub(super) mixed: u64,
    pub(super) read_seconds: u32,
    /// The image that is served.
    pub(super) served: u64,
    pub(super) load_seconds: u32,
}

/// The sizes that count.
pub(super) const FULL: Sizes = Sizes {
    half: 4096 * MIB,
    full: 10240 * MIB,
    mixed: 2048 * MIB,
    read_seconds: 10,
    served: 1024 * MIB,
    load_seconds: 2,
};
/// Sizes to try the harness with.
pub(super) const QUICK: Sizes = Sizes {
    half: 256 * MIB,
    full: 512 * MIB,
    mixed: 128 * MIB,
    read_seconds: 1,
    served: 128 * MIB,
    load_seconds: 1,
};

const TIB: u64 = 1 << 40;

/// An image that is made once and kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Data {
    HalfRaw,
    HalfQcow2,
    FullRaw,
    FullQcow2,
    MixedRaw,
    MappedQcow2,
    /// The same, its clusters in no order.
    ScatteredQcow2,
    ServedRaw,
    ServedQcow2,
    /// Nothing of its own, over the one before.
    ServedOverlay,
    /// These two are written over.
    WrittenRaw,
    WrittenQcow2,
    /// A Debian root: a directory.
    Tree,
    /// The same as an ext4.
    TreeRaw,
    /// The same as a partition of a qcow2.
    TreeQcow2,
    /// These three once more, where files may share what they hold.
    SharedTree,
    SharedTreeRaw,
    SharedTreeQcow2,
}

/// What makes a minimal Debian one of 12,000 files.
const PACKAGES: &[&str] = &["python3", "git", "gcc", "libc6-dev", "man-db"];

impl Data {
    /// Where it lives. The number is the generator's version: another one never takes its place.
    pub(super) fn name(self) -> &'static str {
        match self {
            Data::HalfRaw => "half.1.raw",
            Data::HalfQcow2 => "half.1.qcow2",
            Data::FullRaw => "full.1.raw",
            Data::FullQcow2 => "full.1.qcow2",
            Data::MixedRaw => "mixed.1.raw",
            Data::MappedQcow2 => "mapped-1tib.1.qcow2",
            Data::ScatteredQcow2 => "scattered-1tib.1.qcow2",
            Data::ServedRaw => "served.1.raw",
            Data::ServedQcow2 => "served.1.qcow2",
            Data::ServedOverlay => "served-overlay.1.qcow2",
            Data::WrittenRaw => "written.1.raw",
            Data::WrittenQcow2 => "written.1.qcow2",
            Data::Tree => "tree.1",
            Data::TreeRaw => "tree.1.raw",
            Data::TreeQcow2 => "tree.1.qcow2",
            Data::SharedTree => "shared-tree.1",
            Data::SharedTreeRaw => "shared-tree.1.raw",
            Data::SharedTreeQcow2 => "shared-tree.1.qcow2",
        }
    }

    pub(super) fn place(self) -> Place {
        match self {
            Data::FullRaw | Data::FullQcow2 => Place::Reflink,
            Data::SharedTree | Data::SharedTreeRaw | Data::SharedTreeQcow2 => Place::Reflink,
            _ => Place::Plain,
        }
    }

    /// Makes it in `dir` unless it is there already.
    pub(super) fn ensure(self, dir: &Path, sizes: &Sizes) -> Result<()> {
        let path = dir.join(self.name());
        if path.exists() {
            return Ok(());
        }
        println!("making {}", path.display());
        let unfinished = dir.join(format!("{}.unfinished", self.name()));
        if unfinished.is_dir() {
            fs::remove_dir_all(&unfinished)?;
        } else if unfinished.exists() {
            fs::remove_file(&unfinished)?;
        }
        self.make(dir, &unfinished, sizes).with_context(|| format!("making {}", path.display()))?;
        File::open(&unfinished)?.sync_all()?;
        fs::rename(&unfinished, &path)?;
        Ok(())
    }

    fn make(self, dir: &Path, path: &Path, sizes: &Sizes) -> Result<()> {
        let sibling = |data: Data| -> Result<std::path::PathBuf> {
            data.ensure(dir, sizes)?;
            Ok(dir.join(data.name()))
        };
        match self {
            Data::HalfRaw => raw(path, sizes.half, Fill::Half),
            Data::FullRaw => raw(path, sizes.full, Fill::Full),
            Data::MixedRaw => raw(path, sizes.mixed, Fill::Mixed),
            Data::HalfQcow2 => qemu::to_qcow2(&sibling(Data::HalfRaw)?, path),
            Data::FullQcow2 => qemu::to_qcow2(&sibling(Data::FullRaw)?, path),
            Data::MappedQcow2 => qemu::mapped(path, TIB),
            Data::ScatteredQcow2 => {
                qemu::mapped(path, TIB)?;
                scatter(path)
            }
            Data::ServedRaw | Data::WrittenRaw => raw(path, sizes.served, Fill::Full),
            Data::ServedQcow2 | Data::WrittenQcow2 => qemu::to_qcow2(&sibling(Data::ServedRaw)?, path),
            Data::ServedOverlay => {
                sibling(Data::ServedQcow2)?;
                qemu::overlay(Data::ServedQcow2.name(), path)
            }
            Data::Tree | Data::SharedTree => guest::debian(path, PACKAGES),
            Data::TreeRaw => ext4(&sibling(Data::Tree)?, path, 0),
            Data::SharedTreeRaw => ext4(&sibling(Data::SharedTree)?, path, 0),
            Data::TreeQcow2 => partitioned(&sibling(Data::Tree)?, path),
            Data::SharedTreeQcow2 => partitioned(&sibling(Data::SharedTree)?, path),
        }
    }
}

/// How large a disk with a Debian root is.
const ROOT_MIB: u64 = 1536;

/// An ext4 that holds a directory, from `offset` on in a raw image.
fn ext4(tree: &Path, image: &Path, offset: u64) -> Result<()> {
    File::create(image)?.set_len(ROOT_MIB * MIB)?;
    let (from, blocks) = (format!("offset={offset}"), format!("{}k", ROOT_MIB * 1024 - 2 * offset / 1024));
    let make = ["mkfs.ext4", "-q", "-F", "-E", &from, "-d", &word(tree), &word(image), &blocks];
    process::output(&mut process::command(&make)).map(drop)
}

/// The same as the one partition of a qcow2.
fn partitioned(tree: &Path, image: &Path) -> Result<()> {
    let raw = image.with_extension("raw");
    ext4(tree, &raw, MIB)?;
    let divide = format!("printf 'label: gpt\\nstart=2048\\n' | sfdisk -q {}", word(&raw));
    process::output(&mut process::command(&["sh", "-c", &divide]))?;
    qemu::to_qcow2(&raw, image)?;
    Ok(fs::remove_file(raw)?)
}

/// What a raw image holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fill {
    /// Runs of noise and text, holes between them, half of each.
    Half,
    /// Runs of noise and text, no hole.
    Full,
    /// Runs of noise, text, records and written zeros, a quarter each.
    Mixed,
}

/// Marsaglia's xorshift64: a few shifts, the same everywhere.
pub(super) struct Xorshift(pub(super) u64);

impl Xorshift {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
}

/// A page is stamped with its position, so that no two are the same.
const PAGE: usize = 4096;
const RUN_UNIT: u64 = 64 * 1024;
const POOL: usize = 512 * 1024;

/// Writes a raw image of `len` bytes.
pub(super) fn raw(path: &Path, len: u64, fill: Fill) -> Result<()> {
    let mut file = BufWriter::with_capacity(POOL, File::create(path)?);
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
    let pools = [noise(&mut random), text(&mut random), records(&mut random), vec![0; POOL]];
    let mut at = 0;
    let mut hole = false;
    while at < len {
        let run = (RUN_UNIT * (1 + random.below(64))).min(len - at);
        if hole && fill == Fill::Half {
            file.seek(SeekFrom::Start(at + run))?;
        } else {
            let kinds = if fill == Fill::Mixed { 4 } else { 2 };
            let kind = usize::try_from(random.below(kinds))?;
            write_run(&mut file, &pools[kind], kind == 3, (at, run), &mut random)?;
        }
        hole = !hole;
        at += run;
    }
    file.flush()?;
    file.get_ref().set_len(len)?;
    Ok(())
}

/// Writes one run, page by page, from random pages of the pool.
fn write_run(
    file: &mut BufWriter<File>,
    pool: &[u8],
    zeros: bool,
    (at, len): (u64, u64),
    random: &mut Xorshift,
) -> Result<()> {
    let pages = u64::try_from(pool.len() / PAGE)?;
    let mut done = 0;
    while done < len {
        let page = usize::try_from(random.below(pages))? * PAGE;
        let size = usize::try_from(len - done)?.min(PAGE);
        let bytes = &pool[page..page + size];
        if zeros || size < 8 {
            file.write_all(bytes)?;
        } else {
            file.write_all(&(at + done).to_le_bytes())?;
            file.write_all(&bytes[8..])?;
        }
        done += u64::try_from(size)?;
    }
    Ok(())
}

fn noise(random: &mut Xorshift) -> Vec<u8> {
    (0..POOL / 8).flat_map(|_| random.next().to_le_bytes()).collect()
}

/// Words in no order, common ones more often.
fn text(random: &mut Xorshift) -> Vec<u8> {
    const WORDS: &[&str] = &[
        "the ",
        "of ",
        "a ",
        "to ",
        "in ",
        "disk ",
        "where ",
        "sector ",
        "lives ",
        "table ",
        "chart ",
        "error: ",
        "harbour ",
        "INFO ",
        "latitude ",
        "fathom ",
        "2026-03-14T15:09:26Z ",
        "/usr/lib/",
        "coast\n",
        "compass ",
    ];
    let mut out = Vec::with_capacity(POOL + 32);
    while out.len() < POOL {
        let most = u64::try_from(WORDS.len()).unwrap_or(1);
        let common = random.below(most) + 1;
        let pick = usize::try_from(random.below(common)).unwrap_or(0);
        out.extend_from_slice(WORDS[pick].as_bytes());
        if pick == 0 {
            out.extend_from_slice(format!("{} ", random.below(100_000)).as_bytes());
        }
    }
    out.truncate(POOL);
    out
}

/// Fixed-size records as databases have them: a counter, a few flags, a hash, padding.
fn records(random: &mut Xorshift) -> Vec<u8> {
    let mut out = Vec::with_capacity(POOL + 64);
    let mut counter = 0u64;
    while out.len() < POOL {
        counter += 1 + random.below(3);
        out.extend_from_slice(&counter.to_be_bytes());
        out.extend_from_slice(&u32::try_from(random.below(16)).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(&random.next().to_be_bytes());
        out.resize(out.len().next_multiple_of(64), 0);
    }
    out.truncate(POOL);
    out
}
