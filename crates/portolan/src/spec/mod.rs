//! SPEC: how a disk is named. One grammar, one parser; `grammar.txt` is its documentation.

mod json;
mod parse;
mod show;
#[cfg(test)]
mod tests;

use chart::Result;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;

/// The grammar, for people.
pub const GRAMMAR: &str = include_str!("grammar.txt");

/// The longest SPEC that is read.
pub const MAX_SPEC: usize = 16 << 10;

/// How many suffixes a SPEC may have.
pub const MAX_STEPS: usize = 16;

/// A disk, as a person names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// What it begins with.
    pub location: Location,
    /// The format, where it was said.
    pub format: Option<String>,
    /// Options of the format.
    pub options: BTreeMap<String, String>,
    /// What is inside, from the outside in.
    pub steps: Vec<Step>,
}

/// Where the bytes come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// A host file or block device.
    File(PathBuf),
    /// An export of an NBD server: an `nbd://` or `nbd+unix://` address, or with TLS `nbds://` or `nbds+unix://`.
    Nbd(String),
    /// An object read by ranges: an `http://` or `https://` address.
    Http(String),
}

/// One suffix.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// A version or an internal snapshot, by name or id.
    Version(String),
    /// A partition, counted from 1.
    Partition(u32),
    /// A file inside, by its absolute path.
    Path(PathBuf),
}

impl Spec {
    /// Reads a SPEC.
    pub fn parse(text: impl AsRef<OsStr>) -> Result<Spec> {
        parse::parse(text.as_ref())
    }

    /// A plain file.
    pub fn file(path: impl Into<PathBuf>) -> Spec {
        Spec::of(Location::File(path.into()))
    }

    /// Just this place.
    pub fn of(location: Location) -> Spec {
        Spec { location, format: None, options: BTreeMap::new(), steps: Vec::new() }
    }

    /// The file it names, where it names a file and nothing inside of it.
    pub fn plain_file(&self) -> Option<&std::path::Path> {
        match &self.location {
            Location::File(path) if self.steps.is_empty() => Some(path),
            _ => None,
        }
    }
}

impl std::str::FromStr for Spec {
    type Err = chart::Error;
    fn from_str(text: &str) -> Result<Spec> {
        Spec::parse(text)
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Location::File(path) => write!(f, "{}", path.display()),
            Location::Nbd(address) | Location::Http(address) => f.write_str(address),
        }
    }
}
