//! Maps: trees of nodes, looked up, and compared with each other.
//!
//! A tree has a height: how many nodes there are from its top to a block's place. A word at *level* 0 names a place, one
//! at level `n` a node with `n` levels of nodes, itself included. A word that names nothing speaks for all below.

use crate::nodes::Nodes;
use crate::packed::{FANOUT, Page};
use crate::word::{FIRST, Word};
use chart::{Answer, Error, Extent, Result, SourceId, Wait};

/// Bits of a block's number that one level decides.
const LEVEL_BITS: u32 = FANOUT.trailing_zeros();
/// No tree is higher: as many blocks as there could be places.
const HEIGHT_MAX: u32 = 5;
/// At most so many blocks are looked up at once.
const RUN: usize = 64;

/// The source that holds what versions hold.
pub(crate) const DATA: SourceId = SourceId(0);

/// How many blocks a word at a level speaks of.
pub(crate) fn span(level: u32) -> u64 {
    1 << (LEVEL_BITS * level)
}

/// Which word of a node whose words are at `level` speaks of a block.
pub(crate) fn index(block: u64, level: u32) -> usize {
    (block >> (LEVEL_BITS * level)) as usize % FANOUT
}

/// The height of a tree for so many blocks.
pub(crate) fn height_for(blocks: u64) -> Result<u32> {
    let too_many = || Error::unsupported(format!("a disk of {blocks} interval blocks: use larger ones"));
    (1..=HEIGHT_MAX).find(|&height| span(height) >= blocks).ok_or_else(too_many)
}

/// A tree: its top, and its height.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Root {
    pub(crate) top: Word,
    pub(crate) height: u32,
}

/// A map, as one who looks into it sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    /// The top of its tree: a node's number, or what all blocks are.
    pub(crate) top: u64,
    /// Its height.
    pub(crate) height: u32,
    /// How long the disk is.
    pub(crate) len: u64,
    /// What was born later than this can be written in place.
    pub(crate) floor: u32,
}

/// What is found at a block.
struct Found {
    /// What the first block is.
    first: Word,
    /// For how many blocks that goes on.
    blocks: u64,
}

impl View {
    /// Looks up a block, and how far what is found goes on, for at most `most` blocks. `visit` is told every node that
    /// is looked into.
    #[inline]
    fn find(
        &self,
        nodes: &Nodes,
        block: u64,
        most: u64,
        wait: Wait,
        visit: &mut impl FnMut(u64),
    ) -> Result<Found> {
        let (mut word, mut level) = (Word::from_bits(self.top), self.height);
        while word.refers() && level > 1 {
            level -= 1;
            visit(word.value());
            word = Word::from_bits(nodes.word(word.value(), index(block, level), wait)?);
        }
        if !word.refers() {
            let span = span(level);
            return Ok(Found { first: word, blocks: (span - block % span).min(most) });
        }
        visit(word.value());
        let first = index(block, 0);
        if most <= 1 {
            let word = Word::from_bits(nodes.word(word.value(), first, wait)?);
            return Ok(Found { first: word, blocks: 1 });
        }
        let mut words = [0; RUN];
        let words = &mut words[..most.min((FANOUT - first) as u64).min(RUN as u64) as usize];
        nodes.read(word.value(), first, words, wait)?;
        let first = Word::from_bits(words[0]);
        let goes_on = |(word, by): (&u64, u64)| {
            let word = Word::from_bits(*word);
            let wanted = if first.refers() { first.value() + by } else { first.value() };
            word.value() == wanted && self.writable(word) == self.writable(first)
        };
        let blocks = words.iter().zip(0..).take_while(|&pair| goes_on(pair)).count();
        Ok(Found { first, blocks: blocks as u64 })
    }

    /// Whether a block can be written where it is.
    #[inline]
    pub(crate) fn writable(&self, word: Word) -> bool {
        word.refers() && word.birth() > self.floor
    }

    /// The words of some blocks, at most `RUN` and at most the rest of a leaf: at least one.
    pub(crate) fn words(&self, nodes: &Nodes, block: u64, most: u64, wait: Wait) -> Result<Vec<Word>> {
        chart::check_range(span(self.height), block, 1)?;
        let (mut word, mut level) = (Word::from_bits(self.top), self.height);
        while word.refers() && level > 1 {
            level -= 1;
            word = Word::from_bits(nodes.word(word.value(), index(block, level), wait)?);
        }
        if !word.refers() {
            let span = span(level);
            let many = (span - block % span).min(most).clamp(1, RUN as u64);
            return Ok(vec![word; many as usize]);
        }
        let first = index(block, 0);
        let mut words = vec![0; most.min((FANOUT - first) as u64).clamp(1, RUN as u64) as usize];
        nodes.read(word.value(), first, &mut words, wait)?;
        Ok(words.into_iter().map(Word::from_bits).collect())
    }

    /// The answer of this map. `shift` is how many bits of a position lie within a block.
    #[inline]
    pub(crate) fn answer(
        &self,
        nodes: &Nodes,
        shift: u32,
        range: (u64, u64),
        wait: Wait,
        visit: &mut impl FnMut(u64),
    ) -> Result<Answer> {
        let (at, want) = range;
        let within = at & ((1 << shift) - 1);
        let most = ((within + want - 1) >> shift) + 1;
        let found = self.find(nodes, at >> shift, most, wait, visit)?;
        let len = want.min((found.blocks << shift) - within);
        if found.first.is_below() {
            return Ok(Answer::Below { len });
        }
        if !found.first.refers() {
            return Ok(Answer::Here(Extent::zero(at, len)));
        }
        let offset = ((found.first.value() - FIRST) << shift) + within;
        let extent = Extent { writable: self.writable(found.first), ..Extent::raw(at, len, DATA, offset) };
        Ok(Answer::Here(extent))
    }
}

/// A part of a tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) word: Word,
    pub(crate) level: u32,
}

impl From<Root> for Part {
    fn from(root: Root) -> Self {
        Part { word: root.top, level: root.height }
    }
}

impl Part {
    /// Whether two parts of trees are one and the same, as far as that shows.
    pub(crate) fn is(&self, other: &Part) -> bool {
        self.word.same(other.word) && (self.level == other.level || self.word.is_below())
    }

    /// Its words one level below `level`, which is its own or a higher one: then it is the first of them, and the
    /// others are nothing.
    pub(crate) fn expand(&self, nodes: &Nodes, level: u32) -> Result<Box<Page>> {
        if self.level < level {
            let mut page = Box::new([0; FANOUT]);
            page[0] = self.word.bits();
            return Ok(page);
        }
        if self.word.refers() {
            nodes.page(self.word.value())
        } else {
            Ok(Box::new([self.word.bits(); FANOUT]))
        }
    }

    /// One of the parts that it is expanded to.
    pub(crate) fn child(&self, page: &Page, level: u32, i: usize) -> Part {
        let own = if self.level < level && i == 0 { self.level } else { level - 1 };
        Part { word: Word::from_bits(page[i]), level: own }
    }
}

/// Tells every block from `base` on at which two parts of trees say different places, in runs: `told(first, count)`.
pub(crate) fn differences(
    nodes: &Nodes,
    (a, b): (Part, Part),
    base: u64,
    told: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<()> {
    if a.is(&b) {
        return Ok(());
    }
    let level = a.level.max(b.level);
    if a.level == b.level && (level == 0 || !(a.word.refers() || b.word.refers())) {
        return told(base, span(level));
    }
    let (pa, pb) = (a.expand(nodes, level)?, b.expand(nodes, level)?);
    for i in 0..FANOUT {
        let both = (a.child(&pa, level, i), b.child(&pb, level, i));
        differences(nodes, both, base + i as u64 * span(level - 1), told)?;
    }
    Ok(())
}
