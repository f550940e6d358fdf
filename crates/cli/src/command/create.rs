//! `portolan create`

use super::convert::by_name;
use crate::Exit;
use crate::args::{self, Access};
use crate::output::Out;
use crate::signal;
use portolan::create::{Request, create};
use portolan::size::{self, show};
use portolan::{Format, Watch};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;

/// Make a new image
#[derive(clap::Args)]
#[command(
    after_help = "Options of qcow2 (-o): cluster_size, compat (0.10 or 1.1), refcount_bits, lazy_refcounts, \
    extended_l2, compression_type (zlib or zstd), preallocation (off, metadata, falloc or full), data_file, \
    data_file_raw. Of raw: preallocation (off, falloc or full).\n\n\
    Examples:\n  \
    portolan create disk.qcow2 20G\n  \
    portolan create -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2\n  \
    portolan create -f raw -o preallocation=falloc disk.img 10G"
)]
pub(crate) struct Args {
    /// The new file
    #[arg(value_name = "FILE", value_parser = args::new_file())]
    path: PathBuf,
    /// How long the disk is: 512M, 20G, ... As long as its backing file, where it has one
    #[arg(value_name = "SIZE", value_parser = size::parse)]
    size: Option<u64>,
    /// Its format: raw or qcow2; without it, its name's ending decides
    #[arg(short, long, value_name = "FORMAT", value_parser = args::format)]
    format: Option<Format>,
    /// The format's options
    #[arg(short = 'o', long, value_name = "KEY=VALUE,...", value_parser = args::pairs)]
    options: Vec<Vec<(String, String)>>,
    /// The backing file, as the image will name it: relative to the image
    #[arg(short, long, value_name = "FILE")]
    backing: Option<String>,
    /// The backing file's format
    #[arg(short = 'F', long, value_name = "FORMAT")]
    backing_format: Option<String>,
    /// Do not look whether the backing file is there
    #[arg(short = 'u', long)]
    unsafe_backing: bool,
    /// Replace what is there
    #[arg(long)]
    force: bool,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
    /// Report as JSON
    #[arg(long)]
    json: bool,
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
            gate: self.access.gate(),
        };
        let size = create(&self.path, &request, Watch { progress: None, cancel: Some(signal::cancel()) })?;
        let name = self.path.display().to_string();
        match (self.quiet, self.json) {
            (true, _) => {}
            (false, true) => {
                out.json(&json!({ "filename": name, "format": format.name(), "virtual-size": size }))?;
            }
            (false, false) => writeln!(out, "{name}: {format}, a disk of {}", show(size))?,
        }
        Ok(Exit::DONE)
    }
}
