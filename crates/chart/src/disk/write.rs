//! Writing: in place where the chart allows it, else reserve, fill, commit.

use super::Disk;
use crate::{
    ChartMut, Error, Intent, Place, Reservation, Reserve, Result, SetMode, Source, To, Wait, check_range,
};
use std::sync::Arc;

/// The most that one reservation is asked for: what a thread holds in memory to fill grains.
const RESERVE_MAX: u64 = 2 << 20;

/// About the most that is set while the range is held, so that others come in between.
const SET_MAX: u64 = 1 << 30;

/// How often a write may find its extent changed under it before that is an error rather than bad luck.
const TRIES: usize = 1 << 20;

impl Disk {
    pub(super) fn mutable(&self) -> Result<()> {
        if self.writable { Ok(()) } else { Err(Error::read_only(format!("{} is open read-only", self.name))) }
    }

    /// Writes all of `buf`. With [`Wait::Never`], only where that needs no reservation and no waiting.
    pub fn write_at(&self, mut at: u64, mut buf: &[u8], wait: Wait) -> Result<()> {
        self.mutable()?;
        check_range(self.len(), at, buf.len() as u64)?;
        for _ in 0..TRIES {
            let (done, blocked) = self.overwrite(at, buf, wait)?;
            (at, buf) = (at + done as u64, &buf[done..]);
            if buf.is_empty() {
                return Ok(());
            }
            if blocked && wait == Wait::Never {
                return Err(Error::WOULD_BLOCK);
            }
            let done = self.write_reserved(at, buf)?;
            (at, buf) = (at + done as u64, &buf[done..]);
        }
        Err(Error::conflict(format!("{}: a write kept finding its place changed", self.name)).at(at))
    }

    /// Writes in place as far as that goes: how far, and whether what stopped it was an extent not writable.
    fn overwrite(&self, at: u64, buf: &[u8], wait: Wait) -> Result<(usize, bool)> {
        let mut done = 0;
        let _pin = self.pin_own();
        while done < buf.len() {
            let rest = &buf[done..];
            let extent = self.chart_extent_of(at + done as u64, rest.len() as u64, wait)?;
            let Place::Raw { source, offset } = extent.place else { return Ok((done, true)) };
            if !extent.writable {
                return Ok((done, true));
            }
            let now = usize::try_from(extent.len).unwrap_or(usize::MAX).min(rest.len());
            let written = self.source(source)?.write_at(offset, &rest[..now], wait);
            self.soil(source);
            written.map_err(|e| self.blame(at + done as u64, now, e))?;
            done += now;
        }
        Ok((done, false))
    }

    pub(super) fn chart_extent_of(&self, at: u64, want: u64, wait: Wait) -> Result<crate::Extent> {
        self.chart.answer(at, want, wait).map(|(extent, _)| extent)
    }

    fn mutator(&self) -> Result<&Arc<dyn ChartMut>> {
        let none = || Error::read_only(format!("{}: this range cannot be written", self.name));
        self.mutator.as_ref().ok_or_else(none)
    }

    /// The whole grains that hold `[at, at + len)`.
    fn grains(&self, grain: u64, at: u64, len: u64) -> (u64, u64) {
        let grain = grain.max(1);
        let end = at.saturating_add(len);
        (at - at % grain, end.div_ceil(grain).saturating_mul(grain))
    }

    /// Reserves a place for the first part of `buf`, fills and commits it. Returns how much of `buf` was
    /// written: 0 if the range has become writable meanwhile.
    fn write_reserved(&self, at: u64, buf: &[u8]) -> Result<usize> {
        let mutator = self.mutator()?;
        let want = (buf.len() as u64).min(RESERVE_MAX);
        let (start, end) = self.grains(mutator.grain(), at, want);
        let _flight = self.flight.hold(start, end);
        // The disk may have shrunk while this waited.
        check_range(self.len(), at, buf.len() as u64)?;
        let Reserve::Ready(reservation) = mutator.reserve(at, want, Intent::Write)? else { return Ok(0) };
        let reserved = Reserved::new(mutator.as_ref(), reservation, at, (start, end))?;
        let skip = at.saturating_sub(reserved.range().0);
        let done = (reserved.range().1 - skip).min(buf.len() as u64) as usize;
        self.fill(&reserved, at, &buf[..done])?;
        reserved.commit()?;
        Ok(done)
    }

    /// Brings what can be read in `[at, at + len)` up into this layer, wherever it does not hold it yet: what a
    /// copier calls. Returns how many bytes it moved.
    pub fn fill_up(&self, mut at: u64, len: u64) -> Result<u64> {
        self.mutable()?;
        check_range(self.len(), at, len)?;
        let mutator = self.mutator()?;
        let (end, mut moved) = (at + len, 0);
        while at < end {
            let want = (end - at).min(RESERVE_MAX);
            let (start, stop) = self.grains(mutator.grain(), at, want);
            let _flight = self.flight.hold(start, stop);
            check_range(self.len(), at, want)?;
            match mutator.reserve(at, want, Intent::Fill)? {
                Reserve::Already { len } => at += len.clamp(1, end - at),
                Reserve::Ready(reservation) => {
                    let reserved = Reserved::new(mutator.as_ref(), reservation, at, (start, stop))?;
                    let (from, len) = reserved.range();
                    self.fill(&reserved, from, &[])?;
                    reserved.commit()?;
                    moved += len;
                    at = from + len;
                }
            }
        }
        Ok(moved)
    }

    /// Writes `data`, which belongs at `at`, into the reserved place, and what can be read now around it. The
    /// disk does this, not the format, by reading through itself (law 7).
    fn fill(&self, reserved: &Reserved<'_>, at: u64, data: &[u8]) -> Result<()> {
        let r = reserved.reservation()?;
        let source = self.source(r.source)?;
        let head = at - r.at;
        let tail = r.len - head - data.len() as u64;
        if r.zeroed && self.reads_zero(r.at, head)? && self.reads_zero(at + data.len() as u64, tail)? {
            return source.write_at(r.offset + head, data, Wait::Allowed);
        }
        if head == 0 && tail == 0 {
            return source.write_at(r.offset, data, Wait::Allowed);
        }
        let mut grain = vec![0; r.len as usize];
        let (before, rest) = grain.split_at_mut(head as usize);
        let (middle, behind) = rest.split_at_mut(data.len());
        self.read_clipped(r.at, before)?;
        middle.copy_from_slice(data);
        self.read_clipped(at + data.len() as u64, behind)?;
        source.write_at(r.offset, &grain, Wait::Allowed)
    }

    /// Reads what lies within the disk; behind its end is nothing.
    fn read_clipped(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        let inside = self.len().saturating_sub(at).min(buf.len() as u64) as usize;
        if inside > 0 { self.read_at(at, &mut buf[..inside], Wait::Allowed) } else { Ok(()) }
    }

    /// Whether the chart says, without any reading of data, that a range is zeros.
    fn reads_zero(&self, mut at: u64, len: u64) -> Result<bool> {
        let end = at.saturating_add(len).min(self.len());
        let _pin = self.pin();
        while at < end {
            let leaf = self.leaf(at, end - at, Wait::Allowed, super::Purpose::Read)?;
            if !matches!(leaf.place, super::LeafPlace::Hole | super::LeafPlace::Zero) {
                return Ok(false);
            }
            at += leaf.len;
        }
        Ok(true)
    }

    /// Sets a range to read as zeros (law 7: a discard never uncovers what lies below).
    pub fn set(&self, at: u64, len: u64, to: To, mode: SetMode) -> Result<()> {
        self.mutable()?;
        check_range(self.len(), at, len)?;
        let Some(mutator) = &self.mutator else { return self.set_straight(at, len, to, mode) };
        let (end, grain) = (at + len, mutator.grain().max(1));
        let inner_start = at.div_ceil(grain).saturating_mul(grain).min(end);
        let inner_end = if end == self.len() { end } else { end - end % grain }.max(inner_start);
        // With fast_only nothing may be changed before it is known that all of it is fast.
        if mode.fast_only && to == To::Zero && (at < inner_start || inner_end < end) {
            self.only_if_zero(at, inner_start - at)?;
            self.only_if_zero(inner_end, end - inner_end)?;
        }
        self.set_grains(mutator.as_ref(), inner_start, inner_end, to, mode)?;
        if to == To::Zero {
            self.write_zeros(at, inner_start - at)?;
            self.write_zeros(inner_end, end - inner_end)?;
        }
        Ok(())
    }

    fn only_if_zero(&self, at: u64, len: u64) -> Result<()> {
        if self.reads_zero(at, len)? {
            return Ok(());
        }
        Err(Error::unsupported(format!("{}: zeros here would have to be written", self.name)).at(at))
    }

    fn set_grains(&self, m: &dyn ChartMut, mut at: u64, end: u64, to: To, mode: SetMode) -> Result<()> {
        // Whole grains, as many as make about a GiB: a grain need be no power of two.
        let grain = m.grain().max(1);
        let most = (SET_MAX / grain).max(1).saturating_mul(grain);
        while at < end {
            let want = (end - at).min(most);
            let _flight = self.flight.hold(at, self.grains(m.grain(), at, want).1);
            check_range(self.len(), at, want)?;
            match m.set(at, want, to, mode) {
                Ok(done) => at += done.clamp(1, want),
                Err(e) if e.kind() == crate::Kind::Unsupported && !mode.fast_only => {
                    drop(_flight);
                    if to == To::Zero {
                        self.write_zeros(at, want)?;
                    }
                    at += want;
                }
                Err(e) => return Err(e),
            }
        }
        self.frames.clear();
        Ok(())
    }

    /// Writes zeros where the chart does not say zero already.
    fn write_zeros(&self, mut at: u64, len: u64) -> Result<()> {
        let zeros = vec![0; len.min(1 << 20) as usize];
        let end = at + len;
        while at < end {
            let now = (end - at).min(zeros.len() as u64);
            if !self.reads_zero(at, now)? {
                self.write_at(at, &zeros[..now as usize], Wait::Allowed)?;
            }
            at += now;
        }
        Ok(())
    }

    /// There is no map to change: the sources are told.
    fn set_straight(&self, mut at: u64, len: u64, to: To, mode: SetMode) -> Result<()> {
        let end = at + len;
        while at < end {
            let _pin = self.pin_own();
            let extent = self.chart_extent_of(at, end - at, Wait::Allowed)?;
            match extent.place {
                place if place.is_zero() => {}
                Place::Raw { source, offset } if extent.writable => {
                    let done = set_source(self.source(source)?.as_ref(), offset, extent.len, to, mode);
                    self.soil(source);
                    done?;
                }
                _ => return Err(Error::read_only(format!("{}: a range cannot be zeroed", self.name)).at(at)),
            }
            at += extent.len;
        }
        Ok(())
    }

    /// Grows or shrinks the disk. What it grows by reads as zeros, whatever lay behind its end (law 7).
    pub fn resize(&self, len: u64) -> Result<()> {
        self.mutable()?;
        let cannot = || Error::unsupported(format!("{} cannot be resized", self.name));
        let mutator = self.mutator.as_ref().ok_or_else(cannot)?.as_ref();
        let _flight = self.flight.hold(0, u64::MAX);
        if len > self.len() {
            self.own_end(mutator)?;
        }
        mutator.resize(len)?;
        self.frames.clear();
        Ok(())
    }

    /// Gives the layer the grain that holds the disk's end, if what lies there behind the end is not the layer's
    /// to clear: more of a disk below, of a frame, of a place that a snapshot shares. A place of its own is filled
    /// with what lies before the end, and with zeros. All of the disk is in flight.
    fn own_end(&self, mutator: &dyn ChartMut) -> Result<()> {
        let end = self.len();
        let Some(last) = end.checked_sub(1).filter(|_| !end.is_multiple_of(mutator.grain().max(1))) else {
            return Ok(());
        };
        let (extent, own) = {
            let _pin = self.pin_own();
            self.chart.answer(last, 1, Wait::Allowed)?
        };
        let clear = match own {
            true => extent.writable || extent.place.is_zero(),
            false => self.chart.below().is_none_or(|below| below.len() <= end),
        };
        if clear {
            return Ok(());
        }
        let Reserve::Ready(reservation) = mutator.reserve(last, 1, Intent::Write)? else { return Ok(()) };
        let reserved = Reserved::new(mutator, reservation, last, (0, u64::MAX))?;
        self.fill(&reserved, reserved.range().0, &[])?;
        reserved.commit()
    }

    /// Makes all that was written durable (law 8).
    pub fn flush(&self) -> Result<()> {
        if !self.writable {
            return Ok(());
        }
        if let Some(mutator) = &self.mutator {
            return mutator.flush();
        }
        for (source, soil) in self.sources.iter().zip(&self.soil) {
            soil.flush(source.as_ref())?;
        }
        Ok(())
    }
}

/// Zeroes or discards a range of a source that has no map.
fn set_source(source: &dyn Source, offset: u64, len: u64, to: To, mode: SetMode) -> Result<()> {
    let unsupported = |e: &Error| e.kind() == crate::Kind::Unsupported;
    if mode.may_unmap || to == To::Hole {
        match source.punch(offset, len) {
            Err(e) if unsupported(&e) && to == To::Hole => return Ok(()),
            Err(e) if unsupported(&e) => {}
            done => return done,
        }
    }
    source.zero(offset, len, mode.fast_only)
}

/// A reservation that is given back unless it is committed (law 7).
struct Reserved<'m> {
    mutator: &'m dyn ChartMut,
    held: Option<Reservation>,
}

impl<'m> Reserved<'m> {
    /// Holds a reservation for the byte `at`, and gives it back at once where it reaches beyond the range that
    /// is in flight, or misses the byte: nobody else would be kept out of it.
    fn new(m: &'m dyn ChartMut, r: Reservation, at: u64, flight: (u64, u64)) -> Result<Self> {
        let (start, end) = (r.at, r.at.saturating_add(r.len));
        let reserved = Reserved { mutator: m, held: Some(r) };
        if flight.0 <= start && start <= at && at < end && end <= flight.1 {
            return Ok(reserved);
        }
        Err(Error::invalid(format!("bytes {start} to {end} were reserved where byte {at} was asked")))
    }

    fn reservation(&self) -> Result<&Reservation> {
        self.held.as_ref().ok_or_else(|| Error::invalid("a reservation was used after its commit"))
    }

    fn range(&self) -> (u64, u64) {
        self.held.as_ref().map_or((0, 0), |r| (r.at, r.len))
    }

    fn commit(mut self) -> Result<()> {
        match self.held.take() {
            Some(reservation) => self.mutator.commit(reservation),
            None => Ok(()),
        }
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(reservation) = self.held.take() {
            self.mutator.abort(reservation);
        }
    }
}
