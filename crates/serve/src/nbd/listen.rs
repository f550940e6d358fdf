//! Where clients come from: a unix socket, a port, or sockets that a service manager has opened.

use chart::{Error, Result, ResultExt as _};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, getsockname, socket_with, sockopt,
};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A socket that clients connect to.
pub struct Listener {
    socket: Socket,
    /// What to remove when it closes.
    path: Option<Entry>,
}

/// A socket's name in the file system.
struct Entry {
    path: PathBuf,
    /// Device and inode: what was made here, and not what somebody has put in its place.
    is: (u64, u64),
}

impl Entry {
    fn of(path: &Path) -> std::io::Result<Entry> {
        let found = std::fs::symlink_metadata(path)?;
        Ok(Entry { path: path.to_owned(), is: (found.dev(), found.ino()) })
    }
}

enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// A unix socket at this path. One that a dead server left there is replaced; one in use is not.
    pub fn unix(path: &Path) -> Result<Listener> {
        if let Ok(found) = std::fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(Error::conflict("something that is no socket is there").in_path(path));
            }
            refuse_used(path)?;
            std::fs::remove_file(path).in_path(path)?;
        }
        let socket = UnixListener::bind(path).in_path(path)?;
        let path = Some(Entry::of(path).in_path(path)?);
        Listener { socket: Socket::Unix(socket), path }.ready()
    }

    /// A port, on every address that the host has: clients may choose any of them. Anything but this machine itself is
    /// reached in the clear, so that has to be allowed.
    pub fn tcp(host: &str, port: u16, may_be_remote: bool) -> Result<Vec<Listener>> {
        let during = || format!("listening on {host} port {port}");
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in (host, port).to_socket_addrs().during(during)? {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        refuse_remote(&addresses, may_be_remote)?;
        let sockets = bind(&addresses).map_err(|e| match e.kind() {
            ErrorKind::AddrInUse => Error::conflict("another program has that port"),
            _ => Error::from(e),
        });
        let sockets = sockets.during(during)?.into_iter();
        sockets.map(|socket| Listener { socket: Socket::Tcp(socket), path: None }.ready()).collect()
    }

    /// Takes over a listening socket that somebody else has opened. The same is allowed as for ports of our own.
    pub fn inherited(socket: OwnedFd, may_be_remote: bool) -> Result<Listener> {
        let during = || "a socket of the service manager".to_owned();
        let address = getsockname(&socket).map_err(std::io::Error::from).during(during)?;
        let socket = match address.address_family() {
            AddressFamily::UNIX => Socket::Unix(UnixListener::from(socket)),
            AddressFamily::INET | AddressFamily::INET6 => Socket::Tcp(TcpListener::from(socket)),
            _ => return Err(Error::unsupported("a socket that is neither a unix nor a TCP one")),
        };
        if let Socket::Tcp(listener) = &socket {
            refuse_remote(&[listener.local_addr().during(during)?], may_be_remote)?;
        }
        Listener { socket, path: None }.ready()
    }

    /// Accepting must never wait: a client may have gone between the poll and the accept.
    fn ready(self) -> Result<Listener> {
        match &self.socket {
            Socket::Unix(socket) => socket.set_nonblocking(true),
            Socket::Tcp(socket) => socket.set_nonblocking(true),
        }
        .during(|| "listening".to_owned())?;
        Ok(self)
    }

    /// The port, where it is one.
    pub fn port(&self) -> Option<u16> {
        match &self.socket {
            Socket::Unix(_) => None,
            Socket::Tcp(socket) => socket.local_addr().ok().map(|a| a.port()),
        }
    }

    /// The next client, if one is there.
    pub(super) fn accept(&self) -> std::io::Result<Option<OwnedFd>> {
        let accepted = match &self.socket {
            Socket::Unix(socket) => socket.accept().map(|(stream, _)| OwnedFd::from(stream)),
            Socket::Tcp(socket) => socket.accept().map(|(stream, _)| {
                let socket = OwnedFd::from(stream);
                prepare(&socket);
                socket
            }),
        };
        match accepted {
            Ok(socket) => Ok(Some(socket)),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionAborted => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// How long a client's host may be silent before it is asked whether it is there, how long between two such questions,
/// and how many of them may stay without an answer.
const ALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(10), 6);

/// What a TCP connection should be like. A host that vanished must not keep its place for ever.
fn prepare(socket: &OwnedFd) {
    // Without any of it, it is a connection all the same.
    let _ = sockopt::set_tcp_nodelay(socket, true);
    let _ = sockopt::set_socket_keepalive(socket, true);
    let _ = sockopt::set_tcp_keepidle(socket, ALIVE.0);
    let _ = sockopt::set_tcp_keepintvl(socket, ALIVE.1);
    let _ = sockopt::set_tcp_keepcnt(socket, ALIVE.2);
}

/// Refuses a socket that belongs to somebody: only nobody's may be replaced.
fn refuse_used(path: &Path) -> Result<()> {
    let during = || "a socket".to_owned();
    // Without waiting: a server with no room for another client is one all the same.
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let asking = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let asking = asking.map_err(std::io::Error::from).during(during)?;
    let address = SocketAddrUnix::new(path).map_err(std::io::Error::from).in_path(path)?;
    match connect(&asking, &address) {
        Err(Errno::CONNREFUSED) => Ok(()),
        Ok(()) | Err(Errno::AGAIN) => Err(Error::conflict("another server listens there").in_path(path)),
        Err(Errno::PROTOTYPE) => Err(Error::conflict("a socket of another kind is there").in_path(path)),
        Err(e) => Err(std::io::Error::from(e)).in_path(path),
    }
}

/// How often another port is tried, where any will do and one of the addresses has none of that number.
const PORT_TRIES: usize = 16;

/// One socket for each address, all on the same port.
fn bind(addresses: &[SocketAddr]) -> std::io::Result<Vec<TcpListener>> {
    let any_port = addresses.iter().all(|address| address.port() == 0);
    let mut bound = bind_once(addresses);
    for _ in 1..PORT_TRIES {
        if !any_port || !matches!(&bound, Err(e) if e.kind() == ErrorKind::AddrInUse) {
            break;
        }
        bound = bind_once(addresses);
    }
    bound
}

fn bind_once(addresses: &[SocketAddr]) -> std::io::Result<Vec<TcpListener>> {
    let (mut bound, mut failure): (Vec<TcpListener>, _) = (Vec::new(), None);
    for mut address in addresses.iter().copied() {
        if let Some(first) = bound.first() {
            address.set_port(first.local_addr()?.port());
        }
        match TcpListener::bind(address) {
            Ok(socket) => bound.push(socket),
            // Whoever connects there would meet somebody else.
            Err(e) if e.kind() == ErrorKind::AddrInUse => return Err(e),
            // A name may stand for more than this machine has: IPv6, say.
            Err(e) => failure = Some(e),
        }
    }
    match failure {
        Some(e) if bound.is_empty() => Err(e),
        _ => Ok(bound),
    }
}

fn refuse_remote(addresses: &[SocketAddr], may_be_remote: bool) -> Result<()> {
    let Some(remote) = addresses.iter().find(|a| !a.ip().is_loopback() && !may_be_remote) else {
        return Ok(());
    };
    let what = format!("{} can be reached from other machines, and without TLS so can the disk", remote.ip());
    Err(Error::new(chart::Kind::Denied, what))
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Unix(socket) => socket.as_fd(),
            Socket::Tcp(socket) => socket.as_fd(),
        }
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener({})", self.as_fd().as_raw_fd())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Some(Entry { path, is }) = &self.path else { return };
        // Somebody may have removed it already, and another server listen under the same name.
        if Entry::of(path).is_ok_and(|now| now.is == *is) {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
