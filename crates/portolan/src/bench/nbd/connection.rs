//! One connection: requests that are under way, and the round they go.

use super::super::Tally;
use super::super::pattern::Dice;
use super::Run;
use super::drain::{self, Drain};
use super::inbox::{Inbox, Message, failed};
use super::outbox::Outbox;
use chart::{Error, Result};
use io::nbd::Transmission;
use io::nbd::wire::{Code, Command, CommandFlags, Headers, Reply, Request, TransmissionFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a server may say nothing while something is asked of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long is waited for room to send in at a time, in nanoseconds.
const NAP: i64 = 250_000_000;

/// The bits of a cookie that are the number of a slot; the others count requests.
const SLOT_BITS: u32 = 16;

/// A connection under load.
pub(super) struct Connection<'a> {
    run: &'a Run<'a>,
    socket: OwnedFd,
    headers: Headers,
    can_flush: bool,
    inbox: Inbox,
    /// Where data goes that is not received.
    drain: Option<Drain>,
    outbox: Outbox,
    slots: Vec<Slot>,
    /// How many slots have a request.
    busy: usize,
    /// The data that is being received.
    arriving: Option<Arriving>,
    dice: Dice,
    cookies: u64,
    /// How many writes there were since the last flush.
    unflushed: u64,
    /// When a byte came last, or could have.
    heard: Instant,
    tally: Tally,
}

/// The place of a request.
#[derive(Clone, Copy)]
struct Slot {
    /// What is asked, if anything is.
    command: Option<Command>,
    cookie: u64,
    at: u64,
    /// How much data has come.
    came: u64,
    began: Instant,
}

/// Data on its way.
#[derive(Clone, Copy)]
struct Arriving {
    slot: usize,
    left: u64,
    /// Where in its block the next byte belongs.
    from: u64,
    /// Whether the reply ends with it.
    last: bool,
}

impl<'a> Connection<'a> {
    pub(super) fn new(run: &'a Run<'a>, line: Transmission, number: u64) -> Result<Connection<'a>> {
        let now = Instant::now();
        let slot = Slot { command: None, cookie: 0, at: 0, came: 0, began: now };
        let drains = !run.load.write && !run.load.verify && run.load.size >= drain::WORTHWHILE;
        Ok(Connection {
            run,
            socket: line.socket,
            headers: line.export.headers,
            can_flush: line.export.flags.has(TransmissionFlags::SEND_FLUSH),
            inbox: Inbox::new(!drains),
            drain: if drains { Some(Drain::new()?) } else { None },
            outbox: Outbox::new(),
            slots: vec![slot; run.load.depth],
            busy: 0,
            arriving: None,
            dice: Dice::of_worker(run.load.seed, number),
            cookies: 0,
            unflushed: 0,
            heard: now,
            tally: Tally::new(),
        })
    }

    /// Puts the load on. What was done, and when that was.
    pub(super) fn work(mut self) -> Result<(Tally, Instant)> {
        let now = Instant::now();
        if self.run.pace.goes_on(self.since(now))? {
            for slot in 0..self.slots.len() {
                self.begin(slot, now)?;
            }
        }
        self.rounds()?;
        let end = Instant::now();
        // What the server has not made durable may yet turn out to have failed.
        let flushes = self.tally.flushes;
        if self.run.load.write && self.can_flush {
            self.ask(0, Command::FLUSH, 0, end)?;
            self.rounds()?;
        }
        self.tally.flushes = flushes;
        let bye = Request { flags: CommandFlags::NONE, command: Command::DISC, cookie: 0, offset: 0, len: 0 };
        self.outbox.put(&bye, self.headers, &[], false)?;
        self.outbox.send(self.socket.as_fd(), &[])?;
        Ok((self.tally, end))
    }

    fn since(&self, now: Instant) -> Duration {
        now.duration_since(self.run.pace.began())
    }

    /// Goes round until nothing is asked any more.
    fn rounds(&mut self) -> Result<()> {
        self.heard = Instant::now();
        while self.busy > 0 {
            let all_sent = self.outbox.send(self.socket.as_fd(), self.run.payload.body())?;
            if !all_sent {
                // The server may have to be rid of replies before it takes more requests.
                let either = PollFlags::IN | PollFlags::OUT;
                let nap = Timespec { tv_sec: 0, tv_nsec: NAP };
                // Interrupted or not, what comes next finds out.
                let _ = poll(&mut [PollFd::new(&self.socket, either)], Some(&nap));
            }
            let came = self.receive(all_sent)?;
            let now = Instant::now();
            let goes_on = self.run.pace.goes_on(self.since(now))?;
            if came {
                self.heard = now;
                self.digest(now, goes_on)?;
            } else if now.duration_since(self.heard) > PATIENCE {
                return Err(Error::unavailable("the server does not answer in time"));
            }
        }
        Ok(())
    }

    /// Takes what has come; waits for it only if `wait`. Whether anything has.
    fn receive(&mut self, wait: bool) -> Result<bool> {
        let socket = self.socket.as_fd();
        if let (Some(drain), Some(arriving)) = (&self.drain, &mut self.arriving) {
            let passed = drain.pass(socket, arriving.left, wait)?;
            arriving.left -= passed.min(arriving.left);
            return Ok(passed > 0);
        }
        self.inbox.receive(socket, wait)
    }

    /// Reads all that has come. For what is done, something else begins if it `goes_on`.
    fn digest(&mut self, now: Instant, goes_on: bool) -> Result<()> {
        loop {
            let done = if let Some(arriving) = self.arriving.take() {
                let Some(done) = self.pass_over(arriving)? else { return Ok(()) };
                done
            } else {
                let Some(message) = self.inbox.message(self.headers)? else { return Ok(()) };
                self.take_in(&message)?
            };
            if let Some(slot) = done {
                self.finish(slot, now)?;
                if goes_on {
                    self.begin(slot, now)?;
                }
            }
        }
    }

    /// Passes over the data that has come. Nothing if there is more to come; else the slot whose reply is complete.
    fn pass_over(&mut self, mut arriving: Arriving) -> Result<Option<Option<usize>>> {
        let slot = self.slot(arriving.slot)?;
        let piece = self.inbox.data(arriving.left);
        self.run.payload.check(slot.at, usize::try_from(arriving.from).unwrap_or(usize::MAX), piece)?;
        arriving.left -= piece.len() as u64;
        arriving.from += piece.len() as u64;
        if arriving.left > 0 {
            self.arriving = Some(arriving);
            return Ok(None);
        }
        Ok(Some(arriving.last.then_some(arriving.slot)))
    }

    /// Takes in a reply or a part of one. The slot whose reply is complete, if one is.
    fn take_in(&mut self, message: &Message) -> Result<Option<usize>> {
        let cookie = message.reply.cookie();
        let number = (cookie & ((1 << SLOT_BITS) - 1)) as usize;
        let size = self.run.load.size;
        let slot = self.slots.get_mut(number).filter(|slot| slot.command.is_some() && slot.cookie == cookie);
        let unasked = || Error::corrupt("the server answers a request that was not made");
        let slot = slot.ok_or_else(unasked)?;
        let reads = slot.command == Some(Command::READ);
        let (data, last) = match message.reply {
            Reply::Simple(simple) if simple.code != Code::OK => {
                return Err(failed(simple.code, "").at(slot.at));
            }
            Reply::Simple(_) => (reads.then_some((slot.at, size)), true),
            Reply::Chunk(chunk) => (message.data, chunk.is_last()),
        };
        let Some((offset, len)) = data else { return Ok(last.then_some(number)) };
        slot.came = slot.came.saturating_add(len);
        let from =
            offset.checked_sub(slot.at).filter(|from| from.checked_add(len).is_some_and(|end| end <= size));
        let (Some(from), true) = (from, reads && slot.came <= size) else {
            return Err(Error::corrupt("the server sends data that was not asked for").at(offset));
        };
        if message.is_hole() {
            let zeroes = [0; 64];
            let zeroes = zeroes.get(..usize::try_from(len).unwrap_or(usize::MAX)).unwrap_or(&zeroes);
            self.run.payload.check(slot.at, usize::try_from(from).unwrap_or(usize::MAX), zeroes)?;
            return Ok(last.then_some(number));
        }
        self.arriving = Some(Arriving { slot: number, left: len, from, last });
        Ok(None)
    }

    fn slot(&self, number: usize) -> Result<Slot> {
        self.slots.get(number).copied().ok_or_else(|| Error::corrupt("data for no request"))
    }

    /// Counts a request whose reply is complete.
    fn finish(&mut self, number: usize, now: Instant) -> Result<()> {
        let size = self.run.load.size;
        let Some(slot) = self.slots.get_mut(number) else { return Ok(()) };
        match slot.command.take() {
            Some(Command::READ) if slot.came != size => {
                return Err(Error::corrupt("the server's reply is incomplete").at(slot.at));
            }
            Some(Command::FLUSH) => self.tally.flushes += 1,
            _ => self.tally.histogram.record(now.duration_since(slot.began)),
        }
        self.busy -= 1;
        Ok(())
    }

    /// Begins the next request, if there is one.
    fn begin(&mut self, slot: usize, now: Instant) -> Result<()> {
        let load = &self.run.load;
        if load.write && load.flush_every.is_some_and(|every| self.unflushed >= every.max(1)) {
            self.unflushed = 0;
            return self.ask(slot, Command::FLUSH, 0, now);
        }
        if !self.run.pace.take() {
            return Ok(());
        }
        let at = self.run.places.next(&mut self.dice) * load.size;
        if load.write {
            self.unflushed += 1;
            return self.ask(slot, Command::WRITE, at, now);
        }
        self.ask(slot, Command::READ, at, now)
    }

    fn ask(&mut self, number: usize, command: Command, at: u64, now: Instant) -> Result<()> {
        let Some(slot) = self.slots.get_mut(number) else { return Ok(()) };
        self.cookies += 1;
        let cookie = self.cookies << SLOT_BITS | number as u64;
        *slot = Slot { command: Some(command), cookie, at, came: 0, began: now };
        self.busy += 1;
        let len = if command == Command::FLUSH { 0 } else { self.run.load.size };
        let request = Request { flags: CommandFlags::NONE, command, cookie, offset: at, len };
        if command != Command::WRITE {
            return self.outbox.put(&request, self.headers, &[], false);
        }
        let payload = &self.run.payload;
        let stamp = payload.stamp(at);
        let stamp = stamp.get(..payload.stamp_len()).unwrap_or_default();
        self.outbox.put(&request, self.headers, stamp, !payload.body().is_empty())
    }
}
