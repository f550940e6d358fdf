//! The chart of a disk as rows: every range, and where its bytes really live.

use crate::Image;
use chart::{Identity, Leaf, LeafPlace, Purpose, Result, Source, Wait};
use serde::Serialize;

/// What is planned under one pin.
const BATCH_LEAVES: usize = 1024;
const BATCH_BYTES: u64 = 64 << 30;

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
    /// Which image of the chain answers for it, from 0 at the top.
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
    /// Where in the file the stored bytes begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// How many bytes are stored at most, where they are encoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<u64>,
    /// The file, or what else holds them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

impl Row {
    /// Whether `next` goes on where this row ends, in the disk and in the file.
    fn joins(&self, next: &Row) -> bool {
        let place = match (self.offset, next.offset) {
            (Some(a), Some(b)) => self.codec.is_none() && a + self.length == b,
            (a, b) => a == b,
        };
        place
            && self.start + self.length == next.start
            && (self.kind, self.depth, &self.file) == (next.kind, next.depth, &next.file)
    }
}

/// Tells every row of an image's disk in order, joined where they go on. `host` asks each file which of its ranges
/// are stored at all.
pub fn rows(image: &Image, host: bool, mut each: impl FnMut(&Row) -> Result<()>) -> Result<()> {
    let disk = image.disk();
    let layers = Layers::of(image);
    let mut last: Option<Row> = None;
    let mut tell = |row: Row| match &mut last {
        Some(known) if known.joins(&row) => {
            known.length += row.length;
            Ok(())
        }
        known => known.replace(row).map_or(Ok(()), |done| each(&done)),
    };
    let mut at = 0;
    while at < disk.len() {
        let want = (disk.len() - at).min(BATCH_BYTES);
        let plan = disk.plan(at, want, BATCH_LEAVES, Wait::Allowed, Purpose::Locate)?;
        for leaf in &plan.leaves {
            at = leaf.at + leaf.len;
            layers.split(leaf, host, &mut tell)?;
        }
    }
    last.map_or(Ok(()), |row| each(&row))
}

/// Which file belongs to which image of the chain.
struct Layers {
    files: Vec<(Identity, usize)>,
    count: usize,
}

impl Layers {
    fn of(image: &Image) -> Layers {
        let mut files = Vec::new();
        for (depth, layer) in image.chain().enumerate() {
            files.push((layer.container.identity(), depth));
            files.extend(layer.data_file.iter().map(|file| (file.container.identity(), depth)));
        }
        Layers { files, count: image.chain().count() }
    }

    fn depth(&self, leaf: &Leaf<'_>, source: Option<&dyn Source>) -> usize {
        let known = source.and_then(|source| {
            let identity = source.identity();
            self.files.iter().find(|(known, _)| *known == identity).map(|(_, depth)| *depth)
        });
        known.unwrap_or_else(|| leaf.depth.clamp(1, self.count) - 1)
    }

    fn split(&self, leaf: &Leaf<'_>, host: bool, tell: &mut impl FnMut(Row) -> Result<()>) -> Result<()> {
        let row = |kind, source| self.row(leaf, kind, source);
        match leaf.place {
            LeafPlace::Hole => tell(row(Kind::Hole, None)),
            LeafPlace::Zero => tell(row(Kind::Zero, None)),
            LeafPlace::Coded(coded) => tell(Row {
                codec: Some(coded.codec.name()),
                offset: Some(coded.offset),
                stored: Some(coded.stored_len() as u64),
                ..row(Kind::Compressed, Some(coded.source))
            }),
            LeafPlace::Raw { source, offset } => {
                let whole = Row { offset: Some(offset), ..row(Kind::Raw, Some(source)) };
                if !host {
                    return tell(whole);
                }
                let mut done = 0;
                while done < leaf.len {
                    let run = source.data_at(offset + done, leaf.len - done)?;
                    let len = run.len.clamp(1, leaf.len - done);
                    let kind = if run.data { Kind::Raw } else { Kind::Sparse };
                    let (start, offset) = (whole.start + done, Some(offset + done));
                    tell(Row {
                        start,
                        length: len,
                        kind,
                        zero: !run.data,
                        data: run.data,
                        offset,
                        ..whole.clone()
                    })?;
                    done += len;
                }
                Ok(())
            }
        }
    }

    fn row(&self, leaf: &Leaf<'_>, kind: Kind, source: Option<&dyn Source>) -> Row {
        Row {
            start: leaf.at,
            length: leaf.len,
            depth: self.depth(leaf, source),
            kind,
            present: kind != Kind::Hole,
            zero: matches!(kind, Kind::Hole | Kind::Zero | Kind::Sparse),
            data: matches!(kind, Kind::Raw | Kind::Compressed),
            compressed: kind == Kind::Compressed,
            codec: None,
            offset: None,
            stored: None,
            file: source.map(Source::name),
        }
    }
}
