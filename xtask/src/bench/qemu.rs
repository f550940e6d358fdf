//! How the peer's command line is spelled, in every way that might be its fastest.

use std::path::Path;

use anyhow::Result;

use super::case::{Server, Side, word, words};
use super::servers::Served;
use crate::process;

/// What the last of `qemu-img convert`'s flags say about flushing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// As it comes: `-t unsafe`, which never flushes. Its fastest.
    Default,
    /// What is written is on the disk when it ends, as with our convert.
    Equal,
    /// Neither flushes: ours is told not to.
    Neither,
}

/// Flags that have been the fastest somewhere: plain, parallel and out of order, and O_DIRECT at either end.
const FASTEST: &[&str] = &["", "-m 16 -W", "-m 8", "-m 16 -W -t none", "-m 16 -W -T none -t none"];
/// The same, made durable.
const DURABLE: &[&str] =
    &["-m 16 -W -t writeback", "-m 16 -W", "-m 16 -W -t none", "-m 16 -W -T none -t none"];
/// Compression is bound by its coroutines.
const COMPRESSING: &[&str] = &["-m 16 -W", "-m 16", "-m 8 -W", "-m 2 -W"];
/// Copy offloading: the kernel moves the data, and clones it where the file system can.
const OFFLOAD: &[&str] = &["-C", "-C -m 16 -W"];

/// Source and output, each with its format.
pub(super) struct Conversion<'a> {
    pub(super) source: &'a Path,
    pub(super) from: &'a str,
    pub(super) output: &'a Path,
    pub(super) to: &'a str,
}

impl Conversion<'_> {
    /// All candidates for a conversion.
    pub(super) fn any(&self, durability: Durability) -> Vec<Side> {
        [self.copying(durability), self.offloading(durability)].concat()
    }

    /// The candidates that read the data and write it.
    pub(super) fn copying(&self, durability: Durability) -> Vec<Side> {
        match durability {
            Durability::Default | Durability::Neither => self.sides(FASTEST, &[]),
            Durability::Equal => self.sides(DURABLE, &[]).into_iter().map(Side::then_sync).collect(),
        }
    }

    /// The candidates that have the kernel move the data.
    pub(super) fn offloading(&self, durability: Durability) -> Vec<Side> {
        let sides = self.sides(OFFLOAD, &[]).into_iter();
        match durability {
            Durability::Default | Durability::Neither => sides.collect(),
            Durability::Equal => sides.map(Side::then_sync).collect(),
        }
    }

    /// The candidates for a compressed output.
    pub(super) fn compressing(&self, codec: &str) -> Vec<Side> {
        let option = format!("compression_type={codec}");
        self.sides(COMPRESSING, &["-c", "-o", &option])
    }

    fn sides(&self, flags: &[&str], more: &[&str]) -> Vec<Side> {
        flags.iter().map(|flags| self.side(flags, more)).collect()
    }

    fn side(&self, flags: &str, more: &[&str]) -> Side {
        let mut command = words(&["qemu-img", "convert", "-f", self.from, "-O", self.to]);
        command.extend(flags.split_whitespace().map(str::to_owned));
        command.extend(words(more));
        let label = [&words(&["qemu-img", "convert"]), &command[6..]].concat().join(" ");
        command.extend([word(self.source), word(self.output)]);
        Side { label, commands: vec![command], output: Some(self.output.to_owned()), ..Side::default() }
    }
}

/// `qemu-img info`.
pub(super) fn info(image: &Path) -> Side {
    let command = [words(&["qemu-img", "info", "--output=json"]), vec![word(image)]].concat();
    Side::prints("qemu-img info --output=json", command)
}

/// `qemu-img map`.
pub(super) fn map(image: &Path) -> Side {
    let command = [words(&["qemu-img", "map", "--output=json"]), vec![word(image)]].concat();
    Side::prints("qemu-img map --output=json", command)
}

/// Ways in which `qemu-nbd` has been the fastest with the page cache.
const SERVING: &[&str] = &["io_uring", "threads"];

/// `qemu-nbd`, once for each way, and what it is called.
pub(super) fn serve(served: &Served) -> Vec<(String, Server)> {
    let way = |aio: &&str| {
        let flags = ["-f", served.format, "--cache=writeback", &format!("--aio={aio}")];
        let label = format!("qemu-nbd {}", flags.join(" "));
        let mut command = words(&["qemu-nbd", "-t", "-e", "16", "-k", &word(&served.socket)]);
        command.extend(words(&flags));
        if !served.writable {
            command.push("-r".to_owned());
        }
        command.push(word(&served.image));
        (label, Server { command, socket: served.socket.clone() })
    };
    SERVING.iter().map(way).collect()
}

/// Fails unless what is served at the socket is what the image holds.
pub(super) fn serves(socket: &Path, image: &Path, format: &str) -> Result<()> {
    let uri = format!("nbd+unix:///?socket={}", word(socket));
    let command = words(&["qemu-img", "compare", "-q", "-f", "raw", "-F", format, &uri, &word(image)]);
    process::output(&mut process::command(&command)).map(drop)
}

/// Fails unless the qcow2 is sound. Clusters that nobody uses are no damage.
pub(super) fn sound(image: &Path) -> Result<()> {
    let mut command = process::command(&words(&["qemu-img", "check", "-q", "-f", "qcow2", &word(image)]));
    let status = command.status()?;
    anyhow::ensure!(matches!(status.code(), Some(0 | 3)), "`{}`: {status}", process::shown(&command));
    Ok(())
}

/// Fails unless the image is valid and holds the same bytes as the source.
pub(super) fn verify(image: &Path, format: &str, source: &Path, source_format: &str) -> Result<()> {
    if format != "raw" {
        let command = words(&["qemu-img", "check", "-q", "-f", format, &word(image)]);
        process::output(&mut process::command(&command))?;
    }
    let formats = ["qemu-img", "compare", "-q", "-f", source_format, "-F", format];
    let command = [words(&formats), vec![word(source), word(image)]].concat();
    process::output(&mut process::command(&command))?;
    Ok(())
}

/// Makes a qcow2 from a raw image.
pub(super) fn to_qcow2(raw: &Path, output: &Path) -> Result<()> {
    let command = words(&["qemu-img", "convert", "-f", "raw", "-O", "qcow2", &word(raw), &word(output)]);
    process::output(&mut process::command(&command)).map(drop)
}

/// Makes a qcow2 whose every cluster is mapped and none is written.
pub(super) fn mapped(output: &Path, bytes: u64) -> Result<()> {
    let size = bytes.to_string();
    let command =
        words(&["qemu-img", "create", "-f", "qcow2", "-o", "preallocation=metadata", &word(output), &size]);
    process::output(&mut process::command(&command)).map(drop)
}

/// Makes a qcow2 that holds nothing and stands on another, which lies beside it.
pub(super) fn overlay(base: &str, output: &Path) -> Result<()> {
    let command = words(&["qemu-img", "create", "-f", "qcow2", "-F", "qcow2", "-b", base, &word(output)]);
    process::output(&mut process::command(&command)).map(drop)
}

/// The command that makes an empty qcow2.
pub(super) fn create(output: &Path, bytes: u64) -> Vec<String> {
    words(&["qemu-img", "create", "-q", "-f", "qcow2", &word(output), &bytes.to_string()])
}
