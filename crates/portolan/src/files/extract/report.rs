//! What an extraction did.

use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Of each reason, so many paths are named.
const EXAMPLES: usize = 3;
/// Of a path that is told, so many bytes.
const SHOWN: usize = 4096;
/// So many files that could not be read are named.
const NAMED: usize = 1000;

/// What an extraction did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Regular files that were made.
    pub files: u64,
    /// Directories that were made, the outermost included.
    pub directories: u64,
    /// Symbolic links that were made.
    pub symlinks: u64,
    /// Further names of files that were made before.
    pub hard_links: u64,
    /// Devices, pipes and sockets that were made.
    pub special: u64,
    /// Bytes of the files, holes included.
    pub bytes: u64,
    /// Of these: shared with the image by the file system.
    pub cloned: u64,
    /// Copied inside the kernel.
    pub offloaded: u64,
    /// Read and written.
    pub copied: u64,
    /// Left out as holes.
    pub holes: u64,
    /// What was left out, by reason.
    pub skipped: Vec<Skipped>,
    /// What could not be read and was left out, if that was allowed.
    pub unreadable: Vec<Unreadable>,
    /// How many of these there are: not all are named, if they are many.
    pub unreadable_count: u64,
}

/// What was left out for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Skipped {
    /// What, and why.
    pub what: &'static str,
    /// How often.
    pub count: u64,
    /// A few of the paths.
    pub examples: Vec<String>,
}

/// A file that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Unreadable {
    /// Its path.
    pub path: String,
    /// Why not.
    pub error: String,
}

/// A report while it is written: each worker has one of its own.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) report: Report,
    skipped: BTreeMap<&'static str, (u64, Vec<String>)>,
}

impl Tally {
    /// Notes that something was left out.
    pub(super) fn skip(&mut self, what: &'static str, folder: &Path, name: &[u8]) {
        let (count, examples) = self.skipped.entry(what).or_default();
        *count += 1;
        if examples.len() < EXAMPLES {
            examples.push(shown(folder, name));
        }
    }

    /// Notes that something could not be read.
    pub(super) fn unreadable(&mut self, folder: &Path, name: &[u8], error: &chart::Error) {
        self.report.unreadable_count += 1;
        if self.report.unreadable.len() < NAMED {
            self.report.unreadable.push(Unreadable { path: shown(folder, name), error: error.to_string() });
        }
    }

    /// Counts the bytes of a file.
    pub(super) fn bytes(&mut self, done: &io::copy::Report, len: u64) {
        self.report.bytes += len;
        self.report.cloned += done.cloned;
        self.report.offloaded += done.offloaded;
        self.report.copied += done.copied;
        self.report.holes += done.skipped;
    }

    /// Adds what another worker did.
    pub(super) fn add(&mut self, other: Tally) {
        let (to, from) = (&mut self.report, other.report);
        let pairs = [
            (&mut to.files, from.files),
            (&mut to.directories, from.directories),
            (&mut to.symlinks, from.symlinks),
            (&mut to.hard_links, from.hard_links),
            (&mut to.special, from.special),
            (&mut to.bytes, from.bytes),
            (&mut to.cloned, from.cloned),
            (&mut to.offloaded, from.offloaded),
            (&mut to.copied, from.copied),
            (&mut to.holes, from.holes),
            (&mut to.unreadable_count, from.unreadable_count),
        ];
        pairs.into_iter().for_each(|(to, from)| *to += from);
        to.unreadable.extend(from.unreadable);
        to.unreadable.truncate(NAMED);
        for (what, (count, examples)) in other.skipped {
            let (to, named) = self.skipped.entry(what).or_default();
            *to += count;
            named.extend(examples);
            named.truncate(EXAMPLES);
        }
    }

    /// The report.
    pub(super) fn finish(mut self) -> Report {
        let skipped = self.skipped.into_iter();
        self.report.skipped =
            skipped.map(|(what, (count, examples))| Skipped { what, count, examples }).collect();
        self.report.unreadable.sort_by(|a, b| a.path.cmp(&b.path));
        self.report
    }
}

/// A path in the file system, as it is shown: of a very long one, how it begins and how it ends.
pub(super) fn shown(folder: &Path, name: &[u8]) -> String {
    let path = Path::new("/").join(folder).join(OsStr::from_bytes(name));
    let bytes = path.as_os_str().as_bytes();
    let parts = [bytes.get(..SHOWN / 2), bytes.get(bytes.len().saturating_sub(SHOWN / 2)..)];
    match parts {
        [Some(first), Some(last)] if bytes.len() > SHOWN => {
            format!("{}[...]{}", String::from_utf8_lossy(first), String::from_utf8_lossy(last))
        }
        _ => path.display().to_string(),
    }
}
