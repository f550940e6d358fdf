//! The commands, one file each.

mod bench;
mod bitmap;
mod chart;
mod check;
mod commit;
mod compare;
mod completions;
mod convert;
mod create;
mod help;
mod info;
mod man;
mod measure;
mod rebase;
mod resize;
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
    convert => Convert,
    create => Create,
    resize => Resize,
    measure => Measure,
    check => Check,
    snapshot => Snapshot,
    commit => Commit,
    rebase => Rebase,
    bitmap => Bitmap,
    bench => Bench,
    tour => Tour,
    completions => Completions,
    man => Man,
    help => Help,
}

impl Command {
    /// With what it ends when it fails.
    pub(crate) fn failure(&self) -> Exit {
        match self {
            Command::Compare(_) => compare::FAILED,
            _ => Exit::ERROR,
        }
    }
}
