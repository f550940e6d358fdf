//! Space: which numbers of a range are in use.

use crate::word::{FIRST, VALUES};
use chart::{Error, Kind, Result};
use std::collections::BTreeMap;

/// So many free runs are looked at for one that is long enough.
const LOOKS: usize = 16;

/// Blocks of a source, or numbers of nodes: given out in runs, taken back in runs.
pub(crate) struct Space {
    /// What they are, for who is told that there are no more.
    what: &'static str,
    /// By beginning: how long. Neighbours are one.
    free: BTreeMap<u64, u64>,
    /// From here on none was ever given out.
    end: u64,
    used: u64,
}

impl Space {
    pub(crate) fn new(what: &'static str) -> Self {
        Space { what, free: BTreeMap::new(), end: FIRST, used: 0 }
    }

    /// One past the last that was ever given out.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// How many are in use.
    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// A run of at most `most`: where it begins, how long it is.
    pub(crate) fn take(&mut self, most: u64) -> Result<(u64, u64)> {
        let long = self.free.iter().take(LOOKS).find(|&(_, &len)| len >= most);
        let found = long.or_else(|| self.free.first_key_value()).map(|(&start, &len)| (start, len));
        if let Some((start, len)) = found {
            self.free.remove(&start);
            let now = len.min(most);
            if now < len {
                self.free.insert(start + now, len - now);
            }
            self.used += now;
            return Ok((start, now));
        }
        let now = most.min(VALUES - self.end);
        if now == 0 {
            return Err(Error::new(Kind::NoSpace, format!("all {VALUES} {} are in use", self.what)));
        }
        self.end += now;
        self.used += now;
        Ok((self.end - now, now))
    }

    /// Takes a run back.
    pub(crate) fn give(&mut self, start: u64, len: u64) {
        let (mut start, mut long) = (start, len);
        if let Some((&before, &len)) = self.free.range(..start).next_back()
            && before + len == start
        {
            self.free.remove(&before);
            (start, long) = (before, long + len);
        }
        if let Some(behind) = self.free.remove(&(start + long)) {
            long += behind;
        }
        self.free.insert(start, long);
        self.used = self.used.saturating_sub(len);
    }
}
