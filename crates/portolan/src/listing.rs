//! The chart of a disk as rows: every range, and where its bytes really live.

use crate::{Image, Watch};
use chart::{Backing, Family, Leaf, LeafPlace, Purpose, Result, Source};
use serde::Serialize;

/// Where the bytes of a row live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nothing is stored.
    Hole,
    /// Stored as zeros.
    Zero,
    /// As they are.
    Raw,
    /// In an encoded run.
    Compressed,
    /// Nowhere: they follow from a rule, or are held by this process.
    Computed,
    /// Mapped to a range of a file in which nothing is stored.
    Sparse,
}

/// A range of a disk whose bytes live in one place. The words of the serialised form are those of `qemu-img map`,
/// and some more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Where it begins in the disk.
    pub start: u64,
    /// How long it is.
    pub length: u64,
    /// Which image of the chain answers for it, from 0 at the top; where none does, the last that is long enough.
    pub depth: usize,
    /// Where the bytes live.
    pub kind: Kind,
    /// Whether some image of the chain holds it.
    pub present: bool,
    /// Whether it reads as zeros for certain.
    pub zero: bool,
    /// Whether bytes are stored for it.
    pub data: bool,
    /// Whether they are encoded.
    pub compressed: bool,
    /// The codec's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec: Option<&'static str>,
    /// Where in that file the stored bytes begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// How many bytes are stored at most, where they are encoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<u64>,
    /// The file, or what else holds them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The directory, where the file is one of many that are one source, and where in that source the bytes begin.
    #[serde(skip)]
    pub among: Option<(String, u64)>,
}

impl Row {
    /// The source that holds the bytes, and where in it: of the files of a directory, the directory.
    pub fn source(&self) -> Option<(&str, u64)> {
        let file = self.file.as_deref().zip(self.offset);
        self.among.as_ref().map(|(root, offset)| (root.as_str(), *offset)).or(file)
    }
}

/// Tells every row of an image's disk in order, joined where they go on. `host` asks each file which of its ranges
/// are stored at all.
pub fn rows(
    image: &Image,
    host: bool,
    watch: Watch<'_>,
    mut each: impl FnMut(&Row) -> Result<()>,
) -> Result<()> {
    let disk = image.disk();
    let bottom = image.chain().count().saturating_sub(1);
    let walk = disk.walk(0..disk.len(), Purpose::Locate);
    let walk = if host { walk.ask_sources() } else { walk };
    watch.tell(0, disk.len());
    walk.each(|leaf| {
        watch.step(leaf.end(), disk.len())?;
        match leaf.place {
            LeafPlace::Raw { source, offset } => match source.backing() {
                Backing::Family(family) => members(family, offset, leaf, bottom, &mut each),
                _ => each(&row(&leaf, bottom)),
            },
            _ => each(&row(&leaf, bottom)),
        }
    })
}

/// Tells a run of a directory's files, file by file; what lies between them reads as zeros.
fn members(
    family: &dyn Family,
    mut offset: u64,
    mut leaf: Leaf<'_>,
    bottom: usize,
    each: &mut impl FnMut(&Row) -> Result<()>,
) -> Result<()> {
    while leaf.len > 0 {
        let next = family.member_at(offset);
        let part = match &next {
            Some(m) if m.start <= offset => {
                let part = leaf.head(m.start.saturating_add(m.len).saturating_sub(offset).max(1));
                each(&Row {
                    file: Some(family.root().join(&m.name).display().to_string()),
                    offset: Some(offset - m.start),
                    among: Some((family.root().display().to_string(), offset)),
                    ..row(&part, bottom)
                })?;
                part
            }
            behind => {
                let part = behind.as_ref().map_or(leaf, |m| leaf.head(m.start - offset));
                each(&row(&Leaf { place: LeafPlace::Zero, data: false, ..part }, bottom))?;
                part
            }
        };
        (offset, leaf) = (offset.saturating_add(part.len), leaf.skip(part.len));
    }
    Ok(())
}

/// Which image of the chain to name, as `qemu-img map` does: the one that answers; where none does, the last that
/// reaches so far, since those behind it are shorter or there are none.
fn depth(leaf: &Leaf<'_>, bottom: usize) -> usize {
    match (leaf.place, leaf.layer) {
        (LeafPlace::Hole, 0) => bottom,
        (LeafPlace::Hole, short) => short.saturating_sub(2),
        (_, layer) => layer.saturating_sub(1),
    }
}

/// A leaf as a row.
fn row(leaf: &Leaf<'_>, bottom: usize) -> Row {
    let (kind, source, offset) = match leaf.place {
        LeafPlace::Hole => (Kind::Hole, None, None),
        LeafPlace::Zero => (Kind::Zero, None, None),
        LeafPlace::Coded(coded) => (Kind::Compressed, Some(coded.source), Some(coded.offset)),
        LeafPlace::Raw { source, offset } if leaf.data => {
            let kind = if matches!(source.backing(), Backing::Memory) { Kind::Computed } else { Kind::Raw };
            (kind, Some(source), Some(offset))
        }
        LeafPlace::Raw { source, offset } => (Kind::Sparse, Some(source), Some(offset)),
    };
    let coded = if let LeafPlace::Coded(coded) = &leaf.place { Some(coded) } else { None };
    Row {
        start: leaf.at,
        length: leaf.len,
        depth: depth(leaf, bottom),
        kind,
        present: kind != Kind::Hole,
        zero: !leaf.data,
        data: leaf.data,
        compressed: coded.is_some(),
        codec: coded.map(|coded| coded.codec.name()),
        offset,
        stored: coded.map(|coded| coded.stored_len() as u64),
        file: source.map(Source::name),
        among: None,
    }
}
