//! `portolan convert`

use super::habits::Habits;
use crate::Exit;
use crate::args::{self, Access, Input, Told};
use crate::output::{Out, duration};
use crate::progress::Bar;
use chart::Error;
use clap::ValueEnum;
use io::copy::Reflink;
use portolan::convert::{Options, Report, convert};
use portolan::size::show;
use portolan::{Format, Spec, open};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Write a disk in another format, moving as few bytes as the file system allows
///
/// Where source and target lie on one file system that can share ranges between files (XFS, Btrfs), only tables
/// are written. The target gets its name when it is whole: an interrupted run leaves nothing behind, and the source is
/// never touched.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    portolan convert disk.qcow2 disk.raw\n  \
    portolan convert -O qcow2 -c -o compression_type=zstd disk.raw small.qcow2\n  \
    portolan convert https://host/cloud.qcow2 local.qcow2\n  \
    portolan convert disk.qcow2@before-update old.qcow2")]
pub(crate) struct Args {
    /// The disk: a path, an address, a snapshot of an image (see `portolan help spec`)
    #[arg(value_name = "SPEC", value_parser = args::spec())]
    source: Spec,
    /// The new file; or a block device, which is overwritten in place, with --force
    #[arg(value_name = "FILE", value_parser = args::new_file())]
    target: PathBuf,
    /// The new file's format: raw, qcow2 or vdi; without it, its name's ending decides
    #[arg(short = 'O', long, value_name = "FORMAT", value_parser = args::format)]
    target_format: Option<Format>,
    /// Options of the new format: cluster_size=64k, compat=1.1, ... (`portolan help create` lists them; space is
    /// reserved, and data files are made, by create alone)
    #[arg(short = 'o', long, value_name = "KEY=VALUE,...", value_parser = args::pairs)]
    target_options: Vec<Vec<(String, String)>>,
    /// Compress: with zlib, or as -o compression_type=zstd says
    #[arg(short, long)]
    compress: bool,
    /// How hard to compress: 0 to 9 for zlib, 1 to 22 for zstd; more is smaller and slower
    #[arg(long, value_name = "N", requires = "compress")]
    level: Option<i32>,
    /// Replace the target if it is there
    #[arg(long)]
    force: bool,
    /// Leave it to the system when to make the target durable: sooner done, but a power cut soon after may leave it
    /// without its content. This is what qemu-img does
    #[arg(long)]
    no_flush: bool,
    /// Keep stored zeros stored, rather than making them holes
    #[arg(long)]
    keep_zeros: bool,
    /// Share ranges of files where the file system can: auto, never, or always (an error where it cannot)
    #[arg(long, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    reflink: When,
    /// How many threads work; as many as do good here, unless it is said
    #[arg(short = 'm', long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
    #[command(flatten)]
    told: Told,
    #[command(flatten)]
    habits: Habits,
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    access: Access,
}

/// Whether to share ranges of files.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum When {
    Auto,
    Never,
    Always,
}

impl From<When> for Reflink {
    fn from(when: When) -> Reflink {
        match when {
            When::Auto => Reflink::Auto,
            When::Never => Reflink::Never,
            When::Always => Reflink::Always,
        }
    }
}

impl Args {
    pub(super) fn is_onto_device(&self) -> bool {
        use std::os::unix::fs::FileTypeExt;
        self.target.metadata().is_ok_and(|there| there.file_type().is_block_device())
    }

    pub(super) fn run(&self, out: &mut Out) -> anyhow::Result<Exit> {
        self.habits.answer()?;
        let began = Instant::now();
        let opened = open(&self.input.apply(&self.source), &self.access.reading())?;
        let format = self.target_format.map_or_else(|| by_name(&self.target), Ok)?;
        let bar = Bar::new("converting", self.told.quiet);
        let report = bar.watch(|watch| {
            let options = Options {
                options: args::map(&self.target_options),
                compress: self.compress,
                level: self.level,
                keep_zeros: self.keep_zeros,
                reflink: self.reflink.into(),
                threads: self.threads,
                force: self.force,
                no_flush: self.no_flush,
                direct: self.access.direct,
                watch,
            };
            convert(&opened, &self.target, format, &options)
        })?;
        drop(bar);
        self.told.tell(out, &report, || self.words(&report, format, began.elapsed()))?;
        Ok(Exit::DONE)
    }

    fn words(&self, report: &Report, format: Format, took: Duration) -> String {
        let (disk, file) = (show(report.virtual_size), show(report.file_size));
        let (name, took) = (self.target.display(), duration(took));
        format!("{name}: {format}, a disk of {disk} in a file of {file}, in {took}\n  {}", sentence(report))
    }
}

/// What became of the bytes.
pub(super) fn sentence(report: &Report) -> String {
    let parts = [
        (report.cloned, "shared with the source"),
        (report.offloaded, "copied by the kernel"),
        (report.copied, "copied"),
        (report.encoded, "compressed"),
        (report.passed, "taken over compressed"),
        (report.zeroed, "written as zeros"),
        (report.skipped, "left out as holes"),
    ];
    let parts: Vec<_> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", show(*n))).collect();
    if parts.is_empty() { "nothing to move".to_owned() } else { parts.join(", ") }
}

/// Endings of formats that this build does not write: whoever chose one did not mean raw.
const FOREIGN: &[&str] = &["chart", "ova", "qcow", "qed", "vhd", "vhdx", "vmdk", "vpc"];

/// The format that a file's name asks for.
pub(super) fn by_name(path: &Path) -> Result<Format, Error> {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    if let Some(format) = [Format::Qcow2, Format::Vdi].into_iter().find(|format| format.name() == ending) {
        return Ok(format);
    }
    if FOREIGN.contains(&ending.as_str()) {
        let what = format!("this build writes no {ending} images; if another format is meant, name it");
        return Err(Error::unsupported(what).in_path(path));
    }
    Ok(Format::Raw)
}
