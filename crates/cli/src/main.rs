//! `portolan`: the command.

mod args;
mod command;
mod hint;
mod output;
mod progress;
mod signal;

use clap::Parser;
use command::Command;
use std::process::ExitCode;

/// See where every byte of a virtual disk really lives, and redraw that instead of copying.
#[derive(Parser)]
#[command(name = "portolan", version, disable_help_subcommand = true, max_term_width = 100)]
#[command(after_help = "Disks are named by SPEC: see `portolan help spec`.\n\n\
    Options have the letters they have in qemu-img, where it has them. Commands that are spelled otherwise there: \
    map is chart, dd is convert --option offset=SIZE --option size=SIZE.\n\n\
    Exit codes: 0 done, 1 an error, 2 the command line makes no sense, 130 interrupted. \
    compare, check and extract have more: see their help.")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

/// With what a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit(u8);

impl Exit {
    /// Done.
    pub(crate) const DONE: Exit = Exit(0);
    /// An error.
    pub(crate) const ERROR: Exit = Exit(1);
    /// Interrupted by the user.
    const INTERRUPTED: Exit = Exit(130);
}

fn main() -> ExitCode {
    let Args { command } = Args::parse_from(args::as_meant(std::env::args_os()));
    // What only looks has nothing to clean up, and asks nobody whether to end: the system ends it.
    if !command.only_looks() {
        signal::install();
    }
    let (failed, remains) = (command.failure(), command.remains());
    let mut out = output::Out::new();
    let done = command.run(&mut out).and_then(|exit| match out.finish() {
        // What was found out stays true, whoever listens.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(exit),
        finished => Ok(finished.map(|()| exit)?),
    });
    let Exit(code) = done.unwrap_or_else(|e| report(&e, failed, remains));
    ExitCode::from(code)
}

/// Says what went wrong, and what can be done about it.
fn report(e: &anyhow::Error, failed: Exit, remains: &str) -> Exit {
    if output::nobody_listens(e) {
        return Exit::DONE;
    }
    if signal::is_interrupted() {
        eprintln!("portolan: interrupted; {remains}");
        return Exit::INTERRUPTED;
    }
    eprintln!("portolan: {}", output::plain(&format!("{e:#}")));
    if let Some(hint) = hint::of(e) {
        eprintln!("  {}", output::plain(&hint));
    }
    failed
}
