//! What is drawn, gathered from the rows of a chart in bounded memory.

use super::draw::BAR_WIDTH;
use super::scale::Scale;
use crate::listing::{Kind, Row, rows};
use crate::{Image, Location, Watch};
use chart::Result;
use std::collections::BTreeMap;

/// So many holes may be shortened.
const HOLES: usize = 12;

/// Holes shorter than this share of what is left without them and all longer ones are not: they would not be shorter.
const HOLE_SHARE: u64 = 8;

/// With more ranges than this, ribbons would be a blur.
const RIBBONS: usize = 300;

/// With more ranges than this, they are narrower than a column.
const SPANS: usize = 1000;

/// How many columns a bar has.
pub(super) const COLUMNS: usize = BAR_WIDTH as usize;

/// Where ribbons would be a blur, they are drawn together from so many cells to so many.
pub(super) const CELLS: usize = 96;

/// From which cell of the disk to which cell of which file, for which layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Flow {
    pub(super) from: usize,
    pub(super) file: usize,
    pub(super) to: usize,
    pub(super) layer: usize,
}

/// How many layers and how many files are told apart by colour and place. What is more is one.
pub(super) const LAYERS: usize = 8;
pub(super) const FILES: usize = 8;

/// What a range is: which layer answers, and how its bytes live there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Class {
    pub(super) layer: usize,
    pub(super) kind: Drawn,
}

/// Kinds in the order they are stacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Drawn {
    Raw,
    Compressed,
    Computed,
    Sparse,
    Zero,
    Hole,
}

/// One image of the chain.
pub(super) struct Layer {
    pub(super) name: String,
    pub(super) format: &'static str,
}

/// What a source is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    File,
    /// A rule, or this process.
    Nobody,
    /// A directory of which so many files were met.
    Directory(u64),
}

/// A file, or what else holds bytes of the disk.
pub(super) struct File {
    pub(super) name: String,
    pub(super) holder: Holder,
    pub(super) len: u64,
    /// Bytes of the disk that live here.
    pub(super) used: u64,
    /// How much of each part of it holds bytes of the disk.
    pub(super) cells: [f64; CELLS],
}

/// A range of the disk.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) class: Class,
}

/// A range of the disk and its place in a file.
pub(super) struct Ribbon {
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) file: usize,
    pub(super) offset: u64,
    pub(super) stored: u64,
    pub(super) class: Class,
    /// The name of the file, and where in that, where it is one of many.
    pub(super) member: Option<(String, u64)>,
}

/// All that is drawn.
pub(super) struct Survey {
    pub(super) name: String,
    pub(super) len: u64,
    pub(super) ranges: u64,
    pub(super) layers: Vec<Layer>,
    pub(super) files: Vec<File>,
    /// Bytes of the disk by class.
    pub(super) sums: BTreeMap<Class, u64>,
    /// For each column, how much of it is what.
    pub(super) columns: Vec<BTreeMap<Class, f64>>,
    /// What the ranges are, in order, holes left out. Empty where there are too many: then the columns tell.
    pub(super) spans: Vec<Span>,
    /// Empty where there are too many.
    pub(super) ribbons: Vec<Ribbon>,
    /// How many bytes lead from a cell of the picture's width to a cell of a file, by layer.
    pub(super) flows: BTreeMap<Flow, u64>,
    /// Whether that is so.
    pub(super) crowded: bool,
    /// The file of a directory that was met last.
    member: String,
}

/// A long run of one kind of nothing.
pub(super) struct Empty {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Whether the image says that these are zeros, rather than nothing at all.
    pub(super) zeros: bool,
}

/// What the rows are like, seen once before they are drawn.
pub(super) struct Outline {
    /// The longest runs of nothing, in the order of the disk.
    pub(super) empty: Vec<Empty>,
    /// The files, in the order in which they are met, and how far into each the rows reach at least.
    reach: Vec<(String, u64)>,
}

impl Outline {
    pub(super) fn of(image: &Image, host: bool, watch: Watch<'_>) -> Result<Outline> {
        let mut longest: Vec<Empty> = Vec::new();
        let mut reach: Vec<(String, u64)> = Vec::new();
        let mut keep = |run: Empty| {
            longest.push(run);
            if longest.len() > 4 * HOLES {
                keep_longest(&mut longest);
            }
        };
        let mut run: Option<Empty> = None;
        rows(image, host, watch, |row| {
            let (end, zeros) = (row.start + row.length, row.kind == Kind::Zero);
            match &mut run {
                Some(known) if row.zero && known.zeros == zeros => known.end = end,
                known => {
                    known.take().into_iter().for_each(&mut keep);
                    *known = row.zero.then_some(Empty { start: row.start, end, zeros });
                }
            }
            if let Some((name, offset)) = row.source() {
                let to = offset.saturating_add(row.stored.unwrap_or(row.length));
                match reach.iter().position(|(known, _)| known == name) {
                    Some(i) => reach[i].1 = reach[i].1.max(to),
                    None if reach.len() < FILES => reach.push((name.to_owned(), to.max(1))),
                    None => {}
                }
            }
            Ok(())
        })?;
        run.into_iter().for_each(keep);
        keep_longest(&mut longest);
        Ok(Outline { empty: to_shorten(image.disk().len(), longest), reach })
    }
}

/// Keeps the longest, the very longest first.
fn keep_longest(runs: &mut Vec<Empty>) {
    runs.sort_by_key(|run| std::cmp::Reverse(run.end - run.start));
    runs.truncate(HOLES);
}

/// Which of the longest runs, the very longest first, are so much longer than the rest that they hide it; in the order
/// of the disk.
pub(super) fn to_shorten(len: u64, mut longest: Vec<Empty>) -> Vec<Empty> {
    let mut rest = len;
    let hides = |run: &Empty| {
        rest -= run.end - run.start;
        run.end - run.start > rest / HOLE_SHARE
    };
    let many = longest.iter().map(hides).take_while(|hides| *hides).count();
    longest.truncate(many);
    longest.sort_by_key(|run| run.start);
    longest
}

impl Survey {
    pub(super) fn of(
        image: &Image,
        host: bool,
        watch: Watch<'_>,
        (outline, scale): (&Outline, &Scale),
    ) -> Result<Survey> {
        let layers = image
            .chain()
            .take(LAYERS)
            .map(|layer| Layer { name: name_of(&layer.spec.location), format: layer.format.name() });
        let mut survey = Survey {
            name: image.spec.to_string(),
            len: image.disk().len(),
            ranges: 0,
            layers: layers.collect(),
            files: files_of(image, outline),
            sums: BTreeMap::new(),
            columns: vec![BTreeMap::new(); COLUMNS],
            spans: Vec::new(),
            ribbons: Vec::new(),
            flows: BTreeMap::new(),
            crowded: false,
            member: String::new(),
        };
        rows(image, host, watch, |row| {
            survey.take(row, scale);
            Ok(())
        })?;
        if survey.ranges > SPANS as u64 {
            survey.spans.clear();
        }
        Ok(survey)
    }

    fn take(&mut self, row: &Row, scale: &Scale) {
        let kind = match row.kind {
            Kind::Raw => Drawn::Raw,
            Kind::Compressed => Drawn::Compressed,
            Kind::Computed => Drawn::Computed,
            Kind::Sparse => Drawn::Sparse,
            Kind::Zero => Drawn::Zero,
            Kind::Hole => Drawn::Hole,
        };
        let class = Class { layer: row.depth.min(LAYERS - 1), kind };
        self.ranges += 1;
        *self.sums.entry(class).or_insert(0) += row.length;
        let end = row.start + row.length;
        self.fill(scale.x(row.start), scale.x(end), class);
        let full = self.spans.len() > SPANS;
        match self.spans.last_mut() {
            Some(last) if last.class == class && last.end == row.start => last.end = end,
            _ if kind == Drawn::Hole || full => {}
            _ => self.spans.push(Span { start: row.start, end, class }),
        }
        let Some((name, offset)) = row.source() else { return };
        if kind == Drawn::Sparse {
            return;
        }
        let stored = row.stored.unwrap_or(row.length);
        let file = self.files.iter().position(|f| f.name == name).unwrap_or(FILES - 1);
        self.files[file].used += row.length;
        self.note_holder(row, file);
        self.flow(row, scale, file, (offset, stored), class.layer);
        if self.ribbons.len() >= RIBBONS {
            self.crowded = true;
            self.ribbons.clear();
        }
        if !self.crowded {
            let member = row.among.as_ref().and_then(|_| row.file.clone().zip(row.offset));
            let &Row { start, length: len, .. } = row;
            self.ribbons.push(Ribbon { start, len, file, offset, stored, class, member });
        }
    }

    /// Notes what a source is, and counts the files of a directory.
    fn note_holder(&mut self, row: &Row, file: usize) {
        let holder = &mut self.files[file].holder;
        match (&row.among, &row.file) {
            (Some(_), Some(name)) => {
                let known = if let Holder::Directory(known) = *holder { known } else { 0 };
                if known == 0 || self.member != *name {
                    *holder = Holder::Directory(known + 1);
                    self.member.clone_from(name);
                }
            }
            _ if row.kind == Kind::Computed => *holder = Holder::Nobody,
            _ => {}
        }
    }

    /// Notes what leads from which cell to which, a cell of the disk at a time.
    fn flow(&mut self, row: &Row, scale: &Scale, file: usize, (offset, stored): (u64, u64), layer: usize) {
        let cell = |x: f64| ((x / BAR_WIDTH * CELLS as f64) as usize).min(CELLS - 1);
        let (first, last) = (cell(scale.x(row.start)), cell(scale.x(row.start + row.length)));
        let mut at = row.start;
        let len = self.files[file].len;
        for from in first..=last {
            let edge = scale.at((from + 1) as f64 / CELLS as f64 * BAR_WIDTH);
            let end =
                if from == last { row.start + row.length } else { edge.clamp(at, row.start + row.length) };
            let within =
                |at: u64| offset as f64 + stored as f64 * (at - row.start) as f64 / row.length as f64;
            let place = |at: u64| within(at) / len as f64 * CELLS as f64;
            let to = (place(at) as usize).min(CELLS - 1);
            *self.flows.entry(Flow { from, file, to, layer }).or_insert(0) += end - at;
            let (start, stop) = (place(at), place(end));
            for c in to..=(stop as usize).min(CELLS - 1) {
                let share = stop.min(c as f64 + 1.0) - start.max(c as f64);
                self.files[file].cells[c] += share.max(0.0);
            }
            at = end;
        }
    }

    /// Adds what lies between two positions to the columns there.
    fn fill(&mut self, from: f64, to: f64, class: Class) {
        let last = COLUMNS.saturating_sub(1);
        for column in (from as usize).min(last)..=(to as usize).min(last) {
            let share = (to.min(column as f64 + 1.0) - from.max(column as f64)).max(0.0);
            // What is stored is seen, however little it is.
            if share > 0.0 || to == from {
                *self.columns[column].entry(class).or_insert(0.0) += share;
            }
        }
    }
}

/// The files in the order of their layers, so that ribbons cross little; then others.
fn files_of(image: &Image, outline: &Outline) -> Vec<File> {
    let file = |name: &str, len: u64| File {
        name: name.to_owned(),
        holder: Holder::File,
        len: len.max(1),
        used: 0,
        cells: [0.0; CELLS],
    };
    let mut files: Vec<File> = Vec::new();
    let layers = image.chain().flat_map(|i| std::iter::once(i).chain(i.data_file.as_deref()));
    for layer in layers {
        let name = layer.container.name();
        if outline.reach.iter().any(|(known, _)| *known == name) && files.iter().all(|f| f.name != name) {
            files.push(file(&name, layer.container.len()));
        }
    }
    for (name, reach) in &outline.reach {
        if files.iter().all(|f| f.name != *name) {
            files.push(file(name, *reach));
        }
    }
    if files.len() >= FILES {
        files.truncate(FILES - 1);
        files.push(file("other files", outline.reach.iter().map(|(_, reach)| *reach).max().unwrap_or(1)));
    }
    files
}

fn name_of(location: &Location) -> String {
    match location {
        Location::File(path) => path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
        Location::Nbd(address) | Location::Http(address) => address.clone(),
    }
}
