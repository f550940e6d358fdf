//! `portolan snapshot`

use super::info::snapshots;
use crate::Exit;
use crate::args::{self, Access, Input};
use crate::output::Out;
use portolan::{Opened, Spec, open, snapshot};
use std::io::Write;

/// List, take, apply and delete internal snapshots
///
/// Without an option they are listed. A snapshot can be read like a disk of its own: disk.qcow2@NAME.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    portolan snapshot disk.qcow2\n  \
    portolan snapshot -c before-update disk.qcow2\n  \
    portolan snapshot -a before-update disk.qcow2\n  \
    portolan convert disk.qcow2@before-update old.qcow2")]
pub(crate) struct Args {
    /// The image
    #[arg(value_name = "SPEC", value_parser = args::spec())]
    spec: Spec,
    /// List them
    #[arg(short, long, group = "act")]
    list: bool,
    /// Take one of that name
    #[arg(short = 'c', long, value_name = "NAME", group = "act")]
    create: Option<String>,
    /// Make the disk what it was then; what it is now is lost, unless a snapshot holds it
    #[arg(short, long, value_name = "NAME", group = "act")]
    apply: Option<String>,
    /// Delete one
    #[arg(short, long, value_name = "NAME", group = "act")]
    delete: Option<String>,
    /// List as JSON
    #[arg(long, conflicts_with_all = ["create", "apply", "delete"])]
    json: bool,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    access: Access,
}

impl Args {
    pub(super) fn run(&self, out: &mut Out) -> anyhow::Result<Exit> {
        let spec = self.input.apply(&self.spec);
        let changes = self.create.is_some() || self.apply.is_some() || self.delete.is_some();
        if !changes {
            let opened = open(&spec, &self.access.reading())?;
            let list = snapshot::list(&opened)?;
            match (self.json, list.is_empty()) {
                (true, _) => out.json(&list)?,
                (false, true) => writeln!(out, "{}: no snapshots", self.spec)?,
                (false, false) => snapshots(out, &list)?,
            }
            return Ok(Exit::DONE);
        }
        let opened = open(&spec, &self.access.writing())?;
        let changed = self.change(&opened);
        let said = opened.close_after(changed)?;
        if !self.quiet {
            writeln!(out, "{}: {said}", self.spec)?;
        }
        Ok(Exit::DONE)
    }

    /// Does what is asked for, and tells what that was.
    fn change(&self, opened: &Opened) -> chart::Result<String> {
        if let Some(name) = &self.create {
            let id = snapshot::take(opened, name)?;
            return Ok(format!("snapshot {name} taken, with id {id}"));
        }
        if let Some(name) = &self.apply {
            snapshot::apply(opened, name)?;
            return Ok(format!("what it was at snapshot {name}"));
        }
        let name = self.delete.as_deref().unwrap_or_default();
        snapshot::delete(opened, name)?;
        Ok(format!("snapshot {name} deleted"))
    }
}
