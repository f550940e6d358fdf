//! A socket, plain or under TLS, as one reader and many writers use it.

use super::socket::{Socket, Until};
use chart::{Error, Result};
use rustls::ClientConnection;
use std::io::{self, IoSlice, Read, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// How much is read from the socket at once. Larger reads go straight to where they belong.
const BUFFER: usize = 64 << 10;

/// Both directions of a connection.
pub(super) struct Link {
    socket: Socket,
    tls: Option<Mutex<ClientConnection>>,
    /// Held by whoever writes a message, so that messages do not mix.
    writing: Mutex<Vec<u8>>,
}

impl Link {
    pub(super) fn new(socket: Socket) -> Self {
        Link { socket, tls: None, writing: Mutex::new(Vec::new()) }
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The socket alone.
    pub(super) fn into_socket(self) -> Socket {
        self.socket
    }

    /// Goes on under TLS.
    pub(super) fn start_tls(&mut self, mut connection: ClientConnection, deadline: Instant) -> Result<()> {
        let mut socket = Until { socket: &self.socket, deadline };
        while connection.is_handshaking() {
            connection
                .complete_io(&mut socket)
                .map_err(|e| broken(e).during("TLS handshake with the NBD server"))?;
        }
        self.tls = Some(Mutex::new(connection));
        Ok(())
    }

    /// Ends TLS as its rules want, so that the end cannot be mistaken for one made by somebody in between.
    pub(super) fn say_goodbye(&self, deadline: Instant) {
        if let Some(tls) = &self.tls {
            tls.lock().unwrap_or_else(PoisonError::into_inner).send_close_notify();
            let mut cipher = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            cipher.clear();
            let _ = tls.lock().unwrap_or_else(PoisonError::into_inner).write_tls(&mut *cipher);
            let _ = Until { socket: &self.socket, deadline }.write_all(&cipher);
        }
    }

    /// Writes a message: a header and its payload.
    pub(super) fn send(&self, header: &[u8], payload: &[u8], deadline: Instant) -> Result<()> {
        let mut cipher = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut socket = Until { socket: &self.socket, deadline };
        let Some(tls) = &self.tls else { return write_both(&mut socket, header, payload).map_err(broken) };
        for mut part in [header, payload] {
            while !part.is_empty() {
                // The session's lock is never held while the socket waits: the reader needs it to make room.
                let mut session = tls.lock().unwrap_or_else(PoisonError::into_inner);
                let taken = session.writer().write(part).map_err(broken)?;
                cipher.clear();
                while session.wants_write() {
                    session.write_tls(&mut *cipher).map_err(broken)?;
                }
                drop(session);
                socket.write_all(&cipher).map_err(broken)?;
                part = part.get(taken..).unwrap_or_default();
            }
        }
        Ok(())
    }
}

fn write_both(socket: &mut Until<'_>, mut header: &[u8], mut payload: &[u8]) -> io::Result<()> {
    while !header.is_empty() {
        let n = socket.write_vectored(&[IoSlice::new(header), IoSlice::new(payload)]);
        let n = match n {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            n => n?,
        };
        payload = payload.get(n.saturating_sub(header.len())..).unwrap_or_default();
        header = header.get(n..).unwrap_or_default();
    }
    socket.write_all(payload)
}

/// The reading end: one at a time has it.
pub(super) struct Inbox {
    buffer: Box<[u8]>,
    /// What of the buffer has been read from the socket and not yet given out.
    start: usize,
    end: usize,
    /// Encrypted bytes that came and were not taken yet.
    cipher: Vec<u8>,
}

impl Default for Inbox {
    fn default() -> Self {
        Inbox { buffer: vec![0; BUFFER].into(), start: 0, end: 0, cipher: Vec::new() }
    }
}

impl Inbox {
    /// Whether bytes came that nobody has asked for yet.
    pub(super) fn has_more(&self) -> bool {
        self.start < self.end
    }

    /// Whether the other side has gone, as far as can be told without waiting. Only where no reply is awaited:
    /// one that comes all the same counts as gone.
    pub(super) fn has_gone(&mut self, link: &Link) -> bool {
        let Some(tls) = &link.tls else { return self.has_more() || link.socket.has_gone() };
        loop {
            let mut session = tls.lock().unwrap_or_else(PoisonError::into_inner);
            // What came may be news of the session itself.
            while !self.cipher.is_empty() {
                let Ok(taken @ 1..) = session.read_tls(&mut self.cipher.as_slice()) else { return true };
                self.cipher.drain(..taken);
                if session.process_new_packets().is_err() {
                    return true;
                }
            }
            let waits = session.reader().read(&mut [0]).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock);
            if self.has_more() || !waits {
                return true;
            }
            drop(session);
            self.cipher.resize(BUFFER, 0);
            match link.socket.receive_now(&mut self.cipher) {
                Some(0) => return true,
                Some(n) => self.cipher.truncate(n),
                None => {
                    self.cipher.clear();
                    return false;
                }
            }
        }
    }

    /// Reads exactly `out.len()` bytes.
    pub(super) fn read_exact(&mut self, link: &Link, mut out: &mut [u8], deadline: Instant) -> Result<()> {
        loop {
            let ready = self.buffer.get(self.start..self.end).unwrap_or_default();
            let now = ready.len().min(out.len());
            let (to, rest) = out.split_at_mut(now);
            to.copy_from_slice(ready.get(..now).unwrap_or_default());
            self.start += now;
            out = rest;
            if out.is_empty() {
                return Ok(());
            }
            (self.start, self.end) = (0, 0);
            // The buffer is empty now.
            if out.len() >= BUFFER {
                let n = receive(link, &mut self.cipher, out, deadline)?;
                out = out.get_mut(n..).unwrap_or_default();
            } else {
                self.end = receive(link, &mut self.cipher, &mut self.buffer, deadline)?;
            }
        }
    }
}

/// Reads at least a byte.
fn receive(link: &Link, cipher: &mut Vec<u8>, out: &mut [u8], deadline: Instant) -> Result<usize> {
    let mut socket = Until { socket: &link.socket, deadline };
    let Some(tls) = &link.tls else { return read_some(&mut socket, out) };
    loop {
        let mut session = tls.lock().unwrap_or_else(PoisonError::into_inner);
        match session.reader().read(out) {
            Ok(0) => return Err(gone()),
            Ok(n) => return Ok(n),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(broken(e)),
        }
        if !cipher.is_empty() {
            let taken = session.read_tls(&mut cipher.as_slice()).map_err(broken)?;
            cipher.drain(..taken);
            let bad = |e| Error::corrupt("the NBD server's TLS is wrong").caused_by(e);
            session.process_new_packets().map_err(bad)?;
            continue;
        }
        drop(session);
        cipher.resize(BUFFER, 0);
        let n = read_some(&mut socket, cipher)?;
        cipher.truncate(n);
    }
}

fn read_some(socket: &mut Until<'_>, out: &mut [u8]) -> Result<usize> {
    loop {
        match socket.read(out) {
            Ok(0) if !out.is_empty() => return Err(gone()),
            Ok(n) => return Ok(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(broken(e)),
        }
    }
}

#[cold]
fn gone() -> Error {
    Error::unavailable("the NBD server closed the connection")
}

/// Whatever the socket says, the connection is of no more use.
#[cold]
fn broken(e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            Error::unavailable("the NBD server does not answer in time")
        }
        io::ErrorKind::InvalidData => Error::corrupt("the NBD server's TLS is wrong").caused_by(e),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => gone(),
        _ => Error::unavailable("the connection to the NBD server broke").caused_by(e),
    }
}
