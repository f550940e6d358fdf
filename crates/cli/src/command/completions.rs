//! `portolan completions`

use crate::output::Out;
use crate::{Args as Whole, Exit};
use clap::CommandFactory;
use clap_complete::Shell;

/// Print completions for a shell
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    portolan completions bash > ~/.local/share/bash-completion/completions/portolan\n  \
    portolan completions fish > ~/.config/fish/completions/portolan.fish")]
pub(crate) struct Args {
    /// Which shell
    shell: Shell,
}

impl Args {
    pub(super) fn run(&self, out: &mut Out) -> anyhow::Result<Exit> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Whole::command(), "portolan", &mut script);
        std::io::Write::write_all(out, &script)?;
        Ok(Exit::DONE)
    }
}
