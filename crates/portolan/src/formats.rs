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
    /// VirtualBox's.
    Vdi,
    /// A chart that was written down.
    Chart,
    /// A directory of the host, shown as a disk with an ISO 9660 file system.
    Iso9660,
}

/// All of them.
pub const FORMATS: &[Format] = &[Format::Raw, Format::Qcow2, Format::Vdi, Format::Chart, Format::Iso9660];

impl Format {
    /// Its name on the command line, and in images that name others.
    pub fn name(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
            Format::Vdi => "vdi",
            Format::Chart => "chart",
            Format::Iso9660 => "iso9660",
        }
    }

    /// The format of that name.
    pub fn named(name: &str) -> Result<Format> {
        let names = || FORMATS.iter().map(|f| f.name()).collect::<Vec<_>>().join(", ");
        let unknown =
            || Error::unsupported(format!("the format {name:?} is not known to this build ({})", names()));
        FORMATS.iter().copied().find(|f| f.name() == name).ok_or_else(unknown)
    }

    /// The error of who would make an image in a format that none is made in.
    pub(crate) fn not_made(self) -> Error {
        Error::unsupported(match self {
            Format::Chart => "a chart holds no data of its own: portolan chart -o writes one down",
            _ => "what is shown as iso9660 is a directory; to a file it is written as raw",
        })
    }

    /// What the bytes say it is. Without any sign of another format it is raw, unless its name says that it is a
    /// chart: one that is damaged, or was edited, is none the less no disk of text.
    pub fn probe(source: &dyn Source, location: &Location) -> Result<Format> {
        match probe(source)? {
            Some(Mark::Qcow2) => Ok(Format::Qcow2),
            Some(Mark::Vdi) => Ok(Format::Vdi),
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
