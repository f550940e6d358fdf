//! Writing a chart down: where every byte of a disk really lives, without any of the bytes.

use crate::{Image, Watch};
use chart::file::{SourceRecord, Written};
use chart::{
    Backing, CodecId, Coded, Error, Extent, Frame, Identity, Leaf, LeafPlace, Purpose, Result, ResultExt,
    Source, SourceId, Table,
};
use io::replace::Replacement;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// The disk's length.
    pub virtual_size: u64,
    /// The chart file's length.
    pub file_size: u64,
    /// Ranges in it.
    pub ranges: usize,
    /// Files and addresses it names.
    pub sources: usize,
}

/// Writes the chart of an image's disk to `target`: as JSON where the name ends so, else as a `.chart` file. The
/// disk must not be in use by a writer; what changes later makes the chart invalid, which opening it finds.
pub fn write(image: &Image, target: &Path, force: bool, watch: Watch<'_>) -> Result<Report> {
    let mut survey =
        Survey { folder: folder_of(target)?, sources: Vec::new(), names: Vec::new(), codecs: Vec::new() };
    let disk = image.disk();
    let mut table = Table::builder();
    let walk = disk.walk(0..disk.len(), Purpose::Locate).ask_sources();
    walk.each(|leaf| {
        watch.step(leaf.end(), disk.len())?;
        table.push(survey.extent(&leaf)?)
    })?;
    let written = Written {
        logical_block: disk.geometry().logical_block,
        sources: survey.sources,
        codecs: survey.codecs.iter().map(|name| (*name).to_owned()).collect(),
        table: table.finish(disk.len())?,
    };
    let json = target.extension().is_some_and(|e| e == "json");
    let bytes = if json { written.to_json()?.into_bytes() } else { written.to_bytes()? };
    watch.go_on()?;
    Replacement::create(target, force)?.write_whole(&bytes)?;
    Ok(Report {
        virtual_size: disk.len(),
        file_size: bytes.len() as u64,
        ranges: written.table.runs(),
        sources: written.sources.len(),
    })
}

fn folder_of(target: &Path) -> Result<PathBuf> {
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    folder.canonicalize().in_path(folder)
}

/// The sources and codecs that were met so far.
struct Survey {
    /// Where the chart will be: names of files below are relative to it.
    folder: PathBuf,
    sources: Vec<SourceRecord>,
    /// Which source is which: a disk's ids mean nothing outside it, identities do.
    names: Vec<Identity>,
    codecs: Vec<&'static str>,
}

impl Survey {
    fn extent(&mut self, leaf: &Leaf<'_>) -> Result<Extent> {
        let &Leaf { at, len, .. } = leaf;
        Ok(match leaf.place {
            LeafPlace::Zero => Extent::zero(at, len),
            LeafPlace::Coded(coded) => Extent::frame(at, len, self.frame(&coded)?),
            LeafPlace::Raw { source, offset } if leaf.data => {
                Extent::raw(at, len, self.source(source)?, offset)
            }
            LeafPlace::Raw { .. } | LeafPlace::Hole => Extent::hole(at, len),
        })
    }

    fn frame(&mut self, coded: &Coded<'_>) -> Result<Frame> {
        let source = self.source(coded.source)?;
        let name = coded.codec.name();
        let known = self.codecs.iter().position(|codec| *codec == name);
        let codec = known.unwrap_or_else(|| {
            self.codecs.push(name);
            self.codecs.len() - 1
        });
        let codec = u8::try_from(codec).map_err(|_| Error::unsupported("too many codecs for a chart"))?;
        Ok(Frame { source, codec: CodecId(codec), offset: coded.offset, ..coded.frame })
    }

    fn source(&mut self, source: &dyn Source) -> Result<SourceId> {
        let identity = source.identity();
        if let Some(i) = self.names.iter().position(|known| *known == identity) {
            return Ok(SourceId(i as u16));
        }
        let id = u16::try_from(self.names.len());
        let id = id.map_err(|_| Error::unsupported("too many sources for a chart"))?;
        let (name, modified) = match source.backing() {
            Backing::File(fd) => (self.file_name(&source.name())?, io::file::modified(fd)),
            _ => (source.name(), None),
        };
        self.sources.push(SourceRecord {
            name,
            len: source.len(),
            identity: Some(identity.clone()),
            modified,
        });
        self.names.push(identity);
        Ok(SourceId(id))
    }

    /// How the chart names a file: relative to itself, where the file is beside it or below.
    fn file_name(&self, path: &str) -> Result<String> {
        let real = Path::new(path).canonicalize().in_path(Path::new(path))?;
        let name = real.strip_prefix(&self.folder).unwrap_or(&real);
        let text = name.to_str().map(str::to_owned);
        text.ok_or_else(|| Error::unsupported("a chart's files need names in UTF-8").in_path(&real))
    }
}
