//! Where clients come from, and telling that they may.

use anyhow::{Context, anyhow, bail, ensure};
use chart::Kind;
use portolan::serve::Listener;
use rustix::fs::{FileType, fstat};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

/// The first of the descriptors that a service manager hands over.
const FIRST_INHERITED: i32 = 3;

/// The most that are taken.
const MOST_INHERITED: i32 = 64;

/// What is heard.
pub(super) enum Heard {
    /// Sockets that clients connect to, all in one way.
    Listeners {
        listeners: Vec<Listener>,
        /// How they do.
        address: Address,
    },
    /// A client that is connected already.
    Client(OwnedFd),
}

/// How clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Unix(PathBuf),
    Tcp(String, u16),
    /// Only the service manager knows.
    Inherited,
}

/// What is said to a client is the protocol and nothing else: inetd makes its socket standard error too, and what would
/// be said there then is not.
pub(super) fn keep_apart() -> anyhow::Result<()> {
    let (input, error) = (fstat(std::io::stdin())?, fstat(std::io::stderr())?);
    let is_client = FileType::from_raw_mode(input.st_mode) == FileType::Socket
        && (input.st_dev, input.st_ino) == (error.st_dev, error.st_ino);
    if is_client {
        let nowhere = OpenOptions::new().write(true).open("/dev/null").context("/dev/null")?;
        // SAFETY: both are open descriptors, and nobody holds the second as their own.
        if unsafe { libc::dup2(nowhere.as_raw_fd(), libc::STDERR_FILENO) } < 0 {
            return Err(std::io::Error::last_os_error()).context("standard error");
        }
    }
    Ok(())
}

/// Listens on an address the user gave.
pub(super) fn listen(address: &str, may_be_remote: bool) -> anyhow::Result<Heard> {
    if address == "stdio" {
        let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
        return client(socket).context("standard input is to be the client, as inetd has it");
    }
    if let Some(path) = address.strip_prefix("unix:") {
        ensure!(!path.is_empty(), "{address:?} names no socket: write unix:PATH");
        return unix(Path::new(path));
    }
    let Some(rest) = address.strip_prefix("tcp:") else {
        bail!("{address:?} is no address: unix:PATH, tcp:HOST:PORT, tcp:PORT or stdio");
    };
    let (host, port) = rest.rsplit_once(':').unwrap_or(("localhost", rest));
    let number: u16 = port.parse().map_err(|_| anyhow!("{port:?} is no port, from 0 to 65535"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let listeners = Listener::tcp(host, number, may_be_remote).map_err(or_else)?;
    let port = listeners.iter().find_map(Listener::port).unwrap_or(number);
    Ok(Heard::Listeners { listeners, address: Address::Tcp(as_reached(host), port) })
}

/// What else can be done where an address is refused since others can reach it.
fn or_else(e: chart::Error) -> anyhow::Error {
    if e.kind() == Kind::Denied && e.os_code().is_none() {
        return anyhow!("{e}: add --tls DIR, or --insecure if that is meant");
    }
    e.into()
}

/// What clients call this host: where all of its addresses are listened on, that is its name.
fn as_reached(host: &str) -> String {
    let all = host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
    let name = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = all.then(name).flatten().map(|name| name.trim().to_owned());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| host.to_owned())
}

fn unix(path: &Path) -> anyhow::Result<Heard> {
    let listeners = vec![Listener::unix(path)?];
    let whole = std::path::absolute(path)?;
    Ok(Heard::Listeners { listeners, address: Address::Unix(whole) })
}

/// How many descriptors a client takes: two sockets and two bells, and a pair of sockets between where there is TLS.
const PER_CLIENT: u64 = 6;

/// How many there are for everything else.
const OTHERS: u64 = 512;

/// Asks the system for as many descriptors as so many clients may need, as far as it lets.
pub(super) fn make_room(clients: usize) {
    let wanted = PER_CLIENT.saturating_mul(clients as u64).saturating_add(OTHERS);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < wanted) {
        let current = Some(maximum.unwrap_or(wanted).min(wanted));
        // With fewer, clients are turned away when there are none left.
        let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
    }
}

/// A socket of our own, where nobody said otherwise.
pub(super) fn own_socket() -> anyhow::Result<Heard> {
    let dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_dir());
    let dir = dir.unwrap_or_else(std::env::temp_dir);
    unix(&dir.join(format!("portolan-{}.sock", std::process::id())))
}

/// What a service manager hands over: sockets that listen, or one that is connected.
pub(super) fn inherited(may_be_remote: bool) -> anyhow::Result<Vec<Heard>> {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<i32>().ok());
    if number("LISTEN_PID") != i32::try_from(std::process::id()).ok() {
        return Ok(Vec::new());
    }
    let count = number("LISTEN_FDS").unwrap_or(0);
    if !(0..=MOST_INHERITED).contains(&count) {
        bail!("LISTEN_FDS is {count}: at most {MOST_INHERITED} sockets are taken");
    }
    let mut heard = Vec::new();
    for number in FIRST_INHERITED..FIRST_INHERITED + count {
        // SAFETY: whoever sets LISTEN_PID to this process gives it these descriptors, and nothing else here has
        // opened any by number.
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)
            .with_context(|| format!("descriptor {number}, of LISTEN_FDS"))?;
        heard.push(if rustix::net::sockopt::socket_acceptconn(&socket)? {
            let listeners = vec![Listener::inherited(socket, may_be_remote).map_err(or_else)?];
            Heard::Listeners { listeners, address: Address::Inherited }
        } else {
            client(socket)?
        });
    }
    Ok(heard)
}

fn client(socket: OwnedFd) -> anyhow::Result<Heard> {
    rustix::net::sockopt::socket_type(&socket).context("it is no socket")?;
    // Whoever opened it may have wanted otherwise; here a thread waits for it.
    let flags = rustix::fs::fcntl_getfl(&socket)?;
    rustix::fs::fcntl_setfl(&socket, flags - rustix::fs::OFlags::NONBLOCK)?;
    Ok(Heard::Client(socket))
}

/// Writes the number of this process to a file, which is there only with the number in it.
pub(super) fn write_pid(path: &Path) -> anyhow::Result<()> {
    let (number, shown) = (std::process::id(), path.display());
    // What is renamed takes the place of whatever is there, a device as well as a file.
    let other = path.symlink_metadata().is_ok_and(|there| !there.is_file() && !there.is_symlink());
    ensure!(!other, "{shown}: is not a regular file, and is not replaced by one");
    let mut new = path.as_os_str().to_owned();
    new.push(OsString::from(format!(".{number}.new")));
    // A link that somebody has planted there is not followed.
    let file = OpenOptions::new().write(true).create_new(true).open(&new);
    let written =
        file.and_then(|mut file| writeln!(file, "{number}")).and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        // Perhaps it was not made.
        let _ = std::fs::remove_file(&new);
    }
    written.with_context(|| format!("{shown}"))
}

/// Removes it, if it is still this process's own.
pub(super) fn remove_pid(path: &Path) {
    let is_ours =
        std::fs::read_to_string(path).is_ok_and(|held| held.trim() == std::process::id().to_string());
    if is_ours {
        // Whoever waits for the end of the server may have been faster.
        let _ = std::fs::remove_file(path);
    }
}

/// Tells a service manager that clients may connect.
pub(super) fn notify() {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path)),
    };
    let told = UnixDatagram::unbound()
        .and_then(|socket| address.and_then(|address| socket.send_to_addr(b"READY=1\n", &address)));
    if let Err(e) = told {
        eprintln!("portolan: the service manager could not be told that this is ready: {e}");
    }
}
