//! Options of `qemu-img convert` that are not here: whoever gives one is told what to do instead.

use anyhow::bail;

/// What a hand that knows `qemu-img convert` may type.
#[derive(clap::Args)]
pub(super) struct Habits {
    #[arg(short = 'l', hide = true, value_name = "SNAPSHOT")]
    snapshot: Option<String>,
    #[arg(short = 'n', hide = true)]
    no_create: bool,
    #[arg(short = 'B', hide = true, value_name = "FILE")]
    backing: Option<String>,
    #[arg(short = 'S', hide = true, value_name = "SIZE")]
    sparse: Option<String>,
    #[arg(short = 'W', hide = true)]
    out_of_order: bool,
    #[arg(short = 't', hide = true, value_name = "CACHE")]
    cache_mode: Option<String>,
    #[arg(short = 'T', hide = true, value_name = "CACHE")]
    source_cache_mode: Option<String>,
}

impl Habits {
    /// What to do instead, if there is anything to say.
    pub(super) fn answer(&self) -> anyhow::Result<()> {
        if let Some(name) = &self.snapshot {
            let name =
                name.strip_prefix("snapshot.name=").or(name.strip_prefix("snapshot.id=")).unwrap_or(name);
            bail!("-l is not needed: a snapshot is part of the disk's name, as in disk.qcow2@{name}");
        }
        if self.no_create {
            bail!(
                "-n is not needed for a block device (--force overwrites one in place), and a file is always made anew"
            );
        }
        if let Some(backing) = &self.backing {
            bail!(
                "-B is not there: make an overlay (portolan create -b {backing} -F FORMAT), or convert and then \
                 put the copy over it (portolan rebase -b {backing} -F FORMAT)"
            );
        }
        if self.sparse.is_some() {
            bail!("-S is not needed: runs of zeros become holes (--keep-zeros keeps them stored)");
        }
        if self.out_of_order {
            bail!("-W is not needed: several threads write out of order anyway (-m 1 for one at a time)");
        }
        if self.cache_mode.is_some() || self.source_cache_mode.is_some() {
            bail!(
                "-t and -T are not there: what is made is flushed before it gets its name; --direct reads and writes past the cache"
            );
        }
        Ok(())
    }
}
