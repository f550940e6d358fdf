//! `portolan tour`: a guided half-minute on scratch disks. Each stop is a small file; the tour is their list.

mod chart;
mod compare;
mod convert;
mod create;
mod directory;
mod files;
mod guide;
mod history;
mod overlay;
mod present;
mod serve;
mod snapshot;
mod write;

use crate::Exit;
use crate::output::{Out, duration};
use anyhow::Context;
use guide::Guide;
use portolan::size::show;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

/// Take a guided half-minute: scratch disks are made, written, charted, served, converted and taken apart
///
/// Every command is printed as you would type it, with how long it took and how many bytes it wrote. Nothing
/// outside a scratch directory is touched, and that is removed at the end.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    portolan tour\n  \
    portolan tour --dir /mnt/xfs --keep")]
pub(crate) struct Args {
    /// Where the scratch directory is made; on XFS or Btrfs, conversions share bytes instead of copying them
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Leave the scratch directory, to look around in
    #[arg(long)]
    keep: bool,
}

/// A place to stop at: what it is called, and what is done there.
struct Stop {
    title: &'static str,
    visit: fn(&mut Guide<'_>) -> anyhow::Result<()>,
}

/// The tour, in order.
const STOPS: &[Stop] = &[
    create::STOP,
    write::STOP,
    chart::STOP,
    snapshot::STOP,
    overlay::STOP,
    serve::STOP,
    convert::STOP,
    compare::STOP,
    present::STOP,
    history::STOP,
    files::STOP,
    directory::STOP,
];

impl Args {
    pub(super) fn run(&self, out: &mut Out) -> anyhow::Result<Exit> {
        let parent = self.dir.clone().unwrap_or_else(std::env::temp_dir);
        let scratch = Scratch::make(&parent, self.keep)?;
        let began = Instant::now();
        let mut guide = Guide::new(out, &scratch.dir)?;
        guide.welcome()?;
        for (i, stop) in STOPS.iter().enumerate() {
            guide.heading(i + 1, stop.title)?;
            (stop.visit)(&mut guide)?;
        }
        let (written, copies) = guide.totals();
        writeln!(out, "\nThat was {} stops in {}.", STOPS.len(), duration(began.elapsed()))?;
        let (written, copies) = (show(written), show(copies));
        writeln!(
            out,
            "Snapshot, clone and conversions wrote {written}; copies would have written {copies}."
        )?;
        if self.keep {
            writeln!(out, "Everything is still in {}.", scratch.dir.display())?;
        }
        writeln!(
            out,
            "\n`portolan help` lists the commands, `portolan help spec` tells how disks are named."
        )?;
        Ok(Exit::DONE)
    }
}

/// The directory where all of it happens. Gone when this is, unless it is to be kept.
struct Scratch {
    dir: PathBuf,
    keep: bool,
}

impl Scratch {
    fn make(parent: &std::path::Path, keep: bool) -> anyhow::Result<Scratch> {
        let dir = parent.join(format!("portolan-tour-{}", std::process::id()));
        std::fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(Scratch { dir: dir.canonicalize()?, keep })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}
