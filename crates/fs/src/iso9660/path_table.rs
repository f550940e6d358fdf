//! Path tables: all directories with the numbers of their parents, in both byte orders.

use super::arrange::{Arrangement, Directory};
use super::layout::{MAX_PARENTS, PathTableRecord, SECTOR, SELF};
use super::number::{to_index, to_u8, to_u32, to_u64};
use io::tree::Tree;
use zerocopy::IntoBytes;

/// In which order the bytes of numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Type L.
    Little,
    /// Type M.
    Big,
}

/// What is kept of a path table.
pub(super) struct PathTable {
    /// How many bytes it has.
    pub(super) len: u64,
    /// How many directories are in it: those that have a parent whose number 16 bits can tell.
    count: u32,
    /// For every sector, the directory whose record holds its first byte, and where that record begins.
    starts: Vec<(u32, u64)>,
}

impl PathTable {
    pub(super) fn of(tree: &Tree, arrangement: &Arrangement) -> PathTable {
        let mut table = PathTable { len: 0, count: 0, starts: Vec::new() };
        let mut identifier = Vec::new();
        for (number, directory) in (0..).zip(&arrangement.directories) {
            if directory.parent >= MAX_PARENTS {
                break;
            }
            identify(tree, arrangement, number, directory, &mut identifier);
            let end = table.len.saturating_add(to_u64(record_len(&identifier)));
            while to_u64(table.starts.len()).saturating_mul(SECTOR) < end {
                table.starts.push((number, table.len));
            }
            (table.len, table.count) = (end, number.saturating_add(1));
        }
        table
    }

    /// How many sectors it takes.
    pub(super) fn sectors(&self) -> u64 {
        to_u64(self.starts.len())
    }

    /// Fills one of its sectors. `first` is the first sector of the directories.
    pub(super) fn fill(
        &self,
        (tree, arrangement): (&Tree, &Arrangement),
        order: Order,
        first: u64,
        sector: u64,
        out: &mut [u8],
    ) {
        let Some(&(number, at)) = self.starts.get(to_index(sector)) else { return };
        let skip = to_index(sector.saturating_mul(SECTOR).saturating_sub(at));
        let (mut bytes, mut identifier) = (Vec::new(), Vec::new());
        for number in number..self.count {
            let Some(directory) = arrangement.directories.get(to_index(number)) else { break };
            identify(tree, arrangement, number, directory, &mut identifier);
            push(&mut bytes, order, first, directory, &identifier);
            if bytes.len() >= skip.saturating_add(out.len()) {
                break;
            }
        }
        let bytes = bytes.get(skip..).unwrap_or_default();
        out.iter_mut().zip(bytes).for_each(|(to, &from)| *to = from);
    }
}

fn identify(tree: &Tree, all: &Arrangement, number: u32, directory: &Directory, out: &mut Vec<u8>) {
    out.clear();
    if number == 0 {
        out.extend_from_slice(SELF);
    } else {
        all.identify(tree, directory.node, true, out);
    }
}

fn record_len(identifier: &[u8]) -> usize {
    size_of::<PathTableRecord>().saturating_add(identifier.len()).next_multiple_of(2)
}

fn push(bytes: &mut Vec<u8>, order: Order, first: u64, directory: &Directory, identifier: &[u8]) {
    let end = bytes.len().saturating_add(record_len(identifier));
    let sector = to_u32(first.saturating_add(directory.sector.into()));
    let parent = u16::try_from(directory.parent.saturating_add(1)).unwrap_or(u16::MAX);
    let (location_of_extent, parent_directory_number) = match order {
        Order::Little => (sector.to_le_bytes(), parent.to_le_bytes()),
        Order::Big => (sector.to_be_bytes(), parent.to_be_bytes()),
    };
    let record = PathTableRecord {
        length_of_directory_identifier: to_u8(identifier.len()),
        extended_attribute_record_length: 0,
        location_of_extent,
        parent_directory_number,
    };
    bytes.extend_from_slice(record.as_bytes());
    bytes.extend_from_slice(identifier);
    bytes.resize(end, 0);
}
