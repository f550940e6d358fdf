//! Ours, the peer, ours, the peer: one row from warm-up to verdict.

use anyhow::{Context as _, Result};

use super::case::{self, Case, Score, Side};
use super::data::Sizes;
use super::measure::{self, Sample};
use super::report::Row;
use super::scratch::Scratch;

/// How many runs a row gets.
#[derive(Clone, Copy)]
pub(super) struct Effort {
    /// Pairs that count.
    pub(super) pairs: usize,
    /// Runs of each way the peer has of doing it, to find its fastest.
    pub(super) tries: usize,
}

impl Effort {
    pub(super) fn new(quick: bool, pairs: Option<usize>) -> Effort {
        let usual = if quick { Effort { pairs: 2, tries: 1 } } else { Effort { pairs: 5, tries: 2 } };
        Effort { pairs: pairs.unwrap_or(usual.pairs), ..usual }
    }
}

/// One run of each side, one after the other.
pub(super) struct Pair {
    pub(super) ours: Sample,
    pub(super) peer: Sample,
}

impl Pair {
    /// How many times better ours is.
    pub(super) fn ratio(&self, score: Score) -> f64 {
        match score {
            Score::Wall | Score::Least(_) | Score::Rss => self.peer.score / self.ours.score,
            Score::Most(_) => self.ours.score / self.peer.score,
        }
    }
}

/// Measures a row.
pub(super) fn measure(case: &Case, scratch: &Scratch, sizes: &Sizes, effort: Effort) -> Result<Row> {
    measure::inputs(case, scratch, sizes)?;
    let peer = warm_up(case, scratch, effort)?;
    let mut pairs = Vec::with_capacity(effort.pairs);
    for number in 1..=effort.pairs {
        let ours = measure::sample(case, &case.ours, scratch).context("ours")?;
        let peer = measure::sample(case, peer, scratch).context("the peer")?;
        let pair = Pair { ours, peer };
        let (ours, peer, ratio) = (pair.ours.score, pair.peer.score, pair.ratio(case.score));
        println!("   pair {number}: ours {ours:.3}, peer {peer:.3}, ratio {ratio:.2}");
        pairs.push(pair);
    }
    measure::remove_outputs(case)?;
    measure::clear(&scratch.dir)?;
    Ok(Row::measured(case, &peer.label, &pairs))
}

/// Runs both sides without counting, and makes sure that they do the same. Gives the peer's best.
fn warm_up<'a>(case: &'a Case, scratch: &Scratch, effort: Effort) -> Result<&'a Side> {
    let ours = measure::sample(case, &case.ours, scratch).context("ours")?;
    case::verify(case, &case.ours, &scratch.dir).context("our result is wrong")?;
    let best = fastest(case, scratch, effort)?;
    let peer = measure::sample(case, best, scratch).context("the peer")?;
    case::verify(case, best, &scratch.dir).context("the peer's result is wrong")?;
    case::agree(case, &ours.said, &peer.said)?;
    Ok(best)
}

/// The way of doing it that is the peer's best here, found by trying them all.
fn fastest<'a>(case: &'a Case, scratch: &Scratch, effort: Effort) -> Result<&'a Side> {
    if let [only] = case.peers.as_slice() {
        return Ok(only);
    }
    let mut best: Option<(&Side, f64)> = None;
    for peer in &case.peers {
        match try_out(case, peer, scratch, effort.tries) {
            Ok(score) => {
                println!("   {score:12.3}  {}", peer.label);
                if best.is_none_or(|(_, other)| case.score.is_better(score, other)) {
                    best = Some((peer, score));
                }
            }
            // Not every file system can do O_DIRECT, and not every version has every flag.
            Err(error) => println!("   cannot: {}: {error:#}", peer.label),
        }
    }
    Ok(best.context("no way of the peer's works here")?.0)
}

fn try_out(case: &Case, peer: &Side, scratch: &Scratch, tries: usize) -> Result<f64> {
    let mut best = measure::sample(case, peer, scratch)?.score;
    for _ in 1..tries {
        let score = measure::sample(case, peer, scratch)?.score;
        if case.score.is_better(score, best) {
            best = score;
        }
    }
    Ok(best)
}
