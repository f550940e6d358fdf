//! `portolan bitmap`

use crate::Exit;
use crate::args::{self, Image};
use crate::output::{Out, plain};
use portolan::bitmap::{Change, Listed, change, list};
use portolan::size::{self, show};
use portolan::{Spec, open};
use serde_json::json;
use std::io::Write;

/// List, add, remove, clear, enable, disable and merge persistent bitmaps
///
/// A bitmap notes what has been written since it was added, cleared or enabled: what an incremental backup has to
/// copy. Without an option they are listed.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    portolan bitmap disk.qcow2\n  \
    portolan bitmap --add disk.qcow2 since-monday\n  \
    portolan bitmap --merge since-monday disk.qcow2 since-sunday")]
pub(crate) struct Args {
    /// The bitmap
    #[arg(index = 2, requires = "act")]
    name: Option<String>,
    #[command(flatten)]
    act: Act,
    /// Bytes of the disk that a bit stands for (with --add)
    #[arg(short, long, value_name = "SIZE", value_parser = size::parse, requires = "add")]
    granularity: Option<u64>,
    /// It follows no writes yet (with --add)
    #[arg(long, requires = "add")]
    disabled: bool,
    /// The image that holds the other bitmap (with --merge)
    #[arg(short = 'b', long, value_name = "SPEC", value_parser = args::spec(), requires = "merge")]
    source: Option<Spec>,
    #[command(flatten)]
    image: Image,
}

/// What is done: one thing at a time.
#[derive(clap::Args)]
#[group(id = "act", requires = "name", multiple = false)]
struct Act {
    /// Add one, empty
    #[arg(long)]
    add: bool,
    /// Remove it
    #[arg(long)]
    remove: bool,
    /// Let it forget what it says
    #[arg(long)]
    clear: bool,
    /// Let it follow all writes from now on
    #[arg(long)]
    enable: bool,
    /// Let it stay as it is from now on
    #[arg(long)]
    disable: bool,
    /// Add to it what this other bitmap says
    #[arg(long, value_name = "OTHER")]
    merge: Option<String>,
}

impl Args {
    pub(super) fn run(&self, out: &mut Out) -> anyhow::Result<Exit> {
        let access = &self.image.access;
        let Some(name) = &self.name else {
            let bitmaps = list(&open(&self.image.spec(), &access.looking())?)?;
            match (self.image.told.json, bitmaps.is_empty()) {
                (true, _) => out.json(&bitmaps)?,
                (false, true) => writeln!(out, "{}: no bitmaps", self.image.name())?,
                (false, false) => print(out, &bitmaps)?,
            }
            return Ok(Exit::DONE);
        };
        let (bar, options) = self.image.changing("changing a bitmap");
        let opened = open(&self.image.spec(), &options)?;
        let source = self.source.as_ref().map(|source| open(source, &access.reading())).transpose()?;
        let act = &self.act;
        let (wanted, said) = match &act.merge {
            Some(other) => (Change::Merge { name: other, from: source.as_ref() }, "merged"),
            None if act.add => {
                (Change::Add { granularity: self.granularity, disabled: self.disabled }, "added")
            }
            None if act.remove => (Change::Remove, "removed"),
            None if act.clear => (Change::Clear, "cleared"),
            None if act.enable => (Change::Enable, "enabled"),
            None => (Change::Disable, "disabled"),
        };
        let changed = change(&opened, name, wanted);
        opened.close_after(changed)?;
        drop(bar);
        let image = self.image.name();
        let report = json!({ "filename": image, "bitmap": name, "done": said });
        self.image.told.tell(out, &report, || format!("{image}: bitmap {name} {said}"))?;
        Ok(Exit::DONE)
    }
}

fn print(out: &mut Out, bitmaps: &[Listed]) -> anyhow::Result<()> {
    let width = bitmaps.iter().map(|b| plain(&b.bitmap.name).chars().count()).max().unwrap_or(0).max(6);
    writeln!(out, "  {:<width$}  {:>10}  {:>10}  STATE", "BITMAP", "A BIT IS", "DIRTY")?;
    for listed in bitmaps {
        let bitmap = &listed.bitmap;
        let state = match (bitmap.in_use, bitmap.auto) {
            (true, _) => "in use: not saved properly, says nothing",
            (false, true) => "follows all writes",
            (false, false) => "disabled",
        };
        let dirty = listed.dirty.map_or_else(|| "-".to_owned(), show);
        writeln!(
            out,
            "  {:<width$}  {:>10}  {dirty:>10}  {state}",
            plain(&bitmap.name),
            show(bitmap.granularity)
        )?;
    }
    Ok(())
}
