//! The two buffers of a connection's thread, which are never cleared between requests.

use super::means::Means;
use std::sync::Arc;

/// With how much room for what is received a connection begins. It grows to what is wanted where that was too little.
const BEGINNING: usize = 8 << 10;

/// Replies under way: headers and data, one after another. The memory is the pool's, and goes back with the replies.
pub(super) struct Output {
    /// All of it initialised, so that room in it costs nothing the second time.
    bytes: Vec<u8>,
    used: usize,
    head: Vec<u8>,
    means: Arc<Means>,
}

impl Output {
    /// With nothing in it.
    pub(super) fn new(means: &Arc<Means>) -> Self {
        Output { bytes: Vec::new(), used: 0, head: Vec::new(), means: Arc::clone(means) }
    }

    /// How much is in it.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// Forgets what came after it was `len` long.
    pub(super) fn cut(&mut self, len: usize) {
        self.used = self.used.min(len);
    }

    /// What is in it.
    pub(super) fn filled(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }

    /// The next `len` bytes, to be written by the caller: they hold anything now.
    pub(super) fn room(&mut self, len: usize) -> &mut [u8] {
        let (from, to) = (self.used, self.used.saturating_add(len));
        if self.bytes.len() < to {
            self.grow(to);
        }
        self.used = to;
        self.bytes.get_mut(from..to).unwrap_or_default()
    }

    #[cold]
    fn grow(&mut self, len: usize) {
        let mut larger = self.means.pool.take(len);
        if let Some(into) = larger.get_mut(..self.used) {
            into.copy_from_slice(self.filled());
        }
        self.means.pool.give(std::mem::replace(&mut self.bytes, larger));
    }

    /// Appends what `write` appends.
    pub(super) fn put(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut head = std::mem::take(&mut self.head);
        head.clear();
        write(&mut head);
        self.room(head.len()).copy_from_slice(&head);
        self.head = head;
    }

    /// Overwrites what is at `at` with what `write` appends.
    pub(super) fn patch(&mut self, at: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let used = std::mem::replace(&mut self.used, at);
        self.put(write);
        self.used = used.max(self.used);
    }

    /// Takes the bytes out, with their length; what is left begins anew.
    pub(super) fn take(&mut self) -> (Vec<u8>, usize) {
        (std::mem::take(&mut self.bytes), std::mem::take(&mut self.used))
    }

    /// Begins anew, and lets go of the memory.
    pub(super) fn clear(&mut self) {
        self.used = 0;
        self.means.pool.give(std::mem::take(&mut self.bytes));
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What was received and not parsed yet.
pub(super) struct Input {
    bytes: Vec<u8>,
    most: usize,
    start: usize,
    end: usize,
}

impl Input {
    /// Room for `most` bytes, when they come.
    pub(super) fn new(most: usize) -> Self {
        Input { bytes: vec![0; most.min(BEGINNING)], most, start: 0, end: 0 }
    }

    /// What is in it.
    pub(super) fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// The first `len` bytes were parsed.
    pub(super) fn eat(&mut self, len: usize) {
        self.start = self.start.saturating_add(len).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Where the next bytes go: at least `least` of them, as far as the whole may have room for that.
    pub(super) fn space(&mut self, least: usize) -> &mut [u8] {
        if self.bytes.len().saturating_sub(self.end) < least {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end.saturating_sub(self.start));
            let wanted = self.end.saturating_add(least).min(self.most);
            if self.bytes.len() < wanted {
                self.bytes.resize(wanted, 0);
            }
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// `len` bytes were received into that. Where they filled it there may be more: it grows.
    pub(super) fn filled_by(&mut self, len: usize) {
        self.end = self.end.saturating_add(len).min(self.bytes.len());
        if self.end == self.bytes.len() && self.end < self.most {
            self.bytes.resize(self.end.saturating_mul(2).min(self.most), 0);
        }
    }
}
