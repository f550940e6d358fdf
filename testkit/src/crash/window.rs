//! The moments between two flushes.

use super::state::{Choice, State, apply, can_tear};
use crate::Rng;
use crate::source::{Event, Log};
use std::fmt::Write as _;
use std::sync::Arc;

/// A moment: what is durable, and what happened since.
#[derive(Clone)]
pub(super) struct Window<'l> {
    durable: Arc<Vec<u8>>,
    events: Vec<&'l Event>,
    boundary: usize,
    mark: Option<u64>,
    last: bool,
}

/// Which of the operations of a window survived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    None,
    All,
    /// By bits: every one of few.
    Subset(u64),
    Alone(usize),
    Missing(usize),
    /// The first so many, in order.
    Upto(usize),
    /// The first so many, and some of the next.
    TornUpto(usize, u64),
    /// Nothing but some of this one.
    TornAlone(usize, u64),
    Random(u64),
}

/// The windows of a log, in order.
pub(super) fn windows(log: &Log) -> impl Iterator<Item = Window<'_>> {
    let mut durable = Arc::new(log.initial.clone());
    let (mut next, mut boundary, mut mark, mut over) = (0, 0, None, false);
    std::iter::from_fn(move || {
        if over {
            return None;
        }
        let rest = &log.events[next..];
        let flush = rest.iter().position(|e| *e == Event::Flush);
        let here = &rest[..flush.unwrap_or(rest.len())];
        let mut marks = here.iter().filter_map(|e| if let Event::Mark(n) = e { Some(*n) } else { None });
        mark = marks.next_back().or(mark);
        let events: Vec<_> = here.iter().filter(|e| !matches!(e, Event::Mark(_))).collect();
        let last = flush.is_none();
        let window = Window { durable: Arc::clone(&durable), events, boundary, mark, last };
        // A window that is still held keeps its own copy; else this changes in place.
        let bytes = Arc::make_mut(&mut durable);
        here.iter().for_each(|e| apply(bytes, e, Choice::Full));
        over = last;
        next += here.len() + 1;
        boundary += 1;
        Some(window)
    })
}

impl Window<'_> {
    pub(super) fn is_last(&self) -> bool {
        self.last
    }

    /// At most `most` patterns: all subsets where there are few operations, else the telling ones and a sample.
    pub(super) fn patterns(&self, most: usize, rng: &mut Rng) -> Vec<Pattern> {
        let n = self.events.len();
        if n == 0 {
            return vec![Pattern::None];
        }
        let tears: Vec<usize> = (0..n).filter(|&i| can_tear(self.events[i])).collect();
        let mut torn: Vec<Pattern> = tears
            .iter()
            .flat_map(|&i| [Pattern::TornUpto(i, rng.next_u64()), Pattern::TornAlone(i, rng.next_u64())])
            .collect();
        if n < 20 && (1 << n) + torn.len() <= most {
            let mut all: Vec<_> = (0..1 << n).map(Pattern::Subset).collect();
            all.append(&mut torn);
            return all;
        }
        let mut telling: Vec<Pattern> = (0..n).map(Pattern::Alone).collect();
        telling.extend((0..n).map(Pattern::Missing));
        telling.extend((1..n).map(Pattern::Upto));
        telling.append(&mut torn);
        for i in (1..telling.len()).rev() {
            telling.swap(i, rng.below(i as u64 + 1) as usize);
        }
        // A third at least is left to chance.
        telling.truncate(most.saturating_sub(2) * 2 / 3);
        let mut patterns = vec![Pattern::None, Pattern::All];
        patterns.append(&mut telling);
        while patterns.len() < most {
            patterns.push(Pattern::Random(rng.next_u64()));
        }
        patterns
    }

    pub(super) fn state(&self, choices: &[Choice]) -> State {
        let mut bytes = (*self.durable).clone();
        for (event, choice) in self.events.iter().zip(choices) {
            apply(&mut bytes, event, *choice);
        }
        let description = self.describe(choices);
        State { bytes, boundary: self.boundary, mark: self.mark, description }
    }

    /// In words: what survived, or what is missing, whichever is shorter.
    pub(super) fn describe(&self, choices: &[Choice]) -> String {
        const SHOWN: usize = 12;
        let n = self.events.len();
        let count = |choice| choices.iter().filter(|c| **c == choice).count();
        let mut text = format!("after {} flushes", self.boundary);
        if let Some(mark) = self.mark {
            let _ = write!(text, " (mark {mark})");
        }
        let (base, word) = if n - count(Choice::Skip) <= n - count(Choice::Full) {
            (Choice::Skip, "only these survived")
        } else {
            (Choice::Full, "all survived but")
        };
        let _ = write!(text, ", of {n} later operations {word}:");
        let told: Vec<_> = (0..n).filter(|&i| choices[i] != base).collect();
        for &i in told.iter().take(SHOWN) {
            let torn = if let Choice::Torn(_) = choices[i] { " (torn)" } else { "" };
            let _ = write!(text, "\n  {i}: {:?}{torn}", self.events[i]);
        }
        if told.len() > SHOWN {
            let _ = write!(text, "\n  and {} more", told.len() - SHOWN);
        }
        if told.is_empty() {
            text.push_str(" none");
        }
        text
    }
}

impl Pattern {
    pub(super) fn choices(self, window: &Window<'_>) -> Vec<Choice> {
        let n = window.events.len();
        let pick = |keep: &dyn Fn(usize) -> bool| -> Vec<Choice> {
            (0..n).map(|i| if keep(i) { Choice::Full } else { Choice::Skip }).collect()
        };
        match self {
            Pattern::None => pick(&|_| false),
            Pattern::All => pick(&|_| true),
            Pattern::Subset(bits) => pick(&|i| bits >> i & 1 == 1),
            Pattern::Alone(one) => pick(&|i| i == one),
            Pattern::Missing(one) => pick(&|i| i != one),
            Pattern::Upto(many) => pick(&|i| i < many),
            Pattern::TornUpto(many, seed) => {
                let mut choices = pick(&|i| i < many);
                choices[many] = Choice::Torn(seed);
                choices
            }
            Pattern::TornAlone(one, seed) => {
                let mut choices = pick(&|_| false);
                choices[one] = Choice::Torn(seed);
                choices
            }
            Pattern::Random(seed) => {
                let mut rng = Rng::new(seed);
                let share = 1 + rng.below(7);
                let mut one = |event: &Event| match rng.below(8) {
                    r if r >= share => Choice::Skip,
                    0 if can_tear(event) => Choice::Torn(rng.next_u64()),
                    _ => Choice::Full,
                };
                window.events.iter().map(|e| one(e)).collect()
            }
        }
    }
}
