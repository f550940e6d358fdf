//! `portolan serve`

mod attach;
mod chronicle;
mod line;
mod live;
mod ready;

use crate::Exit;
use crate::args::{self, Access, Input};
use crate::output::{Out, plain};
use crate::progress::Bar;
use crate::signal;
use anyhow::{Context, anyhow, bail};
use attach::Guard;
use chart::Kind;
use chronicle::Chronicle;
use live::Live;
use portolan::serve::{Config, Guise, Limits, Listener, Offer, Offered, Server, Severity, Tls, Top, offer};
use portolan::size;
use portolan::{Format, Location, Opened, Spec, Step};
use ready::Heard;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often signals are looked for.
const GLANCE: Duration = Duration::from_millis(50);

/// Serve disks over NBD
///
/// Every disk is an export that QEMU, the kernel, libnbd and Portolan itself can attach. How to, ready to paste, is
/// printed first. Without --listen, the sockets of a service manager are used where there are some, and else a
/// socket is made in $XDG_RUNTIME_DIR or the temporary directory.
///
/// Ctrl-C or SIGTERM ends it: no further request is heard, those under way are finished, and all is made durable.
/// SIGUSR1 prints the counters as JSON to standard error.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    portolan serve disk.qcow2\n  \
    portolan serve --temporary --listen tcp:localhost:10809 base.qcow2\n  \
    portolan serve --overlay mine.qcow2 --listen unix:/run/vm.sock base.qcow2\n  \
    portolan serve .\n  \
    portolan serve --present qcow2 disk.vdi\n  \
    portolan serve --history 30s disk.qcow2\n  \
    portolan serve --name a --name b one.qcow2 two.qcow2\n  \
    portolan serve --listen tcp:0.0.0.0:10809 --tls /etc/pki/portolan --tls-verify-peer disk.qcow2")]
pub(crate) struct Args {
    /// The disks
    #[arg(value_name = "SPEC", required = true, value_parser = args::spec())]
    specs: Vec<Spec>,
    /// Where clients come from: unix:PATH, tcp:HOST:PORT, tcp:PORT (of this machine only), or stdio
    #[arg(short, long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// The disks' names as exports, one for each; the only disk has the empty name else, several those of their files
    #[arg(short, long, value_name = "NAME")]
    name: Vec<String>,
    /// Nobody may write
    #[arg(short, long)]
    read_only: bool,
    /// Writes go to this qcow2 overlay, which is made where it is not there; the disk itself is only read
    #[arg(long, value_name = "FILE", conflicts_with = "read_only", value_parser = args::new_file())]
    overlay: Option<PathBuf>,
    /// Writes go to an overlay that is gone when the server ends
    #[arg(long, conflicts_with_all = ["read_only", "overlay"])]
    temporary: bool,
    /// Keep what the disk holds, each time that this has passed and something was written: as v0, v1, ... beside it, to
    /// be read (10s, 5m, 1h). Writes go to files that are gone when the server ends
    #[arg(long, value_name = "EVERY", value_parser = args::period, conflicts_with_all = ["read_only", "overlay", "temporary", "bitmap"])]
    history: Option<Duration>,
    /// How many states are kept, the newest
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = one_or_more, requires = "history", conflicts_with_all = ["read_only", "overlay", "temporary"])]
    keep: usize,
    /// Serve not the disk, but the image file of this format that would hold it: its tables are computed when they are
    /// read, its data stay where they are. Read-only
    #[arg(long, value_name = "FORMAT", value_parser = args::format, conflicts_with_all = ["overlay", "temporary", "history", "bitmap"])]
    present: Option<Format>,
    /// An option of that format, as for `create`
    #[arg(short = 'o', long = "present-option", value_name = "KEY=VALUE", value_parser = args::pairs, requires = "present")]
    present_options: Vec<Vec<(String, String)>>,
    /// Tell clients this dirty bitmap, as qemu:dirty-bitmap:NAME
    #[arg(short = 'B', long, value_name = "NAME")]
    bitmap: Vec<String>,
    /// Clients may ask where ranges live, as portolan:place
    #[arg(long)]
    places: bool,
    /// End when the client has gone: all its connections, once it has chosen a disk
    #[arg(long)]
    once: bool,
    /// Write the number of the process here, when clients can connect
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Print what was counted as JSON at the end; to standard error where a client is on standard output
    #[arg(long)]
    json: bool,
    /// Do not print how to attach, nor anything else that is no error
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    security: Security,
    #[command(flatten)]
    bounds: Bounds,
    #[command(flatten)]
    access: Access,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Security")]
struct Security {
    /// Speak nothing but TLS, with server-cert.pem and server-key.pem in this directory
    #[arg(long, value_name = "DIR")]
    tls: Option<PathBuf>,
    /// Clients must show a certificate that ca-cert.pem, in the same directory, vouches for
    #[arg(long, requires = "tls")]
    tls_verify_peer: bool,
    /// Be reachable from other machines without TLS: whoever reaches the port can read the disk, and write it
    #[arg(long)]
    insecure: bool,
}

impl Security {
    fn guard(&self) -> Guard {
        match (&self.tls, self.tls_verify_peer) {
            (None, _) => Guard::Open,
            (Some(_), false) => Guard::Tls,
            (Some(_), true) => Guard::Mutual,
        }
    }
}

#[derive(clap::Args)]
#[command(next_help_heading = "Limits")]
struct Bounds {
    /// How many threads carry out what cannot be answered at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    proxies: u16,
    /// How many clients may be connected
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = one_or_more)]
    max_connections: usize,
    /// How long a read or write may be
    #[arg(long, value_name = "SIZE", default_value = "32M", value_parser = size::parse)]
    max_request: u64,
    /// How many requests of a client may be under way
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = one_or_more)]
    max_in_flight: usize,
    /// How many bytes those may hold
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size::parse)]
    max_in_flight_bytes: u64,
    /// How many bytes the requests of all clients may hold; above that, each may have one under way
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = size::parse)]
    max_total_bytes: u64,
    /// How long a handshake may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = args::period)]
    handshake_timeout: Duration,
    /// How long a client may be silent (30s, 5m); for ever if it is not said
    #[arg(long, value_name = "TIME", value_parser = args::period)]
    idle_timeout: Option<Duration>,
    /// How long clients may take to read what is left when the server ends
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = period_or_none)]
    drain_timeout: Duration,
}

/// Reads a number of which none would make no sense.
fn one_or_more(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("the least is 1".to_owned()),
        Ok(number) => Ok(number),
        Err(e) => Err(e.to_string()),
    }
}

/// Reads how long something is, which may be no time at all.
fn period_or_none(text: &str) -> Result<Duration, chart::Error> {
    if text == "0" { Ok(Duration::ZERO) } else { args::period(text) }
}

impl Bounds {
    fn limits(&self) -> anyhow::Result<Limits> {
        let request = u32::try_from(self.max_request).ok().filter(|r| (4096..=64 << 20).contains(r));
        Ok(Limits {
            request: request.context("--max-request is from 4k to 64M")?,
            in_flight: self.max_in_flight,
            in_flight_bytes: self.max_in_flight_bytes,
            total_bytes: self.max_total_bytes,
            connections: self.max_connections,
            handshake: self.handshake_timeout,
            idle: self.idle_timeout,
            drain: self.drain_timeout,
        })
    }
}

impl Args {
    pub(super) fn run(&self, out: &mut Out) -> anyhow::Result<Exit> {
        signal::install_asking();
        if self.listen.iter().any(|address| address == "stdio") {
            ready::keep_apart()?;
        }
        ready::make_room(self.bounds.max_connections);
        let tls = self.security.tls.as_ref();
        let tls = tls.map(|dir| Tls::load(dir, self.security.tls_verify_peer)).transpose()?;
        let offered = self.open()?;
        // Before anything is listened on: whoever can connect is served.
        let heard = self.hear()?;
        let (mut exports, mut opened, mut histories) = (Vec::new(), Vec::new(), Vec::new());
        for offered in offered {
            exports.push(offered.export);
            opened.push(offered.opened);
            histories.extend(offered.history);
        }
        let live = Live::new(self.quiet, exports.iter().any(|export| export.writable));
        let (quiet, voice) = (self.quiet, live.voice());
        let config = Config {
            limits: self.bounds.limits()?,
            proxies: usize::from(self.bounds.proxies),
            tls,
            once: self.once,
            notice: Box::new(move |severity, words| {
                if !quiet || severity == Severity::Failure {
                    voice.say(words);
                }
            }),
            ..Config::new(exports)
        };
        let server = Server::start(config)?;
        if !self.quiet {
            self.attach(&server, &heard, out)?;
        }
        let chronicle = Chronicle::begin(histories, self.history, &server, live.voice())?;
        let has_client = heard.iter().any(|h| matches!(h, Heard::Client(_)));
        let served = self.serve(&server, heard, live);
        if let Some(chronicle) = chronicle {
            chronicle.end();
        }
        let finished = server.finish();
        // All are closed, whatever became of the others.
        let closed: Vec<_> = opened.into_iter().map(Opened::close).collect();
        if let Some(path) = &self.pid_file {
            ready::remove_pid(path);
        }
        if self.json && has_client {
            // Standard output may be the client's.
            let counted = serde_json::to_string(&live::report(server.counters()))?;
            // Nobody may hear it.
            let _ = writeln!(std::io::stderr(), "{counted}");
        } else if self.json {
            out.json(&live::report(server.counters()))?;
        }
        finished?;
        closed.into_iter().collect::<chart::Result<()>>()?;
        served.map(|()| Exit::DONE)
    }

    /// What takes the writes.
    fn top(&self) -> Top {
        let read_only = self.read_only || self.present.is_some();
        match (&self.overlay, self.temporary, read_only) {
            (Some(path), ..) => Top::Overlay(path.clone()),
            (None, true, _) => Top::Temporary,
            _ if self.history.is_some() => Top::History(self.keep),
            (None, false, true) => Top::Nothing,
            (None, false, false) => Top::Itself,
        }
    }

    /// Opens every disk, with what takes its writes.
    fn open(&self) -> anyhow::Result<Vec<Offered>> {
        let top = self.top();
        if self.overlay.is_some() && self.specs.len() > 1 {
            bail!("one overlay cannot take the writes to {} disks", self.specs.len());
        }
        let options = self.access.reading();
        let mut all = Vec::new();
        for (spec, name) in self.specs.iter().zip(self.names()?) {
            let guise =
                self.present.map(|format| Guise { format, options: args::map(&self.present_options) });
            let (bitmaps, places) = (self.bitmap.clone(), self.places);
            let how = Offer { name, top: top.clone(), guise, bitmaps, places };
            let bar = Bar::new("opening", self.quiet);
            let offered = bar.watch(|watch| offer(&self.input.apply(spec), &how, &options, watch));
            drop(bar);
            let offered = offered.map_err(|e| or_read(e, &top))?;
            if let Some(why) = offered.read_only.as_ref().filter(|_| !self.quiet) {
                eprintln!("portolan: {}", plain(&format!("{} can only be read: {why}", spec.location)));
            }
            all.push(offered);
        }
        Ok(all)
    }

    fn names(&self) -> anyhow::Result<Vec<String>> {
        let count = self.specs.len();
        match self.name.len() {
            0 if count == 1 => Ok(vec![String::new()]),
            0 => {
                let names: Vec<_> = self.specs.iter().map(default_name).collect();
                match names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
                    None => Ok(names),
                    Some((_, name)) => {
                        bail!("two of the disks would be called {name:?}; name each of them with --name")
                    }
                }
            }
            given if given == count => Ok(self.name.clone()),
            given => {
                let s = if count == 1 { "" } else { "s" };
                bail!("{given} names for {count} disk{s}: give each one with --name, or none")
            }
        }
    }

    fn hear(&self) -> anyhow::Result<Vec<Heard>> {
        let may_be_remote = self.security.tls.is_some() || self.security.insecure;
        if !self.listen.is_empty() {
            return self.listen.iter().map(|address| ready::listen(address, may_be_remote)).collect();
        }
        let inherited = ready::inherited(may_be_remote)?;
        if inherited.is_empty() { Ok(vec![ready::own_socket()?]) } else { Ok(inherited) }
    }

    fn attach(&self, server: &Server, heard: &[Heard], out: &mut Out) -> anyhow::Result<()> {
        // A client on standard output would take it for the protocol.
        if heard.iter().any(|h| matches!(h, Heard::Client(_))) {
            return Ok(());
        }
        let format = self.present.unwrap_or(Format::Raw);
        let writes = match self.top() {
            Top::Overlay(path) => format!("; writes go to {}", path.display()),
            Top::Temporary => "; what is written is gone at the end".to_owned(),
            Top::Itself | Top::Nothing | Top::History(_) => String::new(),
        };
        let mounts = format == Format::Raw && self.specs.iter().all(is_directory);
        let served = attach::Served { writes, format, guard: self.security.guard(), mounts };
        let is_ours = attach::print(out, server, heard, &served)?;
        if let Some(every) = self.history {
            writeln!(
                out,
                "\nWhat it holds is kept every {every:?}, where something was written: as v0 (how it began), v1, v2, ... beside it.\n\
                 All of that is gone when this server ends, and so is what was written."
            )?;
        }
        if is_ours {
            writeln!(out, "\nCtrl-C ends it.")?;
        }
        Ok(out.flush()?)
    }

    /// Serves until a signal, or until the last client of a server that has but one.
    fn serve(&self, server: &Arc<Server>, heard: Vec<Heard>, mut live: Live) -> anyhow::Result<()> {
        let (mut listeners, mut clients): (Vec<Listener>, _) = (Vec::new(), Vec::new());
        for one in heard {
            match one {
                Heard::Listeners { listeners: more, .. } => listeners.extend(more),
                Heard::Client(socket) => clients.push(socket),
            }
        }
        let last_ends = listeners.is_empty();
        clients.into_iter().for_each(|socket| server.welcome(socket));
        let accepting = Arc::clone(server);
        let accept = std::thread::spawn(move || accepting.listen(&listeners));
        if let Some(path) = &self.pid_file {
            ready::write_pid(path)?;
        }
        ready::notify();
        while !server.is_stopping() && !accept.is_finished() {
            std::thread::sleep(GLANCE);
            if signal::is_interrupted() || (last_ends && server.is_deserted()) {
                server.stop();
            }
            if signal::is_asked() {
                let counted = serde_json::to_string(&live::report(server.counters()))?;
                // Whoever asked may not read the answer, and the server is to end all the same.
                let voice = live.voice();
                std::thread::spawn(move || voice.print(&counted));
            }
            live.show(server.counters());
        }
        server.stop();
        signal::obeyed();
        let accepted = accept.join().map_err(|_| anyhow::anyhow!("accepting clients failed"))?;
        Ok(accepted?)
    }
}

/// What else can be done where a disk may not be written.
fn or_read(e: chart::Error, top: &Top) -> anyhow::Error {
    if *top == Top::Itself && e.kind() == Kind::Denied && e.os_code().is_some() {
        return anyhow!("{e}; where it may be read, --read-only serves it, and --temporary takes writes too");
    }
    e.into()
}

/// What a disk is called where nobody has named it: as its file is, without the ending, and with what it is of that.
fn default_name(spec: &Spec) -> String {
    let stem = |path: &Path| path.file_stem().map(|name| name.to_string_lossy().into_owned());
    let name = match &spec.location {
        Location::File(path) => stem(path),
        _ => None,
    };
    let name = name.unwrap_or_else(|| spec.location.to_string());
    spec.steps.iter().fold(name, |name, step| match step {
        Step::Version(version) => format!("{name}-{version}"),
        Step::Partition(number) => format!("{name}-{number}"),
        Step::Path(path) => stem(path).unwrap_or(name),
    })
}

/// Whether a directory of the host is served, which is a file system all over.
fn is_directory(spec: &Spec) -> bool {
    spec.steps.is_empty() && matches!(&spec.location, Location::File(path) if path.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_called_as_its_file_is_and_what_it_is_of_that() {
        for (spec, name) in [
            ("vm/disk.qcow2", "disk"),
            ("vm/disk.qcow2#2", "disk-2"),
            ("vm/disk.qcow2@before", "disk-before"),
            ("vm/disk.qcow2@before#2", "disk-before-2"),
            ("vm/disk.qcow2#2:/images/b.vdi", "b"),
            ("vm/disk.qcow2#2:/images/b.vdi#1", "b-1"),
            ("nbd://host/x", "nbd://host/x"),
        ] {
            assert_eq!(default_name(&Spec::parse(spec).unwrap()), name);
        }
    }
}
