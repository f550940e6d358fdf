//! A server's export over one connection at a time: reconnecting, and never losing a write without saying so.

use super::connection::{Ask, Connection};
use super::handshake::{self, Export};
use super::status::StatusCache;
use super::uri::Uri;
use super::wire::{Command, CommandFlags, Listed, StatusExtent, TransmissionFlags};
use crate::http::backoff;
use chart::{Error, InFlight, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The first wait between two attempts to reconnect; it doubles.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The longest.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How patient a client is.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long one request may take. After that the connection counts as broken.
    pub timeout: Duration,
    /// How long connecting and the handshake may take.
    pub connect_timeout: Duration,
    /// How long a request may wait for a broken connection to come back before it fails.
    pub patience: Duration,
    /// Whether to refuse writing although the export allows it.
    pub read_only: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            patience: Duration::from_secs(5),
            read_only: false,
        }
    }
}

/// Lists the exports of the server of `uri`.
pub fn list(uri: &str, options: &Options) -> Result<Vec<Listed>> {
    let uri = Uri::parse(uri)?;
    handshake::list(&uri, options).map_err(|e| e.in_path(uri.to_string()))
}

/// An export of an NBD server, as a [`chart::Source`].
///
/// Any number of threads may use it at once; their requests share one connection and are in flight together.
/// When the connection breaks, everything in flight fails as `Unavailable`, and the next request reconnects. If
/// writes were in flight or not yet flushed when it broke, the source is read-only from then on: what the server
/// kept of them is not known, and a flush must not claim it.
pub struct Client {
    pub(super) uri: Uri,
    pub(super) name: String,
    options: Options,
    export: Export,
    allocation: Option<u32>,
    line: Mutex<Line>,
    ledger: Mutex<Ledger>,
    /// This client's mark in identities, and how often it has connected.
    instance: u64,
    pub(super) connections: AtomicU64,
    pub(super) statuses: StatusCache,
    /// The blocks that writes are changing, where blocks are larger than a byte.
    pub(super) blocks: InFlight,
}

/// The connection, or why there is none.
enum Line {
    Up(Arc<Connection>),
    Down { tries: u32, next: Instant, why: Error },
}

/// What the server may not have made durable.
#[derive(Default)]
struct Ledger {
    /// Writes under way.
    writing: usize,
    /// Something was written since the last flush began.
    unflushed: bool,
    /// Flushes under way: what they cover is not durable yet either.
    flushing: usize,
    /// Why nothing more can be written.
    latched: Option<Error>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// Connects to the export that `uri` names.
    pub fn open(uri: &str, options: Options) -> Result<Self> {
        let uri = Uri::parse(uri)?;
        let name = uri.to_string();
        let ready = handshake::open(&uri, &options).map_err(|e| e.in_path(&name))?;
        let (export, allocation) = (ready.export.clone(), ready.allocation);
        let connection = Connection::new(ready, options.timeout);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let instance =
            u64::try_from(since.as_nanos()).unwrap_or_default() ^ u64::from(std::process::id()) << 40;
        Ok(Client {
            uri,
            name,
            options,
            export,
            allocation,
            line: Mutex::new(Line::Up(Arc::new(connection))),
            ledger: Mutex::default(),
            instance,
            connections: AtomicU64::new(1),
            statuses: StatusCache::default(),
            blocks: InFlight::default(),
        })
    }

    /// What the server says of the export.
    pub fn export(&self) -> &Export {
        &self.export
    }

    /// Whether the server tells holes from data.
    pub fn tells_holes(&self) -> bool {
        self.allocation.is_some()
    }

    pub(super) fn has(&self, flags: TransmissionFlags) -> bool {
        self.export.flags.has(flags)
    }

    pub(super) fn is_read_only(&self) -> bool {
        let refused = self.has(TransmissionFlags::READ_ONLY) || self.options.read_only;
        refused || lock(&self.ledger).latched.is_some()
    }

    /// What tells this connection's bytes from those of any other.
    pub(super) fn tag(&self) -> String {
        format!("{:x}.{}", self.instance, self.connections.load(Ordering::Acquire))
    }

    /// Sends a request that changes nothing.
    pub(super) fn ask(&self, ask: &Ask<'_>, into: &mut [u8]) -> Result<Vec<StatusExtent>> {
        let connection = self.connection()?;
        let answer = connection.call(ask, into);
        answer.map_err(|e| e.in_path(&self.name))
    }

    /// Sends a request that writes, and keeps book of it.
    pub(super) fn change(&self, ask: &Ask<'_>) -> Result<()> {
        if self.has(TransmissionFlags::READ_ONLY) || self.options.read_only {
            return Err(Error::read_only("this NBD export is read-only").in_path(&self.name));
        }
        let connection = self.connection()?;
        self.open_entry(|ledger| ledger.writing += 1)?;
        self.statuses.forget();
        let answer = connection.call(ask, &mut []);
        self.statuses.forget();
        let durable = ask.flags.has(CommandFlags::FUA) || !self.has(TransmissionFlags::SEND_FLUSH);
        let mut ledger = lock(&self.ledger);
        ledger.writing -= 1;
        ledger.unflushed |= !durable;
        if connection.is_broken() && answer.is_err() {
            ledger.latch("a write was in flight when the connection broke");
        }
        answer.map(drop).map_err(|e| e.in_path(&self.name))
    }

    /// Makes all completed writes durable.
    pub(super) fn flush_all(&self) -> Result<()> {
        if !self.has(TransmissionFlags::SEND_FLUSH) {
            // A server without the command promises that what it has acknowledged is durable.
            return self.open_entry(|_| {});
        }
        if self.has(TransmissionFlags::READ_ONLY) || self.options.read_only {
            return Ok(());
        }
        let connection = self.connection()?;
        let mut needed = false;
        self.open_entry(|ledger| {
            needed = std::mem::take(&mut ledger.unflushed) || ledger.flushing > 0;
            ledger.flushing += 1;
        })?;
        let ask = Ask { command: Command::FLUSH, flags: CommandFlags::NONE, offset: 0, len: 0, payload: &[] };
        let answer = connection.call(&ask, &mut []);
        let mut ledger = lock(&self.ledger);
        ledger.flushing -= 1;
        // A connection that broke with nothing to flush has lost nothing.
        if answer.is_err() && (needed || !connection.is_broken()) {
            ledger.latch("a flush failed");
        }
        answer.map(drop).map_err(|e| e.in_path(&self.name))
    }

    /// Changes the ledger, unless nothing may be written any more.
    fn open_entry(&self, change: impl FnOnce(&mut Ledger)) -> Result<()> {
        let mut ledger = lock(&self.ledger);
        if let Some(why) = &ledger.latched {
            return Err(why.repeat().in_path(&self.name));
        }
        change(&mut ledger);
        Ok(())
    }

    /// The connection, brought back if it broke.
    fn connection(&self) -> Result<Arc<Connection>> {
        let give_up = Instant::now() + self.options.patience;
        loop {
            let mut line = lock(&self.line);
            if let Line::Up(connection) = &*line {
                if connection.is_whole() {
                    return Ok(Arc::clone(connection));
                }
                let why = connection.why_broken();
                let why = why.unwrap_or_else(|| Error::unavailable("the connection to the NBD server broke"));
                lock(&self.ledger).lost_connection();
                *line = Line::Down { tries: 0, next: Instant::now(), why };
            }
            let Line::Down { tries, next, why } = &mut *line else { continue };
            let now = Instant::now();
            if now >= *next {
                match self.reconnect() {
                    Ok(connection) => {
                        let connection = Arc::new(connection);
                        *line = Line::Up(Arc::clone(&connection));
                        return Ok(connection);
                    }
                    Err(e) => {
                        *tries = tries.saturating_add(1);
                        *next = Instant::now() + backoff(*tries, BACKOFF_MIN, BACKOFF_MAX);
                        *why = e;
                    }
                }
            }
            if matches!(why.kind(), chart::Kind::Conflict | chart::Kind::Denied) || *next > give_up {
                return Err(why
                    .repeat()
                    .during("the connection is broken and does not come back")
                    .in_path(&self.name));
            }
            let pause = next.saturating_duration_since(Instant::now());
            drop(line);
            std::thread::sleep(pause);
        }
    }

    fn reconnect(&self) -> Result<Connection> {
        let ready = handshake::open(&self.uri, &self.options).map_err(|e| match e.kind() {
            // The server may not be itself again yet.
            chart::Kind::NotFound | chart::Kind::Io => {
                Error::unavailable("the NBD server cannot be reached").caused_by(e)
            }
            _ => e,
        })?;
        let (new, old) = (&ready.export, &self.export);
        let same = new.size == old.size
            && new.flags == old.flags
            && new.block == old.block
            && new.headers == old.headers
            && ready.allocation.is_some() == self.allocation.is_some();
        if !same {
            let what = format!(
                "after reconnecting, the NBD export is another one ({} bytes, before {}): open it again",
                new.size, old.size
            );
            return Err(Error::conflict(what));
        }
        self.connections.fetch_add(1, Ordering::AcqRel);
        self.statuses.forget();
        Ok(Connection::new(ready, self.options.timeout))
    }
}

impl Ledger {
    fn latch(&mut self, why: &str) {
        let words =
            format!("{why}: what the server kept is not known, so nothing more is written; open it again");
        self.latched.get_or_insert_with(|| Error::read_only(words));
    }

    fn lost_connection(&mut self) {
        if self.writing > 0 || self.unflushed || self.flushing > 0 {
            self.latch("the connection broke with writes that were not flushed");
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Line::Up(connection) = &*lock(&self.line) {
            connection.close();
        }
    }
}
