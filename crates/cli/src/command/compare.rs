//! `portolan compare`

use crate::Exit;
use crate::args::{self, Access, Told};
use crate::output::Out;
use crate::progress::Bar;
use portolan::compare::{Options, compare};
use portolan::{Format, Spec, open};

/// Different.
const DIFFERENT: Exit = Exit(1);
/// Not compared.
pub(super) const FAILED: Exit = Exit(2);

/// Tell whether two disks hold the same
///
/// What both find in the same place of the same file, and what both charts say is zeros, is not read. Where one
/// disk is longer, the rest of it must be zeros; with --strict a difference in length is a difference.
#[derive(clap::Args)]
#[command(after_help = "Exit codes: 0 the same, 1 different, 2 an error.\n\n\
    Examples:\n  \
    portolan compare disk.qcow2 disk.raw\n  \
    portolan compare -f qcow2 -F raw a b && echo same")]
pub(crate) struct Args {
    /// One disk: a path, an address, a snapshot of an image (see `portolan help spec`)
    #[arg(value_name = "SPEC", value_parser = args::spec())]
    a: Spec,
    /// The other
    #[arg(value_name = "SPEC", value_parser = args::spec())]
    b: Spec,
    /// The first disk's format
    #[arg(short, long, value_name = "FORMAT", value_parser = args::format)]
    format: Option<Format>,
    /// The second disk's format
    #[arg(short = 'F', long, value_name = "FORMAT", value_parser = args::format)]
    format2: Option<Format>,
    /// A difference in length is a difference
    #[arg(short, long)]
    strict: bool,
    #[command(flatten)]
    told: Told,
    /// How many threads read; one more than there are processors, unless it is said
    #[arg(short = 'm', long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
    #[command(flatten)]
    access: Access,
}

impl Args {
    pub(super) fn run(&self, out: &mut Out) -> anyhow::Result<Exit> {
        let options = self.access.reading();
        let a = open(&with(&self.a, self.format), &options)?;
        let b = open(&with(&self.b, self.format2), &options)?;
        let bar = Bar::new("comparing", self.told.quiet);
        let report = bar.watch(|watch| {
            compare(&a.disk, &b.disk, &Options { strict: self.strict, threads: self.threads, watch })
        })?;
        drop(bar);
        self.told.tell(out, &report, || report.sentence())?;
        Ok(if report.identical { Exit::DONE } else { DIFFERENT })
    }
}

fn with(spec: &Spec, format: Option<Format>) -> Spec {
    let mut spec = spec.clone();
    if let Some(format) = format {
        spec.format = Some(format.name().to_owned());
    }
    spec
}
