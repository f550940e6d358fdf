//! `portolan commit`

use crate::Exit;
use crate::args::Image;
use crate::output::Out;
use anyhow::bail;
use portolan::commit::{Report, commit};
use portolan::size::show;

/// Bring what an overlay holds down into its backing file
///
/// The overlay is emptied when all of it is durable below; interrupted before that, it still holds everything.
/// Other overlays of the same backing file see their disk change under them: do not commit where there are any.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    portolan commit overlay.qcow2\n  \
    portolan commit -d overlay.qcow2 && rm overlay.qcow2")]
pub(crate) struct Args {
    /// Leave the overlay as it is: it is going to be deleted anyway
    #[arg(short = 'd', long)]
    keep: bool,
    #[arg(short, hide = true, value_name = "FILE")]
    base: Option<String>,
    #[command(flatten)]
    image: Image,
}

impl Args {
    pub(super) fn run(&self, out: &mut Out) -> anyhow::Result<Exit> {
        if self.base.is_some() {
            bail!(
                "-b is not there: commit goes one image down; commit one image after the other, from the top"
            );
        }
        let (bar, options) = self.image.changing("committing");
        let report = bar.watch(|watch| commit(&self.image.spec(), &options, self.keep, watch))?;
        drop(bar);
        self.image.told.tell(out, &report, || words(&report))?;
        Ok(Exit::DONE)
    }
}

fn words(report: &Report) -> String {
    let zeros = match report.zeroed {
        0 => String::new(),
        n => format!(", {} set to zeros", show(n)),
    };
    let then = if report.emptied { "; the overlay is empty" } else { "" };
    format!("{}: {} brought down{zeros}{then}", report.base, show(report.moved))
}
