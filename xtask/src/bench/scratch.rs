//! The file systems that rows are measured on.
//!
//! Rows without reflink run on ext4: the one that holds target/, or a loop device of our own where that is something
//! else. Rows with reflink run on an XFS on a loop device. Mounts are made in a mount table of this process's own, so
//! they go away with it even if it is killed; the loop device goes with its mount.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Once;

use anyhow::{Context as _, Result, bail, ensure};

use super::case::{MIB, Place, word, words};
use super::data::{Data, Sizes};
use super::kernel;
use crate::process;

/// Where everything is kept.
pub(super) struct Dirs {
    home: PathBuf,
}

impl Dirs {
    pub(super) fn below(home: &Path) -> Dirs {
        Dirs { home: home.to_owned() }
    }

    pub(super) fn of(&self, place: Place) -> PathBuf {
        match place {
            Place::Plain => self.home.join("ext4"),
            Place::Reflink => self.home.join("xfs"),
        }
    }

    /// Where servers listen: a socket's name must be short.
    pub(super) fn socket(&self) -> PathBuf {
        std::env::temp_dir().join(format!("portolan-bench-{}.sock", std::process::id()))
    }

    pub(super) fn path(&self, data: Data) -> PathBuf {
        self.of(data.place()).join(data.name())
    }
}

/// How large a loop device is made.
#[derive(Clone, Copy)]
struct Room {
    /// What it may come to hold.
    needed: u64,
    /// What it claims to be; the rest is a hole.
    apparent: u64,
}

/// A file system ready to be measured on; unmounted when dropped.
pub(super) struct Scratch {
    pub(super) dir: PathBuf,
    mounted: bool,
}

impl Scratch {
    /// Gets the place ready, or says why it cannot be.
    pub(super) fn prepare(place: Place, dirs: &Dirs, sizes: &Sizes) -> Result<Scratch> {
        let dir = dirs.of(place);
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        match place {
            Place::Plain if is_ext4(&dir)? => Ok(Scratch::plain(dir)),
            Place::Plain => {
                let needed = 3 * sizes.half + 3 * sizes.mixed + 16 * sizes.served;
                Scratch::mount(dir, "ext4", &["-q", "-F"], Room { needed, apparent: needed })
            }
            // Both sources and one full output. The device claims to be far larger: with reverse mapping XFS
            // shares no more extents in an allocation group (a quarter of the device) that is nearly full.
            Place::Reflink => {
                let room = Room { needed: sizes.full * 7 / 2, apparent: sizes.full * 16 };
                Scratch::mount(dir, "xfs", &["-q", "-f", "-m", "reflink=1"], room)
            }
        }
    }

    /// A folder as it is.
    pub(super) fn plain(dir: PathBuf) -> Scratch {
        Scratch { dir, mounted: false }
    }

    fn mount(dir: PathBuf, kind: &str, mkfs_options: &[&str], room: Room) -> Result<Scratch> {
        ensure!(process::is_root(), "only root may mount");
        let image = dir.with_extension("img");
        private_mounts()?;
        if !image.exists() || !attach(&image, &dir) {
            make(&image, kind, mkfs_options, room)?;
            ensure!(attach(&image, &dir), "cannot mount {}", image.display());
        }
        Ok(Scratch { dir, mounted: true })
    }

    /// Waits until all that was written is on the device.
    pub(super) fn sync(&self) -> Result<()> {
        process::output(&mut process::command(&["sync", "-f", &word(&self.dir)])).map(drop)
    }

    /// The bytes written to the device so far, when the device is ours alone.
    pub(super) fn device_written(&self) -> Result<Option<u64>> {
        if !self.mounted {
            return Ok(None);
        }
        self.sync()?;
        let device = fs::metadata(&self.dir)?.dev();
        let (major, minor) = (libc::major(device), libc::minor(device));
        let text = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat"))?;
        // Documentation/block/stat.rst: the seventh number is sectors written, of 512 bytes.
        let sectors: u64 = text.split_whitespace().nth(6).context("a short stat file")?.parse()?;
        Ok(Some(sectors * 512))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.mounted {
            // Gives the space of removed outputs back to the file below; nothing depends on it.
            let _ = process::output(&mut process::command(&["fstrim", &word(&self.dir)]));
            let unmounted = process::output(&mut process::command(&["umount", &word(&self.dir)]));
            if let Err(error) = unmounted {
                eprintln!("{error:#}; it goes away with this process");
            }
        }
    }
}

/// From here on nobody else sees what this process mounts.
fn private_mounts() -> Result<()> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| result = kernel::own_mount_table());
    result.context("a mount table of our own")?;
    process::output(&mut process::command(&["mount", "--make-rprivate", "/"]))?;
    Ok(())
}

/// Mounts the image; whether that worked.
fn attach(image: &Path, dir: &Path) -> bool {
    let command = words(&["mount", "-o", "loop", &word(image), &word(dir)]);
    process::succeeds(&mut process::command(&command))
}

fn make(image: &Path, kind: &str, options: &[&str], room: Room) -> Result<()> {
    let dir = image.parent().context("an image in no folder")?;
    let free = free_bytes(dir)?;
    if free < room.needed {
        bail!("{} MiB are free in {}, and {} are needed", free / MIB, dir.display(), room.needed / MIB);
    }
    // XFS refuses to be smaller than 300 MiB.
    File::create(image)?.set_len(room.apparent.max(512 * MIB))?;
    let program = format!("mkfs.{kind}");
    let program = process::which(&program).with_context(|| format!("{program} is not installed"))?;
    let command = [vec![word(&program)], words(options), vec![word(image)]].concat();
    process::output(&mut process::command(&command))?;
    Ok(())
}

/// `stat -f` knows what the standard library does not.
fn file_system(dir: &Path, format: &str) -> Result<String> {
    let command = words(&["stat", "-f", "-c", format, &word(dir)]);
    Ok(process::output(&mut process::command(&command))?.trim().to_owned())
}

fn is_ext4(dir: &Path) -> Result<bool> {
    // The three generations share one magic number.
    Ok(file_system(dir, "%T")? == "ext2/ext3")
}

fn free_bytes(dir: &Path) -> Result<u64> {
    let numbers = file_system(dir, "%a %S")?;
    let (blocks, size) = numbers.split_once(' ').context("stat -f")?;
    Ok(blocks.parse::<u64>()? * size.parse::<u64>()?)
}

/// How much disk a folder holds, for a person.
pub(super) fn held(dir: &Path) -> String {
    let out = process::output(&mut process::command(&words(&["du", "-sh", &word(dir)]))).unwrap_or_default();
    out.split_whitespace().next().unwrap_or("nothing").to_owned()
}

/// Removes all that is kept between runs.
pub(super) fn clean(homes: &[PathBuf]) -> Result<()> {
    for home in homes.iter().filter(|home| home.exists()) {
        println!("removing {} ({})", home.display(), held(home));
        fs::remove_dir_all(home)?;
    }
    Ok(())
}
