//! The formats there are, and how one is recognised.

use chart::file::Written;
use chart::{Error, Result, Source, Wait};
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

/// How many bytes from the beginning decide.
const HEAD: usize = 512;

/// Formats that are recognised, so as not to take them for raw, and not read.
const FOREIGN: &[(&[u8], &str)] = &[
    (b"KDMV", "VMDK"),
    (b"COWD", "VMDK"),
    (b"# Disk DescriptorFile", "VMDK"),
    (b"vhdxfile", "VHDX"),
    (b"conectix", "VHD"),
    (b"<<< Oracle VM VirtualBox", "VDI"),
    (b"<<< Sun VirtualBox", "VDI"),
    (b"QED\0", "QED"),
    (b"WithoutFreeSpace", "Parallels"),
    (b"WithouFreSpacExt", "Parallels"),
];

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

    /// What the first bytes say. Without any sign of another format it is raw.
    pub fn probe(source: &dyn Source) -> Result<Format> {
        let mut head = [0; HEAD];
        let have = source.len().min(HEAD as u64) as usize;
        source.read_at(0, &mut head[..have], Wait::Allowed)?;
        if format::qcow2::probe(&head[..have]) {
            return Ok(Format::Qcow2);
        }
        if Written::probe(&head[..have]) {
            return Ok(Format::Chart);
        }
        match FOREIGN.iter().find(|(magic, _)| head.starts_with(magic)) {
            None => Ok(Format::Raw),
            Some((_, name)) => {
                let what = format!(
                    "looks like {name}, which this build does not read; to take its bytes as they are, name it as raw"
                );
                Err(Error::unsupported(what).in_path(source.name()))
            }
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
