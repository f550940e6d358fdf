//! The nodes of all maps: those in memory, and those that are stored.

use crate::cache::{Cache, Held, Slot};
use crate::packed::{FANOUT, Page};
use crate::store::Store;
use chart::{Result, Source, Wait};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Read by everybody at any time; changed by one mutator at a time, who holds the history's lock.
pub(crate) struct Nodes {
    cache: Cache,
    store: Store,
    loads: AtomicU64,
}

impl Nodes {
    pub(crate) fn new(source: Arc<dyn Source>, cache_bytes: usize) -> Self {
        Nodes { cache: Cache::new(cache_bytes), store: Store::new(source), loads: AtomicU64::new(0) }
    }

    pub(crate) fn cache_bytes(&self) -> u64 {
        self.cache.bytes()
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// How often a node had to be read from where it is stored.
    pub(crate) fn loads(&self) -> u64 {
        self.loads.load(Relaxed)
    }

    /// Reads words of a node from its word `first` on.
    #[inline]
    pub(crate) fn read(&self, number: u64, first: usize, out: &mut [u64], wait: Wait) -> Result<()> {
        if self.cache.peek(number, first, out) { Ok(()) } else { self.read_slow(number, first, out, wait) }
    }

    #[cold]
    fn read_slow(&self, number: u64, first: usize, out: &mut [u64], wait: Wait) -> Result<()> {
        let mut held = self.cache.hold(number, wait)?;
        // Under the lock nothing comes or goes: what is found now is there.
        let mut page = [0; FANOUT];
        if let Some(slot) = held.find(number) {
            held.page(slot, &mut page);
        } else {
            self.loads.fetch_add(1, Relaxed);
            self.store.load(number, &mut page, wait)?;
            // Where all are dirty it is read past the cache: a reader stores nothing.
            if let Some(slot) = held.clean() {
                held.put(slot, number, &page, false);
            }
        }
        out.copy_from_slice(&page[first..first + out.len()]);
        Ok(())
    }

    /// One word.
    #[inline]
    pub(crate) fn word(&self, number: u64, index: usize, wait: Wait) -> Result<u64> {
        if let Some(word) = self.cache.peek_word(number, index) {
            return Ok(word);
        }
        let mut word = [0];
        self.read_slow(number, index, &mut word, wait)?;
        Ok(word[0])
    }

    /// A whole node.
    pub(crate) fn page(&self, number: u64) -> Result<Box<Page>> {
        let mut page = Box::new([0; FANOUT]);
        self.read(number, 0, page.as_mut_slice(), Wait::Allowed)?;
        Ok(page)
    }

    /// A slot for another node; who was in it is stored where it must be.
    fn room(&self, held: &mut Held<'_>) -> Result<Slot> {
        let slot = held.any();
        if held.is_dirty(slot) {
            self.save(held, slot)?;
        }
        Ok(slot)
    }

    fn save(&self, held: &Held<'_>, slot: Slot) -> Result<()> {
        let mut page = [0; FANOUT];
        held.page(slot, &mut page);
        self.store.save(held.number(slot), &page)?;
        held.mark(slot, false);
        Ok(())
    }

    /// Changes words of a node, which nobody but the one head sees that it belongs to.
    pub(crate) fn write(&self, number: u64, first: usize, words: &[u64]) -> Result<()> {
        let mut held = self.cache.hold(number, Wait::Allowed)?;
        let slot = match held.find(number) {
            Some(slot) => slot,
            None => {
                let mut page = [0; FANOUT];
                self.loads.fetch_add(1, Relaxed);
                self.store.load(number, &mut page, Wait::Allowed)?;
                let slot = self.room(&mut held)?;
                held.put(slot, number, &page, false);
                slot
            }
        };
        held.store(slot, first, words);
        Ok(())
    }

    /// A new node, which nobody sees yet.
    pub(crate) fn create(&self, page: &Page) -> Result<u64> {
        let number = self.store.number()?;
        let put = || -> Result<()> {
            let mut held = self.cache.hold(number, Wait::Allowed)?;
            let slot = self.room(&mut held)?;
            held.put(slot, number, page, true);
            Ok(())
        };
        match put() {
            Ok(()) => Ok(number),
            Err(e) => {
                self.free(number);
                Err(e)
            }
        }
    }

    /// Gives up a node that nobody sees any more.
    pub(crate) fn free(&self, number: u64) {
        let held = self.cache.hold(number, Wait::Allowed);
        if let Ok(held) = &held
            && let Some(slot) = held.find(number)
        {
            held.clear(slot);
        }
        self.store.free(number);
    }

    /// Stores all that is not, and takes everything out of memory.
    pub(crate) fn evict(&self) -> Result<()> {
        for held in self.cache.each() {
            for slot in held.full() {
                if held.is_dirty(slot) {
                    self.save(&held, slot)?;
                }
                held.clear(slot);
            }
        }
        Ok(())
    }
}
