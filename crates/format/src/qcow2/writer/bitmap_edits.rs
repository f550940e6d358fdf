//! What `qemu-img bitmap` does: bitmaps added, removed, cleared, switched on and off, and merged.

use super::Writer;
use super::bitmaps::{State, Tracked};
use crate::field::to_u64;
use crate::qcow2::layout::{
    BITMAP_GRANULARITY_BITS, MAX_BITMAP_BYTES, MAX_BITMAP_NAME_BYTES, MAX_BITMAPS, bitmap_flag,
};
use crate::qcow2::track::{Bits, MAX_TRACKED_BYTES};
use crate::qcow2::{Bitmap, DirtyMap, Image};
use chart::{Error, Result};

/// Granules of this size at least, and of that at most, unless the user says otherwise: QEMU's choice.
const DEFAULT_GRANULARITY: std::ops::RangeInclusive<u64> = 4096..=65536;

impl Image {
    /// Adds an empty bitmap. Without a granularity it gets the one QEMU would choose. A disabled one follows no
    /// writes.
    pub fn bitmap_add(&self, name: &str, granularity: Option<u64>, enabled: bool) -> Result<()> {
        let chosen = self.clusters.size().clamp(*DEFAULT_GRANULARITY.start(), *DEFAULT_GRANULARITY.end());
        let granularity = granularity.unwrap_or(chosen);
        let granularity_bits = u8::try_from(granularity.trailing_zeros()).unwrap_or(u8::MAX);
        if !granularity.is_power_of_two() || !BITMAP_GRANULARITY_BITS.contains(&granularity_bits) {
            return Err(Error::invalid(format!(
                "a granularity of {granularity} bytes; powers of two from 512 to 2 GiB are allowed"
            )));
        }
        if name.is_empty() || name.len() > MAX_BITMAP_NAME_BYTES.into() {
            return Err(Error::invalid(format!("a bitmap's name has 1 to {MAX_BITMAP_NAME_BYTES} bytes")));
        }
        let size = self.size();
        let bytes = Bits::bytes_for(size, granularity_bits);
        if bytes == 0 {
            return Err(Error::invalid("a disk of no bytes has no bitmaps"));
        }
        if bytes > MAX_TRACKED_BYTES.min(MAX_BITMAP_BYTES) {
            let what = format!("a bitmap of {bytes} bytes; {MAX_TRACKED_BYTES} are allowed");
            return Err(Error::unsupported(format!("{what}: choose a larger granularity")));
        }
        self.edit_bitmaps(|w| {
            if w.bitmaps.iter().any(|tracked| tracked.entry.name == name) {
                return Err(Error::conflict(format!("there is a bitmap {name:?} already")));
            }
            if enabled && bytes > w.room() {
                let what = "the bitmaps that follow writes would take too much memory";
                return Err(Error::unsupported(format!("{what}: choose a larger granularity")));
            }
            if to_u64(w.bitmaps.len()) >= MAX_BITMAPS.into() {
                return Err(Error::unsupported(format!("an image has at most {MAX_BITMAPS} bitmaps")));
            }
            let entry = Bitmap {
                name: name.to_owned(),
                table_offset: 0,
                table_size: 0,
                flags: if enabled { bitmap_flag::AUTO } else { 0 },
                granularity_bits,
                extra_data: Vec::new(),
            };
            let state = State::Live { bits: Bits::new(size, granularity_bits), changed: true };
            w.bitmaps.push(Tracked { entry, state });
            Ok(())
        })
    }

    /// Removes a bitmap, also an inconsistent one.
    pub fn bitmap_remove(&self, name: &str) -> Result<()> {
        self.edit_bitmaps(|w| {
            let index = index_of(w, name)?;
            w.bitmaps.remove(index);
            Ok(())
        })
    }

    /// Forgets what a bitmap says: from now on nothing is dirty.
    pub fn bitmap_clear(&self, name: &str) -> Result<()> {
        self.edit_bits(name, |bits| {
            bits.set_all(false);
            Ok(())
        })
    }

    /// Lets a bitmap follow all writes from now on.
    pub fn bitmap_enable(&self, name: &str) -> Result<()> {
        self.switch_bitmap(name, true)
    }

    /// Lets a bitmap stay as it is, whatever is written from now on.
    pub fn bitmap_disable(&self, name: &str) -> Result<()> {
        self.switch_bitmap(name, false)
    }

    /// Adds what another bitmap, of a disk of the same size, says is dirty. Its granules may have another size.
    pub fn bitmap_merge(&self, into: &str, from: &DirtyMap) -> Result<()> {
        self.edit_bits(into, |bits| {
            if from.disk_size() != self.size() {
                let what = format!(
                    "a bitmap of a disk of {} bytes cannot be merged into one of {}",
                    from.disk_size(),
                    self.size()
                );
                return Err(Error::invalid(what));
            }
            bits.merge(from);
            Ok(())
        })
    }

    fn switch_bitmap(&self, name: &str, on: bool) -> Result<()> {
        self.edit_bitmaps(|w| {
            let index = index_of(w, name)?;
            if let Some(tracked) = w.bitmaps.get_mut(index) {
                if matches!(tracked.state, State::Kept | State::Lost) {
                    return Err(tracked.refuse("is inconsistent, or cannot be kept true; remove it"));
                }
                tracked.entry.flags &= !bitmap_flag::AUTO;
                tracked.entry.flags |= if on { bitmap_flag::AUTO } else { 0 };
            }
            Ok(())
        })
    }

    fn edit_bits(&self, name: &str, edit: impl FnOnce(&mut Bits) -> Result<()>) -> Result<()> {
        self.edit_bitmaps(|w| {
            let index = index_of(w, name)?;
            self.bring_in(w, index)?;
            if let Some(Tracked { state: State::Live { bits, changed }, .. }) = w.bitmaps.get_mut(index) {
                edit(bits)?;
                *changed = true;
            }
            Ok(())
        })
    }

    /// Edits the bitmaps and stores them, between writes.
    fn edit_bitmaps(&self, edit: impl FnOnce(&mut Writer) -> Result<()>) -> Result<()> {
        if self.version < 3 {
            return Err(Error::unsupported("images of version 2 (compat=0.10) have no bitmaps"));
        }
        let _between = self.between_flushes()?;
        let _frozen = self.freeze()?;
        let mut w = self.writer()?;
        self.stop_in_place()?;
        let edited = self.flush_with(&mut w).and_then(|()| edit(&mut w));
        let done = edited.and_then(|()| {
            let stored = self.close_quietly(&mut w);
            if stored.is_err() {
                // What the disk has now is not what is here: nothing of it can be relied on.
                w.bitmaps.iter_mut().for_each(Tracked::lose);
            }
            stored
        });
        if w.started {
            self.follow(&w)?;
            self.set_in_place(true);
        }
        done.map_err(|e| e.in_path(self.file.name()))
    }
}

fn index_of(w: &Writer, name: &str) -> Result<usize> {
    let found = w.bitmaps.iter().position(|tracked| tracked.entry.name == name);
    found.ok_or_else(|| Error::not_found(format!("no bitmap {name:?}")))
}
