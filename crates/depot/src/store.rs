//! Where nodes are stored that are not in memory.
//!
//! A node is named by a *number*, and says nowhere where it is stored: a table, itself in the source, leads from the
//! number to its place. So a node can be stored late, or somewhere else, without a change in any node above
//! it, in whatever many versions. In memory is one entry for each [`FANOUT`] numbers.

use crate::packed::{FANOUT, MOST, Page, pack, unpack};
use crate::space::Space;
use chart::{Error, Result, Source, Wait};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Nodes are stored in units of so many bytes.
const UNIT: u64 = 16;
/// The most units a node takes, and one more: how many sizes there are.
const SIZES: usize = MOST / UNIT as usize + 2;
/// Units of a part of the table.
const TABLE_UNITS: usize = FANOUT * 8 / UNIT as usize;
/// The source grows by so much at a time.
const STEP: u64 = 256 << 10;
/// In an entry of the table: below it the units, from it on where they begin.
const UNITS_BITS: u32 = 12;

/// The stored nodes. Changed by one mutator at a time; read by everybody, each node under the lock of its set in the
/// cache, which whoever stores it or gives it up holds too.
pub(crate) struct Store {
    source: Arc<dyn Source>,
    inner: Mutex<Inner>,
}

struct Inner {
    /// By number / FANOUT: the unit where that part of the table begins, and how many of its nodes are stored.
    table: BTreeMap<u64, (u64, u32)>,
    /// By size in units: where free ones are.
    free: Vec<Vec<u64>>,
    end: u64,
    numbers: Space,
    nodes: u64,
    bytes: u64,
}

impl Store {
    pub(crate) fn new(source: Arc<dyn Source>) -> Self {
        let free = vec![Vec::new(); SIZES];
        let numbers = Space::new("nodes of the map");
        let inner = Inner { table: BTreeMap::new(), free, end: 0, numbers, nodes: 0, bytes: 0 };
        Store { source, inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many nodes are stored, in how many bytes.
    pub(crate) fn stored(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.nodes, inner.bytes)
    }

    /// How many nodes there are.
    pub(crate) fn nodes(&self) -> u64 {
        self.lock().numbers.used()
    }

    /// A number for a new node.
    pub(crate) fn number(&self) -> Result<u64> {
        Ok(self.lock().numbers.take(1)?.0)
    }

    /// Where a node's entry in the table is, if its part of the table is there.
    fn entry_at(&self, number: u64) -> Option<u64> {
        let (unit, _) = *self.lock().table.get(&(number / FANOUT as u64))?;
        Some(unit * UNIT + number % FANOUT as u64 * 8)
    }

    /// Where a node is stored, and in how many units; none if it is not.
    fn find(&self, number: u64, wait: Wait) -> Result<Option<(u64, usize)>> {
        let Some(at) = self.entry_at(number) else { return Ok(None) };
        let mut entry = [0; 8];
        self.source.read_at(at, &mut entry, wait)?;
        let entry = u64::from_le_bytes(entry);
        let units = (entry & ((1 << UNITS_BITS) - 1)) as usize;
        if units >= SIZES {
            return Err(Error::corrupt("the table of the map's nodes is damaged").at(at));
        }
        Ok((units > 0).then_some((entry >> UNITS_BITS, units)))
    }

    /// Reads a node. The caller holds its set.
    pub(crate) fn load(&self, number: u64, page: &mut Page, wait: Wait) -> Result<()> {
        let found = self.find(number, wait).map_err(|e| self.blame(e))?;
        let Some((unit, units)) = found else {
            return Err(self.blame(Error::corrupt(format!("node {number} of the map is not there"))));
        };
        let mut bytes = [0; SIZES * UNIT as usize];
        let bytes = &mut bytes[..units * UNIT as usize];
        self.source.read_at(unit * UNIT, bytes, wait).map_err(|e| self.blame(e))?;
        unpack(number, bytes, page).map_err(|e| self.blame(e.at(unit * UNIT)))
    }

    #[cold]
    fn blame(&self, e: Error) -> Error {
        if e.is_would_block() {
            e
        } else {
            e.in_path(self.source.name()).during("reading the map of versions")
        }
    }

    fn take(&self, units: usize) -> Result<u64> {
        let mut inner = self.lock();
        if let Some(unit) = inner.free[units].pop() {
            return Ok(unit);
        }
        // A larger one is cut.
        let larger = (units + 1..SIZES).find(|&size| !inner.free[size].is_empty());
        if let Some((size, unit)) = larger.and_then(|size| Some((size, inner.free[size].pop()?))) {
            inner.free[size - units].push(unit + units as u64);
            return Ok(unit);
        }
        let unit = inner.end;
        let end = (unit + units as u64) * UNIT;
        if self.source.len() < end {
            self.source.set_len(end.next_multiple_of(STEP))?;
        }
        inner.end += units as u64;
        Ok(unit)
    }

    fn give(&self, unit: u64, units: usize) {
        self.lock().free[units].push(unit);
    }

    /// The entry of a node, in a part of the table that is made for it where there is none.
    fn make_entry(&self, number: u64) -> Result<u64> {
        if let Some(at) = self.entry_at(number) {
            return Ok(at);
        }
        let unit = self.take(TABLE_UNITS)?;
        if let Err(e) = self.source.write_at(unit * UNIT, &[0; FANOUT * 8], Wait::Allowed) {
            self.give(unit, TABLE_UNITS);
            return Err(e);
        }
        self.lock().table.insert(number / FANOUT as u64, (unit, 0));
        Ok(unit * UNIT + number % FANOUT as u64 * 8)
    }

    /// Stores a node, in a new place: what was stored of it before is given up. The caller holds its set.
    pub(crate) fn save(&self, number: u64, page: &Page) -> Result<()> {
        self.try_save(number, page)
            .map_err(|e| e.in_path(self.source.name()).during("storing the map of versions"))
    }

    fn try_save(&self, number: u64, page: &Page) -> Result<()> {
        let mut bytes = pack(number, page);
        let units = bytes.len().div_ceil(UNIT as usize);
        bytes.resize(units * UNIT as usize, 0);
        let at = self.make_entry(number)?;
        let old = self.find(number, Wait::Allowed)?;
        let unit = self.take(units)?;
        let entry = (unit << UNITS_BITS | units as u64).to_le_bytes();
        if let Err(e) = self.source.write_at(unit * UNIT, &bytes, Wait::Allowed) {
            self.give(unit, units);
            return Err(e);
        }
        // Where this fails nobody knows which place the table names: neither is used again.
        self.source.write_at(at, &entry, Wait::Allowed)?;
        let mut inner = self.lock();
        inner.bytes += bytes.len() as u64;
        match old {
            Some((unit, units)) => inner.forget(unit, units),
            None => inner.count(number, 1),
        }
        Ok(())
    }

    /// Gives a node up, and its number. The caller holds its set, or is the only one who ever knew it.
    pub(crate) fn free(&self, number: u64) {
        // A table that cannot be read, or written, costs the place: it is not used again.
        if let Some(at) = self.entry_at(number)
            && let Ok(Some((unit, units))) = self.find(number, Wait::Allowed)
        {
            if self.source.write_at(at, &[0; 8], Wait::Allowed).is_err() {
                return;
            }
            let mut inner = self.lock();
            inner.forget(unit, units);
            inner.count(number, -1);
        }
        self.lock().numbers.give(number, 1);
    }
}

impl Inner {
    fn forget(&mut self, unit: u64, units: usize) {
        self.free[units].push(unit);
        self.bytes -= units as u64 * UNIT;
    }

    /// One more or one less is stored. A part of the table in which none is any more goes.
    fn count(&mut self, number: u64, by: i32) {
        self.nodes = self.nodes.saturating_add_signed(by.into());
        let part = number / FANOUT as u64;
        if let Some((unit, count)) = self.table.get_mut(&part) {
            *count = count.saturating_add_signed(by);
            if *count == 0 {
                let unit = *unit;
                self.table.remove(&part);
                self.free[TABLE_UNITS].push(unit);
            }
        }
    }
}
