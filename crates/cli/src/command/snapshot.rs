//! `portolan snapshot`

use super::info::snapshots;
use crate::Exit;
use crate::args::{self, Access, Input};
use crate::output::Out;
use portolan::{Opened, Spec, open, snapshot};
use serde::Serialize;
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
    /// List, or report, as JSON
    #[arg(long)]
    json: bool,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    access: Access,
}

/// What was done.
#[derive(Serialize)]
struct Done {
    filename: String,
    action: &'static str,
    snapshot: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
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
        let done = opened.close_after(changed)?;
        match (self.quiet, self.json) {
            (true, _) => {}
            (false, true) => out.json(&done)?,
            (false, false) => {
                let Done { snapshot, id, .. } = &done;
                let said = match (done.action, id) {
                    ("create", Some(id)) => format!("snapshot {snapshot} taken, with id {id}"),
                    ("apply", _) => format!("what it was at snapshot {snapshot}"),
                    _ => format!("snapshot {snapshot} deleted"),
                };
                writeln!(out, "{}: {said}", done.filename)?;
            }
        }
        Ok(Exit::DONE)
    }

    /// Does what is asked for, and tells what that was.
    fn change(&self, opened: &Opened) -> chart::Result<Done> {
        let done = |action, name: &str, id| {
            Ok(Done { filename: self.spec.to_string(), action, snapshot: name.to_owned(), id })
        };
        if let Some(name) = &self.create {
            let id = snapshot::take(opened, name)?;
            return done("create", name, Some(id));
        }
        if let Some(name) = &self.apply {
            snapshot::apply(opened, name)?;
            return done("apply", name, None);
        }
        let name = self.delete.as_deref().unwrap_or_default();
        snapshot::delete(opened, name)?;
        done("delete", name, None)
    }
}
