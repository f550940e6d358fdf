//! `portolan resize`

use crate::Exit;
use crate::args::Image;
use crate::output::Out;
use portolan::open;
use portolan::resize::{Change, resize};
use portolan::size::show;
use serde_json::json;

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
    /// The new length, or the change: 20G, +5G, -512M
    #[arg(index = 2, value_name = "[+|-]SIZE", value_parser = Change::parse, allow_hyphen_values = true)]
    change: Change,
    /// Allow it to become shorter: what lies behind the new end is lost
    #[arg(long)]
    shrink: bool,
    #[command(flatten)]
    image: Image,
}

impl Args {
    pub(super) fn run(&self, out: &mut Out) -> anyhow::Result<Exit> {
        let (bar, options) = self.image.changing("resizing");
        let opened = open(&self.image.spec(), &options)?;
        let resized = resize(&opened, self.change, self.shrink);
        let (old, new) = opened.close_after(resized)?;
        drop(bar);
        let name = self.image.name();
        let report = json!({ "filename": name, "virtual-size": new, "was": old });
        self.image.told.tell(out, &report, || format!("{name}: {} now, was {}", show(new), show(old)))?;
        Ok(Exit::DONE)
    }
}
