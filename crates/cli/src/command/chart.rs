//! `portolan chart`

use crate::Exit;
use crate::args::{self, Access, Input};
use crate::output::{Out, output_error, plain};
use crate::progress::Bar;
use io::replace::Replacement;
use portolan::listing::{Kind, Row, rows};
use portolan::size::show;
use portolan::{Image, Location, Spec, Watch, charting, open, picture};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Show where every range of a disk really lives
///
/// One line for each range: where it begins, how long it is, what it is, and for stored bytes the file and the
/// position in it. All layers are resolved, down to the host's files and the holes in them.
#[derive(clap::Args)]
#[command(alias = "map")]
#[command(after_help = "Kinds:\n  \
    raw         stored as they are\n  \
    compressed  in an encoded run\n  \
    computed    made up when it is read: what lies around the files of a directory\n  \
    zero        the image says that they are zeros\n  \
    sparse      mapped to a range of a file where nothing is stored: zeros\n  \
    hole        held by no layer: zeros\n\n\
    Examples:\n  \
    portolan chart disk.qcow2\n  \
    portolan chart --svg disk.svg disk.qcow2\n  \
    portolan chart -o disk.chart disk.qcow2 && portolan compare disk.chart disk.qcow2\n  \
    portolan chart -o photos.chart photos/\n  \
    portolan chart --json disk.qcow2 | jq '.[] | select(.data)'")]
pub(crate) struct Args {
    /// The disk: a path, a directory, an address, a part of another disk (see `portolan help spec`)
    #[arg(value_name = "SPEC", value_parser = args::spec())]
    spec: Spec,
    /// As JSON, in the words of `qemu-img map` and some more; with -o, report as JSON
    #[arg(long)]
    json: bool,
    /// As a picture (SVG), into this file; - is standard output
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    svg: Option<PathBuf>,
    /// Write the chart down, into this file: a disk of its own that holds none of the bytes. JSON where the
    /// name ends in .json
    #[arg(short, long, value_name = "FILE", conflicts_with = "svg", value_parser = args::new_file())]
    output: Option<PathBuf>,
    /// Replace the output, or the picture, if it is there
    #[arg(long)]
    force: bool,
    /// Do not ask the host which ranges of its files are stored
    #[arg(long)]
    no_host: bool,
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    access: Access,
}

impl Args {
    pub(super) fn only_looks(&self) -> bool {
        self.output.is_none() && self.svg.is_none()
    }

    pub(super) fn run(&self, out: &mut Out) -> anyhow::Result<Exit> {
        let opened = open(&self.input.apply(&self.spec), &self.access.reading())?;
        let image = &opened.image;
        if let Some(path) = &self.output {
            let bar = Bar::new("charting", false);
            let report = bar.watch(|watch| charting::write(image, path, self.force, watch))?;
            drop(bar);
            if self.json {
                out.json(&report)?;
                return Ok(Exit::DONE);
            }
            let (ranges, sources) = (report.ranges, report.sources);
            let of = if sources == 1 { "file" } else { "files" };
            let what = if ranges == 1 { "range" } else { "ranges" };
            let held =
                if report.inline > 0 { format!(", {} computed", show(report.inline)) } else { String::new() };
            writeln!(
                out,
                "{}: {} charted in {} ({ranges} {what}, {sources} {of}{held})",
                path.display(),
                show(report.virtual_size),
                show(report.file_size)
            )?;
            if let Some(dir) = elsewhere(image, path) {
                let dir = plain(&dir.display().to_string()).into_owned();
                writeln!(out, "  What it names lies elsewhere: open it with --allow {dir}")?;
            }
        } else if let Some(path) = &self.svg {
            let bar = Bar::new("drawing", false);
            let svg = bar.watch(|watch| picture::svg(image, !self.no_host, watch))?;
            drop(bar);
            if path.as_os_str() == "-" {
                out.write_all(svg.as_bytes())?;
            } else {
                image.refuse_as_target(path)?;
                Replacement::create(path, self.force)?.write_whole(svg.as_bytes())?;
                writeln!(out, "{}: drawn", path.display())?;
            }
        } else {
            // Rows on a terminal show how far it is themselves.
            let bar = Bar::new("charting", std::io::stdout().is_terminal());
            let list = if self.json { json } else { table };
            bar.watch(|watch| list(out, image, !self.no_host, watch))?;
        }
        Ok(Exit::DONE)
    }
}

/// A directory that holds what a chart names, where that is neither beside the chart nor below.
fn elsewhere(image: &Image, chart: &Path) -> Option<PathBuf> {
    let home = std::path::absolute(chart).ok()?.parent()?.canonicalize().ok()?;
    let named = image.stands_on().into_iter().filter_map(|image| match &image.spec.location {
        Location::File(path) => path.canonicalize().ok(),
        _ => None,
    });
    let mut dirs = named.filter_map(|p| if p.is_dir() { Some(p) } else { p.parent().map(Path::to_path_buf) });
    dirs.find(|dir| !dir.starts_with(&home))
}

/// A list that is written row by row: a disk may have millions.
fn json(out: &mut Out, image: &Image, host: bool, watch: Watch<'_>) -> anyhow::Result<()> {
    let mut first = true;
    write!(out, "[")?;
    rows(image, host, watch, |row| {
        let text = serde_json::to_string(row).map_err(|e| ::chart::Error::invalid("no JSON").caused_by(e))?;
        write!(out, "{}{text}", if first { "\n  " } else { ",\n  " })?;
        first = false;
        Ok(())
    })
    .map_err(output_error)?;
    Ok(writeln!(out, "\n]")?)
}

fn table(out: &mut Out, image: &Image, host: bool, watch: Watch<'_>) -> anyhow::Result<()> {
    let width = image.disk().len().max(1 << 32).to_string().len();
    let mut sums = BTreeMap::new();
    let mut count = 0u64;
    writeln!(
        out,
        "{:>width$}  {:>width$}  {:>10}  {:<10}  LAYER  {:>width$}  FILE",
        "AT", "LENGTH", "", "KIND", "OFFSET"
    )?;
    rows(image, host, watch, |row| {
        *sums.entry(name(row.kind)).or_insert(0) += row.length;
        count += 1;
        Ok(line(out, row, width)?)
    })
    .map_err(output_error)?;
    let sums: Vec<_> = sums.iter().map(|(kind, bytes)| format!("{} {kind}", show(*bytes))).collect();
    let ranges = if count == 1 { "range" } else { "ranges" };
    writeln!(out, "\n{count} {ranges}: {}", sums.join(", "))?;
    if image.chain().nth(1).is_some() {
        writeln!(out, "\nLayers:")?;
        for (depth, layer) in image.chain().enumerate() {
            let name = layer.spec.location.to_string();
            writeln!(out, "  {depth}  {} ({})", plain(&name), layer.format)?;
        }
    }
    Ok(())
}

fn line(out: &mut Out, row: &Row, width: usize) -> std::io::Result<()> {
    let size = show(row.length);
    let kind = row.codec.unwrap_or_else(|| name(row.kind));
    let offset = row.offset.map(|o| o.to_string()).unwrap_or_default();
    let file = plain(row.file.as_deref().unwrap_or(""));
    let text = format!(
        "{:>width$}  {:>width$}  {size:>10}  {kind:<10}  {:>5}  {offset:>width$}  {file}",
        row.start, row.length, row.depth
    );
    writeln!(out, "{}", text.trim_end())
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Hole => "hole",
        Kind::Zero => "zero",
        Kind::Raw => "raw",
        Kind::Compressed => "compressed",
        Kind::Computed => "computed",
        Kind::Sparse => "sparse",
    }
}
