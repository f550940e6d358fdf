//! One connection in the transmission phase: many requests in flight, from many threads.
//!
//! There is no reader thread. Whoever waits for a reply and finds nobody reading takes the turn to read: his own
//! data goes straight into his buffer, others' replies are put by and they are woken. When his own reply is
//! complete he hands the turn on. A lone caller so never changes threads, and an idle connection costs nothing.

use super::assemble::{Asked, Partial, data_chunk, payload_max};
use super::handshake::Ready;
use super::link::{Inbox, Link};
use super::wire::{
    Chunk, ChunkKind, Code, Command, CommandFlags, DATA_OFFSET_LEN, Headers, Reply, Request, SimpleReply,
    StatusExtent,
};
use chart::{Error, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long nothing may have happened before a connection without requests is looked at before it is used.
const IDLE: Duration = Duration::from_millis(50);

/// How long taking leave may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// What one call asks for.
pub(super) struct Ask<'a> {
    pub(super) command: Command,
    pub(super) flags: CommandFlags,
    pub(super) offset: u64,
    pub(super) len: u64,
    /// What is written.
    pub(super) payload: &'a [u8],
}

/// A connection. Once broken it stays so.
pub(super) struct Connection {
    link: Link,
    headers: Headers,
    context: u32,
    timeout: Duration,
    cookie: AtomicU64,
    inbox: Mutex<Inbox>,
    turns: Mutex<Turns>,
}

struct Turns {
    /// The calls whose replies are not complete.
    calls: HashMap<u64, Arc<Call>>,
    /// Whether somebody is reading.
    reading: bool,
    broken: Option<Error>,
    used: Instant,
}

struct Call {
    asked: Asked,
    partial: Mutex<Partial>,
    /// Waits to be woken. Before that it is still sending, and will look at the turns by itself.
    waits: AtomicBool,
    woken: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    pub(super) fn new(ready: Ready, timeout: Duration) -> Self {
        let turns = Turns { calls: HashMap::new(), reading: false, broken: None, used: Instant::now() };
        Connection {
            link: ready.link,
            headers: ready.export.headers,
            context: ready.allocation.unwrap_or_default(),
            timeout,
            cookie: AtomicU64::new(1),
            inbox: Mutex::new(ready.inbox),
            turns: Mutex::new(turns),
        }
    }

    /// Whether it can still be used, as far as can be told without waiting.
    pub(super) fn is_whole(&self) -> bool {
        let turns = lock(&self.turns);
        if turns.broken.is_some() {
            return false;
        }
        // Nobody reads while nothing is asked, and nobody begins to while this holds the turns.
        let idle = turns.calls.is_empty() && turns.used.elapsed() > IDLE;
        if idle && lock(&self.inbox).has_gone(&self.link) {
            drop(turns);
            self.fail(&Error::unavailable("the NBD server closed the connection"));
            return false;
        }
        true
    }

    /// Why it broke.
    pub(super) fn why_broken(&self) -> Option<Error> {
        lock(&self.turns).broken.as_ref().map(Error::repeat)
    }

    /// Whether it broke, as opposed to a request that failed on it.
    pub(super) fn is_broken(&self) -> bool {
        lock(&self.turns).broken.is_some()
    }

    /// Breaks it: everyone who waits gets `why`.
    fn fail(&self, why: &Error) {
        let mut turns = lock(&self.turns);
        if turns.broken.is_none() {
            turns.broken = Some(why.repeat());
            self.link.socket().shutdown();
        }
        for call in turns.calls.values() {
            call.woken.notify_all();
        }
    }

    /// Takes leave of the server.
    pub(super) fn close(&self) {
        let bye = Request { flags: CommandFlags::NONE, command: Command::DISC, cookie: 0, offset: 0, len: 0 };
        let mut out = Vec::new();
        if !self.is_broken() && bye.put(self.headers, &mut out).is_ok() {
            let deadline = Instant::now() + GOODBYE;
            let _ = self.link.socket().set_timeout(GOODBYE);
            let _ = self.link.send(&out, &[], deadline);
            self.link.say_goodbye(deadline);
        }
        self.link.socket().shutdown();
    }

    /// Asks and waits for the answer: `into` is filled by a read, extents are returned by a block status.
    pub(super) fn call(&self, ask: &Ask<'_>, into: &mut [u8]) -> Result<Vec<StatusExtent>> {
        let deadline = Instant::now() + self.timeout;
        let cookie = self.cookie.fetch_add(1, Ordering::Relaxed);
        let Ask { command, offset, len, .. } = *ask;
        let asked = Asked { command, offset, len, headers: self.headers, context: self.context };
        let call = Arc::new(Call {
            asked,
            partial: Mutex::default(),
            waits: AtomicBool::new(false),
            woken: Condvar::new(),
        });
        let with_payload = self.headers == Headers::Extended && command == Command::WRITE;
        let flags = ask.flags | CommandFlags::PAYLOAD_LEN.only_if(with_payload);
        let mut header = Vec::with_capacity(Request::EXTENDED_LEN);
        Request { flags, command, cookie, offset, len }.put(self.headers, &mut header)?;
        {
            let mut turns = lock(&self.turns);
            if let Some(why) = &turns.broken {
                return Err(why.repeat());
            }
            turns.calls.insert(cookie, Arc::clone(&call));
        }
        if let Err(e) = self.link.send(&header, ask.payload, deadline) {
            self.fail(&e);
        }
        self.wait(cookie, &call, into, deadline)?;
        let partial = std::mem::take(&mut *lock(&call.partial)).finish(&asked);
        let partial = partial.inspect_err(|e| match e.kind() {
            // What contradicts the protocol cannot be trusted to go on; a server that goes away wants us gone.
            chart::Kind::Corrupt | chart::Kind::Unavailable => self.fail(e),
            _ => {}
        })?;
        if let Some(data) = &partial.data
            && data.len() == into.len()
        {
            into.copy_from_slice(data);
        }
        Ok(partial.status)
    }

    /// Waits until the reply is complete, reading where nobody else does.
    fn wait(&self, cookie: u64, call: &Call, into: &mut [u8], deadline: Instant) -> Result<()> {
        let mut turns = lock(&self.turns);
        loop {
            if !turns.calls.contains_key(&cookie) {
                return Ok(());
            }
            if let Some(why) = &turns.broken {
                let why = why.repeat();
                // While somebody reads for this call, its partial reply is not ours to drop; the map's share is.
                turns.calls.remove(&cookie);
                return Err(why);
            }
            if !turns.reading {
                turns.reading = true;
                drop(turns);
                let turn = self.read_until(cookie, into, deadline);
                if let Err(e) = &turn {
                    self.fail(e);
                }
                turns = lock(&self.turns);
                turns.reading = false;
                turns.used = Instant::now();
                hand_on(&turns);
                continue;
            }
            let now = Instant::now();
            if now >= deadline {
                drop(turns);
                self.fail(&Error::unavailable("the NBD server does not answer in time"));
                turns = lock(&self.turns);
                continue;
            }
            call.waits.store(true, Ordering::Relaxed);
            let waited = call.woken.wait_timeout(turns, deadline - now);
            turns = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Reads replies until that to `mine` is complete.
    fn read_until(&self, mine: u64, into: &mut [u8], deadline: Instant) -> Result<()> {
        let mut inbox = lock(&self.inbox);
        loop {
            let reply = self.reply(&mut inbox, deadline)?;
            let cookie = reply.cookie();
            let call = lock(&self.turns).calls.get(&cookie).cloned();
            let Some(call) = call else {
                return Err(Error::corrupt("the NBD server answers a request that was not made"));
            };
            let own = if cookie == mine { Some(&mut *into) } else { None };
            let mut landing = Landing { asked: &call.asked, partial: lock(&call.partial), own };
            let last = match reply {
                Reply::Simple(simple) => self.simple(&mut inbox, simple, &mut landing, deadline)?,
                Reply::Chunk(chunk) => self.chunk(&mut inbox, &chunk, &mut landing, deadline)?,
            };
            drop(landing);
            if last {
                lock(&self.turns).calls.remove(&cookie);
                if cookie == mine {
                    return Ok(());
                }
                call.woken.notify_all();
            }
        }
    }

    fn reply(&self, inbox: &mut Inbox, deadline: Instant) -> Result<Reply> {
        let mut header = [0; Chunk::EXTENDED_LEN];
        let (first, _) = header.split_at_mut(Reply::SHORTEST);
        inbox.read_exact(&self.link, first, deadline)?;
        let magic = first.first_chunk::<4>().copied().unwrap_or_default();
        let len = Reply::header_len(self.headers, magic)?;
        let rest = header.get_mut(Reply::SHORTEST..len).unwrap_or_default();
        inbox.read_exact(&self.link, rest, deadline)?;
        Reply::parse(self.headers, header.get(..len).unwrap_or_default())
    }

    /// A simple reply is always the whole of it.
    fn simple(
        &self,
        inbox: &mut Inbox,
        reply: SimpleReply,
        landing: &mut Landing<'_>,
        deadline: Instant,
    ) -> Result<bool> {
        let asked = landing.asked;
        let has_payload = matches!(asked.command, Command::READ | Command::BLOCK_STATUS);
        if self.headers == Headers::Structured && has_payload {
            return Err(Error::corrupt(format!("the NBD server sends a simple reply to {}", asked.command)));
        }
        if reply.code != Code::OK {
            landing.partial.fail(asked, reply.code, "", None);
        } else if asked.command == Command::READ {
            inbox.read_exact(&self.link, landing.place(asked.offset, asked.len)?, deadline)?;
        }
        Ok(true)
    }

    fn chunk(
        &self,
        inbox: &mut Inbox,
        chunk: &Chunk,
        landing: &mut Landing<'_>,
        deadline: Instant,
    ) -> Result<bool> {
        let asked = landing.asked;
        if self.headers == Headers::Extended && chunk.offset != asked.offset {
            return Err(Error::corrupt("the NBD server answers with another offset than was asked"));
        }
        if chunk.kind == ChunkKind::OFFSET_DATA {
            let mut offset = [0; 8];
            if chunk.len > DATA_OFFSET_LEN {
                inbox.read_exact(&self.link, &mut offset, deadline)?;
            }
            let (offset, len) = data_chunk(chunk, offset)?;
            inbox.read_exact(&self.link, landing.place(offset, len)?, deadline)?;
            return Ok(chunk.is_last());
        }
        if chunk.len > payload_max(chunk) {
            return Err(Error::corrupt(format!(
                "the NBD server sends {} of {} bytes",
                chunk.kind, chunk.len
            )));
        }
        let payload = self.payload(inbox, chunk.len, deadline)?;
        if let Some(hole) = landing.partial.chunk(asked, chunk, &payload)? {
            landing.place(hole.offset, u64::from(hole.len))?.fill(0);
        }
        Ok(chunk.is_last())
    }

    /// Reads a payload whose length is bounded but not yet believed: room is made as bytes come.
    fn payload(&self, inbox: &mut Inbox, len: u32, deadline: Instant) -> Result<Vec<u8>> {
        const STEP: usize = 64 << 10;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let mut payload = Vec::new();
        while payload.len() < len {
            let from = payload.len();
            payload.resize(len.min(from + STEP), 0);
            inbox.read_exact(&self.link, payload.get_mut(from..).unwrap_or_default(), deadline)?;
        }
        Ok(payload)
    }
}

/// Where a reply goes: to its call, and to the caller's own buffer if he is the one who reads.
struct Landing<'a> {
    asked: &'a Asked,
    partial: MutexGuard<'a, Partial>,
    own: Option<&'a mut [u8]>,
}

impl Landing<'_> {
    /// The room for a piece of a read. Straight in the caller's buffer if he reads and nothing of it was put by
    /// before, else in what is put by for him: as large as what was asked, so we have bounded it ourselves.
    fn place(&mut self, offset: u64, len: u64) -> Result<&mut [u8]> {
        let range = self.partial.place(self.asked, offset, len)?;
        let asked = self.asked.len;
        let whole: &mut [u8] = match (&mut self.partial.data, &mut self.own) {
            (None, Some(own)) => own,
            (data, _) => data.get_or_insert_with(|| vec![0; usize::try_from(asked).unwrap_or_default()]),
        };
        whole.get_mut(range).ok_or_else(|| Error::corrupt("the NBD server sends data that was not asked for"))
    }
}

/// Wakes one of those who wait, to read. Those still sending look for themselves.
fn hand_on(turns: &Turns) {
    if let Some(call) = turns.calls.values().find(|call| call.waits.load(Ordering::Relaxed)) {
        call.woken.notify_all();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}
