//! The system use sharing protocol: fields behind a directory record, and where those go that have no room there.

use super::layout::{Both32, CE_LEN, ER, SECTOR, SP_CHECK, field_head};
use super::number::{to_index, to_u8, to_u32, to_u64};
use zerocopy::IntoBytes;

/// Fields, one behind the other.
#[derive(Default)]
pub(super) struct Fields {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Fields {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Adds a field, whose body is given in parts.
    pub(super) fn push(&mut self, signature: [u8; 2], body: &[&[u8]]) {
        let len = body.iter().fold(0, |len: usize, part| len.saturating_add(part.len()));
        self.bytes.extend_from_slice(&field_head(signature, len));
        for part in body {
            self.bytes.extend_from_slice(part);
        }
        self.ends.push(self.bytes.len());
    }

    /// Says that this protocol is used: the first field of all (SUSP 5.3).
    pub(super) fn push_sp(&mut self) {
        self.push(*b"SP", &[&SP_CHECK, &[0]]);
    }

    /// Says that Rock Ridge is used (SUSP 5.5).
    pub(super) fn push_er(&mut self) {
        let [id, descriptor, source] = ER;
        let lens = [to_u8(id.len()), to_u8(descriptor.len()), to_u8(source.len()), 1];
        self.push(*b"ER", &[&lens, id, descriptor, source]);
    }

    /// The bytes of the fields from one on, up to another.
    fn between(&self, first: usize, end: usize) -> &[u8] {
        self.bytes.get(self.start(first)..self.start(end)).unwrap_or_default()
    }

    /// Where a field begins; where the last ends, behind it.
    fn start(&self, field: usize) -> usize {
        field.checked_sub(1).map_or(0, |before| self.ends.get(before).copied().unwrap_or(self.bytes.len()))
    }

    /// How many fields from one on fit into `room` bytes.
    fn fitting(&self, first: usize, room: usize) -> usize {
        let end = self.start(first).saturating_add(room);
        self.ends.partition_point(|&field| field <= end).max(first)
    }
}

/// The sectors that fields are continued in: one behind the other, as the records come. No area crosses the end of
/// a sector.
#[derive(Clone, Copy, Default)]
pub(super) struct Continuation {
    /// The first of these sectors.
    pub(super) sector: u64,
    /// Where there is room, from there on.
    pub(super) at: u64,
}

/// Some fields in the continuation sectors.
struct Area {
    first: usize,
    end: usize,
    at: u64,
    len: usize,
}

impl Continuation {
    /// Puts fields behind a record where there is `room`, and tells what is put elsewhere: where in the
    /// continuation sectors, and the bytes.
    pub(super) fn pack(
        &mut self,
        fields: &Fields,
        room: usize,
        record: &mut Vec<u8>,
        mut elsewhere: impl FnMut(u64, &[u8]),
    ) {
        if fields.bytes.len() <= room {
            record.extend_from_slice(&fields.bytes);
            return;
        }
        let here = fields.fitting(0, room.saturating_sub(CE_LEN));
        record.extend_from_slice(fields.between(0, here));
        let areas = self.areas(fields, here);
        if let Some(area) = areas.first() {
            record.extend_from_slice(&self.pointer(area));
        }
        let mut next = areas.iter().skip(1);
        for area in &areas {
            let mut bytes = fields.between(area.first, area.end).to_vec();
            if let Some(next) = next.next() {
                bytes.extend_from_slice(&self.pointer(next));
            }
            elsewhere(area.at, &bytes);
        }
    }

    /// Takes room for the fields from one on.
    fn areas(&mut self, fields: &Fields, mut first: usize) -> Vec<Area> {
        let (mut areas, count) = (Vec::new(), fields.ends.len());
        while first < count {
            let rest = fields.between(first, count).len();
            let mut room = SECTOR.saturating_sub(self.at % SECTOR);
            if to_u64(rest) > room {
                self.at = self.at.next_multiple_of(SECTOR);
                room = SECTOR;
            }
            let (end, len) = if to_u64(rest) <= room {
                (count, rest)
            } else {
                let end = fields.fitting(first, to_index(room).saturating_sub(CE_LEN));
                (end, fields.between(first, end).len().saturating_add(CE_LEN))
            };
            areas.push(Area { first, end, at: self.at, len });
            self.at = self.at.saturating_add(to_u64(len));
            first = end;
        }
        areas
    }

    /// A CE field that leads to an area (SUSP 5.1).
    fn pointer(&self, area: &Area) -> [u8; CE_LEN] {
        let block = to_u32(self.sector.saturating_add(area.at / SECTOR));
        let numbers = [block, to_u32(area.at % SECTOR), to_u32(area.len)].map(Both32::from);
        let mut field = [0; CE_LEN];
        let (head, body) = field.split_at_mut(4);
        head.copy_from_slice(&field_head(*b"CE", body.len()));
        body.copy_from_slice(numbers.as_bytes());
        field
    }
}
