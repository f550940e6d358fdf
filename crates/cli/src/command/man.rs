//! `portolan man`

use crate::output::Out;
use crate::{Args as Whole, Exit};
use clap::CommandFactory;
use clap_mangen::Man;
use std::io::Write;
use std::path::PathBuf;

/// Print the manual page, or write all of them
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    portolan man | man -l -\n  \
    portolan man --dir /usr/local/share/man/man1")]
pub(crate) struct Args {
    /// Write a page for every command into this directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(&self, out: &mut Out) -> anyhow::Result<Exit> {
        let whole = Whole::command();
        let Some(dir) = &self.dir else {
            let mut page = Vec::new();
            Man::new(whole).render(&mut page)?;
            out.write_all(&page)?;
            return Ok(Exit::DONE);
        };
        std::fs::create_dir_all(dir)?;
        clap_mangen::generate_to(whole, dir)?;
        writeln!(out, "{}: written", dir.display())?;
        Ok(Exit::DONE)
    }
}
