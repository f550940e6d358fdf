//! Carrying requests out: on the connection's own thread with `Wait::Never`, or on a proxy with `Wait::Allowed`.

use super::buffer::Output;
use super::conn::Conn;
use super::failure::{Failure, Stop};
use super::limits::{IN_PLACE, IN_PLACE_PATIENCE, IN_PLACE_PAUSE, Limits, PIECE};
use super::reply::{self, Chunks};
use super::session::Session;
use super::status;
use crate::counters::Tally;
use chart::{Kind, LeafPlace, Purpose, SetMode, To, Wait};
use io::nbd::wire::{Code, Command, CommandFlags, Headers, Request};
use std::time::Instant;

/// A run of zeros shorter than this is sent as data: a chunk costs both sides more.
const HOLE_MIN: u64 = 512;

/// How often a read that a write came into is tried again before it keeps writes off.
const READ_TRIES: usize = 3;

/// What a request for caching reads at a time.
pub(super) const CACHE_STEP: u64 = 1 << 20;

/// One request, with what it is carried out on and with.
pub(super) struct Act<'a> {
    pub(super) conn: &'a Conn,
    pub(super) session: &'a Session,
    pub(super) limits: &'a Limits,
    pub(super) request: &'a Request,
    pub(super) payload: &'a [u8],
    pub(super) wait: Wait,
}

impl Act<'_> {
    /// Carries it out and appends the reply. `false`, and nothing is appended, if it would have to wait.
    pub(super) fn answer(&self, out: &mut Output, tally: &mut Tally) -> bool {
        let mark = out.len();
        let failure = match self.run(out, tally) {
            Ok(()) => return true,
            Err(Stop::WouldBlock) if self.wait == Wait::Never => {
                out.cut(mark);
                return false;
            }
            Err(Stop::WouldBlock) => Failure::unforeseen("a source that may wait said that it would have to"),
            Err(Stop::Failed(failure)) => failure,
        };
        out.cut(mark);
        tally.errors = tally.errors.saturating_add(1);
        if let Some(log) = &failure.log {
            self.session.tell(log);
        }
        reply::failure(self.session.headers, self.request, &failure, out);
        true
    }

    fn run(&self, out: &mut Output, tally: &mut Tally) -> Result<(), Stop> {
        self.check()?;
        match self.request.command {
            Command::READ => return self.read(out, tally),
            Command::WRITE => self.write()?,
            Command::BLOCK_STATUS => {
                self.must_wait()?;
                return status::answer(self.session, self.request, self.payload, out);
            }
            Command::FLUSH => {
                self.must_wait()?;
                self.session.export.flush()?;
            }
            Command::TRIM => self.set(To::Hole)?,
            Command::WRITE_ZEROES => self.set(To::Zero)?,
            Command::CACHE => self.cache(out)?,
            other => {
                return Err(Stop::refused(Code::EINVAL, format!("{other} is not a command of this server")));
            }
        }
        reply::success(self.session.headers, self.request, out);
        Ok(())
    }

    fn must_wait(&self) -> Result<(), Stop> {
        if self.wait == Wait::Never { Err(Stop::WouldBlock) } else { Ok(()) }
    }

    fn has(&self, flag: CommandFlags) -> bool {
        self.request.flags.has(flag)
    }

    /// The flags this command may carry.
    fn allowed(&self) -> CommandFlags {
        let extended = self.session.headers == Headers::Extended;
        let own = match self.request.command {
            Command::READ => CommandFlags::DF.only_if(self.session.headers != Headers::Simple),
            Command::WRITE => CommandFlags::PAYLOAD_LEN.only_if(extended),
            Command::WRITE_ZEROES => CommandFlags::NO_HOLE | CommandFlags::FAST_ZERO,
            Command::BLOCK_STATUS => CommandFlags::REQ_ONE | CommandFlags::PAYLOAD_LEN.only_if(extended),
            _ => CommandFlags::NONE,
        };
        // FUA may come with every command, and says nothing where nothing is written.
        own | CommandFlags::FUA
    }

    fn check(&self) -> Result<(), Stop> {
        let Request { flags, command, offset, len, .. } = *self.request;
        if !self.allowed().has(flags) {
            return Err(Stop::refused(Code::EINVAL, format!("{command} takes no flags {:#x}", flags.0)));
        }
        let writes = matches!(command, Command::WRITE | Command::WRITE_ZEROES | Command::TRIM);
        if writes && !self.session.export.writable {
            return Err(Stop::refused(Code::EPERM, "this export is read-only"));
        }
        let paid = u64::try_from(self.payload.len()) == Ok(len);
        if command == Command::WRITE && !paid {
            return Err(Stop::refused(Code::EINVAL, "a write without its payload"));
        }
        if command == Command::READ && len > u64::from(self.limits.request) {
            let most = self.limits.request;
            return Err(Stop::refused(
                Code::EINVAL,
                format!("{len} bytes are more than the {most} of one request"),
            ));
        }
        // A block status that names its contexts has its length in its payload.
        let filtered = command == Command::BLOCK_STATUS && self.has(CommandFlags::PAYLOAD_LEN);
        let ranged = command != Command::FLUSH && !filtered;
        let size = self.session.export.disk.len();
        if ranged && offset.checked_add(len).is_none_or(|end| end > size) {
            let grows = matches!(command, Command::WRITE | Command::WRITE_ZEROES);
            let code = if grows { Code::ENOSPC } else { Code::EINVAL };
            let what = format!("{len} bytes from byte {offset} on reach past the end, {size}");
            return Err(Stop::refused(code, what));
        }
        Ok(())
    }

    /// Reads, so that what is read is of one moment.
    fn read(&self, out: &mut Output, tally: &mut Tally) -> Result<(), Stop> {
        let Request { offset, len, .. } = *self.request;
        let export = &self.session.export;
        if !export.writable {
            return self.read_once(out);
        }
        let mark = out.len();
        for _ in 0..READ_TRIES {
            let Some(glance) = export.order.glance(offset, len) else { break };
            self.read_once(out)?;
            if export.order.is_same(&glance) {
                return Ok(());
            }
            tally.again = tally.again.saturating_add(1);
            out.cut(mark);
        }
        self.must_wait()?;
        let _held = export.order.hold(offset, len);
        self.read_once(out)
    }

    fn read_once(&self, out: &mut Output) -> Result<(), Stop> {
        if self.request.len == 0 {
            reply::success(self.session.headers, self.request, out);
            return Ok(());
        }
        if self.session.headers != Headers::Simple {
            return self.read_chunks(out);
        }
        reply::simple_data(self.request, out);
        let into = out.room(usize::try_from(self.request.len).unwrap_or(0));
        Ok(self.session.export.disk.read_at(self.request.offset, into, self.wait)?)
    }

    fn read_chunks(&self, out: &mut Output) -> Result<(), Stop> {
        let disk = &self.session.export.disk;
        let whole = self.has(CommandFlags::DF);
        let mut chunks = Chunks::new(self.session.headers, self.request, out);
        let _pin = disk.pin();
        while chunks.missing() > 0 {
            let leaf = disk.leaf(chunks.at(), chunks.missing(), self.wait, Purpose::Read)?;
            let zero = matches!(leaf.place, LeafPlace::Hole | LeafPlace::Zero);
            match u32::try_from(leaf.len) {
                Ok(len) if zero && !whole && leaf.len >= HOLE_MIN => chunks.hole(len),
                _ => leaf.place.read(chunks.data(usize::try_from(leaf.len).unwrap_or(0)), self.wait)?,
            }
        }
        chunks.close();
        Ok(())
    }

    fn write(&self) -> Result<(), Stop> {
        let export = &self.session.export;
        let Request { offset, len, .. } = *self.request;
        if self.wait == Wait::Never {
            return self.write_in_place();
        }
        let held = export.order.hold(offset, len);
        export.disk.write_at(offset, self.payload, Wait::Allowed)?;
        drop(held);
        self.make_durable()
    }

    /// Writes on the connection's own thread, where that takes no longer than copying does.
    fn write_in_place(&self) -> Result<(), Stop> {
        let export = &self.session.export;
        let Request { offset, len, .. } = *self.request;
        let began = Instant::now();
        let short = self.payload.len() <= IN_PLACE && !self.has(CommandFlags::FUA);
        if !short || !export.in_place.is_open(began) {
            return Err(Stop::WouldBlock);
        }
        let Some(_held) = export.order.try_hold(offset, len) else { return Err(Stop::WouldBlock) };
        export.disk.overwrite_at(offset, self.payload)?;
        if began.elapsed() > IN_PLACE_PATIENCE {
            export.in_place.pause(IN_PLACE_PAUSE);
        }
        Ok(())
    }

    fn make_durable(&self) -> Result<(), Stop> {
        if self.has(CommandFlags::FUA) {
            self.session.export.flush()?;
        }
        Ok(())
    }

    /// Trims, or writes zeroes.
    fn set(&self, to: To) -> Result<(), Stop> {
        self.must_wait()?;
        let export = &self.session.export;
        let may_unmap = to == To::Hole || !self.has(CommandFlags::NO_HOLE);
        let end = self.request.offset.saturating_add(self.request.len);
        let mut mode = SetMode { may_unmap, fast_only: self.has(CommandFlags::FAST_ZERO) };
        let mut at = self.request.offset;
        while at < end {
            self.check_wanted()?;
            let len = PIECE.saturating_sub(at % PIECE).min(end.saturating_sub(at));
            let held = export.order.hold(at, len);
            match export.disk.set(at, len, to, mode) {
                // Fast or not at all, but some of it was done and was fast: with the rest, however slow, all of it is
                // faster than writing zeros. A failure must leave everything as it was.
                Err(e) if e.kind() == Kind::Unsupported && mode.fast_only && at > self.request.offset => {
                    mode.fast_only = false;
                    continue;
                }
                set => set?,
            }
            drop(held);
            at = at.saturating_add(len);
        }
        self.make_durable()
    }

    /// What is done piece by piece is given up where nobody waits for it any more.
    fn check_wanted(&self) -> Result<(), Stop> {
        if self.conn.is_gone() {
            return Err(Stop::refused(Code::ESHUTDOWN, "nobody waits for this any more"));
        }
        Ok(())
    }

    /// Reads what will be wanted, so that it is at hand then. At most what one read may be: it is only advice.
    fn cache(&self, out: &mut Output) -> Result<(), Stop> {
        self.must_wait()?;
        let mark = out.len();
        let end = self.request.offset.saturating_add(self.request.len.min(u64::from(self.limits.request)));
        let mut at = self.request.offset;
        while at < end {
            self.check_wanted()?;
            let len = end.saturating_sub(at).min(CACHE_STEP);
            let into = out.room(usize::try_from(len).unwrap_or(0));
            self.session.export.disk.read_at(at, into, Wait::Allowed)?;
            out.cut(mark);
            at = at.saturating_add(len);
        }
        Ok(())
    }
}
