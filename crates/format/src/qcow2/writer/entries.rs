//! Changing L2 entries, in tables that are the active disk's own.

use super::Writer;
use crate::field::read_vec;
use crate::qcow2::entry::{L2Entry, Meaning};
use crate::qcow2::layout::OFLAG_COPIED;
use crate::qcow2::{Image, L1Entry};
use chart::{Error, Result, Wait};

/// How often room is made for a slice before giving up: once is enough, unless others keep taking it.
const TRIES: usize = 64;

impl Image {
    /// The entry of the cluster that holds `at`, and whether its table is the active disk's own.
    pub(super) fn entry_of(&self, at: u64) -> Result<(L2Entry, bool)> {
        let l1 = self.l1.entry(self.clusters.l1_index(at));
        let Some(table) = l1.table() else { return Ok((L2Entry::default(), true)) };
        let (slice, word) = self.slice_of(table, at);
        let mut words = [0; 2];
        let out = if self.clusters.entry_words() == 2 { &mut words[..] } else { words.split_at_mut(1).0 };
        self.slices.read(self.file.as_ref(), slice, word, out, Wait::Allowed)?;
        let [word, bitmap] = words;
        Ok((L2Entry { word, bitmap }, l1.is_copied()))
    }

    /// The slice of an L2 table that holds the entry for `at`, and the entry's first word in it.
    fn slice_of(&self, table: u64, at: u64) -> (u64, u64) {
        let words = self.clusters.l2_index(at).wrapping_mul(self.clusters.entry_words());
        self.slices.slice_of(table.wrapping_add(words.wrapping_mul(8)))
    }

    /// Sets the entry of the cluster that holds `at`, and lets go of what the old one referred to.
    pub(super) fn replace_entry(&self, w: &mut Writer, at: u64, new: L2Entry) -> Result<()> {
        let table = self.own_table(w, self.clusters.l1_index(at))?;
        let (old, _) = self.entry_of(at)?;
        let (slice, word) = self.slice_of(table, at);
        let both = [new.word, new.bitmap];
        let values = if self.clusters.entry_words() == 2 { &both[..] } else { both.split_at(1).0 };
        for _ in 0..TRIES {
            if !self.slices.ensure(self.file.as_ref(), slice, Wait::Allowed)? {
                // Every slot it could have is dirty: write them, in their turn.
                self.settle(w)?;
                continue;
            }
            if self.slices.store(slice, word, values)? {
                self.let_go(w, old, new);
                return Ok(());
            }
        }
        Err(Error::conflict("no room for an L2 table in memory").at(slice))
    }

    /// The clusters that `old` refers to and `new` does not.
    fn let_go(&self, w: &mut Writer, old: L2Entry, new: L2Entry) {
        if self.has_data_file {
            return;
        }
        let place = |entry: L2Entry| match entry.meaning(self.clusters, false) {
            Meaning::Standard { offset } | Meaning::Zero { kept: Some(offset) } => Some((offset, 1)),
            Meaning::Compressed { offset, stored_len } => {
                let end = offset.saturating_add(stored_len).saturating_sub(1);
                let (first, last) = (self.clusters.index(offset), self.clusters.index(end));
                Some((offset, last.saturating_sub(first).saturating_add(1)))
            }
            Meaning::Unallocated | Meaning::Zero { kept: None } => None,
        };
        if let Some((offset, count)) = place(old)
            && place(new).map(|(offset, _)| offset) != Some(offset)
        {
            w.unmap(self.clusters.index(offset), count);
        }
    }

    /// The L2 table of that number, made or copied if the active disk does not have it for itself.
    fn own_table(&self, w: &mut Writer, index: u64) -> Result<u64> {
        let old = self.l1.entry(index);
        if let (Some(table), true) = (old.table(), old.is_copied()) {
            return Ok(table);
        }
        let size = self.clusters.size();
        let run = w.alloc.allocate(1)?;
        let new = self.clusters.offset(run.first).ok_or_else(|| Error::no_space("the image is full"))?;
        self.slices.invalidate(new, new.saturating_add(size))?;
        match old.table() {
            Some(table) => {
                let bytes = self.table_bytes(table)?;
                self.file.write_at(new, &bytes, Wait::Allowed)?;
                w.unmap(self.clusters.index(table), 1);
                self.mutator()?.guard.remove((self.clusters.index(table), 1));
            }
            None if !run.fresh => io::file::write_zeros(self.file.as_ref(), new, size)?,
            None => {}
        }
        self.mutator()?.guard.add((run.first, 1));
        w.new_tables.insert(new);
        w.dirty_l1.insert(index);
        self.l1.set(index, L1Entry(new | OFLAG_COPIED));
        Ok(new)
    }

    /// A table as it is now. Only shared ones are asked for, which never have dirty slices.
    fn table_bytes(&self, table: u64) -> Result<Vec<u8>> {
        read_vec(self.file.as_ref(), table, self.clusters.size(), "L2 table")
    }
}
