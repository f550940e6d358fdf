//! Writing a chart down: where every byte of a disk really lives, without any of the bytes.

#[cfg(test)]
mod tests;

use crate::{Image, Watch};
use chart::file::{FamilyRecord, MAX_INLINE, MAX_MEMBERS, Outside, SourceRecord, Written};
use chart::{
    Backing, CodecId, Coded, Disk, Error, Extent, Family, Frame, Identity, Leaf, LeafPlace, Member, Purpose,
    Result, ResultExt, Source, SourceId, Table, TableBuilder, Wait,
};
use io::replace::Replacement;
use serde::Serialize;
use std::collections::BTreeMap;
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
    /// Files and addresses it names: all files of a directory count.
    pub sources: u64,
    /// Bytes that it holds itself, since they were computed.
    pub inline: u64,
}

/// Writes the chart of an image's disk to `target`: as JSON where the name ends so, else as a `.chart` file. The
/// disk must not be in use by a writer; what changes later makes the chart invalid, which opening it finds.
pub fn write(image: &Image, target: &Path, force: bool, watch: Watch<'_>) -> Result<Report> {
    image.refuse_as_target(target)?;
    let written = chart_of(image.disk(), target, watch)?;
    let json = target.extension().is_some_and(|e| e == "json");
    let bytes = if json { written.to_json()?.into_bytes() } else { written.to_bytes()? };
    watch.go_on()?;
    Replacement::create(target, force)?.write_whole(&bytes)?;
    let count = |record: &SourceRecord| match record {
        SourceRecord::Outside(_) => (1, 0),
        SourceRecord::Inline(bytes) => (0, bytes.len() as u64),
        SourceRecord::Family(family) => (family.members.len() as u64, 0),
    };
    let counts = written.sources.iter().map(count);
    let (sources, inline) = counts.fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
    Ok(Report {
        virtual_size: image.disk().len(),
        file_size: bytes.len() as u64,
        ranges: written.table.runs(),
        sources,
        inline,
    })
}

/// The chart of a disk, as it is written to `target`.
fn chart_of(disk: &Disk, target: &Path, watch: Watch<'_>) -> Result<Written> {
    let mut survey = Survey::beside(target)?;
    // Sources are asked what they store one by one: the files of a directory are not, since there may be many, and
    // each would have to be opened.
    let walk = disk.walk(0..disk.len(), Purpose::Locate);
    walk.each(|leaf| {
        watch.step(leaf.end(), disk.len())?;
        survey.take(leaf)
    })?;
    survey.written(disk.len(), disk.geometry().logical_block)
}

fn folder_of(target: &Path) -> Result<PathBuf> {
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    folder.canonicalize().in_path(folder)
}

/// A source that was met, as far as it is known by now.
enum Met {
    Outside(Outside),
    /// Computed bytes: what was met of them, one run behind the other, and where each run began.
    Inline {
        bytes: Vec<u8>,
        runs: BTreeMap<u64, (u64, usize)>,
    },
    /// A directory's files: those that were met, by their positions.
    Family {
        root: PathBuf,
        len: u64,
        members: BTreeMap<u64, Member>,
    },
}

/// The table, the sources and codecs that were met so far.
struct Survey {
    /// Where the chart will be: names of files below are relative to it.
    folder: PathBuf,
    table: TableBuilder,
    sources: Vec<Met>,
    /// Which source is which: a disk's ids mean nothing outside it, identities do.
    names: Vec<Identity>,
    codecs: Vec<&'static str>,
    inline: u64,
    members: u64,
}

impl Survey {
    fn beside(target: &Path) -> Result<Survey> {
        Ok(Survey {
            folder: folder_of(target)?,
            table: Table::builder(),
            sources: Vec::new(),
            names: Vec::new(),
            codecs: Vec::new(),
            inline: 0,
            members: 0,
        })
    }

    /// Takes a run of the disk, in the parts that are stored and that are not.
    fn take(&mut self, mut leaf: Leaf<'_>) -> Result<()> {
        let LeafPlace::Raw { source, .. } = leaf.place else {
            let extent = self.extent(&leaf)?;
            return self.table.push(extent);
        };
        let ask = !matches!(source.backing(), Backing::Family(_) | Backing::Memory);
        while leaf.len > 0 {
            let mut part = leaf;
            if ask {
                part.ask()?;
            }
            leaf = leaf.skip(part.len);
            let extent = self.extent(&part)?;
            self.table.push(extent)?;
        }
        Ok(())
    }

    fn extent(&mut self, leaf: &Leaf<'_>) -> Result<Extent> {
        let &Leaf { at, len, .. } = leaf;
        Ok(match leaf.place {
            LeafPlace::Zero => Extent::zero(at, len),
            LeafPlace::Coded(coded) => Extent::frame(at, len, self.frame(&coded)?),
            LeafPlace::Raw { source, offset } if leaf.data => {
                let id = self.source(source)?;
                let offset = self.hold(id, source, offset, len)?;
                Extent::raw(at, len, id, offset)
            }
            LeafPlace::Raw { .. } | LeafPlace::Hole => Extent::hole(at, len),
        })
    }

    fn frame(&mut self, coded: &Coded<'_>) -> Result<Frame> {
        let source = self.source(coded.source)?;
        let offset = self.hold(source, coded.source, coded.offset, coded.stored_len() as u64)?;
        let name = coded.codec.name();
        let known = self.codecs.iter().position(|codec| *codec == name);
        let codec = known.unwrap_or_else(|| {
            self.codecs.push(name);
            self.codecs.len() - 1
        });
        let codec = u8::try_from(codec).map_err(|_| Error::unsupported("too many codecs for a chart"))?;
        Ok(Frame { source, codec: CodecId(codec), offset, ..coded.frame })
    }

    fn source(&mut self, source: &dyn Source) -> Result<SourceId> {
        let identity = source.identity();
        if let Some(i) = self.names.iter().position(|known| *known == identity) {
            return Ok(SourceId(i as u16));
        }
        let id = u16::try_from(self.names.len());
        let id = id.map_err(|_| Error::unsupported("too many sources for a chart"))?;
        let outside = |name, modified| {
            Met::Outside(Outside { name, len: source.len(), identity: Some(identity.clone()), modified })
        };
        self.sources.push(match source.backing() {
            Backing::File(fd) => outside(self.file_name(&source.name())?, io::file::modified(fd)),
            Backing::Memory => Met::Inline { bytes: Vec::new(), runs: BTreeMap::new() },
            Backing::Family(family) => {
                Met::Family { root: self.named(family.root())?, len: source.len(), members: BTreeMap::new() }
            }
            _ => outside(source.name(), None),
        });
        self.names.push(identity);
        Ok(SourceId(id))
    }

    /// Takes what a run of a source needs to be found again, and tells where it begins in what is written of it.
    fn hold(&mut self, id: SourceId, source: &dyn Source, offset: u64, len: u64) -> Result<u64> {
        let met = &mut self.sources[usize::from(id.0)];
        match (met, source.backing()) {
            (Met::Inline { bytes, runs }, _) => {
                if let Some(&(known, at)) = runs.get(&offset)
                    && known >= len
                {
                    return Ok(at as u64);
                }
                self.inline = self.inline.saturating_add(len);
                if self.inline > MAX_INLINE {
                    let what =
                        format!("more than {MAX_INLINE} computed bytes, which a chart would have to hold");
                    return Err(Error::unsupported(what).in_path(source.name()));
                }
                let at = bytes.len();
                bytes.resize(at + len as usize, 0);
                source.read_at(offset, &mut bytes[at..], Wait::Allowed)?;
                runs.insert(offset, (len, at));
                Ok(at as u64)
            }
            (Met::Family { members, .. }, Backing::Family(family)) => {
                let known = members.len();
                note(family, offset..offset.saturating_add(len), members);
                self.members += (members.len() - known) as u64;
                if self.members > MAX_MEMBERS {
                    let what = format!("more than {MAX_MEMBERS} files, which a chart would have to name");
                    return Err(Error::unsupported(what).in_path(source.name()));
                }
                Ok(offset)
            }
            _ => Ok(offset),
        }
    }

    /// How the chart names a file: relative to itself, where the file is beside it or below.
    fn file_name(&self, path: &str) -> Result<String> {
        let name = self.named(Path::new(path))?;
        let text = name.to_str().map(str::to_owned);
        text.ok_or_else(|| Error::unsupported("a chart's files need names in UTF-8").in_path(&name))
    }

    fn named(&self, path: &Path) -> Result<PathBuf> {
        let real = path.canonicalize().in_path(path)?;
        Ok(match real.strip_prefix(&self.folder) {
            Ok(name) if name.as_os_str().is_empty() => PathBuf::from("."),
            Ok(name) => name.to_path_buf(),
            Err(_) => real,
        })
    }

    fn written(self, len: u64, logical_block: u32) -> Result<Written> {
        let record = |met| match met {
            Met::Outside(outside) => SourceRecord::Outside(outside),
            Met::Inline { bytes, .. } => SourceRecord::Inline(bytes),
            Met::Family { root, len, members } => {
                SourceRecord::Family(FamilyRecord { root, len, members: members.into_values().collect() })
            }
        };
        Ok(Written {
            logical_block,
            sources: self.sources.into_iter().map(record).collect(),
            codecs: self.codecs.iter().map(|name| (*name).to_owned()).collect(),
            table: self.table.finish(len)?,
        })
    }
}

/// Notes the members of a family that lie in a range.
fn note(family: &dyn Family, range: std::ops::Range<u64>, members: &mut BTreeMap<u64, Member>) {
    let mut at = range.start;
    while at < range.end {
        let Some(member) = family.member_at(at).filter(|m| m.start < range.end) else { return };
        at = member.start.saturating_add(member.len);
        members.entry(member.start).or_insert(member);
    }
}
