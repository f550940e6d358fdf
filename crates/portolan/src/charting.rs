//! Writing a chart down: where every byte of a disk really lives, without any of the bytes.

use crate::Image;
use chart::file::{SourceRecord, Written};
use chart::{
    Backing, CodecId, Coded, Error, Extent, Frame, Identity, Leaf, LeafPlace, Purpose, Result, ResultExt,
    Source, SourceId, Table, Wait,
};
use io::replace::Replacement;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What is planned under one pin.
const BATCH_LEAVES: usize = 1024;
const BATCH_BYTES: u64 = 64 << 30;

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
pub fn write(image: &Image, target: &Path, force: bool) -> Result<Report> {
    let mut survey =
        Survey { folder: folder_of(target)?, sources: Vec::new(), names: Vec::new(), codecs: Vec::new() };
    let disk = image.disk();
    let mut table = Table::builder();
    let mut at = 0;
    while at < disk.len() {
        let want = (disk.len() - at).min(BATCH_BYTES);
        let plan = disk.plan(at, want, BATCH_LEAVES, Wait::Allowed, Purpose::Locate)?;
        for leaf in &plan.leaves {
            survey.leaf(leaf, &mut |extent| table.push(extent))?;
            at = leaf.at + leaf.len;
        }
    }
    let written = Written {
        logical_block: disk.geometry().logical_block,
        sources: survey.sources,
        codecs: survey.codecs.iter().map(|name| (*name).to_owned()).collect(),
        table: table.finish(disk.len())?,
    };
    let json = target.extension().is_some_and(|e| e == "json");
    let bytes = if json { written.to_json()?.into_bytes() } else { written.to_bytes()? };
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
    fn leaf(&mut self, leaf: &Leaf<'_>, each: &mut dyn FnMut(Extent) -> Result<()>) -> Result<()> {
        match leaf.place {
            LeafPlace::Hole => each(Extent::hole(leaf.at, leaf.len)),
            LeafPlace::Zero => each(Extent::zero(leaf.at, leaf.len)),
            LeafPlace::Coded(coded) => {
                let frame = self.frame(&coded)?;
                each(Extent::frame(leaf.at, leaf.len, frame))
            }
            LeafPlace::Raw { source, offset } => {
                let id = self.source(source)?;
                let mut done = 0;
                while done < leaf.len {
                    let run = source.data_at(offset + done, leaf.len - done)?;
                    let len = run.len.clamp(1, leaf.len - done);
                    let at = leaf.at + done;
                    each(if run.data {
                        Extent::raw(at, len, id, offset + done)
                    } else {
                        Extent::hole(at, len)
                    })?;
                    done += len;
                }
                Ok(())
            }
        }
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
