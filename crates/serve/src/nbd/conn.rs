//! What a connection's own thread and the proxies share: the socket, and what waits to be sent.
//!
//! Nobody but the connection's own thread ever waits for its client. A proxy sends as much of a reply as the socket
//! takes at once and leaves the rest *pending*; the thread sends that when the client has read on, and hears no
//! further request before.

use super::buffer::Output;
use super::limits::Limits;
use super::means::{Means, Share};
use super::parting::part;
use chart::{Error, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, SendFlags, Shutdown, recv, recvmsg, send, shutdown, sockopt,
};
use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is asked of the system for what is sent and not yet read; it may give less.
const SEND_BUFFER: usize = 1 << 20;

/// What is left of a reply is copied, if it is no longer than this, and else kept with the buffer it is in.
const SMALL_REST: usize = 32 << 10;

/// One connection.
pub(super) struct Conn {
    /// A number of its own.
    pub(super) client: u64,
    socket: OwnedFd,
    /// Wakes the connection's thread while it waits for several things.
    bell: OwnedFd,
    /// What it shares with all others.
    pub(super) means: Arc<Means>,
    pending: Mutex<VecDeque<Part>>,
    has_pending: AtomicBool,
    in_flight: AtomicUsize,
    in_flight_bytes: AtomicU64,
    wants_room: AtomicBool,
    stopping: AtomicBool,
    gone: AtomicBool,
}

/// A part of what waits to be sent.
struct Part {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
    /// It is held until the client takes it.
    _share: Share,
}

/// What came of receiving.
pub(super) enum Received {
    /// So many bytes.
    Bytes(usize),
    /// The client sends no more.
    End,
    /// Nothing, in the time given.
    Nothing,
}

impl Conn {
    /// Takes over a connected socket.
    pub(super) fn new(client: u64, socket: OwnedFd, means: &Arc<Means>) -> Result<Conn> {
        // Only to save the client waiting: without it, all is slower and the same.
        let _ = sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER);
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(system)?;
        Ok(Conn {
            client,
            socket,
            bell,
            means: Arc::clone(means),
            pending: Mutex::default(),
            has_pending: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            in_flight_bytes: AtomicU64::new(0),
            wants_room: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        })
    }

    fn pending(&self) -> MutexGuard<'_, VecDeque<Part>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long receiving may take from now on.
    pub(super) fn set_patience(&self, patience: Option<Duration>) -> Result<()> {
        let patience = patience.map(|p| p.max(Duration::from_millis(1)));
        sockopt::set_socket_timeout(&self.socket, sockopt::Timeout::Recv, patience).map_err(system)
    }

    /// Receives what is there, or waits for something if it may.
    pub(super) fn receive(&self, into: &mut [u8], may_wait: bool) -> Result<Received> {
        let flags = if may_wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        received(|| recv(&self.socket, &mut *into, flags).map(|(len, _)| len))
    }

    /// The same into two places, one after the other: the rest of a payload, and what comes after it.
    pub(super) fn receive_both(&self, rest: &mut [u8], after: &mut [u8], may_wait: bool) -> Result<Received> {
        let flags = if may_wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        received(|| {
            let mut both = [IoSliceMut::new(rest), IoSliceMut::new(after)];
            recvmsg(&self.socket, &mut both, &mut RecvAncillaryBuffer::default(), flags).map(|m| m.bytes)
        })
    }

    /// Sends all of this, waiting for the client until the deadline. For the handshake, where nobody else sends.
    pub(super) fn say(&self, bytes: &[u8], deadline: Instant) -> Result<()> {
        let mut out = Output::new(&self.means);
        out.room(bytes.len()).copy_from_slice(bytes);
        self.send(&mut out);
        let sent = self.wait_until(Some(deadline), || !self.has_pending())?;
        if sent && !self.is_gone() {
            Ok(())
        } else {
            Err(Error::unavailable("a client did not read an answer"))
        }
    }

    /// The socket, for whoever takes it over.
    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Sends what is in `out`, or leaves what the client does not take at once pending. Never waits.
    pub(super) fn send(&self, out: &mut Output) {
        let mut pending = self.pending();
        if self.is_gone() {
            return out.clear();
        }
        let sent = if pending.is_empty() { self.push(out.filled()) } else { 0 };
        if sent == out.len() || self.is_gone() {
            return out.clear();
        }
        let rest = out.filled().get(sent..).unwrap_or_default();
        let share = self.means.budget.hold(u64::try_from(rest.len()).unwrap_or(u64::MAX));
        let part = if rest.len() <= SMALL_REST {
            // Not the whole buffer for a few bytes of it: it would be held as long as they are.
            let bytes = rest.to_vec();
            let to = bytes.len();
            out.clear();
            Part { bytes, from: 0, to, _share: share }
        } else {
            let (bytes, to) = out.take();
            Part { bytes, from: sent, to, _share: share }
        };
        pending.push_back(part);
        self.has_pending.store(true, SeqCst);
    }

    /// The same for a proxy: the connection's thread hears of what is pending.
    pub(super) fn send_from_afar(&self, out: &mut Output) {
        self.send(out);
        if self.has_pending.load(SeqCst) {
            self.ring();
        }
    }

    /// Sends as much as the socket takes.
    fn push(&self, bytes: &[u8]) -> usize {
        let mut sent = 0usize;
        while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            match send(&self.socket, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(len) => sent = sent.saturating_add(len),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    self.leave();
                    break;
                }
            }
        }
        sent
    }

    fn push_pending(&self) {
        let mut pending = self.pending();
        while let Some(part) = pending.front_mut() {
            let sent = self.push(part.bytes.get(part.from..part.to).unwrap_or_default());
            part.from = part.from.saturating_add(sent);
            if self.is_gone() {
                pending.clear();
            } else if part.from < part.to {
                return;
            } else if let Some(part) = pending.pop_front() {
                self.means.pool.give(part.bytes);
            }
        }
        self.has_pending.store(false, SeqCst);
    }

    /// Whether something waits to be sent.
    pub(super) fn has_pending(&self) -> bool {
        self.has_pending.load(SeqCst)
    }

    /// Whether nobody takes replies any more.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(SeqCst)
    }

    /// There is no more talking to this client.
    pub(super) fn leave(&self) {
        self.gone.store(true, SeqCst);
        // Wakes whoever receives. It fails only where the client was faster.
        let _ = shutdown(&self.socket, Shutdown::Both);
        self.ring();
    }

    /// Everything was said; what the client has not read yet it still can.
    pub(super) fn close(&self, patience: Duration) {
        if !self.is_gone() {
            part(&self.socket, patience, || self.is_stopping());
        }
    }

    /// No further request is heard; what is under way is finished.
    pub(super) fn stop(&self) {
        self.stopping.store(true, SeqCst);
        let _ = shutdown(&self.socket, Shutdown::Read);
        self.ring();
    }

    /// Whether no further request is to be heard.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    fn ring(&self) {
        // It can only fail when the bell has rung four thousand million million times unheard.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    /// How many requests of this connection are in the array or with a proxy.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(SeqCst)
    }

    /// Whether there are none.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight() == 0
    }

    /// A request of so many bytes goes into the array.
    pub(super) fn begin(&self, bytes: u64) -> Share {
        self.in_flight.fetch_add(1, SeqCst);
        self.in_flight_bytes.fetch_add(bytes, SeqCst);
        self.means.budget.hold(bytes)
    }

    /// It has been replied to.
    pub(super) fn finish(&self, bytes: u64) {
        self.in_flight_bytes.fetch_sub(bytes, SeqCst);
        self.in_flight.fetch_sub(1, SeqCst);
        if self.wants_room.load(SeqCst) {
            self.ring();
        }
    }

    /// Whether one more request of so many bytes may go into the array now. One always may: what others hold must not
    /// keep a connection waiting for ever.
    pub(super) fn has_room(&self, bytes: u64, limits: &Limits) -> bool {
        let held = self.in_flight_bytes.load(SeqCst);
        let fits = held.saturating_add(bytes) <= limits.in_flight_bytes && self.means.budget.has_room(bytes);
        self.is_idle() || (fits && self.in_flight() < limits.in_flight)
    }

    /// Waits until a request of so many bytes may go into the array.
    pub(super) fn wait_for_room(&self, bytes: u64, limits: &Limits) -> Result<()> {
        self.wait_until(None, || self.has_room(bytes, limits)).map(drop)
    }

    /// Waits until everything is replied to, and the replies are sent or nobody wants them.
    pub(super) fn settle(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now().checked_add(patience);
        if !self.wait_until(deadline, || self.is_idle() && !self.has_pending())? {
            self.leave();
        }
        // What the disk takes for what is still under way is the disk's matter, not the client's.
        self.wait_until(None, || self.is_idle()).map(drop)
    }

    /// Waits until `done`, sending what is pending meanwhile; `false` if that is not so at the deadline.
    fn wait_until(&self, deadline: Option<Instant>, done: impl Fn() -> bool) -> Result<bool> {
        if done() {
            return Ok(true);
        }
        self.wants_room.store(true, SeqCst);
        let waited = self.wait_loop(deadline, done);
        self.wants_room.store(false, SeqCst);
        waited
    }

    fn wait_loop(&self, deadline: Option<Instant>, done: impl Fn() -> bool) -> Result<bool> {
        while !done() {
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(false);
            }
            self.wait(false, left)?;
        }
        Ok(true)
    }

    /// Waits for the bell, for the client to read on where something is pending, and, if wanted, for something to
    /// receive; whether any of it came.
    pub(super) fn wait(&self, input: bool, patience: Option<Duration>) -> Result<bool> {
        let mut want = PollFlags::empty();
        want.set(PollFlags::OUT, self.has_pending());
        want.set(PollFlags::IN, input);
        let mut fds = vec![PollFd::new(&self.bell, PollFlags::IN)];
        fds.extend((!want.is_empty()).then(|| PollFd::new(&self.socket, want)));
        let patience = patience.and_then(|p| Timespec::try_from(p).ok());
        let happened = match poll(&mut fds, patience.as_ref()) {
            Ok(count) => count > 0,
            Err(Errno::INTR) => true,
            Err(e) => return Err(system(e)),
        };
        if fds.first().is_some_and(|bell| !bell.revents().is_empty()) {
            // Empty when another look has silenced it: there is no other.
            let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        }
        if want.contains(PollFlags::OUT) {
            self.push_pending();
        }
        Ok(happened)
    }
}

/// What came of receiving, tried again where a signal came between.
fn received(mut attempt: impl FnMut() -> rustix::io::Result<usize>) -> Result<Received> {
    loop {
        match attempt() {
            Ok(0) => return Ok(Received::End),
            Ok(len) => return Ok(Received::Bytes(len)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(Received::Nothing),
            Err(Errno::CONNRESET) => return Ok(Received::End),
            Err(e) => return Err(system(e)),
        }
    }
}

fn system(e: Errno) -> Error {
    Error::from(std::io::Error::from(e)).during("an NBD connection")
}
