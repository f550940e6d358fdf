//! What a row of the benchmark is.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::data::Data;

/// Bytes in a MiB.
pub(super) const MIB: u64 = 1 << 20;

/// One row: the same work done by both sides.
pub(super) struct Case {
    /// Unique, and a file name.
    pub(super) name: String,
    /// What is done, for a person.
    pub(super) work: String,
    pub(super) place: Place,
    pub(super) cache: Cache,
    /// What must exist before the row is measured. Both sides only read it.
    pub(super) inputs: Vec<Data>,
    pub(super) ours: Side,
    /// The peer's ways of doing it; the fastest on this machine is the one measured.
    pub(super) peers: Vec<Side>,
    /// A command that takes a millisecond is run many times in one sample.
    pub(super) repeat: u32,
    pub(super) score: Score,
    pub(super) check: Check,
    pub(super) bars: Vec<Bar>,
    /// Bytes of data the work is about, for the bar on bytes written.
    pub(super) payload: u64,
}

/// One side of a row.
#[derive(Clone)]
pub(super) struct Side {
    pub(super) label: String,
    /// Run in order; a sample is their sum.
    pub(super) commands: Vec<Vec<String>>,
    /// Removed before each run.
    pub(super) output: Option<PathBuf>,
}

/// Where a row is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// ext4: no reflink.
    Plain,
    /// XFS with reflink, on a loop device of our own.
    Reflink,
}

/// What the page cache holds when a sample starts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cache {
    /// The inputs, read just before.
    Warm,
    /// Nothing.
    Cold,
    /// Whatever the run before left.
    AsIs,
}

/// What is compared.
#[derive(Clone, Copy)]
pub(super) enum Score {
    /// Wall time: the ratio is peer / ours.
    Wall,
    /// A figure of the JSON that the last command prints, more being better: the ratio is ours / peer.
    Figure(&'static str),
}

/// How it is made sure that both sides did the same.
pub(super) enum Check {
    /// The outputs are both of this format, valid, and hold the same bytes as the source.
    Images { format: &'static str, source: (PathBuf, &'static str) },
    /// Both print JSON with this field, and the same in it.
    SameField(&'static str),
    /// Both sides are ours: nothing to compare.
    Nothing,
}

/// What a row has to reach.
#[derive(Clone, Copy)]
pub(super) enum Bar {
    /// The ratio is at least this.
    Ratio(f64),
    /// Our largest resident set, in MiB, is at most this.
    RssMib(f64),
    /// We write at most this share of the payload.
    WrittenShare(f64),
    /// Our output is at most this much larger than the peer's: speed is not bought with size.
    Size(f64),
}

impl Side {
    /// A side with no output that does one command.
    pub(super) fn prints(label: &str, command: Vec<String>) -> Side {
        Side { label: label.to_owned(), commands: vec![command], output: None }
    }

    /// The same, with the output made durable before the clock stops.
    pub(super) fn then_sync(mut self) -> Side {
        if let Some(output) = &self.output {
            self.commands.push(words(&["sync", &output.display().to_string()]));
            self.label.push_str(" + sync FILE");
        }
        self
    }
}

/// A command from plain words.
pub(super) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// A path as a word of a command.
pub(super) fn word(path: &Path) -> String {
    path.display().to_string()
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Plain => "ext4",
            Place::Reflink => "XFS",
        })
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bar::Ratio(at_least) => write!(f, "≥ {at_least}×"),
            Bar::RssMib(mib) => write!(f, "RSS ≤ {mib} MiB"),
            Bar::WrittenShare(share) => write!(f, "writes ≤ {}% of payload", share * 100.0),
            Bar::Size(factor) => write!(f, "size ≤ {factor}× the peer's"),
        }
    }
}

/// Checks what one side has just made.
pub(super) fn verify(case: &Case, side: &Side) -> Result<()> {
    match (&case.check, &side.output) {
        (Check::Images { format, source }, Some(output)) => {
            super::qemu::verify(output, format, &source.0, source.1)
        }
        _ => Ok(()),
    }
}

/// Checks that both sides have printed the same.
pub(super) fn agree(case: &Case, ours: &str, peer: &str) -> Result<()> {
    let Check::SameField(field) = &case.check else { return Ok(()) };
    let (ours, peer) = (figure(ours, field)?, figure(peer, field)?);
    anyhow::ensure!(ours == peer, "`{field}` is {ours} by us and {peer} by the peer");
    Ok(())
}

/// A number in the JSON that a command printed.
pub(super) fn figure(said: &str, field: &str) -> Result<f64> {
    let json: serde_json::Value = serde_json::from_str(said).map_err(|error| {
        anyhow::anyhow!("not JSON ({error}): {}", said.chars().take(200).collect::<String>())
    })?;
    json[field].as_f64().ok_or_else(|| anyhow::anyhow!("no number `{field}` in {json}"))
}
