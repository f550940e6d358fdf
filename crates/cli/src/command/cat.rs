//! `portolan cat`

use crate::Exit;
use crate::args::{self, Access, Input};
use crate::output::{Out, output_error};
use portolan::files::reading;
use portolan::{Spec, Watch, find, size};

/// What a pipe holds, if the system lets it: fewer turns between who writes and who reads.
const PIPE: usize = 1 << 20;

/// Write a file inside a disk, or a disk, to standard output
///
/// Of a file its bytes, of a disk or a partition the bytes that a machine would see. A terminal gets control
/// characters spelled out; anything else gets the bytes as they are.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    portolan cat disk.qcow2#1:/etc/fstab\n  \
    portolan cat disk.qcow2#1:/var/log/syslog | less\n  \
    portolan cat --length 512 disk.qcow2 | xxd")]
pub(crate) struct Args {
    /// The file: disk.img#2:/etc/fstab; or a disk (see `portolan help spec`)
    #[arg(value_name = "SPEC", value_parser = args::spec())]
    spec: Spec,
    /// Where to begin
    #[arg(long, value_name = "SIZE", value_parser = size::parse, default_value = "0", hide_default_value = true)]
    offset: u64,
    /// How much to write at most
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    length: Option<u64>,
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    access: Access,
}

impl Args {
    pub(super) fn run(&self, out: &mut Out) -> anyhow::Result<Exit> {
        let found = find(&self.input.apply(&self.spec), &self.access.reading())?;
        let disk = reading::bytes(&found)?;
        // Of what is no pipe this means nothing.
        let _ = rustix::pipe::fcntl_setpipe_size(std::io::stdout(), PIPE);
        let done = reading::write(&disk, self.offset, self.length, out.bytes(), Watch::default());
        done.map_err(output_error)?;
        Ok(Exit::DONE)
    }
}
