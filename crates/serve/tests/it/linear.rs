//! Whether a history of overlapping requests is linearizable: whether there is an order of them in which each
//! happened whole, at one moment between its request and its reply.
//!
//! The disk is cut into *cells*, at every position where a request of the history begins or ends; a cell's value is
//! the number of the write that wrote it, 0 for zeros. The search is Wing and Gong's with Lowe's memory of where it
//! has been: an order is built request by request, of those that nobody yet unordered has preceded in real time. A
//! read that fits what was ordered so far is ordered at once, since it changes nothing.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::ops::Range;

/// An end to the search, for histories too tangled to be decided.
const STEPS: usize = 3_000_000;

/// What a request did, as far as its client knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Read these values, cell by cell.
    Read(Vec<u32>),
    /// Wrote this number; 0 for zeros.
    Write(u32),
}

/// One request of a history.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    /// Before it was sent.
    pub(crate) start: u64,
    /// After its reply was heard; `None` if it never was: then it happened at any time later, or not at all.
    pub(crate) end: Option<u64>,
    pub(crate) cells: Range<usize>,
    pub(crate) what: What,
    /// The connection, for whoever has to find out.
    pub(crate) who: usize,
}

struct Search {
    ops: Vec<Op>,
    done: Vec<bool>,
    /// All before it are done.
    first: usize,
    /// How many with a reply are not done.
    left: usize,
    cells: Vec<u32>,
    seen: HashSet<u64>,
}

struct Step {
    op: usize,
    before: Vec<u32>,
    rest: Vec<usize>,
}

/// Looks for an order. Where there is none: why, as far as can be said.
pub(crate) fn check(begin: &[u32], history: &[Op]) -> Result<(), String> {
    let mut search = Search::new(begin, history);
    let (mut stack, mut choices): (Vec<Step>, Vec<usize>) = (Vec::new(), search.choices());
    let (mut deepest, mut told) = (0, String::new());
    for _ in 0..STEPS {
        if search.left == 0 {
            return Ok(());
        }
        if let Some(op) = choices.pop() {
            let before = search.apply(op);
            stack.push(Step { op, before, rest: choices });
            choices = if search.is_new() { search.choices() } else { Vec::new() };
            if choices.is_empty() && stack.len() > deepest && search.left > 0 {
                (deepest, told) = (stack.len(), search.describe());
            }
        } else if let Some(Step { op, before, rest }) = stack.pop() {
            search.undo(op, &before);
            choices = rest;
        } else {
            return Err(format!(
                "there is no order; after {deepest} requests nothing fits any more:\n{told}"
            ));
        }
    }
    Err(format!("no order was found in {STEPS} steps; the furthest was {deepest} requests:\n{told}"))
}

impl Search {
    fn new(begin: &[u32], history: &[Op]) -> Search {
        let mut seen: HashSet<u32> = HashSet::new();
        for op in history {
            if let What::Read(values) = &op.what {
                seen.extend(values);
            }
        }
        // A write without a reply that nobody saw can be left out: it changed nothing that was read.
        let matters = |op: &&Op| match op.what {
            What::Write(id) => op.end.is_some() || seen.contains(&id),
            What::Read(_) => op.end.is_some(),
        };
        let mut ops: Vec<Op> = history.iter().filter(matters).cloned().collect();
        ops.sort_by_key(|op| op.start);
        let left = ops.iter().filter(|op| op.end.is_some()).count();
        let done = vec![false; ops.len()];
        Search { ops, done, first: 0, left, cells: begin.to_vec(), seen: HashSet::new() }
    }

    /// The undone that could be next in real time, and the moment the first of them has ended.
    fn candidates(&self) -> (u64, Vec<usize>) {
        let (mut horizon, mut found) = (u64::MAX, Vec::new());
        for (i, op) in self.ops.iter().enumerate().skip(self.first) {
            if op.start > horizon {
                break;
            }
            if !self.done[i] {
                horizon = horizon.min(op.end.unwrap_or(u64::MAX));
                found.push(i);
            }
        }
        found.retain(|&i| self.ops[i].start <= horizon);
        (horizon, found)
    }

    /// What could be next, the likeliest last.
    fn choices(&self) -> Vec<usize> {
        let (_, mut found) = self.candidates();
        let fits = |i: &usize| {
            let op = &self.ops[*i];
            matches!(&op.what, What::Read(values) if *values == self.cells[op.cells.clone()])
        };
        if let Some(read) = found.iter().copied().find(|i| fits(i)) {
            return vec![read];
        }
        found.retain(|&i| matches!(self.ops[i].what, What::Write(_)));
        found.sort_by_key(|&i| std::cmp::Reverse(self.ops[i].end.unwrap_or(u64::MAX)));
        found
    }

    fn apply(&mut self, i: usize) -> Vec<u32> {
        let op = &self.ops[i];
        let mut before = Vec::new();
        if let What::Write(id) = op.what {
            before = self.cells[op.cells.clone()].to_vec();
            self.cells[op.cells.clone()].fill(id);
        }
        self.left -= usize::from(op.end.is_some());
        self.done[i] = true;
        while self.done.get(self.first) == Some(&true) {
            self.first += 1;
        }
        before
    }

    fn undo(&mut self, i: usize, before: &[u32]) {
        let op = &self.ops[i];
        if !before.is_empty() {
            self.cells[op.cells.clone()].copy_from_slice(before);
        }
        self.left += usize::from(op.end.is_some());
        self.done[i] = false;
        self.first = self.first.min(i);
    }

    /// Whether it was never here before: with these done, and the disk like this.
    fn is_new(&mut self) -> bool {
        let mut hasher = DefaultHasher::new();
        (self.first, &self.cells).hash(&mut hasher);
        let (horizon, _) = self.candidates();
        for (i, op) in self.ops.iter().enumerate().skip(self.first) {
            if op.start > horizon {
                break;
            }
            if self.done[i] {
                i.hash(&mut hasher);
            }
        }
        self.seen.insert(hasher.finish())
    }

    fn describe(&self) -> String {
        let mut text = format!("the disk: {:?}\n", self.cells);
        for i in self.candidates().1 {
            let Op { start, end, cells, what, who } = &self.ops[i];
            text += &format!("connection {who}, {start} to {end:?}, cells {cells:?}: {what:?}\n");
        }
        text
    }
}

/// A request of a history by hand: from, to, cells, what.
type ByHand = (u64, u64, Range<usize>, What);

fn by_hand(ops: &[ByHand]) -> Result<(), String> {
    let op = |(who, (start, end, cells, what)): (usize, &ByHand)| {
        let end = (*end < 1000).then_some(*end);
        Op { start: *start, end, cells: cells.clone(), what: what.clone(), who }
    };
    check(&[0; 3], &ops.iter().enumerate().map(op).collect::<Vec<_>>())
}

fn read(values: &[u32]) -> What {
    What::Read(values.to_vec())
}

/// Never answered.
const NEVER: u64 = 1000;

#[test]
fn sound_histories_are_accepted() {
    use What::Write;
    by_hand(&[]).unwrap();
    by_hand(&[(0, 1, 0..3, Write(1)), (2, 3, 0..3, read(&[1, 1, 1]))]).unwrap();
    // At the same time: before it or after it.
    by_hand(&[(0, 9, 0..3, Write(1)), (1, 2, 0..3, read(&[0, 0, 0])), (3, 4, 0..3, read(&[1, 1, 1]))])
        .unwrap();
    // The write that ended later came first.
    let (one, two) = ((0, 9, 0..2, Write(1)), (1, 8, 1..3, Write(2)));
    by_hand(&[one.clone(), two.clone(), (10, 11, 0..3, read(&[1, 1, 2]))]).unwrap();
    by_hand(&[one, two, (10, 11, 0..3, read(&[1, 2, 2]))]).unwrap();
    // Zeros again.
    by_hand(&[(0, 1, 0..3, Write(1)), (2, 3, 1..2, Write(0)), (4, 5, 0..3, read(&[1, 0, 1]))]).unwrap();
    // Without a reply: seen late, or never.
    by_hand(&[(0, NEVER, 0..1, Write(1)), (2, 3, 0..1, read(&[0])), (4, 5, 0..1, read(&[1]))]).unwrap();
    by_hand(&[(0, NEVER, 0..1, Write(1)), (2, 3, 0..1, read(&[0]))]).unwrap();
}

#[test]
fn every_kind_of_fault_is_found() {
    use What::Write;
    let wrong: &[(&str, &[ByHand])] = &[
        ("never written", &[(0, 1, 0..1, read(&[7]))]),
        ("stale", &[(0, 1, 0..1, Write(1)), (2, 3, 0..1, read(&[0]))]),
        ("torn", &[(0, 9, 0..2, Write(1)), (1, 2, 0..2, read(&[1, 0]))]),
        ("forgotten", &[(0, 9, 0..1, Write(1)), (1, 2, 0..1, read(&[1])), (3, 4, 0..1, read(&[0]))]),
        ("lost", &[(0, 1, 0..1, Write(1)), (2, 3, 0..1, Write(2)), (4, 5, 0..1, read(&[1]))]),
        (
            "two readers, two orders",
            &[
                (0, 20, 0..1, Write(1)),
                (0, 20, 1..2, Write(2)),
                (1, 2, 0..2, read(&[1, 0])),
                (3, 4, 0..2, read(&[0, 2])),
            ],
        ),
        (
            "two readers at once, two orders",
            &[
                (0, 20, 0..1, Write(1)),
                (0, 20, 1..2, Write(2)),
                (1, 9, 0..2, read(&[1, 0])),
                (1, 9, 0..2, read(&[0, 2])),
            ],
        ),
        (
            "each of two writes over the other",
            &[(0, 9, 0..2, Write(1)), (0, 9, 0..2, Write(2)), (10, 11, 0..2, read(&[1, 2]))],
        ),
        ("back from zeros", &[(0, 1, 0..1, Write(1)), (2, 3, 0..1, Write(0)), (4, 5, 0..1, read(&[1]))]),
        ("without a reply, and seen in part", &[(0, NEVER, 0..2, Write(1)), (4, 5, 0..2, read(&[1, 0]))]),
        (
            "without a reply, seen and gone",
            &[(0, NEVER, 0..1, Write(1)), (2, 3, 0..1, read(&[1])), (4, 5, 0..1, read(&[0]))],
        ),
    ];
    for (name, ops) in wrong {
        assert!(by_hand(ops).is_err(), "{name}");
    }
}
