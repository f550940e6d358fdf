//! Changing the map of a head: parts that versions share are copied first, what is the head's own is changed in place.

use crate::limbo::Freed;
use crate::map::{Part, Root, height_for, index, span};
use crate::nodes::Nodes;
use crate::packed::FANOUT;
use crate::word::Word;
use chart::{Result, Wait};

/// One change of a map. The history is locked.
///
/// Whoever looks meanwhile finds every block as it was or as it is: a copy is put in the place of what it is a copy of
/// before anything in it is changed. So a change that fails half-way leaves a sound map, too.
pub(crate) struct Edit<'a> {
    pub(crate) nodes: &'a Nodes,
    /// The version that is being written.
    pub(crate) birth: u32,
    /// What was born up to here belongs to others, too.
    pub(crate) shared: u32,
    pub(crate) root: &'a mut Root,
    /// Shows a new root to those who look.
    pub(crate) show: &'a dyn Fn(Root),
    pub(crate) freed: &'a mut Freed,
}

impl Edit<'_> {
    fn set_root(&mut self, root: Root) {
        *self.root = root;
        (self.show)(root);
    }

    fn word(&self, node: u64, i: usize) -> Result<Word> {
        self.nodes.word(node, i, Wait::Allowed).map(Word::from_bits)
    }

    /// A part of the map as a node of this version's own: itself, or else a copy, which `place` puts in its place.
    fn own(&mut self, word: Word, place: impl FnOnce(&mut Self, Word) -> Result<()>) -> Result<u64> {
        if word.refers() && word.birth() == self.birth {
            return Ok(word.value());
        }
        // What is nothing, or zeros, is so throughout.
        let copy =
            if word.refers() { self.nodes.page(word.value())? } else { Box::new([word.bits(); FANOUT]) };
        let number = self.nodes.create(&copy)?;
        if let Err(e) = place(self, Word::new(number, self.birth)) {
            self.nodes.free(number);
            return Err(e);
        }
        if word.refers() && word.birth() > self.shared {
            self.freed.nodes.push(word.value());
        }
        Ok(number)
    }

    fn own_root(&mut self) -> Result<u64> {
        let height = self.root.height;
        self.own(self.root.top, |edit, top| {
            edit.set_root(Root { top, height });
            Ok(())
        })
    }

    fn own_child(&mut self, node: u64, i: usize, word: Word) -> Result<u64> {
        self.own(word, |edit, child| edit.nodes.write(node, i, &[child.bits()]))
    }

    /// Puts some blocks in places in a row. Returns how many: those in one leaf.
    pub(crate) fn put(&mut self, block: u64, many: u64, place: u64) -> Result<u64> {
        let mut node = self.own_root()?;
        for level in (1..self.root.height).rev() {
            let i = index(block, level);
            let child = self.word(node, i)?;
            node = self.own_child(node, i, child)?;
        }
        let first = index(block, 0);
        let many = many.min((FANOUT - first) as u64);
        let words: Vec<u64> = (place..place + many).map(|p| Word::new(p, self.birth).bits()).collect();
        self.replace(node, first, &words)?;
        Ok(many)
    }

    /// Changes words of a leaf that is this version's own.
    fn replace(&mut self, leaf: u64, first: usize, words: &[u64]) -> Result<()> {
        let mut old = vec![0; words.len()];
        self.nodes.read(leaf, first, &mut old, Wait::Allowed)?;
        self.nodes.write(leaf, first, words)?;
        for word in old.into_iter().map(Word::from_bits) {
            if word.refers() && word.birth() > self.shared {
                self.freed.block(word.value());
            }
        }
        Ok(())
    }

    /// Makes the blocks in `[from, to)` what `word` says, which is no place.
    pub(crate) fn clear(&mut self, from: u64, to: u64, word: Word) -> Result<()> {
        let Root { top, height } = *self.root;
        let to = to.min(span(height));
        if from >= to || (top.same(word) && !top.refers()) {
            return Ok(());
        }
        if from == 0 && to == span(height) {
            let mut freed = Freed::default();
            self.only_here(Part { word: top, level: height }, &mut freed)?;
            self.set_root(Root { top: word, height });
            self.freed.absorb(freed);
            return Ok(());
        }
        let node = self.own_root()?;
        self.clear_in(node, height - 1, 0, (from, to), word)
    }

    /// The same in a node whose words are at `level` and whose first block is `base`.
    fn clear_in(&mut self, node: u64, level: u32, base: u64, range: (u64, u64), word: Word) -> Result<()> {
        let (from, to) = (range.0.max(base), range.1.min(base + span(level + 1)));
        if level == 0 {
            return self.replace(node, (from - base) as usize, &vec![word.bits(); (to - from) as usize]);
        }
        let (first, last) = (index(from, level), index(to - 1, level));
        for i in first..=last {
            let start = base + i as u64 * span(level);
            let child = self.word(node, i)?;
            if !child.refers() && child.same(word) {
                continue;
            }
            if from <= start && start + span(level) <= to {
                let mut freed = Freed::default();
                self.only_here(Part { word: child, level }, &mut freed)?;
                self.nodes.write(node, i, &[word.bits()])?;
                self.freed.absorb(freed);
            } else {
                let child = self.own_child(node, i, child)?;
                self.clear_in(child, level - 1, start, (from, to), word)?;
            }
        }
        Ok(())
    }

    /// What of a part of the map is no other version's.
    fn only_here(&self, part: Part, freed: &mut Freed) -> Result<()> {
        // A node is at least as young as all that it leads to.
        if !part.word.refers() || part.word.birth() <= self.shared {
            return Ok(());
        }
        if part.level == 0 {
            freed.block(part.word.value());
            return Ok(());
        }
        let page = self.nodes.page(part.word.value())?;
        for i in 0..FANOUT {
            self.only_here(part.child(&page, part.level, i), freed)?;
        }
        freed.nodes.push(part.word.value());
        Ok(())
    }

    /// Makes room for so many blocks.
    pub(crate) fn grow(&mut self, blocks: u64) -> Result<()> {
        let wanted = height_for(blocks)?;
        while self.root.height < wanted {
            let Root { top, height } = *self.root;
            let top = if top.is_below() {
                top
            } else {
                let mut page = [0; FANOUT];
                page[0] = top.bits();
                Word::new(self.nodes.create(&page)?, self.birth)
            };
            self.set_root(Root { top, height: height + 1 });
        }
        Ok(())
    }
}
