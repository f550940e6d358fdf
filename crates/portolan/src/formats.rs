//! The formats there are, and how one is recognised.

use crate::Location;
use chart::{Error, Remedy, Result, Source, Wait};
use format::probe::{Mark, probe};
use std::fmt;

/// A format that disks can be opened in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// The bytes as they are.
    Raw,
    /// QEMU's own.
    Qcow2,
    /// A chart that was written down.
    Chart,
}

/// All of them.
pub const FORMATS: &[Format] = &[Format::Raw, Format::Qcow2, Format::Chart];

impl Format {
    /// Its name on the command line, and in images that name others.
    pub fn name(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
            Format::Chart => "chart",
        }
    }

    /// The format of that name.
    pub fn named(name: &str) -> Result<Format> {
        let names = || FORMATS.iter().map(|f| f.name()).collect::<Vec<_>>().join(", ");
        let unknown =
            || Error::unsupported(format!("the format {name:?} is not known to this build ({})", names()));
        FORMATS.iter().copied().find(|f| f.name() == name).ok_or_else(unknown)
    }

    /// The error of who would make a chart as if it were an image.
    pub(crate) fn only_charted() -> Error {
        Error::unsupported("a chart holds no data of its own: portolan chart -o writes one down")
    }

    /// What the bytes say it is. Without any sign of another format it is raw, unless its name says that it is a
    /// chart: one that is damaged, or was edited, is none the less no disk of text.
    pub fn probe(source: &dyn Source, location: &Location) -> Result<Format> {
        match probe(source)? {
            Some(Mark::Qcow2) => Ok(Format::Qcow2),
            Some(Mark::Chart) => Ok(Format::Chart),
            Some(Mark::Foreign(name)) => {
                let what = format!("looks like {name}, which this build does not read");
                Err(Error::unsupported(what).in_path(source.name()).with_remedy(Remedy::NameRaw))
            }
            None if is_named_as_chart(location) => {
                // Where it is JSON, its parser says what is wrong with it, if anything is.
                let mut first = [0];
                if !source.is_empty() {
                    source.read_at(0, &mut first, Wait::Allowed)?;
                }
                if matches!(first, [b'{' | b' ' | b'\t' | b'\r' | b'\n']) {
                    return Ok(Format::Chart);
                }
                let what = "is named as a chart, and does not begin as one: it is damaged, or something else";
                Err(Error::corrupt(what).in_path(source.name()).with_remedy(Remedy::ChartAgain))
            }
            None => Ok(Format::Raw),
        }
    }
}

/// Whether a name ends as those of charts do.
fn is_named_as_chart(location: &Location) -> bool {
    let name = match location {
        Location::File(path) => return path.extension().is_some_and(|e| e == "chart" || e == "json"),
        Location::Http(address) => address.split(['?', '#']).next().unwrap_or_default(),
        // Exports have names, and no endings.
        Location::Nbd(_) => return false,
    };
    name.ends_with(".chart") || name.ends_with(".json")
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
