//! The commands, one file each.

mod bench;
mod bitmap;
mod cat;
mod chart;
mod check;
mod commit;
mod compare;
mod completions;
mod convert;
mod create;
mod extract;
mod habits;
mod help;
mod info;
mod ls;
mod man;
mod measure;
mod rebase;
mod resize;
mod serve;
mod snapshot;
mod tour;

use crate::Exit;
use crate::output::Out;
use clap::Subcommand;

macro_rules! commands {
    ($($module:ident => $name:ident),* $(,)?) => {
        /// What there is to do.
        #[derive(Subcommand)]
        pub(crate) enum Command {
            $(#[allow(missing_docs)] $name($module::Args),)*
        }

        impl Command {
            /// Does it.
            pub(crate) fn run(self, out: &mut Out) -> anyhow::Result<Exit> {
                match self { $(Command::$name(args) => args.run(out),)* }
            }
        }
    };
}

commands! {
    info => Info,
    chart => Chart,
    compare => Compare,
    ls => Ls,
    cat => Cat,
    extract => Extract,
    convert => Convert,
    create => Create,
    resize => Resize,
    measure => Measure,
    check => Check,
    snapshot => Snapshot,
    commit => Commit,
    rebase => Rebase,
    bitmap => Bitmap,
    serve => Serve,
    bench => Bench,
    tour => Tour,
    completions => Completions,
    man => Man,
    help => Help,
}

impl Command {
    /// Whether it changes nothing, and watches for no interruption itself.
    pub(crate) fn only_looks(&self) -> bool {
        match self {
            Command::Chart(args) => args.only_looks(),
            Command::Check(args) => args.only_looks(),
            Command::Info(_) | Command::Ls(_) | Command::Cat(_) | Command::Measure(_) => true,
            Command::Help(_) | Command::Completions(_) => true,
            _ => false,
        }
    }

    /// What there is when it was interrupted.
    pub(crate) fn remains(&self) -> &'static str {
        match self {
            Command::Commit(_) => "the overlay still holds all that it held",
            Command::Rebase(_) => "the image is still over the backing file it was over",
            Command::Convert(args) if args.is_onto_device() => "the device is written in part",
            Command::Bench(_) => "what was written stays written",
            _ => "nothing half-done was left behind",
        }
    }

    /// With what it ends when it fails.
    pub(crate) fn failure(&self) -> Exit {
        match self {
            Command::Compare(_) => compare::FAILED,
            _ => Exit::ERROR,
        }
    }
}
