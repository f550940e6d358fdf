//! What the server does, as it does it and at the end.

use super::line::Line;
use crate::output::plain;
use portolan::serve::Counters;
use portolan::serve::counters::Histogram;
use portolan::size::show;
use serde_json::{Map, Value, json};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// How often rates are shown.
const EVERY: Duration = Duration::from_millis(500);

/// Rates on a terminal.
pub(super) struct Live {
    line: Option<Arc<Line>>,
    /// Somebody may write.
    writes: bool,
    last: Seen,
    at: Instant,
}

/// The counters that rates are made of.
#[derive(Clone, Copy, Default)]
struct Seen {
    reads: u64,
    writes: u64,
    bytes_read: u64,
    bytes_written: u64,
    at_once: u64,
    array: u64,
}

impl Seen {
    fn of(counters: &Counters) -> Seen {
        Seen {
            reads: counters.reads.load(Relaxed),
            writes: counters.writes.load(Relaxed),
            bytes_read: counters.bytes_read.load(Relaxed),
            bytes_written: counters.bytes_written.load(Relaxed),
            at_once: counters.at_once.load(Relaxed),
            array: counters.array.load(Relaxed),
        }
    }
}

impl Live {
    /// `writes` says whether clients may.
    pub(super) fn new(quiet: bool, writes: bool) -> Live {
        let line = if quiet { None } else { Line::on_terminal().map(Arc::new) };
        Live { line, writes, last: Seen::default(), at: Instant::now() }
    }

    /// For whoever has something to say meanwhile.
    pub(super) fn voice(&self) -> Voice {
        Voice(self.line.clone())
    }

    /// Shows the rates since the last time, when it is time.
    pub(super) fn show(&mut self, counters: &Counters) {
        let took = self.at.elapsed();
        let Some(line) = self.line.as_ref().filter(|_| took >= EVERY) else { return };
        let now = Seen::of(counters);
        let clients = clients(counters.connections.load(Relaxed), counters.accepted.load(Relaxed));
        let (read, written, share) = rates(&self.last, &now, took);
        let written = if self.writes { format!("   written {written}") } else { String::new() };
        line.show(&format!("{clients}   read {read}{written}{share}"));
        (self.last, self.at) = (now, Instant::now());
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(line) = &self.line {
            line.clear();
        }
    }
}

/// Says things on standard error, above the rates and not in the midst of them. Where nobody hears it, nothing fails.
#[derive(Clone)]
pub(super) struct Voice(Option<Arc<Line>>);

impl Voice {
    /// A line for a person.
    pub(super) fn say(&self, words: &str) {
        self.print(&format!("portolan: {}", plain(words)));
    }

    /// A line as it is.
    pub(super) fn print(&self, line: &str) {
        match &self.0 {
            Some(below) => below.print(line),
            None => drop(writeln!(std::io::stderr(), "{line}")),
        }
    }
}

fn clients(now: u64, ever: u64) -> String {
    match (now, ever) {
        (0, 0) => "no client yet".to_owned(),
        (0, _) => "no client".to_owned(),
        (1, _) => "1 client".to_owned(),
        (n, _) => format!("{n} clients"),
    }
}

/// What is read and written in a second, and how much of that was answered at once.
fn rates(last: &Seen, now: &Seen, took: Duration) -> (String, String, String) {
    let rate = |now: u64, last: u64| (now.saturating_sub(last) as f64 / took.as_secs_f64()).round() as u64;
    let (at_once, array) = (now.at_once - last.at_once, now.array.saturating_sub(last.array));
    let share = (at_once * 100).checked_div(at_once + array);
    let share = share.map_or_else(String::new, |share| format!("   {share}% at once"));
    let read = (rate(now.reads, last.reads), show(rate(now.bytes_read, last.bytes_read)));
    let written = (rate(now.writes, last.writes), show(rate(now.bytes_written, last.bytes_written)));
    (format!("{}/s, {}/s", read.0, read.1), format!("{}/s, {}/s", written.0, written.1), share)
}

/// Everything that was counted, as JSON.
pub(super) fn report(counters: &Counters) -> Value {
    let mut report = Map::new();
    for (name, count) in counters.each() {
        report.insert(name.replace('_', "-"), json!(count));
    }
    report.insert("at-once-latency-us".to_owned(), latency(&counters.at_once_latency));
    report.insert("array-latency-us".to_owned(), latency(&counters.array_latency));
    Value::Object(report)
}

fn latency(histogram: &Histogram) -> Value {
    let classes: Map<String, Value> = histogram
        .classes()
        .filter(|(_, count)| *count > 0)
        .map(|(below, count)| (format!("below-{below}"), json!(count)))
        .collect();
    json!({
        "half-below": histogram.percentile(0.5),
        "99%-below": histogram.percentile(0.99),
        "classes": classes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_who_is_there_and_what_they_do() {
        let ever = [(0, 0), (0, 3), (1, 1), (2, 9)].map(|(now, ever)| clients(now, ever));
        assert_eq!(ever, ["no client yet", "no client", "1 client", "2 clients"]);
        let now = Seen { reads: 1000, bytes_read: 4 << 20, at_once: 900, array: 100, ..Seen::default() };
        let (read, written, share) = rates(&Seen::default(), &now, Duration::from_millis(500));
        assert_eq!((read.as_str(), written.as_str()), ("2000/s, 8 MiB/s", "0/s, 0 B/s"));
        assert_eq!(share, "   90% at once");
    }
}
