//! The socket under a connection, with a time limit on every wait.

use super::uri::Endpoint;
use chart::{Error, Result, ResultExt};
use rustix::net::{RecvFlags, Shutdown};
use std::io::{self, IoSlice, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

/// A connected socket. Reads and writes through a shared reference, from more than one thread.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub(super) fn connect(endpoint: &Endpoint, timeout: Duration) -> Result<Self> {
        match endpoint {
            Endpoint::Tcp { host, port } => Self::tcp(host, *port, timeout),
            Endpoint::Unix(path) => {
                let bytes = path.as_os_str().as_bytes();
                let address = match bytes.split_first() {
                    Some((0, name)) => SocketAddr::from_abstract_name(name),
                    _ => SocketAddr::from_pathname(path),
                };
                let connected = address.and_then(|a| connect_unix(&a, timeout));
                let shown = || format!("cannot connect to the NBD server's socket {}", path.display());
                connected.during(shown).map(Socket::Unix)
            }
        }
    }

    fn tcp(host: &str, port: u16, timeout: Duration) -> Result<Self> {
        let shown = || format!("cannot connect to the NBD server at {host} port {port}");
        let addresses = (host, port).to_socket_addrs().map_err(|e| {
            Error::unavailable(format!("the host name {host} cannot be resolved")).caused_by(e)
        })?;
        let mut last = Error::unavailable(format!("the host name {host} has no address"));
        let deadline = Instant::now() + timeout;
        for address in addresses {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            match TcpStream::connect_timeout(&address, left) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Socket::Tcp(stream));
                }
                Err(e) => last = e.into(),
            }
        }
        Err(last.during(shown()))
    }

    /// No read or write waits longer than this without moving a byte.
    pub(super) fn set_timeout(&self, timeout: Duration) -> Result<()> {
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        match self {
            Socket::Tcp(s) => s.set_read_timeout(timeout).and_then(|()| s.set_write_timeout(timeout))?,
            Socket::Unix(s) => s.set_read_timeout(timeout).and_then(|()| s.set_write_timeout(timeout))?,
        }
        Ok(())
    }

    /// Wakes everyone who reads or writes, for good.
    pub(super) fn shutdown(&self) {
        let _ = rustix::net::shutdown(self.as_fd(), Shutdown::Both);
    }

    /// Whether something came, or the end, that nobody waits for.
    pub(super) fn has_gone(&self) -> bool {
        self.receive(&mut [0], RecvFlags::PEEK).is_some()
    }

    /// What has come already: nothing if that would have to be waited for, 0 bytes at the end or on any error.
    pub(super) fn receive_now(&self, out: &mut [u8]) -> Option<usize> {
        self.receive(out, RecvFlags::empty())
    }

    fn receive(&self, out: &mut [u8], flags: RecvFlags) -> Option<usize> {
        match rustix::net::recv(self.as_fd(), out, flags | RecvFlags::DONTWAIT) {
            Ok((_, n)) => Some(n),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => None,
            Err(_) => Some(0),
        }
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> OwnedFd {
        match socket {
            Socket::Tcp(s) => s.into(),
            Socket::Unix(s) => s.into(),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(s) => s.as_fd(),
            Socket::Unix(s) => s.as_fd(),
        }
    }
}

/// The socket until a point in time: every read and write after it fails.
pub(super) struct Until<'a> {
    pub(super) socket: &'a Socket,
    pub(super) deadline: Instant,
}

impl Until<'_> {
    fn check(&self) -> io::Result<()> {
        if Instant::now() < self.deadline { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
    }
}

/// A socket's time limit shows as `WouldBlock`, which means something else here.
fn timed_out<T>(result: io::Result<T>) -> io::Result<T> {
    result.map_err(|e| if e.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { e })
}

impl Read for Until<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        timed_out(match self.socket {
            Socket::Tcp(s) => (&*s).read(buf),
            Socket::Unix(s) => (&*s).read(buf),
        })
    }
}

impl Write for Until<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.check()?;
        timed_out(match self.socket {
            Socket::Tcp(s) => (&*s).write_vectored(bufs),
            Socket::Unix(s) => (&*s).write_vectored(bufs),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Connecting to a unix socket waits while the server's queue is full; the limit for sending holds for that too.
fn connect_unix(address: &SocketAddr, timeout: Duration) -> io::Result<UnixStream> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(timeout))?;
    let to = match (address.as_pathname(), address.as_abstract_name()) {
        (Some(path), _) => rustix::net::SocketAddrUnix::new(path)?,
        (None, Some(name)) => rustix::net::SocketAddrUnix::new_abstract_name(name)?,
        (None, None) => return Err(io::ErrorKind::InvalidInput.into()),
    };
    rustix::net::connect(&socket, &to)?;
    Ok(UnixStream::from(socket))
}
