//! `portolan measure`

use crate::Exit;
use crate::args::{self, Access, Input};
use crate::output::Out;
use crate::progress::Bar;
use anyhow::bail;
use portolan::measure::{of_disk, of_size};
use portolan::size::{self, show};
use portolan::{Format, Spec, open};
use std::io::Write;

/// Tell how large a file would be, before it is made
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    portolan measure -O qcow2 disk.raw\n  \
    portolan measure -O qcow2 -o cluster_size=2M --size 1T")]
pub(crate) struct Args {
    /// The disk that it would hold (see `portolan help spec`)
    #[arg(value_name = "SPEC", value_parser = args::spec(), required_unless_present = "size")]
    spec: Option<Spec>,
    /// Not a disk there is, but an empty one of this length
    #[arg(short, long, value_name = "SIZE", value_parser = size::parse, conflicts_with = "spec")]
    size: Option<u64>,
    /// The format it would have
    #[arg(short = 'O', long, value_name = "FORMAT", value_parser = args::format, default_value = "raw")]
    target_format: Format,
    /// The options it would have (`portolan help create` lists them)
    #[arg(short = 'o', long, value_name = "KEY=VALUE,...", value_parser = args::pairs)]
    target_options: Vec<Vec<(String, String)>>,
    /// As JSON, in the words of `qemu-img measure`
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    access: Access,
}

impl Args {
    pub(super) fn run(&self, out: &mut Out) -> anyhow::Result<Exit> {
        let options = args::map(&self.target_options);
        let measure = match (&self.spec, self.size) {
            (Some(spec), _) => {
                let opened = open(&self.input.apply(spec), &self.access.reading())?;
                let bar = Bar::new("measuring", false);
                bar.watch(|watch| of_disk(&opened.disk, self.target_format, &options, watch))?
            }
            (None, Some(size)) => of_size(size, self.target_format, &options)?,
            (None, None) => bail!("measure what? Name a disk, or give --size"),
        };
        if self.json {
            out.json(&measure)?;
        } else {
            let (required, full) = (measure.required, measure.fully_allocated);
            writeln!(out, "required         {required} ({})", show(required))?;
            writeln!(out, "fully allocated  {full} ({})", show(full))?;
        }
        Ok(Exit::DONE)
    }
}
