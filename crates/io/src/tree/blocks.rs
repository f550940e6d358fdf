//! A long list in blocks, which are given back one by one as what is in them is taken out.

/// So many are in one block.
const BLOCK: usize = 1 << 15;

/// A list that grows at its end.
pub(super) struct Blocks<T>(Vec<Vec<T>>);

impl<T> Default for Blocks<T> {
    fn default() -> Self {
        Blocks(Vec::new())
    }
}

impl<T> Blocks<T> {
    pub(super) fn len(&self) -> usize {
        self.0.last().map_or(0, |last| (self.0.len() - 1) * BLOCK + last.len())
    }

    pub(super) fn push(&mut self, item: T) {
        match self.0.last_mut().filter(|last| last.len() < BLOCK) {
            Some(last) => last.push(item),
            None => self.0.push(vec![item]),
        }
    }

    /// One that is there.
    pub(super) fn at(&mut self, i: usize) -> &mut T {
        &mut self.0[i / BLOCK][i % BLOCK]
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = T> {
        self.0.into_iter().flatten()
    }
}
