//! What many commands take: SPECs, formats, and how a disk is opened.

use crate::output::Out;
use crate::progress::Bar;
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use portolan::{Format, Gate, Location, Options, Spec, size};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Reads a SPEC.
pub(crate) fn spec() -> impl TypedValueParser<Value = Spec> {
    OsStringValueParser::new().try_map(Spec::parse)
}

/// Reads the name of a file that will be made.
pub(crate) fn new_file() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|name| {
        if name == "-" {
            let what = "what is made is written out of order, which standard output cannot take: name a file \
                        (./- is one of that name)";
            return Err(chart::Error::unsupported(what));
        }
        if Spec::parse(name.clone()).is_ok_and(|spec| !matches!(spec.location, Location::File(_))) {
            let what = "what is made is a file, or fills a block device; at an address nothing is written (nbdcopy \
                        fills an export)";
            return Err(chart::Error::unsupported(what));
        }
        Ok(PathBuf::from(name))
    })
}

/// Reads the name of a format.
pub(crate) fn format(name: &str) -> Result<Format, chart::Error> {
    Format::named(name)
}

/// Reads how long something is: `500ms`, `90s`, `5m`, `1h`, or seconds.
pub(crate) fn period(text: &str) -> Result<Duration, chart::Error> {
    let wrong = || chart::Error::invalid(format!("{text:?} is no time: 500ms, 90s, 5m and 1h are"));
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..) {
        Some("ms") => 1,
        Some("" | "s") => 1000,
        Some("m") => 60_000,
        Some("h") => 3_600_000,
        _ => return Err(wrong()),
    };
    let millis = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).filter(|&ms| ms > 0);
    millis.map(Duration::from_millis).ok_or_else(wrong)
}

/// Reads `key=value,key=value`. A comma that belongs to a value is written twice.
pub(crate) fn pairs(text: &str) -> Result<Vec<(String, String)>, chart::Error> {
    if matches!(text, "help" | "?") {
        let what = "the options are listed under OPTIONS OF FORMATS by `portolan help create`";
        return Err(chart::Error::invalid(what));
    }
    let apart = text.replace(",,", "\0");
    let pair = |part: &str| {
        let part = part.replace('\0', ",");
        let wrong = || chart::Error::invalid(format!("{part:?} is no KEY=VALUE"));
        part.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).ok_or_else(wrong)
    };
    apart.split(',').map(pair).collect()
}

/// All pairs, as a map.
pub(crate) fn map(pairs: &[Vec<(String, String)>]) -> BTreeMap<String, String> {
    pairs.iter().flatten().cloned().collect()
}

/// Command lines as `qemu-img` takes them: `--output=json` is `--json`, `--output=human` is nothing.
pub(crate) fn as_meant(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut meant = Vec::new();
    let mut args = args.peekable();
    while let Some(arg) = args.next() {
        if arg == "--" {
            meant.push(arg);
            meant.extend(args);
            break;
        }
        let apart = arg == "--output" && args.peek().is_some_and(|next| next == "json" || next == "human");
        let kind = if apart { args.next() } else { None };
        if arg == "--output=json" || kind.as_ref().is_some_and(|kind| kind == "json") {
            meant.push("--json".into());
        } else if arg != "--output=human" && kind.is_none() {
            meant.push(arg);
        }
    }
    meant
}

/// Which format a disk has.
#[derive(Args)]
pub(crate) struct Input {
    /// The disk's format; without it the bytes are looked at
    #[arg(short, long, value_name = "FORMAT", value_parser = format)]
    pub(crate) format: Option<Format>,
    /// An option of the format for opening it, as often as needed (see `portolan help spec`)
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = pairs)]
    pub(crate) options: Vec<Vec<(String, String)>>,
}

impl Input {
    /// The SPEC, with what was said beside it.
    pub(crate) fn apply(&self, spec: &Spec) -> Spec {
        let mut spec = spec.clone();
        if let Some(format) = self.format {
            spec.format = Some(format.name().to_owned());
        }
        spec.options.extend(map(&self.options));
        spec
    }
}

/// How disks are opened.
#[derive(Args)]
#[command(next_help_heading = "Opening")]
pub(crate) struct Access {
    /// Take no locks: to look at an image that somebody is using. Nothing can be written then
    #[arg(short = 'U', long)]
    pub(crate) force_share: bool,
    /// Images may name files beneath this directory too, not only beside or below their own
    #[arg(long, value_name = "DIR")]
    pub(crate) allow: Vec<PathBuf>,
    /// Images may name whatever they like, servers included
    #[arg(long)]
    pub(crate) allow_any: bool,
    /// Guess the format of a backing file where the image does not say it
    #[arg(long)]
    pub(crate) guess: bool,
    /// Read and write past the host's page cache; what is compressed is written through it
    #[arg(long)]
    pub(crate) direct: bool,
    /// How much memory a format's tables may take: 32M unless it is said
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) cache: Option<u64>,
}

impl Access {
    /// What the image may name.
    pub(crate) fn gate(&self) -> Gate {
        if self.allow_any {
            return Gate::any();
        }
        self.allow.iter().fold(Gate::beside(), Gate::allow)
    }

    /// To read.
    pub(crate) fn reading(&self) -> Options {
        Options {
            unlocked: self.force_share,
            direct: self.direct,
            gate: self.gate(),
            guess: self.guess,
            cache_bytes: self.cache.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            ..Options::default()
        }
    }

    /// To look at what an image says itself: what it names need not be there.
    pub(crate) fn looking(&self) -> Options {
        Options { alone: true, ..self.reading() }
    }

    /// To write too.
    pub(crate) fn writing(&self) -> Options {
        Options { writable: true, ..self.reading() }
    }
}

/// An image that a command changes.
#[derive(Args)]
pub(crate) struct Image {
    /// The image: its path, or more (see `portolan help spec`)
    #[arg(index = 1, value_name = "SPEC", value_parser = spec())]
    named: Spec,
    #[command(flatten)]
    pub(crate) told: Told,
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    pub(crate) access: Access,
}

impl Image {
    /// Its name, with what was said beside it.
    pub(crate) fn spec(&self) -> Spec {
        self.input.apply(&self.named)
    }

    /// As it was named.
    pub(crate) fn name(&self) -> String {
        self.named.to_string()
    }

    /// A bar for what is done to it, and how it is opened to be written so that the bar hears of it.
    pub(crate) fn changing(&self, doing: &'static str) -> (Bar, Options) {
        let bar = Bar::new(doing, self.told.quiet);
        let options = Options { onlooker: bar.onlooker(), ..self.access.writing() };
        (bar, options)
    }
}

/// How a command tells what it did.
#[derive(Args)]
pub(crate) struct Told {
    /// Say nothing
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Show progress. Here for the habit: on a terminal it is shown anyway
    #[arg(short = 'p', hide = true)]
    _progress: bool,
}

impl Told {
    /// Tells it: nothing, or as JSON, or in words.
    pub(crate) fn tell(
        &self,
        out: &mut Out,
        report: &impl Serialize,
        words: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        match (self.quiet, self.json) {
            (true, _) => Ok(()),
            (false, true) => out.json(report),
            (false, false) => Ok(writeln!(out, "{}", words())?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn habits_are_understood() {
        let meant = |line: &str| as_meant(line.split(' ').map(OsString::from)).join(" ".as_ref());
        assert_eq!(meant("info --output=json a"), "info --json a");
        assert_eq!(meant("map a --output json"), "map a --json");
        assert_eq!(meant("info --output=human a"), "info a");
        assert_eq!(meant("chart --output a.chart a"), "chart --output a.chart a");
        assert_eq!(meant("info -- --output=json"), "info -- --output=json");
    }

    #[test]
    fn pairs_are_split_at_single_commas() {
        let read = pairs("a=1,b=x,,y=z,c=").unwrap();
        let expected = [("a", "1"), ("b", "x,y=z"), ("c", "")];
        assert_eq!(read, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert!(pairs("a").is_err());
        assert!(pairs("").is_err());
    }
}
