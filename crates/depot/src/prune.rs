//! What of a version goes when the version goes.

use crate::limbo::Freed;
use crate::map::{Part, Root};
use crate::nodes::Nodes;
use crate::packed::FANOUT;
use crate::word::Word;
use chart::Result;

/// Finds what only one version has: neither the one it came from nor those that came from it.
///
/// What came from the parent is told by its birth. What the children have is found by going through the maps side by
/// side, only where they are not one and the same: the work is that of the difference, not of the disk.
pub(crate) struct Prune<'a> {
    pub(crate) nodes: &'a Nodes,
    /// What was born up to here is the parent's, too.
    pub(crate) shared: u32,
    /// Whether what is the parent's is taken out of the map, too: where the parent is itself kept only for its children.
    pub(crate) deep: bool,
    /// If what is left of the map is kept, for the sake of two or more children: in which version that is born.
    pub(crate) keep: Option<u32>,
    /// What nobody has any more.
    pub(crate) freed: Freed,
    /// Nodes that were made, to be given up if this fails.
    pub(crate) made: Vec<u64>,
}

impl Prune<'_> {
    /// What is left of a map that these others came from.
    pub(crate) fn root(&mut self, root: Root, children: &[Root]) -> Result<Root> {
        let mut others = Vec::new();
        for child in children {
            let mut part = Part::from(*child);
            // A child may have grown; what was here is its beginning.
            while part.level > root.height {
                let page = part.expand(self.nodes, part.level)?;
                part = part.child(&page, part.level, 0);
            }
            others.push(part);
        }
        let top = self.part(root.into(), &others)?;
        Ok(Root { top, height: root.height })
    }

    /// Whether nothing need be done about a part of the map, whatever the children have.
    fn stays(&self, word: Word) -> bool {
        let old = word.birth() <= self.shared;
        !word.refers() || (old && !(self.deep && self.keep.is_some()))
    }

    fn part(&mut self, part: Part, others: &[Part]) -> Result<Word> {
        let Part { word, level } = part;
        if self.stays(word) || others.iter().any(|other| other.is(&part)) {
            return Ok(word);
        }
        let old = word.birth() <= self.shared;
        if level == 0 {
            if !old {
                self.freed.block(word.value());
            }
            return Ok(Word::BELOW);
        }
        let page = part.expand(self.nodes, level)?;
        let others: Vec<Part> = others.iter().filter(|other| other.word.refers()).copied().collect();
        let pages = others.iter().map(|o| o.expand(self.nodes, level)).collect::<Result<Vec<_>>>()?;
        let mut left = [0; FANOUT];
        for (i, left) in left.iter_mut().enumerate() {
            let child = part.child(&page, level, i);
            if self.stays(child.word) {
                *left = child.word.bits();
                continue;
            }
            let there: Vec<Part> = others.iter().zip(&pages).map(|(o, p)| o.child(p, level, i)).collect();
            *left = self.part(child, &there)?.bits();
        }
        let Some(birth) = self.keep else {
            self.freed.nodes.push(word.value());
            return Ok(Word::BELOW);
        };
        if left == *page {
            return Ok(word);
        }
        if !old {
            self.freed.nodes.push(word.value());
        }
        if left.iter().all(|&word| word == 0) {
            return Ok(Word::BELOW);
        }
        let number = self.nodes.create(&left)?;
        self.made.push(number);
        Ok(Word::new(number, birth))
    }
}
