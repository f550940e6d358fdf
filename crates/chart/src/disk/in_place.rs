//! Writing where the bytes live already, as a whole and without waiting for a map.

use super::Disk;
use crate::{Backing, Error, Place, Result, Source, SourceId, Wait, check_range};

/// A part of a write, and where it goes: true as long as the pin is held that it was found under.
struct Part<'d> {
    at: u64,
    len: usize,
    source: &'d dyn Source,
    offset: u64,
}

/// All parts of a write, and what it dirties on the way, disk by disk.
#[derive(Default)]
struct Parts<'d> {
    parts: Vec<Part<'d>>,
    soiled: Vec<(&'d Disk, SourceId)>,
}

impl Disk {
    /// Writes `buf` only if all of it goes straight to where it lives already, found without waiting. The write
    /// itself may wait: for a connection's own thread, under its policy. `WouldBlock` if not, and then nothing was
    /// written.
    pub fn overwrite_at(&self, at: u64, buf: &[u8]) -> Result<()> {
        self.mutable()?;
        check_range(self.len(), at, buf.len() as u64)?;
        // On every disk below as well. What was found writable stays so until this is dropped, though another look
        // may find it not writable any more: whoever makes it so waits for this pin (law 3), so it is not looked up
        // again, and nothing here waits for a mutator, which is what a writer with such a pin must not do (law 9).
        let _pin = self.pin();
        let mut found = Parts::default();
        self.find_in_place(at, at, buf.len() as u64, &mut found)?;
        let mut rest = buf;
        for part in &found.parts {
            let (now, behind) = rest.split_at(part.len);
            let written = part.source.write_at(part.offset, now, Wait::Allowed);
            if let Err(e) = written {
                found.soil();
                return Err(self.blame(part.at, part.len, e));
            }
            rest = behind;
        }
        found.soil();
        Ok(())
    }

    /// Finds where a range can be written in place, through every disk below. `origin` is where it begins in the
    /// disk that is written.
    fn find_in_place<'d>(&'d self, origin: u64, at: u64, len: u64, found: &mut Parts<'d>) -> Result<()> {
        let mut done = 0;
        while done < len {
            let extent = self.chart_extent_of(at + done, len - done, Wait::Never)?;
            let (Place::Raw { source, offset }, true) = (extent.place, self.is_writable() && extent.writable)
            else {
                return Err(Error::WOULD_BLOCK);
            };
            let target = self.source(source)?.as_ref();
            let now = extent.len.min(len - done);
            found.soiled.push((self, source));
            match target.backing() {
                Backing::Disk(inner) => {
                    check_range(inner.len(), offset, now).map_err(|e| self.blame(at + done, 1, e))?;
                    inner.find_in_place(origin + done, offset, now, found)?;
                }
                _ => {
                    let len = usize::try_from(now).unwrap_or(usize::MAX);
                    found.parts.push(Part { at: origin + done, len, source: target, offset });
                }
            }
            done += now;
        }
        Ok(())
    }
}

impl Parts<'_> {
    /// To be called when the writes have returned, done or not.
    fn soil(&self) {
        self.soiled.iter().for_each(|(disk, source)| disk.soil(*source));
    }
}
