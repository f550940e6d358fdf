//! `portolan commit`

use crate::Exit;
use crate::args::{self, Access, Input};
use crate::output::Out;
use crate::progress::Bar;
use portolan::Spec;
use portolan::commit::commit;
use portolan::size::show;
use std::io::Write;

/// Bring what an overlay holds down into its backing file
///
/// The overlay is emptied when all of it is durable below; interrupted before that, it still holds everything.
/// Other overlays of the same backing file see their disk change under them: do not commit where there are any.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    portolan commit overlay.qcow2\n  \
    portolan commit -d overlay.qcow2 && rm overlay.qcow2")]
pub(crate) struct Args {
    /// The overlay
    #[arg(value_name = "SPEC", value_parser = args::spec())]
    spec: Spec,
    /// Leave the overlay as it is: it is going to be deleted anyway
    #[arg(short = 'd', long)]
    keep: bool,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
    /// Report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    access: Access,
}

impl Args {
    pub(super) fn run(&self, out: &mut Out) -> anyhow::Result<Exit> {
        let spec = self.input.apply(&self.spec);
        let bar = Bar::new("committing", self.quiet);
        let report = bar.watch(|watch| commit(&spec, &self.access.reading(), self.keep, watch))?;
        drop(bar);
        match (self.quiet, self.json) {
            (true, _) => {}
            (false, true) => out.json(&report)?,
            (false, false) => {
                let zeros = match report.zeroed {
                    0 => String::new(),
                    n => format!(", {} set to zeros", show(n)),
                };
                let then = if report.emptied { "; the overlay is empty" } else { "" };
                writeln!(out, "{}: {} brought down{zeros}{then}", report.base, show(report.moved))?;
            }
        }
        Ok(Exit::DONE)
    }
}
