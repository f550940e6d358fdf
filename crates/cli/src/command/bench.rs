//! `portolan bench`

use crate::Exit;
use crate::args::{self, Access, Input};
use crate::output::{Out, duration};
use crate::progress::Bar;
use anyhow::Context;
use clap::ValueEnum;
use portolan::bench::{Hot, Load, Outcome, Pattern, bench};
use portolan::size::{self, show};
use portolan::{Spec, open};
use serde::Serialize;
use std::io::Write;
use std::time::Duration;

/// Put a load on a disk and measure what it bears
///
/// Requests of one size from as many threads as the depth says, for a time. The page cache is not emptied and not
/// avoided, unless --direct is given.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    portolan bench disk.qcow2\n  \
    portolan bench --pattern sequential --size 1M --depth 4 disk.raw\n  \
    portolan bench --hot 80/20 --depth 16 nbd+unix:///?socket=disk.sock --server-pid 4711\n  \
    portolan bench --write --seconds 10 scratch.qcow2")]
pub(crate) struct Args {
    /// The disk
    #[arg(value_name = "SPEC", value_parser = args::spec())]
    spec: Spec,
    /// Where requests go: random or sequential
    #[arg(long, value_name = "PATTERN", default_value = "random", hide_possible_values = true)]
    pattern: Order,
    /// Most random requests to a part of the disk: 80/20 is 80% of them to 20% of it
    #[arg(long, value_name = "N/N", value_parser = Hot::parse)]
    hot: Option<Hot>,
    /// How long each request is
    #[arg(long, value_name = "SIZE", value_parser = size::parse, default_value = "4k")]
    size: u64,
    /// How many are under way at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    depth: usize,
    /// For how long
    #[arg(long, value_name = "N", default_value_t = 5)]
    seconds: u64,
    /// For so many requests, however long that takes
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    operations: Option<u64>,
    /// Write: what the disk holds is lost
    #[arg(long)]
    write: bool,
    /// Flush after every N writes of a thread
    #[arg(long, value_name = "N", requires = "write")]
    flush_every: Option<u64>,
    /// Only in the first so many bytes
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    within: Option<u64>,
    /// Where random places begin: the same seed asks for the same places
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Measure the processor time of this process too: the server
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    access: Access,
}

#[derive(Clone, Copy, ValueEnum)]
enum Order {
    Random,
    Sequential,
}

/// What was measured.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Measured {
    #[serde(flatten)]
    outcome: Outcome,
    /// The most memory this process ever had, in bytes.
    peak_rss: u64,
    /// Processor time of the server for a request, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_us_per_request: Option<f64>,
}

impl Args {
    fn load(&self) -> Load {
        let time = match self.operations {
            Some(_) => Duration::MAX,
            None => Duration::from_secs(self.seconds),
        };
        Load {
            pattern: match self.pattern {
                Order::Random => Pattern::Random(self.hot),
                Order::Sequential => Pattern::Sequential,
            },
            size: self.size,
            depth: self.depth,
            time,
            operations: self.operations,
            write: self.write,
            flush_every: self.flush_every,
            within: self.within,
            seed: self.seed,
        }
    }

    pub(super) fn run(&self, out: &mut Out) -> anyhow::Result<Exit> {
        let options = if self.write { self.access.writing() } else { self.access.reading() };
        let opened = open(&self.input.apply(&self.spec), &options)?;
        let before = self.server_pid.map(processor_time).transpose()?;
        let bar = Bar::new("loading", true);
        let outcome = bar.watch(|watch| bench(&opened.disk, &self.load(), watch));
        let after = self.server_pid.map(processor_time);
        let outcome = opened.close_after(outcome)?;
        let after = after.transpose()?;
        let cpu =
            before.zip(after).map(|(b, a)| (a - b).as_secs_f64() * 1e6 / outcome.operations.max(1) as f64);
        let measured =
            Measured { outcome, peak_rss: peak_rss().unwrap_or(0), server_cpu_us_per_request: cpu };
        if self.json {
            out.json(&measured)?;
        } else {
            self.print(out, &measured)?;
        }
        Ok(Exit::DONE)
    }

    fn print(&self, out: &mut Out, measured: &Measured) -> anyhow::Result<()> {
        let o = &measured.outcome;
        let act = if self.write { "writes" } else { "reads" };
        let took = duration(Duration::from_secs_f64(o.seconds));
        writeln!(out, "{} {act} of {} in {took}, {} at once", o.operations, show(self.size), self.depth)?;
        writeln!(out, "  rate     {:.0} a second, {:.1} MB/s", o.iops, o.bytes_per_second / 1e6)?;
        let nanos = |n: u64| duration(Duration::from_nanos(n));
        let l = &o.latency;
        writeln!(
            out,
            "  latency  {} half, {} of 90%, {} of 99%, {} of 99.9%, {} the longest",
            nanos(l.p50),
            nanos(l.p90),
            nanos(l.p99),
            nanos(l.p999),
            nanos(l.max)
        )?;
        writeln!(out, "  memory   {} at most", show(measured.peak_rss))?;
        if let Some(cpu) = measured.server_cpu_us_per_request {
            writeln!(out, "  server   {cpu:.2} µs of processor time a request")?;
        }
        Ok(())
    }
}

/// The most memory that this process ever had.
fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// How much processor time a process has had, in the kernel and outside.
fn processor_time(pid: u32) -> anyhow::Result<Duration> {
    let stat =
        std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("no process {pid}"))?;
    // The second field is a name in brackets, which may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = |i: usize| fields.split_whitespace().nth(i).and_then(|f| f.parse::<u64>().ok());
    let (user, system) = ticks(11).zip(ticks(12)).context("an odd /proc/PID/stat")?;
    // SAFETY: sysconf only reads a number.
    let hertz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let hertz = u64::try_from(hertz).unwrap_or(100).max(1);
    Ok(Duration::from_millis((user + system) * 1000 / hertz))
}
