//! `portolan resize`

use crate::Exit;
use crate::args::{self, Access, Input};
use crate::output::Out;
use portolan::resize::{Change, resize};
use portolan::size::show;
use portolan::{Spec, open};
use serde_json::json;
use std::io::Write;

/// Make a disk longer or shorter
///
/// What is added reads as zeros. The partitions and file systems inside stay as they are: enlarge those from
/// within, and shrink them before the disk.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    portolan resize disk.qcow2 +10G\n  \
    portolan resize -f raw disk.img 64G\n  \
    portolan resize --shrink disk.qcow2 8G")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "SPEC", value_parser = args::spec())]
    spec: Spec,
    /// The new length, or the change: 20G, +5G, -512M
    #[arg(value_name = "[+|-]SIZE", value_parser = Change::parse, allow_hyphen_values = true)]
    change: Change,
    /// Allow it to become shorter: what lies behind the new end is lost
    #[arg(long)]
    shrink: bool,
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
        let opened = open(&self.input.apply(&self.spec), &self.access.writing())?;
        let resized = resize(&opened, self.change, self.shrink);
        let (old, new) = opened.close_after(resized)?;
        let name = self.spec.to_string();
        match (self.quiet, self.json) {
            (true, _) => {}
            (false, true) => out.json(&json!({ "filename": name, "virtual-size": new, "was": old }))?,
            (false, false) => writeln!(out, "{name}: {} now, was {}", show(new), show(old))?,
        }
        Ok(Exit::DONE)
    }
}
