//! `portolan rebase`

use crate::Exit;
use crate::args::Image;
use crate::output::Out;
use portolan::rebase::{Report, Request, rebase};
use portolan::size::show;

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
    /// The new backing file, as the image will name it: relative to the image; "" for none
    #[arg(short, long, value_name = "FILE")]
    backing: String,
    /// The new backing file's format: needed, since readers do not guess it
    #[arg(short = 'F', long, value_name = "FORMAT")]
    backing_format: Option<String>,
    /// Only change the name, whatever the files hold
    #[arg(short = 'u', long = "unsafe")]
    only_name: bool,
    #[command(flatten)]
    image: Image,
}

impl Args {
    pub(super) fn run(&self, out: &mut Out) -> anyhow::Result<Exit> {
        let request = Request {
            backing: Some(self.backing.clone()),
            format: self.backing_format.clone(),
            only_name: self.only_name,
        };
        let (bar, options) = self.image.changing("rebasing");
        let report = bar.watch(|watch| rebase(&self.image.spec(), &options, &request, watch))?;
        drop(bar);
        self.image.told.tell(out, &report, || self.words(&report))?;
        Ok(Exit::DONE)
    }

    fn words(&self, report: &Report) -> String {
        let now = match self.backing.as_str() {
            "" => "stands alone".to_owned(),
            name => format!("over {name}"),
        };
        let how = match self.only_name {
            true => "only the name was changed".to_owned(),
            false => format!("{} copied up", show(report.copied)),
        };
        format!("{}: {now}, {how}", self.image.name())
    }
}
