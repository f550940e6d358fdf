//! What a row has come to, and the page of all rows.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::case::{Bar, Case, MIB, Score};
use super::measure::{Sample, float, median};
use super::pairs::Pair;
use super::{machine, notes};

/// A row's result, as the page shows it.
pub(super) struct Row {
    name: String,
    cells: Value,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    Measured,
    /// Something went wrong: the bench fails.
    Failed,
    /// This machine cannot: an older result is kept.
    NotRun,
}

impl Row {
    /// The result of these pairs.
    pub(super) fn measured(case: &Case, peer: &str, pairs: &[Pair]) -> Row {
        let ratios = || pairs.iter().map(|pair| pair.ratio(case.score));
        let least = ratios().fold(f64::INFINITY, f64::min);
        let most = ratios().fold(0.0, f64::max);
        let both = |cell: fn(&[&Sample]) -> String| {
            let ours: Vec<_> = pairs.iter().map(|pair| &pair.ours).collect();
            let peer: Vec<_> = pairs.iter().map(|pair| &pair.peer).collect();
            format!("{} / {}", cell(&ours), cell(&peer))
        };
        let score = |side: fn(&Pair) -> &Sample| {
            told_score(case.score, median(pairs.iter().map(|pair| side(pair).score)))
        };
        let bars: Vec<String> = case.bars.iter().map(ToString::to_string).collect();
        let cells = json!({
            "date": machine::date(),
            "flags": case.ours.label,
            "peer_flags": peer,
            "pairs": pairs.len(),
            "ours": score(|pair| &pair.ours),
            "peer": score(|pair| &pair.peer),
            "ratio": format!("{}×", short(median(ratios()))),
            "spread": format!("{}–{}", short(least), short(most)),
            "cpu": both(if case.requests.is_some() { cpu_each } else { cpu }),
            "rss": both(|side| bytes(side.iter().map(|sample| sample.max_rss_bytes).max())),
            "rest": both(|side| bytes(side.iter().map(|sample| sample.rest_rss_bytes).max())),
            "written": both(|side| bytes(side.iter().map(|sample| sample.written_bytes).max())),
            "size": both(|side| bytes(side.iter().map(|sample| sample.output_bytes).max())),
            "bars": bars.join(", "),
            "verdict": verdict(case, pairs),
        });
        Row { name: case.name.clone(), cells, state: State::Measured }
    }

    /// A row that went wrong.
    pub(super) fn failed(case: &Case, why: &str) -> Row {
        let first = why.lines().next().unwrap_or_default();
        eprintln!("   {why}");
        let cells = json!({ "date": machine::date(), "verdict": format!("FAILED: {first}") });
        Row { name: case.name.clone(), cells, state: State::Failed }
    }

    /// A row that this machine cannot measure.
    pub(super) fn not_run(case: &Case, why: &str) -> Row {
        let cells = json!({ "verdict": format!("not run: {why}") });
        Row { name: case.name.clone(), cells, state: State::NotRun }
    }

    pub(super) fn broken(&self) -> bool {
        self.state == State::Failed
    }

    pub(super) fn cell(&self, name: &str) -> &str {
        cell(&self.cells, name)
    }

    /// The result in one line for the terminal.
    pub(super) fn spoken(&self) -> String {
        let ratio = match self.cell("ratio") {
            "" => String::new(),
            ratio => {
                let [spread, rss, cpu] = ["spread", "rss", "cpu"].map(|name| self.cell(name));
                format!("{ratio} ({spread}), RSS {rss}, CPU {cpu}, ")
            }
        };
        format!("{:<36} {ratio}{}", self.name, self.cell("verdict"))
    }

    /// Keeps the result for the pages to come. What was not run leaves what is there.
    pub(super) fn store(&self, store: &Path) -> Result<()> {
        if self.state == State::NotRun {
            return Ok(());
        }
        let path = store.join(format!("{}.json", self.name));
        fs::write(&path, self.cells.to_string()).with_context(|| path.display().to_string())
    }
}

/// What each bar comes to: PASS, or MISS and where.
fn verdict(case: &Case, pairs: &[Pair]) -> String {
    if case.bars.is_empty() {
        return "no bar".to_owned();
    }
    let missed: Vec<String> = case.bars.iter().filter_map(|bar| missed(case, *bar, pairs)).collect();
    if missed.is_empty() { "PASS".to_owned() } else { format!("MISS: {}", missed.join(", ")) }
}

/// What was reached instead, if this bar is missed.
fn missed(case: &Case, bar: Bar, pairs: &[Pair]) -> Option<String> {
    let worst = |value: fn(&Pair) -> f64| pairs.iter().map(value).fold(0.0, f64::max);
    let (held, reached) = match bar {
        Bar::Ratio(at_least) => {
            let ratio = median(pairs.iter().map(|pair| pair.ratio(case.score)));
            (ratio >= at_least, format!("{}×", short(ratio)))
        }
        Bar::RssMib(at_most) => {
            let mib = worst(|pair| float(pair.ours.max_rss_bytes)) / float(MIB);
            (mib <= at_most, format!("RSS {mib:.0} MiB"))
        }
        Bar::WrittenShare(at_most) => {
            let share = worst(|pair| float(pair.ours.written_bytes)) / float(case.payload.max(1));
            (share <= at_most, format!("writes {:.1}%", share * 100.0))
        }
        Bar::Size(at_most) => {
            let size = worst(|pair| float(pair.ours.output_bytes) / float(pair.peer.output_bytes.max(1)));
            (size <= at_most, format!("size {size:.3}×"))
        }
        Bar::Share(at_most) => {
            let share = 1.0 / median(pairs.iter().map(|pair| pair.ratio(case.score)));
            (share <= at_most, format!("{share:.3}× the peer's"))
        }
        Bar::CpuEach(at_most) => {
            let share = median(pairs.iter().map(|pair| pair.ours.cpu_each() / pair.peer.cpu_each()));
            (share <= at_most, format!("CPU a request {share:.3}×"))
        }
        Bar::RestRss(at_most) => {
            let share =
                |pair: &Pair| float(pair.ours.rest_rss_bytes) / float(pair.peer.rest_rss_bytes.max(1));
            let share = median(pairs.iter().map(share));
            (share <= at_most, format!("RSS at rest {share:.2}×"))
        }
    };
    (!held).then_some(reached)
}

/// The terminal's last word.
pub(super) fn summary(rows: &[Row]) -> String {
    rows.iter().map(Row::spoken).collect::<Vec<_>>().join("\n")
}

const HEAD: &str = "\
# Benchmarks

Written by `cargo xtask bench`; do not edit. Portolan and its peer run alternately on the same data, after a warm-up in
which their results are checked against each other. Each ratio is taken within a pair, and the median of the pairs counts;
the spread is the least and the greatest. A ratio above 1 means that Portolan is better. Only the two halves of one row
compare: absolute times of different rows or days do not.

Of the flags the peer could be given, those that were fastest on this machine, tried in the same run, are used.
Portolan's convert flushes before it renames its output into place, `qemu-img convert` as it comes flushes nothing.
Rows named `default` run both as they come; `durable` has both flush, and `unflushed` neither. Before each run the outputs are removed and the file
system is synced. Warm: the inputs have just been read. Cold: the page cache has just been emptied.

Rows named `nbd` measure servers. Each run starts the server anew and puts the same load on it: `portolan bench`, which
costs less for a request than any of the servers, or fio's nbd engine where the name says so. Load and server share the
machine. Before the pairs are measured, what both serve is compared with the image, or what both wrote is checked.
";

/// The page of all rows: this run's, and those kept from runs before.
pub(super) fn page(all: &[Case], store: &Path, machine: &str, versions: &[String]) -> Result<String> {
    let mut results = String::from("| row | ours | peer | ratio | spread | bar | verdict | date |\n");
    results.push_str("|---|---|---|---|---|---|---|---|\n");
    let mut costs = String::from(
        "| row | CPU | RSS before | RSS | written | output | pairs | our command | the peer's |\n",
    );
    costs.push_str("|---|---|---|---|---|---|---|---|---|\n");
    let mut works = String::new();
    let mut noted = String::new();
    for case in all {
        let name = &case.name;
        let kept = fs::read_to_string(store.join(format!("{name}.json"))).unwrap_or_default();
        let cells: Value =
            serde_json::from_str(&kept).unwrap_or_else(|_| json!({"verdict": "not measured yet"}));
        let line = |names: &[&str]| {
            names.iter().map(|name| cell(&cells, name).replace('|', "\\|")).collect::<Vec<_>>().join(" | ")
        };
        let result = line(&["ours", "peer", "ratio", "spread", "bars", "verdict", "date"]);
        writeln!(results, "| {name} | {result} |")?;
        if cells["ours"].is_string() {
            let pairs = &cells["pairs"];
            let cost = line(&["cpu", "rest", "rss", "written", "size"]);
            let (ours, peer) = (line(&["flags"]), line(&["peer_flags"]));
            writeln!(costs, "| {name} | {cost} | {pairs} | `{ours}` | `{peer}` |")?;
        }
        writeln!(works, "- **{name}**: {}", case.work)?;
        if let Some(note) = notes::on(name) {
            writeln!(noted, "- **{name}**: {note}")?;
        }
    }
    let mut page = format!("{HEAD}\nMachine: {machine}.\nVersions: {}.\n", versions.join("; "));
    write!(page, "\n## Results\n\n{results}\n## What is measured\n\n{works}")?;
    write!(page, "\n## Costs, ours / the peer's\n\n{costs}")?;
    page.push_str("\nCPU is the median of user and system time; RSS, bytes written and output length are the largest seen.\n");
    page.push_str("Where a server is measured, CPU, for each request, and RSS, before the load and under it, are the server's.\n");
    page.push_str(
        "Bytes written are what reached the device on XFS, and the blocks of the output elsewhere.\n",
    );
    if !noted.is_empty() {
        write!(page, "\n## Notes\n\n{noted}")?;
    }
    Ok(page)
}

fn cell<'a>(cells: &'a Value, name: &str) -> &'a str {
    cells[name].as_str().unwrap_or_default()
}

fn cpu(side: &[&Sample]) -> String {
    seconds(median(side.iter().map(|sample| sample.cpu.as_secs_f64())))
}

fn cpu_each(side: &[&Sample]) -> String {
    format!("{:.2} µs each", median(side.iter().map(|sample| sample.cpu_each())))
}

fn told_score(score: Score, value: f64) -> String {
    match score {
        Score::Wall => seconds(value),
        Score::Most(figure) | Score::Least(figure) => format!("{value:.0} {}", figure.unit),
        Score::Rss => format!("{:.1} MiB", value / float(MIB)),
    }
}

fn seconds(value: f64) -> String {
    if value < 1.0 { format!("{:.1} ms", value * 1000.0) } else { format!("{value:.2} s") }
}

fn bytes(value: Option<u64>) -> String {
    let value = value.unwrap_or(0);
    match value {
        0 => "0".to_owned(),
        _ if value < MIB => format!("{} KiB", value / 1024),
        _ if value < 10 * 1024 * MIB => format!("{} MiB", value / MIB),
        _ => format!("{} GiB", value / (1024 * MIB)),
    }
}

/// Three digits that mean something.
fn short(value: f64) -> String {
    match value {
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
