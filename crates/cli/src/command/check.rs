//! `portolan check`

use crate::Exit;
use crate::args::{self, Access, Input};
use crate::output::{Out, plain};
use crate::progress::Bar;
use clap::ValueEnum;
use portolan::check::{Check, Repair, Repaired, check, repair};
use portolan::{Options, Spec};
use std::io::Write;

/// Something is wrong with it.
const CORRUPT: Exit = Exit(2);
/// Space is lost, and nothing else.
const LEAKING: Exit = Exit(3);
/// How many findings are printed.
const SHOWN: usize = 20;

/// Check an image's structure
///
/// Every table is walked and every cluster counted; the data itself is not read.
#[derive(clap::Args)]
#[command(
    after_help = "Exit codes: 0 nothing is wrong, 1 not checked, 2 corrupt, 3 clusters are leaked (space is \
    lost, data is not).\n\n\
    Examples:\n  \
    portolan check disk.qcow2\n  \
    portolan check -r leaks disk.qcow2"
)]
pub(crate) struct Args {
    /// The image: its path, or more (see `portolan help spec`)
    #[arg(value_name = "SPEC", value_parser = args::spec())]
    spec: Spec,
    /// Repair: `leaks` gives lost space back, `all` makes refcounts agree with what refers to what
    #[arg(short, long, value_name = "WHAT", hide_possible_values = true)]
    repair: Option<What>,
    /// As JSON, in the words of `qemu-img check`
    #[arg(long)]
    json: bool,
    /// Say nothing: the exit code tells
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    access: Access,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    Leaks,
    All,
}

impl From<What> for Repair {
    fn from(what: What) -> Repair {
        match what {
            What::Leaks => Repair::Leaks,
            What::All => Repair::All,
        }
    }
}

impl Args {
    pub(super) fn only_looks(&self) -> bool {
        self.repair.is_none()
    }

    pub(super) fn run(&self, out: &mut Out) -> anyhow::Result<Exit> {
        let spec = self.input.apply(&self.spec);
        let bar = Bar::new(if self.repair.is_some() { "repairing" } else { "checking" }, self.quiet);
        let options = Options { onlooker: bar.onlooker(), ..self.access.reading() };
        let found = match self.repair {
            None => {
                let found = check(&spec, &options)?;
                drop(bar);
                if self.json && !self.quiet {
                    out.json(&found)?;
                }
                found
            }
            Some(what) => {
                let done = repair(&spec, what.into(), &options)?;
                drop(bar);
                self.tell(out, done)?
            }
        };
        if !self.quiet && !self.json {
            print(out, &found)?;
        }
        Ok(match (found.corruptions, found.leaks) {
            (0, 0) => Exit::DONE,
            (0, _) => LEAKING,
            _ => CORRUPT,
        })
    }

    /// Says what a repair did, and returns what is wrong now.
    fn tell(&self, out: &mut Out, done: Repaired) -> anyhow::Result<Check> {
        let (was, is) = (&done.before, &done.after);
        if self.json && !self.quiet {
            out.json(&done)?;
        } else if !self.quiet {
            if was.is_clean() || was != is {
                writeln!(
                    out,
                    "{} errors and {} leaked clusters repaired.\n",
                    done.corruptions_fixed, done.leaks_fixed
                )?;
            } else {
                writeln!(
                    out,
                    "Nothing was changed: there is more wrong with it than leaks. `-r all` repairs it.\n"
                )?;
            }
        }
        Ok(done.after)
    }
}

fn print(out: &mut Out, check: &Check) -> anyhow::Result<()> {
    for finding in check.findings.iter().take(SHOWN) {
        let kind = if finding.corruption { "ERROR" } else { "leak" };
        writeln!(out, "{kind} at byte {}: {}", finding.offset, plain(&finding.what))?;
    }
    let more = (check.corruptions + check.leaks).saturating_sub(SHOWN as u64);
    if more > 0 {
        writeln!(out, "and {more} more")?;
    }
    match (check.corruptions, check.leaks) {
        (0, 0) => writeln!(out, "Nothing is wrong with it.")?,
        (0, leaks) => writeln!(out, "{leaks} clusters are leaked: space is lost, data is not.")?,
        (wrong, leaks) => writeln!(out, "{wrong} errors, {leaks} leaked clusters. Do not write to it.")?,
    }
    let percent = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 };
    let allocated = check.allocated_clusters;
    Ok(writeln!(
        out,
        "{allocated} of {} clusters stored ({:.1}%), {:.1}% of them fragmented, {:.1}% compressed",
        check.total_clusters,
        percent(allocated, check.total_clusters),
        percent(check.fragmented_clusters, allocated),
        percent(check.compressed_clusters, allocated),
    )?)
}
