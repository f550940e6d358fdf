//! `portolan serve`, with the clients people use.

mod activation;
mod chained;
mod client;
mod crash;
mod drain;
mod every;
mod guest;
mod history;
mod load;
mod maps;
mod notices;
mod options;
mod present;
mod tls;
mod tools;

use crate::run::{Dir, Ran};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to come up, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for something to be so.
#[track_caller]
fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How a server is started: on its socket or on a port.
type Start = for<'d> fn(&'d Dir, &'static str, &str) -> Server<'d>;

fn on_a_socket<'d>(dir: &'d Dir, name: &'static str, args: &str) -> Server<'d> {
    Server::start(dir, name, args)
}

fn on_a_port<'d>(dir: &'d Dir, name: &'static str, args: &str) -> Server<'d> {
    Server::listening(dir, name, &format!("--listen tcp:localhost:0 {args}"))
}

/// A `portolan serve` that ends with the test.
pub(crate) struct Server<'d> {
    dir: &'d Dir,
    name: &'static str,
    child: Child,
}

impl<'d> Server<'d> {
    /// With these arguments, on the unix socket `NAME.sock`, and ready.
    #[track_caller]
    pub(crate) fn start(dir: &'d Dir, name: &'static str, args: &str) -> Server<'d> {
        Server::listening(dir, name, &format!("--listen unix:{name}.sock {args}"))
    }

    /// Listening where the arguments say.
    #[track_caller]
    fn listening(dir: &'d Dir, name: &'static str, args: &str) -> Server<'d> {
        let mut command = dir.command(&format!("serve --pid-file {name}.pid {args}"));
        Server::of(dir, name, command.stdin(Stdio::null()))
    }

    /// Any command that writes `NAME.pid` when it is ready.
    #[track_caller]
    pub(crate) fn of(dir: &'d Dir, name: &'static str, command: &mut Command) -> Server<'d> {
        let pid_file = dir.join(&format!("{name}.pid"));
        // One that was killed has left its own.
        let _ = std::fs::remove_file(&pid_file);
        let log = |what| File::create(dir.join(&format!("{name}.{what}"))).unwrap();
        // Overlays that are to leave nothing behind: the tests see whether they do.
        command.env("TMPDIR", dir.path()).stdout(log("out")).stderr(log("err"));
        let child = command.spawn().unwrap();
        let mut server = Server { dir, name, child };
        wait_until("the server is ready", || {
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none(), "{command:?}: {}: {}", ended.unwrap(), server.log("err"));
            pid_file.exists()
        });
        server
    }

    fn log(&self, what: &str) -> String {
        std::fs::read_to_string(self.dir.join(&format!("{}.{what}", self.name))).unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.dir.join(&format!("{}.sock", self.name))
    }

    /// Where its exports are: as it says itself where it has a port.
    #[track_caller]
    fn uri(&self, export: &str) -> String {
        let socket = self.socket();
        if socket.exists() {
            return format!("nbd+unix:///{export}?socket={}", socket.display());
        }
        let said = self.log("out");
        let words = said.split_whitespace().map(|word| word.trim_matches('\''));
        let mut uris = words.filter(|w| w.starts_with("nbd://") || w.starts_with("nbds://"));
        let uri = uris.next().unwrap_or_else(|| panic!("no address in {said}"));
        // What comes behind says whom to trust.
        uri.split('?').next().unwrap_or(uri).to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it as a service manager does; it must end well.
    #[track_caller]
    pub(crate) fn end(self) -> Ran {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// It ends by itself, with this.
    #[track_caller]
    fn code(mut self) -> i32 {
        self.status()
    }

    #[track_caller]
    fn status(&mut self) -> i32 {
        let mut status = None;
        wait_until("the server ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|s| s.code()).unwrap_or(-1)
    }

    /// It ends by itself, and well.
    #[track_caller]
    fn ended(mut self) -> Ran {
        let code = self.status();
        let ran = Ran { code, out: self.log("out"), err: self.log("err") };
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
        ran
    }

    /// Ends it as a crash does.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs another tool here, which must fail; what it said.
#[track_caller]
fn refused(dir: &Dir, tool: &str, args: &str) -> String {
    let apart = if args.contains('|') { '|' } else { ' ' };
    let output = Command::new(tool).args(args.split(apart)).current_dir(dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success(), "{tool} {args}: {said}");
    said
}

/// `qemu-io`, whose commands must all succeed: it ends with 0 even where one failed.
#[track_caller]
fn qemu_io(dir: &Dir, commands: &[&str], disk: &str) {
    let commands: String = commands.iter().map(|c| format!("-c|{c}|")).collect();
    let said = dir.tool("qemu-io", &format!("-f|raw|{commands}{disk}"));
    assert!(!said.contains("failed") && !said.contains("error"), "{commands}{said}");
}
