//! What a row of the benchmark is.

use std::fmt;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::data::Data;
use super::qemu;
use super::server::Running;
use crate::process;

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
    /// What must exist before the row is measured. Both sides only read it, or both write over the same places of it.
    pub(super) inputs: Vec<Data>,
    /// What the machine must have.
    pub(super) needs: Vec<Need>,
    pub(super) ours: Side,
    /// The peer's ways of doing it; the fastest on this machine is the one measured.
    pub(super) peers: Vec<Side>,
    /// A command that takes a millisecond is run many times in one sample.
    pub(super) repeat: u32,
    pub(super) score: Score,
    /// Where the last command tells how many requests it made, so that costs can be told for each.
    pub(super) requests: Option<&'static str>,
    pub(super) check: Check,
    pub(super) bars: Vec<Bar>,
    /// Bytes of data the work is about, for the bar on bytes written.
    pub(super) payload: u64,
}

/// One side of a row.
#[derive(Clone, Default)]
pub(super) struct Side {
    pub(super) label: String,
    /// Run before anything is measured, to make the output there has to be.
    pub(super) before: Vec<Vec<String>>,
    /// What is measured where there is one: the commands are its load then, and alike on both sides.
    pub(super) server: Option<Server>,
    /// Run in order; a sample is their sum.
    pub(super) commands: Vec<Vec<String>>,
    /// Removed before each run.
    pub(super) output: Option<PathBuf>,
}

/// A process that others are clients of.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) command: Vec<String>,
    /// Where it listens once it is ready.
    pub(super) socket: PathBuf,
}

/// What not every machine has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Program(&'static str),
    /// An engine that fio was built with.
    FioEngine(&'static str),
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
    Most(Figure),
    /// The same, less being better: the ratio is peer / ours.
    Least(Figure),
    /// The largest resident set: the ratio is peer / ours.
    Rss,
}

/// A number in JSON.
#[derive(Clone, Copy)]
pub(super) struct Figure {
    /// Where, as a JSON pointer.
    pub(super) at: &'static str,
    /// Of what.
    pub(super) unit: &'static str,
}

/// How it is made sure that both sides did the same.
pub(super) enum Check {
    /// The outputs are both of this format, valid, and hold the same bytes as the source.
    Images { format: &'static str, source: (PathBuf, &'static str) },
    /// Both print JSON with a number at this place, and the same.
    SameNumber(&'static str),
    /// Both serve the bytes of this image of that format.
    Serves(PathBuf, &'static str),
    /// This qcow2 is sound after either has written it.
    Sound(PathBuf),
    /// What both have made is this directory again; the peer may leave out links, since not every one keeps them.
    Trees(PathBuf),
    /// There is nothing to compare.
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
    /// Where less is better: ours is at most this share of the peer's.
    Share(f64),
    /// Our processor time for a request is at most this share of the peer's.
    CpuEach(f64),
    /// Our resident set before any load is at most this share of the peer's.
    RestRss(f64),
}

impl Side {
    /// A side with no output that does one command.
    pub(super) fn prints(label: &str, command: Vec<String>) -> Side {
        Side { label: label.to_owned(), commands: vec![command], ..Side::default() }
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

impl Score {
    /// Whether one score is better than another.
    pub(super) fn is_better(self, one: f64, other: f64) -> bool {
        match self {
            Score::Wall | Score::Least(_) | Score::Rss => one < other,
            Score::Most(_) => one > other,
        }
    }
}

impl Need {
    /// Why the row cannot be measured here, if it is for this.
    pub(super) fn lacks(self) -> Option<String> {
        match self {
            Need::Program(name) if process::which(name).is_none() => Some(format!("{name} is not installed")),
            Need::FioEngine(name) => {
                let help = process::output(&mut process::command(&["fio", &format!("--enghelp={name}")]));
                // It ends well and says so in words where it has no such engine.
                let has = help.is_ok_and(|said| said.contains("uri"));
                (!has).then(|| format!("fio is not installed, or without its engine {name}"))
            }
            Need::Program(_) => None,
        }
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
            Bar::Share(share) => write!(f, "≤ {share}× the peer's"),
            Bar::CpuEach(share) => write!(f, "CPU a request ≤ {share}×"),
            Bar::RestRss(share) => write!(f, "RSS at rest ≤ {share}×"),
        }
    }
}

/// Checks what one side has just made.
pub(super) fn verify(case: &Case, side: &Side, dir: &Path) -> Result<()> {
    match (&case.check, &side.output, &side.server) {
        (Check::Images { format, source }, Some(output), _) => {
            qemu::verify(output, format, &source.0, source.1)
        }
        (Check::Serves(image, format), _, Some(server)) => {
            let running = Running::start(server, dir)?;
            qemu::serves(&server.socket, image, format)?;
            running.stop()
        }
        (Check::Sound(image), ..) => qemu::sound(image),
        (Check::Trees(tree), Some(output), _) => {
            same_tree(tree, output, side.label == case.ours.label).with_context(|| side.label.clone())
        }
        _ => Ok(()),
    }
}

/// Checks that a directory has all files of another, byte for byte, and all symbolic links where those are wanted too.
fn same_tree(tree: &Path, output: &Path, links: bool) -> Result<()> {
    for entry in fs::read_dir(tree)? {
        let entry = entry?;
        let (kind, here, there) = (entry.file_type()?, entry.path(), output.join(entry.file_name()));
        let is_same = if kind.is_dir() {
            same_tree(&here, &there, links)?;
            true
        } else if kind.is_file() {
            fs::symlink_metadata(&there)?.is_file() && same_bytes(&here, &there)?
        } else {
            !links || !kind.is_symlink() || fs::read_link(&here)? == fs::read_link(&there)?
        };
        anyhow::ensure!(is_same, "{} is not as it was", there.display());
    }
    Ok(())
}

/// Compares two files piece by piece: what is in memory here would count as that of the programs that are started.
fn same_bytes(one: &Path, other: &Path) -> Result<bool> {
    let (mut one, mut other) = (fs::File::open(one)?, fs::File::open(other)?);
    let (mut a, mut b) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    loop {
        let many = one.read(&mut a)?;
        if many == 0 {
            return Ok(true);
        }
        other.read_exact(&mut b[..many])?;
        if a[..many] != b[..many] {
            return Ok(false);
        }
    }
}

/// Checks that both sides have printed the same.
pub(super) fn agree(case: &Case, ours: &str, peer: &str) -> Result<()> {
    let Check::SameNumber(at) = &case.check else { return Ok(()) };
    let (ours, peer) = (number(ours, at)?, number(peer, at)?);
    anyhow::ensure!(ours == peer, "`{at}` is {ours} by us and {peer} by the peer");
    Ok(())
}

/// A number in the JSON that a command printed, behind lines of words where it printed those too.
pub(super) fn number(said: &str, at: &str) -> Result<f64> {
    let begin = if said.starts_with(['{', '[']) { Some(0) } else { said.find("\n{").map(|end| end + 1) };
    let json: serde_json::Value = serde_json::from_str(&said[begin.unwrap_or(0)..]).map_err(|error| {
        anyhow::anyhow!("not JSON ({error}): {}", said.chars().take(200).collect::<String>())
    })?;
    let number = json.pointer(at).and_then(serde_json::Value::as_f64);
    number.ok_or_else(|| anyhow::anyhow!("no number `{at}` in {json}"))
}
