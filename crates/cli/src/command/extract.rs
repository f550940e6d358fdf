//! `portolan extract`

use super::convert::When;
use crate::Exit;
use crate::args::{self, Access, Input, Told};
use crate::output::{Out, duration, plain};
use crate::progress::Bar;
use portolan::Spec;
use portolan::files::extract::{Options, Report, extract};
use portolan::files::node;
use portolan::size::show;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Some files could not be read, and --keep-going left them out.
const PARTLY: Exit = Exit(3);

/// Take files out of a disk: a whole tree, or one file
///
/// Nothing is mounted. Modes, times, links, holes and attributes are kept; owners and devices too where root does it. Where
/// the image lies on the same file system, and that can share ranges between files (XFS, Btrfs), bytes are not copied.
/// What is made gets its name when it is whole, and nothing that the image holds leads out of it.
#[derive(clap::Args)]
#[command(
    after_help = "Exit codes: 0 done (what the target could not take is reported), 1 an error: nothing was made, \
    3 done, but for files that could not be read (with --keep-going), 130 interrupted: nothing was made.\n\n\
    Examples:\n  \
    portolan extract disk.qcow2#1 -o root\n  \
    portolan extract disk.qcow2#1:/etc -o etc\n  \
    portolan extract disk.qcow2#1:/boot/vmlinuz -o .\n  \
    portolan extract disk.qcow2@before-update#1:/home -o home"
)]
pub(crate) struct Args {
    /// The directory or file: disk.img#2:/etc; of a disk or a partition, all of its files (see `portolan help spec`)
    #[arg(value_name = "SPEC", value_parser = args::spec())]
    spec: Spec,
    /// The directory to make, or an empty one to fill. Of a file: the file to make, or a directory to put it into
    #[arg(short, long, value_name = "DIR", value_parser = args::new_file())]
    output: PathBuf,
    /// Replace what is there: a directory is filled up, files in it are replaced where new ones have their names
    #[arg(long)]
    force: bool,
    /// Do not give files their owners
    #[arg(long)]
    no_owner: bool,
    /// Leave out what cannot be read, rather than give up
    #[arg(long)]
    keep_going: bool,
    /// Make everything durable before it gets its name
    #[arg(long)]
    flush: bool,
    /// Share ranges of files where the file system can: auto, never, or always (an error where it cannot)
    #[arg(long, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    reflink: When,
    /// How many threads work; as many as do good here, unless it is said
    #[arg(short = 'm', long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
    #[command(flatten)]
    told: Told,
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    access: Access,
}

impl Args {
    pub(super) fn run(&self, out: &mut Out) -> anyhow::Result<Exit> {
        let began = Instant::now();
        let node = node(&self.input.apply(&self.spec), &self.access.reading())?;
        let bar = Bar::new("extracting", self.told.quiet);
        let report = bar.watch(|watch| {
            let options = Options {
                force: self.force,
                owners: self.no_owner.then_some(false),
                keep_going: self.keep_going,
                flush: self.flush,
                reflink: self.reflink.into(),
                threads: self.threads,
                watch,
            };
            extract(&node, &self.output, &options)
        })?;
        drop(bar);
        self.told.tell(out, &report, || self.words(&report, began.elapsed()))?;
        Ok(if report.unreadable_count > 0 { PARTLY } else { Exit::DONE })
    }

    fn words(&self, report: &Report, took: Duration) -> String {
        let counts = [
            (report.files, "file", "files"),
            (report.directories, "directory", "directories"),
            (report.symlinks, "symbolic link", "symbolic links"),
            (report.hard_links, "further name", "further names"),
            (report.special, "device or pipe", "devices and pipes"),
        ];
        let counts = counts.iter().filter(|(n, ..)| *n > 0);
        let counts: Vec<_> =
            counts.map(|(n, one, many)| format!("{n} {}", if *n == 1 { one } else { many })).collect();
        let bytes = [
            (report.cloned, "shared with the image"),
            (report.offloaded, "copied by the kernel"),
            (report.copied, "copied"),
            (report.holes, "left out as holes"),
        ];
        let bytes: Vec<_> =
            bytes.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", show(*n))).collect();
        let mut lines = vec![format!(
            "{}: {} of {}, in {}",
            plain(&self.output.display().to_string()),
            counts.join(", "),
            show(report.bytes),
            duration(took)
        )];
        if !bytes.is_empty() {
            lines.push(format!("  {}", bytes.join(", ")));
        }
        for skipped in &report.skipped {
            let more = if skipped.count > skipped.examples.len() as u64 { ", ..." } else { "" };
            let examples = plain(&skipped.examples.join(", ")).into_owned();
            lines.push(format!("  left out: {} ({}: {examples}{more})", skipped.what, skipped.count));
        }
        for unreadable in report.unreadable.iter().take(10) {
            lines.push(format!(
                "  could not be read: {}: {}",
                plain(&unreadable.path),
                plain(&unreadable.error)
            ));
        }
        if report.unreadable_count > 10 {
            lines.push(format!("  and {} more; --json tells them", report.unreadable_count - 10));
        }
        lines.join("\n")
    }
}
