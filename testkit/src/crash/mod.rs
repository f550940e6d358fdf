//! What may be left of a file when the power goes.
//!
//! What was flushed is there. Of what was written since, any part may be there and any other missing, in any
//! order, torn at sectors of 512 bytes; a change of length may have happened or not.

mod state;
#[cfg(test)]
mod tests;
mod window;

pub use state::State;

use crate::Rng;
use crate::source::{Event, Log};
use state::Choice;
use std::fmt;
use window::{Pattern, Window, windows};

/// How many states to look at, and the seed of those that are chosen at random.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// At most about so many, over all moments between flushes. What fits is looked at exhaustively.
    pub states: usize,
    /// What the choice depends on.
    pub seed: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { states: 2000, seed: 1 }
    }
}

/// How many times as long crash tests are asked to run: the number in `PORTOLAN_CRASH_STATES`, else 1.
pub fn times() -> usize {
    let Ok(asked) = std::env::var("PORTOLAN_CRASH_STATES") else { return 1 };
    match asked.parse() {
        Ok(times @ 1..) => times,
        _ => panic!("PORTOLAN_CRASH_STATES is {asked:?}; it must be a number from 1 on"),
    }
}

/// The seeds 1 to `n`, or to as many times as many as is asked for.
pub fn seeds(n: u64) -> impl Iterator<Item = u64> {
    1..=n * times() as u64
}

/// At least so many states for a moment that is looked at.
const FEW: usize = 8;

/// Every state that the budget allows, moment by moment.
pub fn states(log: &Log, budget: Budget) -> impl Iterator<Item = State> + '_ {
    each_window(log, budget).flat_map(|(window, patterns)| {
        patterns.into_iter().map(move |pattern| {
            let choices = pattern.choices(&window);
            window.state(&choices)
        })
    })
}

/// The moments that are looked at, and what is looked at in each.
fn each_window(log: &Log, budget: Budget) -> impl Iterator<Item = (Window<'_>, Vec<Pattern>)> {
    let mut rng = Rng::new(budget.seed);
    let count = 1 + log.events.iter().filter(|e| **e == Event::Flush).count();
    let per = (budget.states / count).max(FEW);
    // Too many moments for the budget: a sample of them.
    let (take, of) = (budget.states.max(1), count * per);
    windows(log).filter_map(move |window| {
        let chosen = of <= take || window.is_last() || rng.below(of as u64) < take as u64;
        chosen.then(|| {
            let patterns = window.patterns(per, &mut rng);
            (window, patterns)
        })
    })
}

/// A state that is not what it should be.
#[derive(Debug)]
pub struct Failure {
    /// The smallest one found, in words.
    pub state: String,
    /// What is wrong with it.
    pub reason: String,
    /// Which of all it was.
    pub number: usize,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "crash state {}: {}\n{}", self.number, self.reason, self.state)
    }
}

impl std::error::Error for Failure {}

/// Hands every state that the budget allows to `judge`, and returns how many there were; or the first that is
/// not right, made as small as may be: as few writes that survived, or as few that are missing.
pub fn check(
    log: &Log,
    budget: Budget,
    judge: impl Fn(&State) -> Result<(), String>,
) -> Result<usize, Box<Failure>> {
    let mut number = 0;
    for (window, patterns) in each_window(log, budget) {
        for pattern in patterns {
            let choices = pattern.choices(&window);
            if let Err(reason) = judge(&window.state(&choices)) {
                return Err(Box::new(shrink(&window, &choices, reason, number, &judge)));
            }
            number += 1;
        }
    }
    Ok(number)
}

/// At most so many states are tried to make a failure smaller.
const SHRINK_TRIES: usize = 400;

fn shrink(
    window: &Window<'_>,
    found: &[Choice],
    reason: String,
    number: usize,
    judge: &impl Fn(&State) -> Result<(), String>,
) -> Failure {
    let fewer = towards(window, found, Choice::Skip, judge);
    let fuller = towards(window, found, Choice::Full, judge);
    let weight = |choices: &[Choice], base: Choice| choices.iter().filter(|c| **c != base).count();
    let small = weight(&fewer, Choice::Skip) <= weight(&fuller, Choice::Full);
    let best = if small { fewer } else { fuller };
    let state = window.state(&best);
    // The smaller one may be wrong in another way: that is the one that is described.
    let reason = judge(&state).err().unwrap_or(reason);
    Failure { state: window.describe(&best), reason, number }
}

/// Turns one choice after the other into `base` as long as the state stays wrong.
fn towards(
    window: &Window<'_>,
    found: &[Choice],
    base: Choice,
    judge: &impl Fn(&State) -> Result<(), String>,
) -> Vec<Choice> {
    let mut best = found.to_vec();
    let mut tries = 0;
    let mut again = true;
    while again && tries < SHRINK_TRIES {
        again = false;
        for i in 0..best.len() {
            if best[i] == base || tries >= SHRINK_TRIES {
                continue;
            }
            tries += 1;
            let old = std::mem::replace(&mut best[i], base);
            if judge(&window.state(&best)).is_ok() {
                best[i] = old;
            } else {
                again = true;
            }
        }
    }
    best
}
