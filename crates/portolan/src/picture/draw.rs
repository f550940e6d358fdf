//! From what was gathered to SVG.

use super::scale::Scale;
use super::survey::{CELLS, COLUMNS, Class, Drawn, File, Holder, Ribbon, Survey};
use crate::size::show;
use std::collections::BTreeMap;
use std::fmt::Write;

/// How wide the bars are. A column is a unit wide.
pub(super) const BAR_WIDTH: f64 = 960.0;

const MARGIN: f64 = 40.0;
const WIDTH: f64 = BAR_WIDTH + 2.0 * MARGIN;
const DISK_Y: f64 = 118.0;
const DISK_HEIGHT: f64 = 54.0;
const LAYER_HEIGHT: f64 = 16.0;
const LAYER_STEP: f64 = 46.0;
const RIBBON_HEIGHT: f64 = 120.0;
const FILE_HEIGHT: f64 = 26.0;
const FILE_GAP: f64 = 16.0;
/// A file's bar is at least so wide, so that its name has room.
const FILE_WIDTH: f64 = 104.0;
const LEGEND_STEP: f64 = 24.0;
const LEGEND_COLUMN: f64 = BAR_WIDTH / 3.0;

/// The least that is drawn of a stored range in its column: it is there, and is to be seen.
const LEAST: f64 = 0.1;

/// So many flows are drawn.
const FLOWS: usize = 700;

/// Colours by layer, for light and for dark surroundings.
const COLOURS: [(&str, &str); super::survey::LAYERS] = [
    ("#2f6fde", "#5b93f5"),
    ("#e0872b", "#f0a04b"),
    ("#1f9e89", "#35c4ab"),
    ("#b4499b", "#d36fbb"),
    ("#7a6ae0", "#9a8cf5"),
    ("#8a9a2d", "#b0c04a"),
    ("#c8504f", "#e87471"),
    ("#5f7285", "#8fa3b8"),
];

/// Draws it.
pub(super) fn draw(survey: &Survey, scale: &Scale) -> String {
    let mut page = Page { out: String::new(), y: DISK_Y };
    page.title(survey);
    page.axis(scale);
    page.bar(survey, scale, DISK_HEIGHT, None);
    page.breaks(scale);
    page.y += DISK_HEIGHT;
    if survey.layers.len() > 1 {
        page.layers(survey, scale);
    }
    page.files(survey, scale);
    page.legend(survey);
    page.finish(survey)
}

struct Page {
    out: String,
    y: f64,
}

/// Writing to a string cannot fail.
macro_rules! put {
    ($page:expr, $($arg:tt)*) => { let _ = writeln!($page.out, $($arg)*); };
}

impl Page {
    fn title(&mut self, survey: &Survey) {
        let stored: u64 = sum(survey, |c| matches!(c.kind, Drawn::Raw | Drawn::Compressed));
        let computed: u64 = sum(survey, |c| c.kind == Drawn::Computed);
        put!(
            self,
            r#"<text class="title" x="{MARGIN}" y="44">{}</text>"#,
            escape(&shorten(&survey.name, 70))
        );
        let ranges = if survey.ranges == 1 { "1 range".into() } else { format!("{} ranges", survey.ranges) };
        put!(
            self,
            r#"<text class="sub" x="{MARGIN}" y="68">A disk of {}, {} of it stored{}, in {ranges}</text>"#,
            show(survey.len),
            show(stored),
            if computed > 0 { format!(", {} computed", show(computed)) } else { String::new() }
        );
    }

    fn axis(&mut self, scale: &Scale) {
        let y = self.y - 10.0;
        for (at, x) in scale.ticks() {
            let anchor = if x < 1.0 {
                "start"
            } else if x > BAR_WIDTH - 1.0 {
                "end"
            } else {
                "middle"
            };
            put!(
                self,
                r#"<text class="tick" x="{:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#,
                MARGIN + x,
                if at == 0 { "0".to_owned() } else { show(at) }
            );
            put!(
                self,
                r#"<line class="tick" x1="{0:.1}" x2="{0:.1}" y1="{1:.1}" y2="{2:.1}"/>"#,
                MARGIN + x,
                y + 4.0,
                self.y
            );
        }
    }

    /// A bar of the whole disk: of all layers, or of what one answers for.
    fn bar(&mut self, survey: &Survey, scale: &Scale, height: f64, only: Option<usize>) {
        let y = self.y;
        put!(
            self,
            r#"<rect class="track" x="{MARGIN}" y="{y}" width="{BAR_WIDTH}" height="{height}" rx="3"/>"#
        );
        if survey.spans.is_empty() {
            return self.columns(survey, scale, height, only);
        }
        for span in survey.spans.iter().filter(|s| only.is_none_or(|layer| s.class.layer == layer)) {
            let (x, end) = (scale.x(span.start), scale.x(span.end));
            let title = tooltip(survey, &[(span.class, 1.0)], span.start, span.end);
            put!(
                self,
                r#"<rect class="{}" x="{:.2}" y="{y:.1}" width="{:.2}" height="{height}"><title>{}</title></rect>"#,
                css(span.class),
                MARGIN + x,
                (end - x).max(0.8),
                escape(&title)
            );
        }
    }

    /// The same by columns, where ranges are too many to be drawn: how much of each column is what.
    fn columns(&mut self, survey: &Survey, scale: &Scale, height: f64, only: Option<usize>) {
        let (y, columns) = (self.y, &survey.columns);
        let mut from = 0;
        while from < COLUMNS {
            let shares = stacked(&columns[from], only);
            let same = columns[from..].iter().take_while(|c| stacked(c, only) == shares).count().max(1);
            let to = from + same;
            let mut top = y + height;
            let mut parts = String::new();
            for (class, share) in &shares {
                let h = height * share;
                top -= h;
                let x = MARGIN + from as f64;
                let (css, w) = (css(*class), same as f64 + 0.3);
                let _ = write!(
                    parts,
                    r#"<rect class="{css}" x="{x:.1}" y="{top:.1}" width="{w:.1}" height="{h:.1}"/>"#
                );
            }
            if !parts.is_empty() {
                let (start, end) = (scale.at(from as f64), scale.at(to as f64));
                let title = tooltip(survey, &shares, start, end);
                put!(self, "<g>{parts}<title>{}</title></g>", escape(&title));
            }
            from = to;
        }
    }

    /// Marks where a hole is drawn shorter than it is.
    fn breaks(&mut self, scale: &Scale) {
        for part in &scale.parts {
            let Some(what) = part.shortened else { continue };
            let middle = MARGIN + part.x + part.width / 2.0;
            let y = self.y + DISK_HEIGHT / 2.0;
            put!(
                self,
                r#"<path class="break" d="M{:.1} {:.1}l4 -7l-5 -6l5 -7M{:.1} {:.1}l4 -7l-5 -6l5 -7"/>"#,
                middle - 4.5,
                y + 10.0,
                middle + 1.5,
                y + 10.0
            );
            if part.width > 90.0 {
                put!(
                    self,
                    r#"<text class="hole" x="{middle:.1}" y="{:.1}" text-anchor="middle">{} of {what}</text>"#,
                    y + 23.0,
                    show(part.end - part.start)
                );
            }
        }
    }

    fn layers(&mut self, survey: &Survey, scale: &Scale) {
        self.y += 34.0;
        for (i, layer) in survey.layers.iter().enumerate() {
            let held = sum(survey, |c| c.layer == i && c.kind != Drawn::Hole);
            let place = if i == 0 {
                "top layer"
            } else if i + 1 == survey.layers.len() {
                "base"
            } else {
                "below"
            };
            put!(
                self,
                r#"<rect class="{}" x="{MARGIN}" y="{:.1}" width="10" height="10" rx="2"/><text class="label" x="{}" y="{:.1}">{}</text>"#,
                css(Class { layer: i, kind: Drawn::Raw }),
                self.y - 9.0,
                MARGIN + 16.0,
                self.y,
                escape(&shorten(&layer.name, 60))
            );
            put!(
                self,
                r#"<text class="sub" x="{}" y="{:.1}" text-anchor="end">{place}, {}: answers for {}</text>"#,
                MARGIN + BAR_WIDTH,
                self.y,
                layer.format,
                show(held)
            );
            self.y += 7.0;
            self.bar(survey, scale, LAYER_HEIGHT, Some(i));
            self.y += LAYER_STEP - 7.0;
        }
        self.y -= LAYER_STEP - 7.0 - LAYER_HEIGHT;
    }

    /// The files, and what leads from the disk to them.
    fn files(&mut self, survey: &Survey, scale: &Scale) {
        if survey.files.is_empty() {
            self.y += 30.0;
            return;
        }
        let top = self.y + 3.0;
        let bottom = top + RIBBON_HEIGHT;
        let boxes = side_by_side(&survey.files);
        for ribbon in &survey.ribbons {
            let (x, width) = boxes[ribbon.file];
            self.ribbon(ribbon, scale, (top, bottom), (x, width), &survey.files[ribbon.file]);
        }
        if survey.crowded {
            self.flows(survey, (top, bottom), &boxes);
        }
        for (file, (x, width)) in survey.files.iter().zip(&boxes) {
            put!(
                self,
                r#"<rect class="file" x="{:.1}" y="{bottom:.1}" width="{width:.1}" height="{FILE_HEIGHT}" rx="3"><title>{}</title></rect>"#,
                MARGIN + x,
                escape(&format!("{}: {}", file.name, show(file.len)))
            );
        }
        for ribbon in &survey.ribbons {
            self.place(ribbon, bottom, boxes[ribbon.file], &survey.files[ribbon.file]);
        }
        if survey.crowded {
            self.cells(survey, bottom, &boxes);
        }
        for (file, (x, width)) in survey.files.iter().zip(&boxes) {
            let letters = (width / 6.6) as usize;
            let base = match file.holder {
                Holder::Nobody => "computed",
                Holder::File | Holder::Directory(_) => base_name(&file.name),
            };
            let what = match file.holder {
                Holder::File => format!("file of {}", show(file.len)),
                Holder::Directory(1) => format!("a file, {}", show(file.used)),
                Holder::Directory(files) => format!("{files} files, {}", show(file.used)),
                Holder::Nobody => show(file.used),
            };
            put!(
                self,
                r#"<text class="label" x="{:.1}" y="{:.1}">{}</text><text class="sub" x="{:.1}" y="{:.1}">{}</text>"#,
                MARGIN + x,
                bottom + FILE_HEIGHT + 17.0,
                escape(&shorten(base, letters)),
                MARGIN + x,
                bottom + FILE_HEIGHT + 33.0,
                escape(&shorten(&what, letters))
            );
        }
        self.y = bottom + FILE_HEIGHT + 66.0;
    }

    fn ribbon(&mut self, r: &Ribbon, scale: &Scale, (top, bottom): (f64, f64), at: (f64, f64), file: &File) {
        let (a, b) = (MARGIN + scale.x(r.start), MARGIN + scale.x(r.start + r.len));
        let (c, d) = within(r, at, file);
        let middle = (top + bottom) / 2.0;
        let (b, d) = (b.max(a + 0.7), d.max(c + 0.7));
        let (name, offset) = r.member.as_ref().map_or((&file.name, r.offset), |(name, at)| (name, *at));
        let drawn = if r.class.kind == Drawn::Computed { Drawn::Computed } else { Drawn::Raw };
        put!(
            self,
            r#"<path class="ribbon {}" d="M{a:.1} {top:.1}C{a:.1} {middle:.1} {c:.1} {middle:.1} {c:.1} {bottom:.1}H{d:.1}C{d:.1} {middle:.1} {b:.1} {middle:.1} {b:.1} {top:.1}Z"><title>{}</title></path>"#,
            css(Class { kind: drawn, ..r.class }),
            escape(&format!(
                "{} at {} of the disk: {} of {}{}",
                show(r.len),
                exact(r.start),
                exact(offset),
                name,
                if r.class.kind == Drawn::Compressed { ", compressed" } else { "" }
            ))
        );
    }

    /// Where there are too many ribbons: the broadest flows from part to part.
    fn flows(&mut self, survey: &Survey, (top, bottom): (f64, f64), boxes: &[(f64, f64)]) {
        let mut flows: Vec<_> = survey.flows.iter().collect();
        flows.sort_by_key(|(_, bytes)| std::cmp::Reverse(**bytes));
        flows.truncate(FLOWS);
        let broadest = flows.first().map_or(1, |(_, bytes)| **bytes) as f64;
        let middle = (top + bottom) / 2.0;
        for (flow, bytes) in flows {
            let (x, width) = boxes[flow.file];
            let from = MARGIN + BAR_WIDTH * (flow.from as f64 + 0.5) / CELLS as f64;
            let to = MARGIN + x + width * (flow.to as f64 + 0.5) / CELLS as f64;
            let share = *bytes as f64 / broadest;
            put!(
                self,
                r#"<path class="flow {}" stroke-width="{:.1}" opacity="{:.2}" d="M{from:.1} {top:.1}C{from:.1} {middle:.1} {to:.1} {middle:.1} {to:.1} {bottom:.1}"/>"#,
                match survey.files[flow.file].holder {
                    Holder::Nobody => "flow-computed".to_owned(),
                    _ => format!("f{}", flow.layer),
                },
                1.0 + 5.0 * share,
                0.05 + 0.2 * share
            );
        }
    }

    /// How much of each part of the files holds bytes of the disk.
    fn cells(&mut self, survey: &Survey, y: f64, boxes: &[(f64, f64)]) {
        for (i, (file, (x, width))) in survey.files.iter().zip(boxes).enumerate() {
            let layer = survey.flows.keys().find(|f| f.file == i).map_or(0, |f| f.layer);
            let kind = if file.holder == Holder::Nobody { Drawn::Computed } else { Drawn::Raw };
            let class = css(Class { layer, kind });
            let w = width / CELLS as f64;
            for (c, share) in file.cells.iter().enumerate().filter(|(_, share)| **share > 0.0) {
                put!(
                    self,
                    r#"<rect class="{class}" x="{:.2}" y="{y:.1}" width="{:.2}" height="{FILE_HEIGHT}" opacity="{:.2}"/>"#,
                    MARGIN + x + w * c as f64,
                    w,
                    (0.15 + 0.85 * share).min(1.0)
                );
            }
        }
    }

    fn place(&mut self, r: &Ribbon, y: f64, at: (f64, f64), file: &File) {
        let (x, end) = within(r, at, file);
        put!(
            self,
            r#"<rect class="{}" x="{x:.1}" y="{y:.1}" width="{:.1}" height="{FILE_HEIGHT}"/>"#,
            css(r.class),
            (end - x).max(0.7)
        );
    }

    fn legend(&mut self, survey: &Survey) {
        let mut entries: Vec<(Class, String)> = Vec::new();
        let mut holes = 0;
        let mut zeros = 0;
        for (class, bytes) in &survey.sums {
            let of = if survey.layers.len() > 1 {
                survey
                    .layers
                    .get(class.layer)
                    .map(|l| format!(" in {}", shorten(&l.name, 20)))
                    .unwrap_or_default()
            } else {
                String::new()
            };
            match class.kind {
                Drawn::Raw => entries.push((*class, format!("{} stored as is{of}", show(*bytes)))),
                Drawn::Compressed => entries.push((*class, format!("{} compressed{of}", show(*bytes)))),
                Drawn::Computed => entries.push((*class, format!("{} computed", show(*bytes)))),
                Drawn::Sparse => entries.push((*class, format!("{} mapped, not stored{of}", show(*bytes)))),
                Drawn::Zero => zeros += bytes,
                Drawn::Hole => holes += bytes,
            }
        }
        for (bytes, kind, what) in [(zeros, Drawn::Zero, "set to zeros"), (holes, Drawn::Hole, "holes")] {
            if bytes > 0 {
                entries.push((Class { layer: 0, kind }, format!("{} {what}", show(bytes))));
            }
        }
        for (i, (class, text)) in entries.iter().enumerate() {
            let x = MARGIN + LEGEND_COLUMN * (i % 3) as f64;
            let y = self.y + LEGEND_STEP * (i / 3) as f64;
            put!(
                self,
                r#"<rect class="track" x="{x}" y="{0}" width="16" height="12" rx="2"/><rect class="{1}" x="{x}" y="{0}" width="16" height="12" rx="2"/><text class="legend" x="{2}" y="{3}">{4}</text>"#,
                y - 10.0,
                css(*class),
                x + 23.0,
                y,
                escape(text)
            );
        }
        self.y += LEGEND_STEP * entries.len().div_ceil(3) as f64;
    }

    fn finish(self, survey: &Survey) -> String {
        let height = self.y + 6.0;
        let mut colours = (String::new(), String::new());
        for (i, (light, dark)) in COLOURS.iter().enumerate() {
            let _ = write!(
                colours.0,
                ".l{i}{{fill:{light}}}.c{i}{{fill:url(#c{i})}}.s{i}{{fill:{light};opacity:.16}}.f{i}{{stroke:{light}}}"
            );
            let _ = write!(
                colours.1,
                ".l{i}{{fill:{dark}}}.s{i}{{fill:{dark};opacity:.2}}.f{i}{{stroke:{dark}}}"
            );
        }
        let hatch: String = (0..COLOURS.len()).map(hatch).collect();
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">
<title>{title}</title>
<style>
text{{font-family:Inter,"Segoe UI","Helvetica Neue",Helvetica,Arial,sans-serif;font-size:12px;fill:#1d2733}}
.title{{font-size:20px;font-weight:600}}.sub{{fill:#647386}}.tick{{font-size:11px;fill:#647386}}line.tick{{stroke:#b8c2cd;stroke-width:1}}
.label{{font-weight:600}}.hole{{font-size:10px;fill:#7d8b9b}}.bg{{fill:#fff}}
.track{{fill:#e9edf2}}.hole-fill{{fill:none}}.zero{{fill:url(#zero)}}.dots{{fill:#8292a4}}.computed{{fill:#44546a}}.flow-computed{{stroke:#44546a}}
.file{{fill:#e9edf2;stroke:#c3ccd6;stroke-width:1}}.flow{{fill:none}}.ribbon{{opacity:.3}}.ribbon:hover{{opacity:.75}}
.break{{fill:none;stroke:#9fabb8;stroke-width:1.3}}.stripe{{stroke:#fff;stroke-opacity:.6;stroke-width:2}}
{light}
@media (prefers-color-scheme:dark){{text{{fill:#e4eaf1}}.sub,.tick{{fill:#93a2b3}}line.tick{{stroke:#4a5767}}.bg{{fill:#10161e}}
.track{{fill:#212b37}}.file{{fill:#212b37;stroke:#3c4958}}.hole{{fill:#8492a2}}.dots{{fill:#73849a}}.break{{stroke:#6d7c8d}}.stripe{{stroke:#10161e}}.computed{{fill:#b9c6d6}}.flow-computed{{stroke:#b9c6d6}}.ribbon{{opacity:.36}}
{dark}}}
</style>
<defs><pattern id="zero" width="5" height="5" patternUnits="userSpaceOnUse"><circle class="dots" cx="1.6" cy="1.6" r=".95"/></pattern>
{hatch}</defs>
<rect class="bg" width="100%" height="100%"/>
{body}</svg>
"##,
            title = escape(&format!("Where the bytes of {} live", survey.name)),
            light = colours.0,
            dark = colours.1,
            body = self.out,
        )
    }
}

/// The pattern of what is compressed in a layer.
fn hatch(layer: usize) -> String {
    format!(
        r#"<pattern id="c{layer}" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect class="l{layer}" width="6" height="6"/><line class="stripe" x1="0" y1="0" x2="0" y2="6"/></pattern>
"#
    )
}

fn css(class: Class) -> String {
    match class.kind {
        Drawn::Raw => format!("l{}", class.layer),
        Drawn::Compressed => format!("c{}", class.layer),
        Drawn::Computed => "computed".to_owned(),
        Drawn::Sparse => format!("s{}", class.layer),
        Drawn::Zero => "zero".to_owned(),
        Drawn::Hole => "hole-fill".to_owned(),
    }
}

/// What is drawn of a column, from below, in shares of its height. Holes are what is left.
fn stacked(column: &BTreeMap<Class, f64>, only: Option<usize>) -> Vec<(Class, f64)> {
    let total: f64 = column.values().sum();
    let seen =
        column.iter().filter(|(c, _)| c.kind != Drawn::Hole && only.is_none_or(|layer| c.layer == layer));
    // The root, so that little can be told from nothing and much from more.
    let share = |v: f64| ((v / total.max(1e-12)).sqrt() * 32.0).round() / 32.0;
    let mut shares: Vec<(Class, f64)> = seen.map(|(c, v)| (*c, share(*v).max(LEAST))).collect();
    let sum: f64 = shares.iter().map(|(_, v)| v).sum();
    if sum > 1.0 {
        shares.iter_mut().for_each(|(_, v)| *v /= sum);
    }
    shares.sort_by_key(|(class, _)| (class.kind, class.layer));
    shares
}

fn tooltip(survey: &Survey, shares: &[(Class, f64)], start: u64, end: u64) -> String {
    let what = |(class, share): &(Class, f64)| {
        let kind = match class.kind {
            Drawn::Raw => "stored as is",
            Drawn::Compressed => "compressed",
            Drawn::Computed => "computed",
            Drawn::Sparse => "mapped, not stored",
            Drawn::Zero => "set to zeros",
            Drawn::Hole => "holes",
        };
        let layer = survey.layers.get(class.layer).map_or("", |l| l.name.as_str());
        let share = if *share < 0.99 { format!("{:.0}% ", share * share * 100.0) } else { String::new() };
        format!("{share}{kind} in {layer}")
    };
    let parts: Vec<_> = shares.iter().map(what).collect();
    format!("{} to {}: {}", exact(start), exact(end), parts.join(", "))
}

/// Where the files' bars are: positions and widths. By their length, but each has room for its name.
fn side_by_side(files: &[File]) -> Vec<(f64, f64)> {
    let room = BAR_WIDTH - FILE_GAP * (files.len() - 1) as f64;
    let spare = room - FILE_WIDTH * files.len() as f64;
    let total: f64 = files.iter().map(|f| f.len as f64).sum();
    let mut x = 0.0;
    let place = |file: &File| {
        let width = FILE_WIDTH + spare * file.len as f64 / total.max(1.0);
        let at = (x, width);
        x += width + FILE_GAP;
        at
    };
    files.iter().map(place).collect()
}

/// From where to where a ribbon's bytes lie in the bar of their file.
fn within(r: &Ribbon, (x, width): (f64, f64), file: &File) -> (f64, f64) {
    let place = |offset: u64| MARGIN + x + width * (offset.min(file.len)) as f64 / file.len.max(1) as f64;
    (place(r.offset), place(r.offset.saturating_add(r.stored)))
}

fn sum(survey: &Survey, of: impl Fn(&Class) -> bool) -> u64 {
    survey.sums.iter().filter(|(class, _)| of(class)).map(|(_, bytes)| bytes).sum()
}

/// An address as people read it, exact where that is short.
fn exact(at: u64) -> String {
    if at.is_multiple_of(1 << 10) || at < 1024 { show(at) } else { format!("byte {at}") }
}

/// The last name of a path, or all of what is none.
fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(path)
}

fn shorten(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    // The end of a name tells more than its beginning.
    let tail: String = text.chars().skip(count.saturating_sub(most.saturating_sub(1))).collect();
    format!("…{tail}")
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // What XML cannot hold.
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
