//! The NBD client against qemu-nbd and nbdkit, and against servers that misbehave.

mod hostile;
mod peers;

use chart::{Source, Wait};
use io::nbd::{Client, Options};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A server of somebody else's, killed when dropped.
struct Server {
    child: Child,
    directory: TempDir,
}

impl Server {
    /// Starts a tool that will listen on `self.socket()`; `{}` in an argument becomes the socket's path.
    fn start(tool: &str, arguments: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let child = spawn(tool, arguments, &directory.path().join("s"));
        Server { child, directory }
    }

    fn nbdkit(arguments: &[&str]) -> Self {
        let all = [&["-f", "--exit-with-parent", "-U", "{}"], arguments].concat();
        Self::start("nbdkit", &all)
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("s")
    }

    fn uri(&self) -> String {
        uri(&self.socket())
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(self.socket());
    }

    /// Starts another one at the same place.
    fn again(&mut self, tool: &str, arguments: &[&str]) {
        self.kill();
        self.child = spawn(tool, arguments, &self.socket());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn uri(socket: &Path) -> String {
    format!("nbd+unix:///?socket={}", socket.display())
}

fn spawn(tool: &str, arguments: &[&str], socket: &Path) -> Child {
    let path = socket.display().to_string();
    let arguments = arguments.iter().map(|a| a.replace("{}", &path));
    let child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    // Connecting to see would be the one connection some of them serve.
    while !socket.exists() || !listens(socket) {
        assert!(began.elapsed() < Duration::from_secs(20), "{tool} does not listen");
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

/// Whether a unix socket is listened on, from the kernel's list.
fn listens(socket: &Path) -> bool {
    let listening = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields.get(3) == Some(&"00010000") && fields.last().is_some_and(|p| Path::new(p) == socket)
    };
    std::fs::read_to_string("/proc/net/unix").unwrap().lines().any(listening)
}

/// Short limits: what hangs in a test should not hang for long.
fn options() -> Options {
    Options {
        timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(5),
        patience: Duration::from_secs(3),
        read_only: false,
    }
}

fn open(uri: &str) -> Client {
    Client::open(uri, options()).unwrap()
}

fn read(source: &dyn Source, offset: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0xa5; len];
    source.read_at(offset, &mut buf, Wait::Allowed).unwrap();
    buf
}

/// Numbers that look random and are the same every time.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
