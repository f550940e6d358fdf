//! `portolan bench`

use crate::Exit;
use crate::args::{self, Access, Input};
use crate::output::{Out, duration};
use crate::progress::Bar;
use anyhow::{Context, bail};
use clap::ValueEnum;
use portolan::Spec;
use portolan::bench::{Hot, Load, Outcome, Pattern, bench};
use portolan::size::{self, show};
use serde::Serialize;
use std::io::Write;
use std::time::Duration;

/// Put a load on a disk and measure what it bears
///
/// Requests of one size, as many at a time as the depth says, for a while. The page cache is not emptied and not
/// avoided, unless --direct is given.
///
/// An export of an NBD server, where its bytes are the disk and there is no TLS, is loaded by few system calls for many
/// requests, so that what is measured is the server. Everything else is loaded by a thread for each request.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    portolan bench disk.qcow2\n  \
    portolan bench --pattern sequential --size 1M --depth 4 disk.raw\n  \
    portolan bench --depth 32 'nbd+unix:///?socket=disk.sock' --server-pid 4711\n  \
    portolan bench --write --seconds 10 scratch.qcow2")]
pub(crate) struct Args {
    /// The disk: a path, an address, a snapshot of an image (see `portolan help spec`)
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
    /// How many are under way at once, on each connection
    #[arg(long, value_name = "N", default_value_t = 1)]
    depth: usize,
    /// How many connections to an NBD server
    #[arg(long, value_name = "N", default_value_t = 1)]
    connections: usize,
    /// Agree with an NBD server on structured replies
    #[arg(long)]
    structured: bool,
    /// For how long
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// For so many requests, however long that takes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "seconds")]
    operations: Option<u64>,
    /// Write: what the disk holds is lost
    #[arg(long)]
    write: bool,
    /// Check that what is read is what --write has written, with the same --size and --seed
    #[arg(long, conflicts_with = "write")]
    verify: bool,
    /// Flush after every N writes of a connection or thread
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), requires = "write")]
    flush_every: Option<u64>,
    /// Only in the first so many bytes
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    within: Option<u64>,
    /// What places and written bytes begin from: the same seed, the same places and bytes
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
    /// Processor time of this process for a request, in microseconds.
    cpu_us_per_request: f64,
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
            verify: self.verify,
            within: self.within,
            seed: self.seed,
            connections: self.connections,
            structured: self.structured,
        }
    }

    pub(super) fn run(&self, out: &mut Out) -> anyhow::Result<Exit> {
        if self.hot.is_some() && matches!(self.pattern, Order::Sequential) {
            bail!("--hot says where random requests go; sequential ones go everywhere");
        }
        let (spec, options) = (self.input.apply(&self.spec), self.access.reading());
        let bar = Bar::new("loading", true);
        let before = (own_time(), self.server_pid.map(processor_time).transpose()?);
        let outcome = bar.watch(|watch| bench(&spec, &options, &self.load(), watch))?;
        let after = (own_time(), self.server_pid.map(processor_time).transpose()?);
        let each = |before: Duration, after: Duration| {
            after.saturating_sub(before).as_secs_f64() * 1e6 / outcome.operations.max(1) as f64
        };
        let measured = Measured {
            outcome,
            peak_rss: peak_rss().unwrap_or(0),
            cpu_us_per_request: each(before.0, after.0),
            server_cpu_us_per_request: before.1.zip(after.1).map(|(before, after)| each(before, after)),
        };
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
        let depth = self.depth * self.connections;
        writeln!(out, "{} {act} of {} in {took}, {depth} at once", o.operations, show(self.size))?;
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
        let cpu = measured.cpu_us_per_request;
        writeln!(
            out,
            "  client   {cpu:.2} µs of processor time a request, {} at most",
            show(measured.peak_rss)
        )?;
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

/// How much processor time this process has had.
fn own_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    duration_of(time.tv_sec, time.tv_nsec)
}

/// How much processor time a process has had, in the kernel and outside, threads that have ended included.
fn processor_time(pid: u32) -> anyhow::Result<Duration> {
    let none = || format!("no process {pid}");
    let number = libc::pid_t::try_from(pid).ok().with_context(none)?;
    let mut clock = 0;
    // SAFETY: the pointer is to a live clockid_t, which is all that is written.
    let failed = unsafe { libc::clock_getcpuclockid(number, &raw mut clock) };
    if failed != 0 {
        return Err(std::io::Error::from_raw_os_error(failed)).with_context(none);
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, which is all that is written.
    let failed = unsafe { libc::clock_gettime(clock, &raw mut time) };
    if failed != 0 {
        return Err(std::io::Error::last_os_error()).with_context(none);
    }
    Ok(duration_of(time.tv_sec, time.tv_nsec))
}

fn duration_of(seconds: i64, nanos: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
        + Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}
