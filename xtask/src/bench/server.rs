//! A server that is measured: started, waited for, looked at, ended.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::case::Server;
use super::kernel;
use crate::process;

/// How long a server may take to begin, and to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked at meanwhile.
const GLANCE: Duration = Duration::from_millis(5);
/// How long it is left alone before it counts as at rest.
const REST: Duration = Duration::from_millis(100);

/// A server that runs; killed when dropped.
pub(super) struct Running {
    child: Child,
    shown: String,
    socket: PathBuf,
    /// What it has said, for when it fails.
    log: PathBuf,
    rest_rss_bytes: u64,
    cpu: Duration,
}

/// What it has used since it was at rest.
pub(super) struct Used {
    pub(super) cpu: Duration,
    /// The resident set before.
    pub(super) rest_rss_bytes: u64,
    /// The largest since.
    pub(super) max_rss_bytes: u64,
}

impl Running {
    /// Starts it in `dir` and waits until it can be connected to and is at rest.
    pub(super) fn start(server: &Server, dir: &Path) -> Result<Running> {
        if server.socket.exists() {
            fs::remove_file(&server.socket)?;
        }
        let log = dir.with_extension("server");
        let mut command = Command::new(&server.command[0]);
        command.args(&server.command[1..]).env("LC_ALL", "C").current_dir(dir).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(File::create(&log)?);
        let shown = process::shown(&command);
        let child = command.spawn().with_context(|| shown.clone())?;
        let (socket, cpu) = (server.socket.clone(), Duration::ZERO);
        let mut running = Running { child, shown, socket, log, rest_rss_bytes: 0, cpu };
        let began = Instant::now();
        while UnixStream::connect(&running.socket).is_err() {
            if let Some(status) = running.child.try_wait()? {
                bail!("`{}`: {status}: {}", running.shown, running.said());
            }
            if began.elapsed() > PATIENCE {
                bail!("`{}` does not listen: {}", running.shown, running.said());
            }
            std::thread::sleep(GLANCE);
        }
        std::thread::sleep(REST);
        running.rest_rss_bytes = running.memory("VmRSS:")?;
        // From here on, where the kernel lets us: a server may have been larger while it began.
        let _ = fs::write(format!("/proc/{}/clear_refs", running.child.id()), "5");
        running.cpu = kernel::cpu_of(running.child.id())?;
        Ok(running)
    }

    /// What it has used so far.
    pub(super) fn used(&self) -> Result<Used> {
        Ok(Used {
            cpu: kernel::cpu_of(self.child.id())?.saturating_sub(self.cpu),
            rest_rss_bytes: self.rest_rss_bytes,
            max_rss_bytes: self.memory("VmHWM:")?,
        })
    }

    /// Ends it as a service manager does, and waits until it has.
    pub(super) fn stop(mut self) -> Result<()> {
        kernel::ask_to_end(self.child.id())?;
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                anyhow::ensure!(status.success(), "`{}` ended with {status}: {}", self.shown, self.said());
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                bail!("`{}` does not end: {}", self.shown, self.said());
            }
            std::thread::sleep(GLANCE);
        }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default().trim().to_owned()
    }

    /// A field of /proc/PID/status, in bytes.
    fn memory(&self, name: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let field = status.lines().find_map(|line| line.strip_prefix(name)).context("no such field")?;
        let kib: u64 = field.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing of this matters where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.socket);
        let _ = fs::remove_file(&self.log);
    }
}
