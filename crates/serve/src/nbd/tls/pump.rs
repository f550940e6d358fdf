//! Moves bytes between a client under TLS and the plain end of its connection, until one of them closes.

use crate::nbd::parting::part;
use chart::{Error, Result, ResultExt as _};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use rustls::ServerConnection;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How much is moved at a time.
const STEP: usize = 64 << 10;

/// A socket as rustls reads and writes one, never waiting.
struct Net<'f>(&'f OwnedFd);

impl io::Read for Net<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self.0, buf, RecvFlags::DONTWAIT)?.0)
    }
}

impl io::Write for Net<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(send(self.0, buf, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A TLS session and the socket it runs over.
pub(super) struct Pump {
    session: ServerConnection,
    net: OwnedFd,
    /// Decrypted, and not yet taken by the plain end.
    plain: Vec<u8>,
    buffer: Box<[u8]>,
    /// Whether more can come from the client, and from the plain end.
    hears: Ends,
}

#[derive(Clone, Copy)]
struct Ends {
    net: bool,
    inner: bool,
    /// The plain end has said its last word, whether or not all of it was heard.
    closing: bool,
}

impl Pump {
    pub(super) fn new(mut session: ServerConnection, net: OwnedFd) -> Self {
        // What is to be encrypted is bounded here, by a step at a time.
        session.set_buffer_limit(None);
        let buffer = std::iter::repeat_n(0, STEP).collect();
        Pump {
            session,
            net,
            plain: Vec::new(),
            buffer,
            hears: Ends { net: true, inner: true, closing: false },
        }
    }

    /// The handshake, in bounded time.
    pub(super) fn shake_hands(&mut self, deadline: Instant) -> Result<()> {
        while self.session.is_handshaking() || self.session.wants_write() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.hears.net {
                return Err(Error::unavailable("a client did not complete its TLS handshake"));
            }
            let mut want = PollFlags::IN;
            want.set(PollFlags::OUT, self.session.wants_write());
            let ready = wait(&mut [PollFd::new(&self.net, want)], Some(left))?;
            if ready {
                self.send()?;
                self.receive()?;
            }
        }
        Ok(())
    }

    /// Takes in what the client has sent.
    fn receive(&mut self) -> Result<()> {
        match self.session.read_tls(&mut Net(&self.net)) {
            Ok(0) => self.hears.net = false,
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock || e.kind() == io::ErrorKind::Interrupted => {
                return Ok(());
            }
            Err(e) => return Err(e).during(|| "TLS".to_owned()),
        }
        if let Err(e) = self.session.process_new_packets() {
            // The client is owed an alert that says why.
            let _ = self.send();
            return Err(Error::invalid(format!("TLS: {e}")));
        }
        loop {
            match self.session.reader().read(&mut self.buffer) {
                Ok(0) => self.hears.net = false,
                Ok(len) => {
                    self.plain.extend_from_slice(self.buffer.get(..len).unwrap_or_default());
                    continue;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // Ended without a goodbye: the protocol above knows whether something is missing.
                Err(_) => self.hears.net = false,
            }
            return Ok(());
        }
    }

    /// Sends what is encrypted, as far as the client takes it.
    fn send(&mut self) -> Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Net(&self.net)) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e).during(|| "TLS".to_owned()),
            }
        }
        Ok(())
    }

    /// Moves bytes until the plain end is closed and all it said is sent, or the client has gone. When the plain
    /// end has closed, the client is given so long to take the rest.
    pub(super) fn run(mut self, inner: &OwnedFd, patience: Duration) {
        // Either side that fails ends both, and each hears of it by its socket's end.
        if let Ok(Some(patience)) = self.exchange(inner, patience) {
            part(&self.net, patience, || false);
        }
        let _ = shutdown(inner, Shutdown::Both);
        let _ = shutdown(&self.net, Shutdown::Both);
    }

    /// How long the client may still take to have all that was said; `None` if it has taken too long.
    fn exchange(&mut self, inner: &OwnedFd, patience: Duration) -> Result<Option<Duration>> {
        let mut deadline = None;
        while self.hears.inner || self.session.wants_write() {
            // Known even while a client that reads nothing keeps the last words from being heard.
            if (self.hears.closing || !self.hears.inner) && deadline.is_none() {
                deadline = Instant::now().checked_add(patience);
            }
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            let (net_ready, inner_ready) = self.wait_for(inner, left)?;
            if net_ready {
                self.send()?;
                if self.hears.net && self.plain.is_empty() {
                    self.receive()?;
                }
            }
            if inner_ready || !self.plain.is_empty() {
                self.serve(inner)?;
            }
            if !self.hears.net && self.plain.is_empty() {
                // All the client said is delivered, and there will be no more.
                let _ = shutdown(inner, Shutdown::Write);
            }
        }
        Ok(Some(deadline.map_or(patience, |d| d.saturating_duration_since(Instant::now()))))
    }

    /// Whether there is something to do on either side.
    fn wait_for(&mut self, inner: &OwnedFd, patience: Option<Duration>) -> Result<(bool, bool)> {
        let (mut of_net, mut of_inner) = (PollFlags::empty(), PollFlags::empty());
        of_net.set(PollFlags::IN, self.hears.net && self.plain.is_empty());
        of_net.set(PollFlags::OUT, self.session.wants_write());
        of_inner.set(PollFlags::IN, self.hears.inner && !self.session.wants_write());
        of_inner.set(PollFlags::OUT, !self.plain.is_empty());
        of_inner.set(PollFlags::RDHUP, !self.hears.closing);
        // A side nothing is wanted of is left out: a poll would report its end again and again.
        let mut fds = Vec::new();
        fds.extend((!of_net.is_empty()).then(|| PollFd::new(&self.net, of_net)));
        fds.extend((!of_inner.is_empty()).then(|| PollFd::new(inner, of_inner)));
        wait(&mut fds, patience)?;
        let ready = |wanted: bool, i: usize| wanted && fds.get(i).is_some_and(|fd| !fd.revents().is_empty());
        let (net, inner) = (!of_net.is_empty(), !of_inner.is_empty());
        let of_end = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        let ended = inner && fds.get(usize::from(net)).is_some_and(|fd| fd.revents().intersects(of_end));
        let told = (ready(net, 0), ready(inner, usize::from(net)));
        self.hears.closing |= ended;
        Ok(told)
    }

    /// Delivers what is decrypted to the plain end, and encrypts what that says.
    fn serve(&mut self, inner: &OwnedFd) -> Result<()> {
        if !self.plain.is_empty() {
            match send(inner, &self.plain, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(len) => drop(self.plain.drain(..len.min(self.plain.len()))),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // It hears no more, but may still have something to say.
                Err(_) => {
                    self.plain.clear();
                    self.hears.net = false;
                }
            }
        }
        if self.hears.inner && !self.session.wants_write() {
            match recv(inner, &mut *self.buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    self.hears.inner = false;
                    self.session.send_close_notify();
                }
                Ok((len, _)) => {
                    let said = self.buffer.get(..len).unwrap_or_default();
                    self.session.writer().write_all(said).during(|| "TLS".to_owned())?;
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => self.hears.inner = false,
            }
            self.send()?;
        }
        Ok(())
    }
}

/// Waits; whether something happened.
fn wait(fds: &mut [PollFd<'_>], patience: Option<Duration>) -> Result<bool> {
    let patience = patience.and_then(|p| Timespec::try_from(p).ok());
    match poll(fds, patience.as_ref()) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(false),
        Err(e) => Err(std::io::Error::from(e)).during(|| "TLS".to_owned()),
    }
}
