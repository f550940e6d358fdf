//! Changing the header so that a crash finds the old one or the new one.
//!
//! A disk writes a sector of 512 bytes as one, and nothing larger. The header is longer than that: its extensions
//! and the backing file's name reach into further sectors of the first cluster. So a new header is laid out such
//! that its first sector decides: what lies in further sectors is written first, to where the old header does not
//! look, and made durable; then the first sector is written, which looks there instead. Name, format and feature
//! bits so change at once.
//!
//! Where the old header looks everywhere the new one would have to, the table of feature names, which is a
//! courtesy, makes room: it is left out in a first step and, if there is a place for it, comes back in a second.

use crate::field::{to_index, to_u64};
use crate::qcow2::layout::{MAX_BACKING_NAME_BYTES, extension};
use crate::qcow2::{Header, Image};
use chart::{Error, Result, Wait};
use std::sync::PoisonError;

/// What a disk writes as one.
const SECTOR: usize = 512;

/// The backing file's name and its place, as the header has them.
const NAME_FIELDS: std::ops::Range<usize> = 8..20;

/// A header as it would be on disk: its fields and extensions, and the backing file's name somewhere behind.
struct Laid {
    area: Vec<u8>,
    name: Option<(usize, Vec<u8>)>,
}

/// What the header on disk refers to, in bytes of the first cluster.
struct Old {
    bytes: Vec<u8>,
    area: usize,
    name: Option<std::ops::Range<usize>>,
}

impl Old {
    fn read(image: &Image, header: &Header, need: usize) -> Result<Old> {
        let area = header.encode_area().len();
        let cluster = to_index(image.clusters.size());
        let mut fixed = [0; NAME_FIELDS.end];
        image.file.read_at(0, &mut fixed, Wait::Allowed)?;
        let field = |range: std::ops::Range<usize>| {
            let bytes = fixed.get(range).unwrap_or_default();
            to_index(bytes.iter().fold(0, |n: u64, byte| n << 8 | u64::from(*byte)))
        };
        let (offset, size) = (field(8..16), field(16..20));
        let name = (offset > 0 && size > 0).then(|| offset..offset.saturating_add(size));
        // All that either header may touch.
        let end = need.max(area).max(name.as_ref().map_or(0, |name| name.end)).saturating_add(4 * SECTOR);
        let mut bytes = vec![0; end.min(cluster).min(to_index(image.file.len()))];
        image.file.read_at(0, &mut bytes, Wait::Allowed)?;
        Ok(Old { bytes, area, name })
    }

    /// Whether it looks at some of these bytes, other than those in the first sector.
    fn looks_at(&self, start: usize, end: usize) -> bool {
        let start = start.max(SECTOR);
        let touches = |from: usize, to: usize| start < end && from < end && start < to;
        touches(0, self.area) || self.name.as_ref().is_some_and(|name| touches(name.start, name.end))
    }

    fn end(&self) -> usize {
        self.area.max(self.name.as_ref().map_or(0, |name| name.end))
    }

    /// What would be there if `laid` were written over it.
    fn with(&self, laid: &Laid) -> Option<Vec<u8>> {
        let mut bytes = self.bytes.clone();
        let mut area = laid.area.clone();
        let (offset, size) = match &laid.name {
            Some((offset, name)) => (to_u64(*offset), u32::try_from(name.len()).ok()?),
            None => (0, 0),
        };
        area.get_mut(8..16)?.copy_from_slice(&offset.to_be_bytes());
        area.get_mut(16..20)?.copy_from_slice(&size.to_be_bytes());
        bytes.get_mut(..area.len())?.copy_from_slice(&area);
        if let Some((offset, name)) = &laid.name {
            bytes.get_mut(*offset..offset.checked_add(name.len())?)?.copy_from_slice(name);
        }
        Some(bytes)
    }
}

/// The sectors in which two stretches differ.
fn differing(old: &[u8], new: &[u8]) -> Vec<usize> {
    let sectors = old.chunks(SECTOR).zip(new.chunks(SECTOR)).enumerate();
    sectors.filter(|(_, (old, new))| old != new).map(|(index, _)| index).collect()
}

impl Image {
    /// Makes the header say what `new` says.
    pub(super) fn switch_header(&self, new: Header) -> Result<()> {
        let name = new.backing_file.as_ref().map_or(0, String::len);
        if name > to_index(MAX_BACKING_NAME_BYTES.into()) {
            let what = format!("a backing file name of {name} bytes; {MAX_BACKING_NAME_BYTES} are allowed");
            return Err(Error::invalid(what));
        }
        let mut last = new.clone();
        let names = last.extensions.iter().position(|e| e.kind == extension::FEATURE_NAMES);
        if let Some(names) = names.map(|i| last.extensions.remove(i)) {
            last.extensions.push(names);
        }
        if self.try_switch(&new, 0)? || (last != new && self.try_switch(&last, 0)?) {
            return Ok(());
        }
        let mut short = new;
        short.set_extension(extension::FEATURE_NAMES, None);
        // Far enough behind that there is room for the feature names again.
        let room = last.encode_area().len();
        if !self.try_switch(&short, room)? && !self.try_switch(&short, 0)? {
            let what = "the header has no room for this change: it must fit into the first 512 bytes, but for the \
                        backing file's name, and the first cluster must hold the old name and the new one";
            return Err(Error::unsupported(what).in_path(self.file.name()));
        }
        if names.is_some() {
            // Only a courtesy: where there is no place for them, they stay away.
            self.try_switch(&last, 0)?;
        }
        Ok(())
    }

    /// Makes the header say what `new` says, with the name `room` bytes behind the beginning or further, if that
    /// can be done at once. Whether it could.
    fn try_switch(&self, new: &Header, room: usize) -> Result<bool> {
        let area = new.encode_area();
        let name = new.backing_file.as_ref().map(String::as_bytes);
        let header = self.header().clone();
        let need = area.len().max(room).saturating_add(name.map_or(0, <[u8]>::len));
        let old = Old::read(self, &header, need)?;
        for offset in places(&old, &area, name, room) {
            let laid = Laid { area: area.clone(), name: name.map(|name| (offset, name.to_vec())) };
            let Some(bytes) = old.with(&laid) else { continue };
            if self.write_header(&old, &laid, &bytes)? {
                *self.header.write().unwrap_or_else(PoisonError::into_inner) = new.clone();
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn write_header(&self, old: &Old, laid: &Laid, bytes: &[u8]) -> Result<bool> {
        let sectors = differing(&old.bytes, bytes);
        let write = |sector: usize| {
            let start = sector.saturating_mul(SECTOR);
            let part = bytes.get(start..start.saturating_add(SECTOR).min(bytes.len())).unwrap_or_default();
            self.file.write_at(to_u64(start), part, Wait::Allowed)
        };
        // One sector changes at once wherever it is.
        if let [] | [_] = sectors.as_slice() {
            sectors.into_iter().try_for_each(write)?;
            self.file.flush()?;
            return Ok(true);
        }
        let name_fits = laid.name.as_ref().is_none_or(|(offset, name)| {
            let end = offset.saturating_add(name.len());
            let same = old.bytes.get(*offset..end) == Some(name.as_slice());
            same || !old.looks_at(*offset, end)
        });
        let area_same =
            old.bytes.get(SECTOR..laid.area.len().max(SECTOR)) == laid.area.get(SECTOR..).or(Some(&[]));
        if !name_fits || (!area_same && old.looks_at(SECTOR, laid.area.len())) {
            return Ok(false);
        }
        sectors.iter().filter(|&&sector| sector > 0).try_for_each(|&sector| write(sector))?;
        self.file.flush()?;
        write(0)?;
        self.file.flush()?;
        Ok(true)
    }

    /// Writes the header's fields, which all lie in the first sector, and leaves its extensions and the backing
    /// file's name as they are.
    pub(super) fn write_fields(&self, header: &Header) -> Result<()> {
        let mut sector = [0; SECTOR];
        self.file.read_at(0, &mut sector, Wait::Allowed)?;
        let mut fields = header.encode_fixed();
        fields.truncate(SECTOR);
        let (name, kept) = (fields.get_mut(NAME_FIELDS), sector.get(NAME_FIELDS));
        if let (Some(name), Some(kept)) = (name, kept) {
            name.copy_from_slice(kept);
        }
        if let Some(head) = sector.get_mut(..fields.len()) {
            head.copy_from_slice(&fields);
        }
        self.file.write_at(0, &sector, Wait::Allowed)?;
        self.file.flush()
    }
}

/// Where the backing file's name may be: where it is, if it stays the same; right behind the extensions; behind all
/// that the old header looks at.
fn places(old: &Old, area: &[u8], name: Option<&[u8]>, room: usize) -> Vec<usize> {
    let Some(name) = name else { return vec![0] };
    let least = area.len().max(room);
    let kept = old.name.clone().filter(|at| at.start >= least && old.bytes.get(at.clone()) == Some(name));
    let behind = old.end().max(least).max(SECTOR).next_multiple_of(8);
    kept.map(|at| at.start).into_iter().chain([least, behind]).collect()
}
