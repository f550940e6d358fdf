//! `portolan help`

use crate::output::Out;
use crate::{Args as Whole, Exit};
use anyhow::bail;
use clap::CommandFactory;
use portolan::spec::GRAMMAR;
use std::io::Write;

/// Tell about a command, or about how disks are named (`help spec`)
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A command, or `spec`
    topic: Option<String>,
}

impl Args {
    pub(super) fn run(&self, out: &mut Out) -> anyhow::Result<Exit> {
        let mut whole = Whole::command();
        let topic = match self.topic.as_deref() {
            Some("spec") => {
                write!(out, "{GRAMMAR}")?;
                return Ok(Exit::DONE);
            }
            Some(topic) => topic,
            None => {
                write!(out, "{}", whole.render_help())?;
                return Ok(Exit::DONE);
            }
        };
        whole.build();
        let Some(command) = whole.find_subcommand_mut(topic) else {
            bail!("there is no command {topic:?}; `portolan help` lists them");
        };
        write!(out, "{}", command.render_long_help())?;
        Ok(Exit::DONE)
    }
}
