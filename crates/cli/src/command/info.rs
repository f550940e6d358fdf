//! `portolan info`

use crate::Exit;
use crate::args::{self, Access, Input};
use crate::output::{Out, moment, plain};
use portolan::info::{Info, Snapshot, Specific};
use portolan::size::show;
use portolan::{Spec, info, open};
use std::io::Write;

/// Tell what an image is: its format, its size, what it stands on
///
/// Only the image's own metadata is read; nothing that it names is opened, unless --chain asks for it.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    portolan info disk.qcow2\n  \
    portolan info --chain --json overlay.qcow2\n  \
    portolan info nbd://localhost:10809/disk")]
pub(crate) struct Args {
    /// The image: its path, or more (see `portolan help spec`)
    #[arg(value_name = "SPEC", value_parser = args::spec())]
    spec: Spec,
    /// Its backing files too
    #[arg(long, visible_alias = "backing-chain")]
    chain: bool,
    /// As JSON, in the words of `qemu-img info`
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    access: Access,
}

impl Args {
    pub(super) fn run(&self, out: &mut Out) -> anyhow::Result<Exit> {
        let (spec, options) = (self.input.apply(&self.spec), self.access.reading());
        let infos = if self.chain {
            let opened = open(&spec, &options)?;
            opened.image.chain().map(info::of).collect::<Result<_, _>>()?
        } else {
            vec![info::look(&spec, &options)?]
        };
        match (self.json, self.chain) {
            (true, true) => out.json(&infos)?,
            (true, false) => infos.iter().try_for_each(|info| out.json(info))?,
            (false, _) => {
                for (depth, info) in infos.iter().enumerate() {
                    if depth > 0 {
                        writeln!(out)?;
                    }
                    print(out, info)?;
                }
            }
        }
        Ok(Exit::DONE)
    }
}

fn print(out: &mut Out, info: &Info) -> anyhow::Result<()> {
    let mut line = |name: &str, value: String| writeln!(out, "  {name:<15}{}", plain(&value));
    line("image", info.filename.clone())?;
    line("format", kind(info))?;
    line("disk", format!("{} ({} bytes)", show(info.virtual_size), info.virtual_size))?;
    // A directory's disk is in no file.
    if !matches!(info.format_specific, Some(Specific::Directory(_))) {
        let taken = info.actual_size.map(|n| format!(", {} taken on the host", show(n))).unwrap_or_default();
        line("file", format!("{}{taken}", show(info.container_size)))?;
    }
    if let Some(backing) = &info.backing_filename {
        let format = info.backing_filename_format.as_deref().unwrap_or("format not stated");
        let there = info.full_backing_filename.as_ref().filter(|full| *full != backing);
        let there = there.map(|full| format!(", which is {full}")).unwrap_or_default();
        line("backing file", format!("{backing} ({format}){there}"))?;
    }
    if let Some(Specific::Qcow2(q)) = &info.format_specific {
        if let Some(data_file) = &q.data_file {
            line("data file", format!("{data_file}{}", if q.data_file_raw { " (raw)" } else { "" }))?;
        }
        let flags = [
            (q.lazy_refcounts, "lazy refcounts"),
            (q.extended_l2, "extended L2"),
            (info.dirty_flag, "DIRTY: not closed by its last writer"),
            (q.corrupt, "marked CORRUPT"),
        ];
        let flags: Vec<_> = flags.into_iter().filter_map(|(set, name)| set.then_some(name)).collect();
        if !flags.is_empty() {
            line("flags", flags.join(", "))?;
        }
        for bitmap in &q.bitmaps {
            let state = match (bitmap.in_use, bitmap.auto) {
                (true, _) => ", in use: not saved properly",
                (false, true) => ", follows all writes",
                (false, false) => "",
            };
            line("bitmap", format!("{}, {} a bit{state}", bitmap.name, show(bitmap.granularity)))?;
        }
    }
    if let Some(why) = &info.unusable {
        line("NOT USABLE", why.clone())?;
    }
    if !info.snapshots.is_empty() {
        writeln!(out)?;
        snapshots(out, &info.snapshots)?;
    }
    Ok(())
}

fn kind(info: &Info) -> String {
    let q = match &info.format_specific {
        Some(Specific::Qcow2(q)) => q,
        Some(Specific::Vdi(v)) => {
            let blocks = info.cluster_size.map(|n| format!(", {} blocks", show(n))).unwrap_or_default();
            return format!("vdi, {}{blocks}, {} stored, UUID {}", v.image_type, v.blocks_allocated, v.uuid);
        }
        Some(Specific::Directory(d)) => {
            let skipped = match d.skipped {
                0 => String::new(),
                n => format!("; {n} left out, which may not be read"),
            };
            return format!(
                "{}, computed; files: {}, directories: {}, others: {}{skipped}",
                info.format, d.files, d.directories, d.others
            );
        }
        None => return info.format.to_owned(),
    };
    let version = if q.compat == "0.10" { 2 } else { 3 };
    let clusters = info.cluster_size.map(|n| format!(", {} clusters", show(n))).unwrap_or_default();
    let refcounts =
        if q.refcount_bits == 16 { String::new() } else { format!(", {}-bit refcounts", q.refcount_bits) };
    let encrypted = q.encrypt.map(|how| format!(", encrypted ({how})")).unwrap_or_default();
    format!("qcow2 version {version}{clusters}, {}{refcounts}{encrypted}", q.compression_type)
}

/// A table of internal snapshots.
pub(super) fn snapshots(out: &mut Out, list: &[Snapshot]) -> anyhow::Result<()> {
    let shown = |text: &str| plain(text).chars().count();
    let id = list.iter().map(|s| shown(&s.id)).max().unwrap_or(0).max(2);
    let name = list.iter().map(|s| shown(&s.name)).max().unwrap_or(0).max(8);
    writeln!(
        out,
        "  {:<id$}  {:<name$}  {:<19}  {:>10}  {:>10}",
        "ID", "SNAPSHOT", "TAKEN (UTC)", "DISK", "VM STATE"
    )?;
    for s in list {
        let disk = s.disk_size.map_or_else(|| "-".to_owned(), show);
        let state = if s.vm_state_size == 0 { "-".to_owned() } else { show(s.vm_state_size) };
        let taken = moment(s.date_sec.into());
        writeln!(
            out,
            "  {:<id$}  {:<name$}  {taken:<19}  {disk:>10}  {state:>10}",
            plain(&s.id),
            plain(&s.name)
        )?;
    }
    Ok(())
}
