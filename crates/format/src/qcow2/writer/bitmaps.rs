//! Keeping bitmaps true while the image is written.
//!
//! Before the first write every bitmap that follows writes is marked as in use, durably, and its bits are brought
//! into memory. A write, a zeroing or a discard sets them there; what lookups know is in `Marks`. When the image is
//! closed the bits are stored in new clusters, a new directory names them, and the header names the directory: a
//! crash finds the old directory, whose bitmaps are marked as in use and so known to be inconsistent, or the new one.
//! What cannot be followed (too large, not understood) stays marked as in use: never silently out of date.

use super::Writer;
use crate::field::{read_vec, to_index, to_u64};
use crate::qcow2::layout::{BitmapsExtension, OFFSET_MASK, autoclear, bitmap_flag, extension};
use crate::qcow2::track::{Bits, MAX_TRACKED_BYTES};
use crate::qcow2::{Bitmap, DirtyMap, Header, Image, bitmap};
use chart::{Error, Kind, Result, Wait};
use zerocopy::IntoBytes;

/// What is done about a bitmap.
pub(super) enum State {
    /// It was inconsistent, or not understood, before this began: left as it is.
    Kept,
    /// It follows no writes and nobody asked for it: valid, and left as it is.
    Idle,
    /// Its bits are here.
    Live {
        bits: Bits,
        /// They are not those that are stored.
        changed: bool,
    },
    /// It cannot be kept true and stays marked as in use.
    Lost,
}

/// A bitmap of an image that is being written.
pub(super) struct Tracked {
    pub(super) entry: Bitmap,
    pub(super) state: State,
}

impl Tracked {
    /// Its bits, where it follows writes.
    fn followed(&self) -> Option<&Bits> {
        match &self.state {
            State::Live { bits, .. } if self.entry.is_auto() => Some(bits),
            _ => None,
        }
    }

    fn held_bytes(&self) -> u64 {
        match &self.state {
            State::Live { bits, .. } => bits.held_bytes(),
            _ => 0,
        }
    }

    pub(super) fn refuse(&self, why: &str) -> Error {
        Error::conflict(format!("bitmap {:?} {why}", self.entry.name))
    }

    /// It cannot be kept true any more.
    pub(super) fn lose(&mut self) {
        if matches!(self.state, State::Live { .. }) {
            self.state = State::Lost;
        }
    }

    /// The directory entry as long as the image is written.
    fn entry_in_use(&self) -> Bitmap {
        let mut entry = self.entry.clone();
        if matches!(self.state, State::Live { .. } | State::Lost) {
            entry.flags |= bitmap_flag::IN_USE;
        }
        entry
    }

    /// The directory entry when the image is closed, its table apart.
    fn entry_at_rest(&self) -> Bitmap {
        let mut entry = self.entry.clone();
        if matches!(self.state, State::Lost) {
            entry.flags |= bitmap_flag::IN_USE;
        }
        entry
    }
}

impl Writer {
    /// Notes that a range changes, in every bitmap that follows writes.
    pub(super) fn mark(&mut self, image: &Image, at: u64, len: u64) {
        let mut followed = false;
        for tracked in &mut self.bitmaps {
            let auto = tracked.entry.is_auto();
            if let State::Live { bits, changed } = &mut tracked.state
                && auto
            {
                *changed |= bits.set(at, len);
                followed = true;
            }
        }
        if let (true, Some(mutator)) = (followed, &image.mutator) {
            mutator.marks.set(at, len);
        }
    }

    /// So many bytes of bits may still be brought in.
    pub(super) fn room(&self) -> u64 {
        self.bitmaps.iter().fold(MAX_TRACKED_BYTES, |room, tracked| room.saturating_sub(tracked.held_bytes()))
    }
}

impl Image {
    /// Reads the bitmaps and marks those that follow writes as in use, durably. In-place writing is off.
    pub(super) fn start_bitmaps(&self, w: &mut Writer) -> Result<()> {
        let entries = bitmap::read(self.file.as_ref(), &self.header().clone())?;
        w.bitmaps.clear();
        for entry in entries {
            let state = match (entry.is_in_use(), entry.is_auto(), entry.is_usable()) {
                (false, true, _) => self.live(&entry, w.room())?,
                (false, false, true) => State::Idle,
                _ => State::Kept,
            };
            w.bitmaps.push(Tracked { entry, state });
        }
        self.say_in_use(w)?;
        self.follow(w)
    }

    /// Brings a bitmap's bits in, if that can be.
    fn live(&self, entry: &Bitmap, room: u64) -> Result<State> {
        let size = self.size();
        if !entry.is_usable() || Bits::bytes_for(size, entry.granularity_bits) > room {
            return Ok(State::Lost);
        }
        match Bits::read(self.file.as_ref(), self.clusters, entry, size) {
            Ok(bits) => Ok(State::Live { bits, changed: false }),
            Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::Unsupported) => Ok(State::Lost),
            Err(e) => Err(e),
        }
    }

    /// Writes the directory where it is, with bitmaps marked as in use. Only flags change, and those of one bitmap
    /// lie in one sector: whatever part of this survives a crash is a directory.
    fn say_in_use(&self, w: &Writer) -> Result<()> {
        let header = self.header().clone();
        let stored = header.bitmaps().filter(|_| header.is_autoclear(autoclear::BITMAPS));
        let Some(place) = stored else { return Ok(()) };
        let (offset, size) = (place.bitmap_directory_offset.get(), place.bitmap_directory_size.get());
        let entries: Vec<Bitmap> = w.bitmaps.iter().map(Tracked::entry_in_use).collect();
        let new = bitmap::encode(&entries)?;
        if to_u64(new.len()) != size {
            return Err(Error::corrupt("the bitmap directory has bytes between its entries").at(offset));
        }
        if read_vec(self.file.as_ref(), offset, size, "bitmap directory")? == new {
            return Ok(());
        }
        self.file.write_at(offset, &new, Wait::Allowed)?;
        self.file.flush()
    }

    /// Tells lookups which bitmaps to look at. In-place writing is off, and nobody is at it any more.
    pub(super) fn follow(&self, w: &Writer) -> Result<()> {
        let followed: Vec<&Bits> = w.bitmaps.iter().filter_map(Tracked::followed).collect();
        self.mutator()?.marks.follow(&followed);
        Ok(())
    }

    /// Turns in-place writing off and waits for those who are at it.
    pub(super) fn stop_in_place(&self) -> Result<()> {
        self.set_in_place(false);
        let epochs = &self.mutator()?.epochs;
        epochs.wait_over(epochs.now());
        Ok(())
    }

    /// Brings in the bits of all bitmaps, also of those that follow no writes, since the disk is about to have
    /// another size, or other content. Like QEMU, refuses another size where a bitmap is inconsistent already.
    pub(super) fn take_bitmaps(&self, w: &mut Writer, resize: bool) -> Result<()> {
        let inconsistent = w.bitmaps.iter().find(|tracked| matches!(tracked.state, State::Kept));
        if let (true, Some(tracked)) = (resize, inconsistent) {
            let what = format!("bitmap {:?} is inconsistent; remove it, then resize", tracked.entry.name);
            return Err(Error::conflict(what));
        }
        for index in 0..w.bitmaps.len() {
            let room = w.room();
            if let Some(tracked) = w.bitmaps.get_mut(index)
                && matches!(tracked.state, State::Idle)
            {
                tracked.state = self.live(&tracked.entry, room)?;
            }
        }
        self.say_in_use(w)
    }

    /// Brings in the bits of one bitmap, or says why that cannot be.
    pub(super) fn bring_in(&self, w: &mut Writer, index: usize) -> Result<()> {
        let room = w.room();
        let Some(tracked) = w.bitmaps.get_mut(index) else { return Ok(()) };
        if let State::Idle = tracked.state
            && let live @ State::Live { .. } = self.live(&tracked.entry, room)?
        {
            tracked.state = live;
        }
        match tracked.state {
            State::Live { .. } => Ok(()),
            State::Kept => Err(tracked.refuse("is inconsistent, or not understood; remove it")),
            State::Idle | State::Lost => Err(tracked.refuse("is too large, or too damaged, to be changed")),
        }
    }

    /// Makes the bitmaps those of a disk of `size` bytes; with `all`, of one with other content throughout.
    pub(super) fn fit_bitmaps(&self, w: &mut Writer, size: u64, all: bool) -> Result<()> {
        if !w.bitmaps.iter().any(|tracked| matches!(tracked.state, State::Live { .. })) {
            return Ok(());
        }
        let mut room = MAX_TRACKED_BYTES;
        for tracked in &mut w.bitmaps {
            let auto = tracked.entry.is_auto();
            let State::Live { bits, changed } = &mut tracked.state else { continue };
            let need = Bits::bytes_for(size, tracked.entry.granularity_bits);
            // Of a disk of no bytes there is no bitmap.
            if need > room || need == 0 {
                tracked.state = State::Lost;
                continue;
            }
            room = room.saturating_sub(need);
            bits.resize(size);
            if all && auto {
                bits.set_all(true);
            }
            *changed = true;
        }
        self.follow(w)
    }

    /// The same while the image is being written.
    pub(super) fn refit_bitmaps(&self, w: &mut Writer, size: u64) -> Result<()> {
        if w.bitmaps.is_empty() {
            return Ok(());
        }
        self.stop_in_place()?;
        let done = self.fit_bitmaps(w, size, false);
        self.set_in_place(true);
        done
    }

    /// Stores the bitmaps, all of them valid then but for those that could not be kept true, and follows them no
    /// more: the next write begins anew. In-place writing is off, and nobody is at it any more.
    pub(super) fn rest_bitmaps(&self, w: &mut Writer) -> Result<()> {
        let header = self.header().clone();
        let stored = bitmap::read(self.file.as_ref(), &header)?;
        let mut taken = Vec::new();
        if let Err(e) = self.store_bitmaps(w, &header, &stored, &mut taken) {
            for (first, count) in taken {
                // What cannot be given back now is a leak, which a check finds.
                let _ = w.alloc.give_back(first, count);
            }
            return Err(e);
        }
        w.bitmaps.clear();
        w.started = false;
        self.follow(w)
    }

    fn store_bitmaps(
        &self,
        w: &mut Writer,
        header: &Header,
        stored: &[Bitmap],
        taken: &mut Vec<(u64, u64)>,
    ) -> Result<()> {
        let mut entries = Vec::with_capacity(w.bitmaps.len());
        for index in 0..w.bitmaps.len() {
            let bitmaps = std::mem::take(&mut w.bitmaps);
            let entry = bitmaps.get(index).map(|tracked| self.store_bits(w, tracked, taken)).transpose();
            w.bitmaps = bitmaps;
            entries.extend(entry?);
        }
        if entries == stored {
            return Ok(());
        }
        let named = self.store_directory(w, &entries, taken)?;
        // All that the header is about to name is durable, and counted. This may change the header.
        self.flush_with(w)?;
        let mut new = self.header().clone();
        new.autoclear_features &= !autoclear::BITMAPS;
        new.autoclear_features |= if named.is_some() { autoclear::BITMAPS } else { 0 };
        new.set_extension(extension::BITMAPS, named.map(|named| named.as_bytes().to_vec()));
        self.switch_header(new)?;
        self.let_old_go(w, header, stored, &entries)?;
        self.flush_with(w)
    }

    /// Writes the directory to a new place. What the header will say of it, if there is anything to say.
    fn store_directory(
        &self,
        w: &mut Writer,
        entries: &[Bitmap],
        taken: &mut Vec<(u64, u64)>,
    ) -> Result<Option<BitmapsExtension>> {
        if entries.is_empty() {
            return Ok(None);
        }
        let directory = bitmap::encode(entries)?;
        let offset = self.place(w, to_u64(directory.len()), taken)?;
        self.file.write_at(offset, &directory, Wait::Allowed)?;
        let count = u32::try_from(entries.len()).map_err(|_| Error::unsupported("too many bitmaps"))?;
        Ok(Some(BitmapsExtension {
            nb_bitmaps: count.into(),
            reserved: 0.into(),
            bitmap_directory_size: to_u64(directory.len()).into(),
            bitmap_directory_offset: offset.into(),
        }))
    }

    /// Writes a bitmap's bits, where they have changed. Its entry.
    fn store_bits(&self, w: &mut Writer, tracked: &Tracked, taken: &mut Vec<(u64, u64)>) -> Result<Bitmap> {
        let mut entry = tracked.entry_at_rest();
        let State::Live { bits, changed: true } = &tracked.state else { return Ok(entry) };
        let count = bits.clusters(self.clusters);
        let mut table = Vec::with_capacity(to_index(count));
        for index in 0..count {
            table.push(match bits.cluster(self.clusters, index) {
                // A bit says that all are set; 0 that none is.
                Err(all) => u64::from(all),
                Ok(bytes) => {
                    let offset = self.place(w, to_u64(bytes.len()), taken)?;
                    self.file.write_at(offset, &bytes, Wait::Allowed)?;
                    offset
                }
            });
        }
        let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        entry.table_offset = self.place(w, to_u64(bytes.len()), taken)?;
        entry.table_size = u32::try_from(count).map_err(|_| Error::unsupported("a bitmap is too large"))?;
        self.file.write_at(entry.table_offset, &bytes, Wait::Allowed)?;
        Ok(entry)
    }

    /// A place of so many bytes, in one piece.
    fn place(&self, w: &mut Writer, bytes: u64, taken: &mut Vec<(u64, u64)>) -> Result<u64> {
        let count = self.clusters.count(bytes).max(1);
        let mut run = w.alloc.allocate(count)?;
        if run.count < count {
            w.alloc.give_back(run.first, run.count)?;
            run = w.alloc.allocate_whole(count)?;
        }
        taken.push((run.first, run.count));
        self.clusters.offset(run.first).ok_or_else(|| Error::no_space("the image is full"))
    }

    /// What only the old directory refers to.
    fn let_old_go(&self, w: &mut Writer, old: &Header, stored: &[Bitmap], new: &[Bitmap]) -> Result<()> {
        let Some(place) = old.bitmaps().filter(|_| !stored.is_empty()) else { return Ok(()) };
        let (offset, size) = (place.bitmap_directory_offset.get(), place.bitmap_directory_size.get());
        self.unguard(offset, size)?;
        self.let_run_go(w, offset, size);
        for bitmap in stored.iter().filter(|old| !new.iter().any(|new| new.table_offset == old.table_offset))
        {
            let table = match bitmap.read_table(self.file.as_ref(), self.clusters) {
                Ok(table) => table,
                // Nobody knows what it referred to: that is a leak, which a check finds.
                Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::Unsupported) => continue,
                Err(e) => return Err(e),
            };
            let bytes = u64::from(bitmap.table_size).saturating_mul(8);
            self.unguard(bitmap.table_offset, bytes)?;
            self.let_run_go(w, bitmap.table_offset, bytes);
            for entry in table {
                self.let_run_go(w, entry & OFFSET_MASK, 1);
            }
        }
        Ok(())
    }

    fn unguard(&self, offset: u64, bytes: u64) -> Result<()> {
        self.mutator()?.guard.remove((self.clusters.index(offset), self.clusters.count(bytes)));
        Ok(())
    }

    /// Lets go of the clusters of some bytes, unless a hostile image calls the header or its main tables a bitmap.
    fn let_run_go(&self, w: &mut Writer, offset: u64, bytes: u64) {
        let first = self.clusters.index(offset);
        for cluster in first..first.saturating_add(self.clusters.count(bytes)) {
            if cluster != 0 && !self.reserved.iter().any(|tables| tables.holds(cluster)) {
                w.unmap(cluster, 1);
            }
        }
    }

    /// What a bitmap says: from memory, while it follows writes. The caller holds no pin on this disk (law 9).
    pub fn dirty_map(&self, name: &str) -> Result<DirtyMap> {
        if self.mutator.is_some() {
            let w = self.writer()?;
            let tracked = w.bitmaps.iter().find(|tracked| tracked.entry.name == name);
            match tracked.map(|tracked| (&tracked.entry, &tracked.state)) {
                Some((entry, State::Live { bits, .. })) => {
                    return Ok(DirtyMap::of_bits(self.size(), entry.granularity(), bits.to_bytes()));
                }
                Some((_, State::Lost)) => {
                    let what = format!("bitmap {name:?} is too large, or too odd, to be kept true");
                    return Err(Error::conflict(what).in_path(self.file.name()));
                }
                _ => {}
            }
        }
        let bitmaps = self.bitmaps()?;
        let found = bitmap::find(&bitmaps, name)
            .and_then(|bitmap| bitmap.load(self.file.as_ref(), self.clusters, self.header().size));
        found.map_err(|e| e.in_path(self.file.name()))
    }
}
