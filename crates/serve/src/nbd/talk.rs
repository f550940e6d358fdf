//! One connection's thread: hears requests in batches, answers at once what is at hand, and puts the rest into the
//! array.

use super::act::{Act, CACHE_STEP};
use super::buffer::{Input, Output};
use super::conn::{Conn, Received};
use super::failure::Failure;
use super::limits::{BATCH, HELPED, LONG, Limits, REQUEST_BYTES};
use super::means::{Means, Share};
use super::reply;
use super::session::Session;
use super::status;
use crate::array::{Array, Lane};
use crate::counters::{Counters, Tally};
use chart::{Error, Result, Wait};
use io::nbd::wire::{Command, Request};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much is received at a time.
const INPUT: usize = 64 << 10;

/// How much room there is for that at the least.
const INPUT_LEAST: usize = INPUT / 8;

/// Longer payloads get memory of their own, and are received straight into it.
const SMALL: usize = 32 << 10;

/// How much is received of what comes after such a payload: the next request, and not the payload of that.
const AFTER: usize = 64;

/// A request for a proxy.
pub(super) struct Job {
    conn: Arc<Conn>,
    session: Arc<Session>,
    request: Request,
    payload: Payload,
    /// How many bytes of the connection's share it takes.
    bytes: u64,
    /// The same of what all connections may hold.
    _share: Share,
    heard: Instant,
}

/// What is to be written, in memory that may be longer.
#[derive(Default)]
struct Payload {
    bytes: Vec<u8>,
    len: usize,
}

impl Payload {
    fn of(bytes: &[u8]) -> Self {
        Payload { bytes: bytes.to_vec(), len: bytes.len() }
    }

    fn filled(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// A connection past its handshake.
pub(super) struct Talk<'s> {
    conn: Arc<Conn>,
    session: Arc<Session>,
    limits: &'s Limits,
    counters: &'s Counters,
    array: &'s Array<Job>,
    input: Input,
    output: Output,
    tally: Tally,
    heard: Instant,
}

/// What became of looking for the next request.
enum Next {
    /// It was answered, or is in the array.
    Done,
    /// This many bytes of it are missing.
    Missing(usize),
    /// The client says goodbye.
    Goodbye,
}

impl<'s> Talk<'s> {
    /// Begins with nothing heard.
    pub(super) fn new(
        conn: &Arc<Conn>,
        session: Session,
        limits: &'s Limits,
        counters: &'s Counters,
        array: &'s Array<Job>,
    ) -> Self {
        Talk {
            conn: Arc::clone(conn),
            session: Arc::new(session),
            limits,
            counters,
            array,
            input: Input::new(INPUT),
            output: Output::new(&conn.means),
            tally: Tally::default(),
            heard: Instant::now(),
        }
    }

    /// Talks until the client goes, the server stops, or the protocol is broken. What is under way is finished. Returns
    /// how long the client may still take to have its replies.
    pub(super) fn run(mut self) -> Result<Duration> {
        self.conn.set_patience(self.limits.idle)?;
        let talked = self.converse();
        self.send();
        let over = Instant::now();
        let settled = self.conn.settle(self.limits.drain);
        talked.and(settled).map(|()| self.limits.drain.saturating_sub(over.elapsed()))
    }

    fn converse(&mut self) -> Result<()> {
        loop {
            if self.conn.has_pending() {
                self.send();
                if !self.is_taken()? {
                    return Ok(());
                }
            }
            let missing = match self.next()? {
                Next::Done => {
                    if self.output.len() >= BATCH {
                        self.send();
                    }
                    continue;
                }
                Next::Missing(missing) => missing,
                Next::Goodbye => return Ok(()),
            };
            self.send();
            if !self.hear(missing)? {
                return Ok(());
            }
        }
    }

    /// Takes the next request out of what was received.
    fn next(&mut self) -> Result<Next> {
        let headers = self.session.headers;
        let (have, head) = (self.input.filled().len(), headers.request_len());
        let Some(bytes) = self.input.filled().get(..head) else {
            return Ok(Next::Missing(head.saturating_sub(have)));
        };
        let request = Request::parse(headers, bytes)?;
        let len = request.payload_len(headers);
        if len > u64::from(self.limits.request) {
            let what = format!("a payload of {len} bytes where {} are allowed", self.limits.request);
            return Err(Error::invalid(what));
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > SMALL {
            self.input.eat(head);
            return self.long(request, len);
        }
        let whole = head.saturating_add(len);
        if have < whole {
            return Ok(Next::Missing(whole.saturating_sub(have)));
        }
        if request.command == Command::DISC {
            return Ok(Next::Goodbye);
        }
        self.count(&request);
        let more = have >= whole.saturating_add(head);
        let done = request.command == Command::READ
            && request.len >= LONG
            && more
            && self.lend(request, Payload::default()).is_ok();
        if !done {
            let payload = self.input.filled().get(head..whole).unwrap_or_default();
            let act = Act {
                conn: &self.conn,
                session: &self.session,
                limits: self.limits,
                request: &request,
                payload,
                wait: Wait::Never,
            };
            if act.answer(&mut self.output, &mut self.tally) {
                self.tally.at_once = self.tally.at_once.saturating_add(1);
            } else {
                let payload = Payload::of(payload);
                self.put(request, payload)?;
            }
        }
        self.input.eat(whole);
        Ok(Next::Done)
    }

    /// A request whose payload is long: received into memory of its own.
    fn long(&mut self, request: Request, len: usize) -> Result<Next> {
        self.send();
        let mut payload = Payload { bytes: self.conn.means.pool.take(len), len };
        if !self.receive(&mut payload)? || request.command == Command::DISC {
            return Ok(Next::Goodbye);
        }
        self.heard = Instant::now();
        self.count(&request);
        let more = self.input.filled().len() >= self.session.headers.request_len();
        if request.command == Command::WRITE && request.len >= LONG && more {
            match self.lend(request, payload) {
                Ok(()) => return Ok(Next::Done),
                Err(given_back) => payload = given_back,
            }
        }
        let act = Act {
            conn: &self.conn,
            session: &self.session,
            limits: self.limits,
            request: &request,
            payload: payload.filled(),
            wait: Wait::Never,
        };
        if act.answer(&mut self.output, &mut self.tally) {
            self.tally.at_once = self.tally.at_once.saturating_add(1);
            self.conn.means.pool.give(payload.bytes);
        } else {
            self.put(request, payload)?;
        }
        Ok(Next::Done)
    }

    /// Receives all of a long payload, and the request that comes next if it is there; `false` when the client goes.
    fn receive(&mut self, payload: &mut Payload) -> Result<bool> {
        let into = payload.bytes.get_mut(..payload.len).unwrap_or_default();
        let mut have = self.input.filled().len().min(into.len());
        if let (Some(into), Some(from)) = (into.get_mut(..have), self.input.filled().get(..have)) {
            into.copy_from_slice(from);
        }
        self.input.eat(have);
        while let Some(rest) = into.get_mut(have..).filter(|rest| !rest.is_empty()) {
            // Replies go out meanwhile: there are clients that read one before they send the rest of a payload.
            let quiet = self.conn.is_idle() && !self.conn.has_pending();
            let missing = rest.len();
            let after = self.input.space(AFTER);
            let after = after.get_mut(..AFTER).unwrap_or_default();
            match self.conn.receive_both(rest, after, quiet)? {
                Received::Bytes(more) => {
                    have = have.saturating_add(more.min(missing));
                    self.input.filled_by(more.saturating_sub(missing));
                }
                Received::End => return Ok(false),
                Received::Nothing if quiet => return Err(silent()),
                Received::Nothing => self.wait(true)?,
            }
        }
        Ok(true)
    }

    fn count(&mut self, request: &Request) {
        let tally = &mut self.tally;
        let (kind, bytes) = match request.command {
            Command::READ => (&mut tally.reads, Some(&mut tally.bytes_read)),
            Command::WRITE => (&mut tally.writes, Some(&mut tally.bytes_written)),
            Command::FLUSH => (&mut tally.flushes, None),
            Command::TRIM | Command::WRITE_ZEROES => (&mut tally.zeroes, None),
            _ => (&mut tally.others, None),
        };
        *kind = kind.saturating_add(1);
        if let Some(bytes) = bytes {
            *bytes = bytes.saturating_add(request.len);
        }
    }

    /// How much is held for a request that is not answered at once.
    fn cost(&self, request: &Request, payload: &Payload) -> u64 {
        let reply = match request.command {
            Command::READ => request.len,
            Command::BLOCK_STATUS => status::longest(&self.session),
            Command::CACHE => CACHE_STEP,
            _ => 0,
        };
        let payload = u64::try_from(payload.bytes.len()).unwrap_or(u64::MAX);
        REQUEST_BYTES.saturating_add(payload).saturating_add(reply)
    }

    fn job(&mut self, request: Request, payload: Payload, bytes: u64) -> (Lane, Job) {
        self.tally.array = self.tally.array.saturating_add(1);
        let _share = self.conn.begin(bytes);
        let lane = Lane { client: self.conn.client, export: self.session.export.number };
        let (conn, session) = (Arc::clone(&self.conn), Arc::clone(&self.session));
        (lane, Job { conn, session, request, payload, bytes, _share, heard: self.heard })
    }

    /// Puts a request into the array, when this connection may have one more under way.
    fn put(&mut self, request: Request, payload: Payload) -> Result<()> {
        let bytes = self.cost(&request, &payload);
        if !self.conn.has_room(bytes, self.limits) {
            self.send();
            self.conn.wait_for_room(bytes, self.limits)?;
        }
        let (lane, job) = self.job(request, payload, bytes);
        if self.array.put(lane, job).is_err() {
            self.conn.finish(bytes);
            return Err(Error::unavailable("the server is shutting down"));
        }
        Ok(())
    }

    /// Lets a proxy that has nothing to do carry out a long request, while this thread goes on to the next. Gives the
    /// payload back where there is none, or enough of them are at it.
    fn lend(&mut self, request: Request, payload: Payload) -> Result<(), Payload> {
        let bytes = self.cost(&request, &payload);
        if self.conn.in_flight() >= HELPED || !self.conn.has_room(bytes, self.limits) {
            return Err(payload);
        }
        let (lane, job) = self.job(request, payload, bytes);
        self.array.put_if_idle(lane, job).map_err(|job| {
            self.conn.finish(bytes);
            self.tally.array = self.tally.array.saturating_sub(1);
            job.payload
        })
    }

    /// Sends the replies that are gathered, and tells what was counted.
    fn send(&mut self) {
        if self.output.len() > 0 {
            self.conn.send(&mut self.output);
            self.counters.at_once_latency.add(self.heard.elapsed(), self.tally.at_once);
        }
        self.tally.tell(self.counters);
    }

    /// Receives at least something, if `missing` bytes have room; `false` when there is no more to hear.
    fn hear(&mut self, missing: usize) -> Result<bool> {
        loop {
            if !self.is_taken()? {
                return Ok(false);
            }
            // With nothing under way nothing can want this thread but its client.
            let idle = self.conn.is_idle();
            match self.conn.receive(self.input.space(missing.max(INPUT_LEAST)), idle)? {
                Received::Bytes(len) => {
                    self.input.filled_by(len);
                    self.heard = Instant::now();
                    return Ok(true);
                }
                Received::End => return Ok(false),
                Received::Nothing if idle => return Err(silent()),
                Received::Nothing => self.wait(true)?,
            }
        }
    }

    /// Waits until the client has taken all that was sent: before, none of its requests is carried out, however
    /// many were received, so that what it does not read stays bounded. `false` when there is no more to hear.
    fn is_taken(&self) -> Result<bool> {
        loop {
            if self.conn.is_stopping() || self.conn.is_gone() {
                return Ok(false);
            }
            if !self.conn.has_pending() {
                return Ok(true);
            }
            self.wait(false)?;
        }
    }

    /// Waits for something to happen, with the client or with what is under way. A client that for too long takes
    /// nothing of what it asked for is silent too.
    fn wait(&self, input: bool) -> Result<()> {
        let happened = self.conn.wait(input, self.limits.idle)?;
        if !happened && self.conn.is_idle() && self.conn.has_pending() { Err(silent()) } else { Ok(()) }
    }
}

fn silent() -> Error {
    Error::unavailable("the client was silent for longer than it may be")
}

/// One proxy: carries requests out, and keeps a buffer between them.
pub(super) struct Proxy {
    pub(super) limits: Arc<Limits>,
    pub(super) counters: Arc<Counters>,
    output: Output,
    tally: Tally,
}

impl Proxy {
    /// With nothing done yet.
    pub(super) fn new(limits: Arc<Limits>, counters: Arc<Counters>, means: &Arc<Means>) -> Self {
        Proxy { limits, counters, output: Output::new(means), tally: Tally::default() }
    }

    /// Carries a request out and replies to it.
    pub(super) fn act(&mut self, job: Job) {
        // What nobody waits for need not be done: it was never acknowledged.
        if !job.conn.is_gone() {
            // A fault of ours in one request must not cost the others their proxy.
            if catch_unwind(AssertUnwindSafe(|| self.answer(&job))).is_err() {
                self.output = Output::new(&job.conn.means);
                let failure = Failure::unforeseen("a request made a proxy panic");
                reply::failure(job.session.headers, &job.request, &failure, &mut self.output);
            }
            self.tally.proxy = 1;
            job.conn.send_from_afar(&mut self.output);
            self.counters.array_latency.add(job.heard.elapsed(), 1);
            self.tally.tell(&self.counters);
        }
        job.conn.means.pool.give(job.payload.bytes);
        job.conn.finish(job.bytes);
    }

    fn answer(&mut self, job: &Job) {
        let Job { conn, session, request, payload, .. } = job;
        let payload = payload.filled();
        let act = Act { conn, session, limits: &self.limits, request, payload, wait: Wait::Allowed };
        act.answer(&mut self.output, &mut self.tally);
    }
}
