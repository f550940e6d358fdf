//! The end of a connection: what was said arrives, also at a client that goes on speaking.
//!
//! A TCP socket that is sent something when it has ended itself, or is closed with something unread, is reset, and drops
//! what its peer has not acknowledged. So it ends when all has arrived, and until then and for a moment longer what the
//! client still sends is taken and thrown away.

use io::nbd::unsent;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long a client may go on sending, when it has everything, before that is no concern of ours.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How often all this is looked at.
const GLANCE: Duration = Duration::from_millis(10);

/// Ends what is said over a socket, when the client has all of it or has had its time. Where the hearing was ended on
/// this side (`is_deaf`), it is not heard either that the client has ended.
pub(super) fn part(socket: &OwnedFd, patience: Duration, is_deaf: impl Fn() -> bool) {
    let deadline = Instant::now().checked_add(patience);
    let arrived = |_| unsent(socket) == 0;
    let goes_on = hear_out(socket, deadline, &is_deaf, arrived);
    // It fails only where the client was faster.
    let _ = shutdown(socket, Shutdown::Write);
    if goes_on {
        hear_out(socket, deadline, &is_deaf, |silent| silent >= LAST_WORDS && unsent(socket) == 0);
    }
}

/// Throws away what the client sends, until it is `done`, asked how long the client has been silent; `false` where the
/// client has ended before.
fn hear_out(
    socket: &OwnedFd,
    deadline: Option<Instant>,
    is_deaf: &impl Fn() -> bool,
    done: impl Fn(Duration) -> bool,
) -> bool {
    let (mut waste, mut heard) = ([0; 4096], Instant::now());
    while deadline.is_some_and(|deadline| Instant::now() < deadline) {
        let speaks = match recv(socket, &mut waste, RecvFlags::DONTWAIT) {
            Ok((0, _)) if !is_deaf() => return false,
            Ok((0, _)) | Err(Errno::AGAIN | Errno::INTR) => false,
            Ok(_) => true,
            Err(_) => return false,
        };
        if speaks {
            heard = Instant::now();
        }
        if done(heard.elapsed()) {
            return true;
        }
        if speaks {
            continue;
        }
        if is_deaf() {
            // What would be waited for seems to be there at all times.
            std::thread::sleep(GLANCE);
        } else {
            // It ends early where there is something to hear.
            let _ = poll(&mut [PollFd::new(socket, PollFlags::IN)], Timespec::try_from(GLANCE).ok().as_ref());
        }
    }
    true
}
