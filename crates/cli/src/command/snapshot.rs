//! `portolan snapshot`

use super::info::snapshots;
use crate::Exit;
use crate::args::Image;
use crate::output::Out;
use portolan::{Opened, open, snapshot};
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
    #[command(flatten)]
    image: Image,
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
        let doing = match (&self.create, &self.apply, &self.delete) {
            (Some(_), _, _) => "taking a snapshot",
            (_, Some(_), _) => "going back",
            (_, _, Some(_)) => "deleting a snapshot",
            _ => return self.list(out),
        };
        let (bar, options) = self.image.changing(doing);
        let opened = open(&self.image.spec(), &options)?;
        let changed = self.change(&opened);
        let done = opened.close_after(changed)?;
        drop(bar);
        self.image.told.tell(out, &done, || done.words())?;
        Ok(Exit::DONE)
    }

    fn list(&self, out: &mut Out) -> anyhow::Result<Exit> {
        let opened = open(&self.image.spec(), &self.image.access.looking())?;
        let list = snapshot::list(&opened)?;
        match (self.image.told.json, list.is_empty()) {
            (true, _) => out.json(&list)?,
            (false, true) => writeln!(out, "{}: no snapshots", self.image.name())?,
            (false, false) => snapshots(out, &list)?,
        }
        Ok(Exit::DONE)
    }

    /// Does what is asked for, and tells what that was.
    fn change(&self, opened: &Opened) -> chart::Result<Done> {
        let done = |action, name: &str, id| {
            Ok(Done { filename: self.image.name(), action, snapshot: name.to_owned(), id })
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

impl Done {
    fn words(&self) -> String {
        let Done { filename, snapshot, .. } = self;
        match (self.action, &self.id) {
            ("create", Some(id)) => format!("{filename}: snapshot {snapshot} taken, with id {id}"),
            ("apply", _) => format!("{filename}: what it was at snapshot {snapshot}"),
            _ => format!("{filename}: snapshot {snapshot} deleted"),
        }
    }
}
