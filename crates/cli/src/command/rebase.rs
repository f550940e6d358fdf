//! `portolan rebase`

use crate::Exit;
use crate::args::{self, Access, Input};
use crate::output::Out;
use crate::progress::Bar;
use portolan::Spec;
use portolan::rebase::{Request, rebase};
use portolan::size::show;
use std::io::Write;

/// Put an image over another backing file, or over none
///
/// The disk stays the same: where the new backing file holds something else, that is copied up first. With -u only
/// the name is changed, which is right if the same file has only moved.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    portolan rebase -b newbase.qcow2 -F qcow2 overlay.qcow2\n  \
    portolan rebase -u -b moved/base.qcow2 -F qcow2 overlay.qcow2\n  \
    portolan rebase -b \"\" overlay.qcow2        (stands alone afterwards)")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "SPEC", value_parser = args::spec())]
    spec: Spec,
    /// The new backing file, as the image will name it: relative to the image; \"\" for none
    #[arg(short, long, value_name = "FILE")]
    backing: String,
    /// The new backing file's format
    #[arg(short = 'F', long, value_name = "FORMAT")]
    backing_format: Option<String>,
    /// Only change the name, whatever the files hold
    #[arg(short = 'u', long = "unsafe")]
    only_name: bool,
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
        let request = Request {
            backing: Some(self.backing.clone()),
            format: self.backing_format.clone(),
            only_name: self.only_name,
        };
        let spec = self.input.apply(&self.spec);
        let bar = Bar::new("rebasing", self.quiet);
        let report = bar.watch(|watch| rebase(&spec, &self.access.reading(), &request, watch))?;
        drop(bar);
        match (self.quiet, self.json) {
            (true, _) => {}
            (false, true) => out.json(&report)?,
            (false, false) => {
                let now = match self.backing.as_str() {
                    "" => "stands alone".to_owned(),
                    name => format!("over {name}"),
                };
                let how = match self.only_name {
                    true => "only the name was changed".to_owned(),
                    false => format!("{} copied up", show(report.copied)),
                };
                writeln!(out, "{}: {now}, {how}", self.spec)?;
            }
        }
        Ok(Exit::DONE)
    }
}
