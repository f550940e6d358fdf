//! Rebasing: the same disk over another backing file.
//!
//! What the layer leaves to the images below is compared with what it would find there afterwards, and copied up
//! where that differs. Only when those copies are durable does the header name the other backing file, and it does
//! so in one sector (see `head`). So a crash finds the old chain or the new one, with the same bytes in both.

use crate::field::{to_index, to_u64};
use crate::qcow2::Image;
use crate::qcow2::create::Backing;
use crate::qcow2::layout::{MAX_FORMAT_NAME_BYTES, autoclear, extension};
use chart::{Disk, Error, Result, Wait, both_at, same_place};

/// What is compared at once, unless a cluster is larger.
const PIECE: u64 = 1 << 20;

/// What a rebase moved, in bytes of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rebased {
    /// Copied up, because it reads otherwise below from now on.
    pub copied: u64,
    /// Of what differs: stored as zeros.
    pub zeroed: u64,
    /// Compared by reading.
    pub compared: u64,
}

/// Reads what there is; behind the end are zeros.
fn read(disk: Option<&Disk>, at: u64, buf: &mut [u8]) -> Result<()> {
    buf.fill(0);
    let Some(disk) = disk else { return Ok(()) };
    let held = to_index(disk.len().saturating_sub(at)).min(buf.len());
    match buf.get_mut(..held) {
        Some(part) if !part.is_empty() => disk.read_at(at, part, Wait::Allowed),
        _ => Ok(()),
    }
}

impl Image {
    /// Copies up what `disk`, this image over the images it stands on now, would read otherwise over `new`. Told
    /// now and then how far it is; an error ends it. Nobody may write to any of the disks meanwhile. Not durable
    /// before [`Image::set_backing`].
    pub fn copy_up(
        &self,
        disk: &Disk,
        new: Option<&Disk>,
        tell: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Rebased> {
        if self.header().nb_snapshots > 0 {
            let what = "has internal snapshots, which would read otherwise over another backing file";
            return Err(Error::invalid(format!("{what}; delete them first")).in_path(self.file.name()));
        }
        let piece = to_index(PIECE.max(self.clusters.size()));
        let mut work = CopyUp {
            image: self,
            disk,
            new,
            buffers: [vec![0; piece], vec![0; piece]],
            done: Rebased::default(),
        };
        // Not a `Disk::walk`: it asks for the layer's own answers, not for places, and changes them as it goes.
        let mut at = 0;
        while at < disk.len() {
            tell(at)?;
            let (extent, own) = disk.answer(at, disk.len().saturating_sub(at), Wait::Allowed)?;
            let end = extent.end();
            at = if own { end } else { work.step(at, end)? };
        }
        Ok(work.done)
    }

    /// Names another backing file, or none, at once and durably, and lets nothing else change: bytes that are found
    /// below are those of the other file from now on. The image must be opened again to be read over it.
    pub fn set_backing(&self, backing: Option<&Backing>) -> Result<()> {
        self.set_backing_inner(backing).map_err(|e| e.in_path(self.file.name()))
    }

    fn set_backing_inner(&self, backing: Option<&Backing>) -> Result<()> {
        let _frozen = self.freeze()?;
        let mut w = self.writer()?;
        // What was copied up is durable before anything else is found below.
        self.flush_with(&mut w)?;
        let mut header = self.header().clone();
        if backing.is_some() && header.is_autoclear(autoclear::DATA_FILE_RAW) {
            return Err(Error::invalid(
                "a raw data file holds the whole disk, so there can be no backing file",
            ));
        }
        let format = backing.and_then(|backing| backing.format.clone());
        if let Some(format) = format.as_ref().filter(|f| to_u64(f.len()) > MAX_FORMAT_NAME_BYTES.into()) {
            return Err(Error::invalid(format!("a backing format named {format:?}")));
        }
        header.backing_file = backing.map(|backing| backing.name.clone()).filter(|name| !name.is_empty());
        header.set_extension(extension::BACKING_FORMAT, format.map(String::into_bytes));
        self.switch_header(header)
    }
}

/// A comparison of what is below now and what will be.
struct CopyUp<'a> {
    image: &'a Image,
    disk: &'a Disk,
    new: Option<&'a Disk>,
    buffers: [Vec<u8>; 2],
    done: Rebased,
}

impl CopyUp<'_> {
    /// How far both are in one place from `at` on, or zeros, so that nobody need read them.
    fn same(&self, at: u64, end: u64) -> Result<Option<u64>> {
        let disks = [Some(self.disk), self.new];
        // Not held any longer than this: what is copied up waits for nobody who is pinned.
        let _pins = disks.map(|disk| disk.map(Disk::pin));
        let [old, new] = both_at(disks, at, end.saturating_sub(at))?;
        Ok(same_place(&old, &new).then(|| old.end()))
    }

    /// Does the first part of `[at, end)`, which the layer leaves to those below. Returns where it ends.
    fn step(&mut self, at: u64, end: u64) -> Result<u64> {
        if let Some(same) = self.same(at, end)? {
            return Ok(same);
        }
        let size = self.image.clusters.size();
        let most = PIECE.max(size);
        let stop = at.saturating_sub(at & most.wrapping_sub(1)).saturating_add(most).min(end);
        let len = to_index(stop.saturating_sub(at));
        let [a, b] = &mut self.buffers;
        let (Some(a), Some(b)) = (a.get_mut(..len), b.get_mut(..len)) else { return Ok(stop) };
        read(Some(self.disk), at, a)?;
        read(self.new, at, b)?;
        self.done.compared = self.done.compared.saturating_add(stop.saturating_sub(at));
        let mut from = at;
        while from < stop {
            let to = self.image.clusters.start(from).saturating_add(size).min(stop);
            let range = to_index(from.saturating_sub(at))..to_index(to.saturating_sub(at));
            let [a, b] = &self.buffers;
            if a.get(range.clone()) != b.get(range.clone()) {
                let zero = a.get(range).is_some_and(io::engine::is_zero);
                self.copy(from, to, zero)?;
            }
            from = to;
        }
        Ok(stop)
    }

    fn copy(&mut self, from: u64, to: u64, zero: bool) -> Result<()> {
        let len = to.saturating_sub(from);
        let whole = self.image.clusters.within(from) == 0
            && (self.image.clusters.within(to) == 0 || to == self.disk.len());
        if zero && whole {
            self.done.zeroed = self.done.zeroed.saturating_add(len);
            return self.image.hide_cluster(from);
        }
        let moved = self.disk.fill_up(from, len)?;
        self.done.copied = self.done.copied.saturating_add(moved);
        Ok(())
    }
}
