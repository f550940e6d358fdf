//! What has been sent and has not arrived.

use rustix::net::{AddressFamily, sockopt};
use std::os::fd::{AsFd, AsRawFd};

/// How many bytes a TCP peer's system has not acknowledged yet: they are lost if the connection is reset. 0 for other
/// sockets, where what is sent is at the peer's at once, and where nobody knows.
pub fn unsent(socket: impl AsFd) -> u64 {
    let socket = socket.as_fd();
    let family = sockopt::socket_domain(socket);
    if !matches!(family, Ok(AddressFamily::INET | AddressFamily::INET6)) {
        return 0;
    }
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as it is borrowed, and the pointer is to a live integer, which is all
    // that is written.
    let known = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if known == 0 { u64::try_from(bytes).unwrap_or(0) } else { 0 }
}
