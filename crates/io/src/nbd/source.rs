//! The client as a source: alignment, splitting, zeroes and holes.

use super::client::Client;
use super::connection::Ask;
use super::status::runs;
use super::wire::{Command, CommandFlags, TransmissionFlags};
use chart::{Error, Identity, Limits, Result, Run, Source, Wait, check_range};

/// No read or write is larger than this, whatever the server allows: so much is held for a reply that another
/// thread happens to read.
const PAYLOAD: u64 = 8 << 20;
/// No zeroing or trimming is larger than this: servers bound what they do at once.
const EFFECT: u64 = 1 << 30;
/// A block status asks for so much at once, since the answer is kept.
const STATUS: u64 = 1 << 30;
/// What can be given back comes in such blocks at the least: the default cluster of qcow2.
const PUNCH: u64 = 64 << 10;
/// What is worth asking for at once.
const PREFERRED: u32 = 256 << 10;

impl Client {
    fn minimum(&self) -> u64 {
        u64::from(self.export().block.minimum)
    }

    /// The largest payload of one request: a multiple of every block size.
    fn payload_max(&self) -> u64 {
        let block = self.minimum();
        let most = u64::from(self.export().block.maximum).min(PAYLOAD);
        (most - most % block).max(block)
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let ask = Ask {
            command: Command::READ,
            flags: CommandFlags::NONE,
            offset,
            len: buf.len() as u64,
            payload: &[],
        };
        self.ask(&ask, buf).map(drop)
    }

    /// Reads a range of whole blocks, in as few requests as the server allows.
    fn read_blocks(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let most = usize::try_from(self.payload_max()).unwrap_or(usize::MAX);
        let mut at = offset;
        for part in buf.chunks_mut(most) {
            self.read(at, part)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    fn write_blocks(&self, offset: u64, buf: &[u8], flags: CommandFlags) -> Result<()> {
        let most = usize::try_from(self.payload_max()).unwrap_or(usize::MAX);
        let mut at = offset;
        for payload in buf.chunks(most) {
            let len = payload.len() as u64;
            self.change(&Ask { command: Command::WRITE, flags, offset: at, len, payload })?;
            at += len;
        }
        Ok(())
    }

    /// The blocks that `[offset, offset + len)` touches.
    fn blocks_of(&self, offset: u64, len: u64) -> (u64, u64) {
        let block = self.minimum();
        (offset - offset % block, (offset + len).next_multiple_of(block).min(self.export().size))
    }

    /// Writes, reading first what shares a block with it.
    fn write(&self, offset: u64, buf: &[u8], flags: CommandFlags) -> Result<()> {
        check_range(self.export().size, offset, buf.len() as u64)?;
        let (start, end) = self.blocks_of(offset, buf.len() as u64);
        if self.minimum() == 1 {
            return self.write_blocks(offset, buf, flags);
        }
        // Whole-block writes hold their blocks as well, or one that shares a block could undo them.
        let _held = self.blocks.hold(start, end);
        if (start, end) == (offset, offset + buf.len() as u64) {
            return self.write_blocks(offset, buf, flags);
        }
        self.write_around(offset, buf, flags)
    }

    /// Writes a range whose first or last block is not whole. The blocks are held.
    fn write_around(&self, mut offset: u64, mut buf: &[u8], flags: CommandFlags) -> Result<()> {
        let block = self.minimum();
        while !buf.is_empty() {
            let skip = offset % block;
            let whole = buf.len() as u64 / block * block;
            let now = if skip == 0 && whole > 0 { whole } else { (block - skip).min(buf.len() as u64) };
            let (part, rest) = buf.split_at(usize::try_from(now).unwrap_or(buf.len()).min(buf.len()));
            if skip == 0 && whole > 0 {
                self.write_blocks(offset, part, flags)?;
            } else {
                let mut filled = vec![0; usize::try_from(block).unwrap_or_default()];
                self.read(offset - skip, &mut filled)?;
                let hole = usize::try_from(skip).ok().and_then(|s| filled.get_mut(s..s + part.len()));
                hole.ok_or_else(|| Error::invalid("a part of a block reaches past it"))?
                    .copy_from_slice(part);
                self.write_blocks(offset - skip, &filled, flags)?;
            }
            offset += now;
            buf = rest;
        }
        Ok(())
    }

    /// Writes and answers when it is durable.
    pub fn write_fua(&self, offset: u64, buf: &[u8]) -> Result<()> {
        if self.has(TransmissionFlags::SEND_FUA) {
            return self.write(offset, buf, CommandFlags::FUA);
        }
        self.write(offset, buf, CommandFlags::NONE)?;
        self.flush_all()
    }

    /// Tells the server that a range is of no more use. What it reads as afterwards is not known.
    pub fn trim(&self, offset: u64, len: u64) -> Result<()> {
        check_range(self.export().size, offset, len)?;
        if !self.has(TransmissionFlags::SEND_TRIM) {
            return Err(Error::unsupported("the NBD server cannot trim").in_path(&self.name));
        }
        let (start, end) = inner(offset, len, self.minimum());
        self.effect(Command::TRIM, CommandFlags::NONE, start, end)
    }

    /// A command without payload for a range of whole blocks, in parts.
    fn effect(&self, command: Command, flags: CommandFlags, start: u64, end: u64) -> Result<()> {
        let _held = (self.minimum() > 1 && start < end).then(|| self.blocks.hold(start, end));
        let mut at = start;
        while at < end {
            let len = (end - at).min(EFFECT);
            self.change(&Ask { command, flags, offset: at, len, payload: &[] })?;
            at += len;
        }
        Ok(())
    }

    /// Zeroes a range: whole blocks by command, what is left by writing.
    fn zeroes(&self, offset: u64, len: u64, flags: CommandFlags) -> Result<()> {
        check_range(self.export().size, offset, len)?;
        let stop = offset + len;
        let (start, end) = inner(offset, len, self.minimum());
        if start >= end {
            return self.write_zeroes(offset, len);
        }
        self.effect(Command::WRITE_ZEROES, flags, start, end)?;
        self.write_zeroes(offset, start - offset)?;
        self.write_zeroes(end, stop - end)
    }

    fn write_zeroes(&self, mut offset: u64, len: u64) -> Result<()> {
        let zeroes = vec![0; usize::try_from(len.min(1 << 20)).unwrap_or_default()];
        let end = offset + len;
        while offset < end {
            let now = usize::try_from(end - offset).unwrap_or(usize::MAX).min(zeroes.len());
            self.write(offset, zeroes.get(..now).unwrap_or_default(), CommandFlags::NONE)?;
            offset += now as u64;
        }
        Ok(())
    }

    /// Asks where data is, from `offset` on.
    fn status(&self, offset: u64, want: u64) -> Result<Run> {
        let generation = self.statuses.generation();
        let (size, block) = (self.export().size, self.minimum());
        let start = offset - offset % block;
        let ask = Ask {
            command: Command::BLOCK_STATUS,
            flags: CommandFlags::NONE,
            offset: start,
            len: STATUS.min(size - start),
            payload: &[],
        };
        let runs = runs(start, size, &self.ask(&ask, &mut [])?);
        let run = runs.iter().find(|(end, _)| *end > offset).copied();
        self.statuses.keep(generation, start, runs);
        let (end, data) = run.unwrap_or(((offset + 1).next_multiple_of(block).min(size), true));
        Ok(Run { len: (end - offset).min(want).max(1), data })
    }
}

/// The whole blocks inside a range.
fn inner(offset: u64, len: u64, block: u64) -> (u64, u64) {
    let end = offset + len;
    let start = offset.next_multiple_of(block);
    (start, (end - end % block).max(start))
}

impl Source for Client {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn len(&self) -> u64 {
        self.export().size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8], wait: Wait) -> Result<()> {
        check_range(self.len(), offset, buf.len() as u64)?;
        if buf.is_empty() {
            return Ok(());
        }
        if wait == Wait::Never {
            return Err(Error::WOULD_BLOCK);
        }
        let (start, end) = self.blocks_of(offset, buf.len() as u64);
        if (start, end) == (offset, offset + buf.len() as u64) {
            return self.read_blocks(offset, buf);
        }
        // In pieces, so that the room for whole blocks stays small.
        let step = usize::try_from(self.payload_max()).unwrap_or(usize::MAX);
        let mut at = offset;
        for part in buf.chunks_mut(step) {
            let (start, end) = self.blocks_of(at, part.len() as u64);
            let mut whole = vec![0; usize::try_from(end - start).unwrap_or_default()];
            self.read_blocks(start, &mut whole)?;
            let skip = usize::try_from(at - start).unwrap_or_default();
            part.copy_from_slice(whole.get(skip..skip + part.len()).unwrap_or_default());
            at += part.len() as u64;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8], wait: Wait) -> Result<()> {
        if wait == Wait::Never {
            return Err(Error::WOULD_BLOCK);
        }
        self.write(offset, buf, CommandFlags::NONE)
    }

    fn zero(&self, offset: u64, len: u64, fast_only: bool) -> Result<()> {
        let fast = self.has(TransmissionFlags::SEND_FAST_ZERO);
        if fast_only && !fast {
            return Err(
                Error::unsupported("the NBD server cannot tell whether zeroing is fast").in_path(&self.name)
            );
        }
        if !self.has(TransmissionFlags::SEND_WRITE_ZEROES) {
            check_range(self.len(), offset, len)?;
            return self.write_zeroes(offset, len);
        }
        self.zeroes(offset, len, CommandFlags::NO_HOLE | CommandFlags::FAST_ZERO.only_if(fast_only))
    }

    /// By `CMD_WRITE_ZEROES` that may leave a hole: `CMD_TRIM` promises nothing about what is read afterwards.
    ///
    /// Large blocks are asked for with `CMD_FLAG_FAST_ZERO`, so that a server that can only write zeroes says so;
    /// what is left at the ends is zeroed anyhow. Where QEMU refuses, it may have zeroed a part before.
    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        if !self.has(TransmissionFlags::SEND_WRITE_ZEROES) {
            let what = "the NBD server has no command that gives space back and leaves zeroes";
            return Err(Error::unsupported(what).in_path(&self.name));
        }
        check_range(self.len(), offset, len)?;
        if !self.has(TransmissionFlags::SEND_FAST_ZERO) {
            return self.zeroes(offset, len, CommandFlags::NONE);
        }
        let stop = offset + len;
        let (start, end) = inner(offset, len, u64::from(self.export().block.preferred).max(PUNCH));
        if start >= end {
            return self.zeroes(offset, len, CommandFlags::NONE);
        }
        self.effect(Command::WRITE_ZEROES, CommandFlags::FAST_ZERO, start, end)?;
        self.zeroes(offset, start - offset, CommandFlags::NONE)?;
        self.zeroes(end, stop - end, CommandFlags::NONE)
    }

    fn flush(&self) -> Result<()> {
        self.flush_all()
    }

    fn limits(&self) -> Limits {
        let block = self.export().block;
        let preferred = block.preferred.max(PREFERRED).min(block.maximum);
        Limits { read_only: self.is_read_only(), never: false, align: 1, preferred }
    }

    fn data_at(&self, offset: u64, want: u64) -> Result<Run> {
        check_range(self.len(), offset, 1)?;
        let want = want.clamp(1, self.len() - offset);
        if !self.tells_holes() {
            return Ok(Run { len: want, data: true });
        }
        match self.statuses.look(offset, want) {
            Some(run) => Ok(run),
            None => self.status(offset, want),
        }
    }

    /// The address, and a tag that is this connection's alone. An export has no version: even a read-only one may
    /// be changed by others or be another disk after the server was restarted. So it is equal to nothing but
    /// itself, and after a reconnect not even to what it was before.
    fn identity(&self) -> Identity {
        Identity::Object { key: self.name.clone(), tag: self.tag() }
    }
}
