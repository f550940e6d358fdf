//! `portolan create`

use super::convert::by_name;
use crate::Exit;
use crate::args::{self, Access, Told};
use crate::output::Out;
use crate::progress::Bar;
use portolan::Format;
use portolan::create::{Request, create};
use portolan::size::{self, show};
use serde_json::json;
use std::path::PathBuf;

/// Make a new image
#[derive(clap::Args)]
#[command(after_help = "OPTIONS OF FORMATS (-o), and what they are unless you say otherwise\n  \
    qcow2  cluster_size=64k        512 to 2M\n         \
           compat=1.1              or 0.10, for QEMU before 1.1\n         \
           compression_type=zlib   or zstd: how compressed clusters will be encoded\n         \
           preallocation=off       metadata, falloc (space reserved) or full (zeros written)\n         \
           lazy_refcounts=off      faster writes, and a repair after a crash\n         \
           extended_l2=off         clusters in 32 parts, each allocated by itself\n         \
           refcount_bits=16        1 to 64\n         \
           data_file=NAME          guest data in a file of its own, beside the image\n         \
           data_file_raw=off       that file is a raw image of the disk\n  \
    raw    preallocation=off       falloc or full\n\n\
    Examples:\n  \
    portolan create disk.qcow2 20G\n  \
    portolan create -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2\n  \
    portolan create -f raw -o preallocation=falloc disk.img 10G")]
pub(crate) struct Args {
    /// The new file
    #[arg(value_name = "FILE", value_parser = args::new_file())]
    path: PathBuf,
    /// How long the disk is: 512M, 20G, ... As long as its backing file, where it has one
    #[arg(value_name = "SIZE", value_parser = size::parse)]
    size: Option<u64>,
    /// Its format: raw, qcow2 or vdi; without it, its name's ending decides
    #[arg(short, long, value_name = "FORMAT", value_parser = args::format)]
    format: Option<Format>,
    /// The format's options: see below
    #[arg(short = 'o', long, value_name = "KEY=VALUE,...", value_parser = args::pairs)]
    options: Vec<Vec<(String, String)>>,
    /// The backing file, as the image will name it: relative to the image
    #[arg(short, long, value_name = "FILE")]
    backing: Option<String>,
    /// The backing file's format: needed with -b, since readers do not guess it
    #[arg(short = 'F', long, value_name = "FORMAT")]
    backing_format: Option<String>,
    /// Do not look whether the backing file is there
    #[arg(short = 'u', long)]
    unsafe_backing: bool,
    /// Replace what is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    told: Told,
    #[command(flatten)]
    access: Access,
}

impl Args {
    pub(super) fn run(&self, out: &mut Out) -> anyhow::Result<Exit> {
        let format = self.format.map_or_else(|| by_name(&self.path), Ok)?;
        let request = Request {
            format,
            size: self.size,
            backing: self.backing.clone(),
            backing_format: self.backing_format.clone(),
            options: args::map(&self.options),
            force: self.force,
            unsafe_backing: self.unsafe_backing,
            access: self.access.reading(),
        };
        let bar = Bar::new("creating", self.told.quiet);
        let size = bar.watch(|watch| create(&self.path, &request, watch))?;
        drop(bar);
        let name = self.path.display().to_string();
        let report = json!({ "filename": name, "format": format.name(), "virtual-size": size });
        self.told.tell(out, &report, || format!("{name}: {format}, a disk of {}", show(size)))?;
        Ok(Exit::DONE)
    }
}
