//! One run of one side, and what it cost.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::case::{Cache, Case, Score, Side, number};
use super::data::Sizes;
use super::kernel;
use super::scratch::Scratch;
use super::server::Running;
use crate::process;

/// What one run cost.
#[derive(Clone, Default, Debug)]
pub(super) struct Sample {
    pub(super) wall: Duration,
    /// Of the server where there is one, else of the commands.
    pub(super) cpu: Duration,
    /// Likewise.
    pub(super) max_rss_bytes: u64,
    /// The server's before the load.
    pub(super) rest_rss_bytes: u64,
    /// How many requests were made, where that is told.
    pub(super) requests: f64,
    /// Bytes that reached the device, where it is ours alone; else the blocks of the output.
    pub(super) written_bytes: u64,
    /// Length of the output file.
    pub(super) output_bytes: u64,
    /// What the row is judged by: seconds, bytes, or the figure it names.
    pub(super) score: f64,
    /// What the last command printed.
    pub(super) said: String,
}

impl Sample {
    /// Processor time for each request, in microseconds.
    pub(super) fn cpu_each(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.requests.max(1.0)
    }
}

/// Runs one side of a row once.
pub(super) fn sample(case: &Case, side: &Side, scratch: &Scratch) -> Result<Sample> {
    settle(case, side, scratch)?;
    let server = side.server.as_ref().map(|server| Running::start(server, &scratch.dir)).transpose()?;
    let before = scratch.device_written()?;
    let mut sample = Sample::default();
    for _ in 0..case.repeat {
        for command in &side.commands {
            run(command, &scratch.dir, &mut sample)?;
        }
    }
    if let Some(server) = server {
        let used = server.used()?;
        (sample.cpu, sample.max_rss_bytes, sample.rest_rss_bytes) =
            (used.cpu, used.max_rss_bytes, used.rest_rss_bytes);
        server.stop()?;
    }
    if let Some(meta) = side.output.as_ref().map(fs::metadata) {
        let meta = meta.context("no output")?;
        sample.output_bytes = meta.len();
        sample.written_bytes = meta.blocks() * 512;
    }
    if let (Some(before), Some(after)) = (before, scratch.device_written()?) {
        sample.written_bytes = after - before;
    }
    if let Some(at) = case.requests {
        sample.requests = number(&sample.said, at)?;
    }
    sample.score = match case.score {
        Score::Wall => sample.wall.as_secs_f64(),
        Score::Most(figure) | Score::Least(figure) => number(&sample.said, figure.at)?,
        Score::Rss => float(sample.max_rss_bytes),
    };
    Ok(sample)
}

/// Removes what was written before, makes what has to be there, and waits until that has settled; then makes the cache
/// what the row wants.
fn settle(case: &Case, side: &Side, scratch: &Scratch) -> Result<()> {
    remove_outputs(case)?;
    for command in &side.before {
        process::output(&mut process::command(command))?;
    }
    scratch.sync()?;
    match case.cache {
        Cache::AsIs => Ok(()),
        Cache::Cold => {
            fs::write("/proc/sys/vm/drop_caches", "3").context("only root can empty the page cache")
        }
        Cache::Warm => case.inputs.iter().try_for_each(|data| read(&scratch.dir.join(data.name()))),
    }
}

/// Removes what either side has written.
pub(super) fn remove_outputs(case: &Case) -> Result<()> {
    for side in std::iter::once(&case.ours).chain(&case.peers) {
        if let Some(output) = side.output.as_ref().filter(|output| output.exists()) {
            let gone = if output.is_dir() { set_aside(output) } else { fs::remove_file(output) };
            gone.with_context(|| output.display().to_string())?;
        }
    }
    Ok(())
}

/// What a directory of outputs that is in the way is called.
const ASIDE: &str = "aside";

/// Moves a directory of outputs out of the way. It is not removed before the row is done: ext4 passes over the inodes
/// of what was just deleted, one by one, and whoever makes files then is slow.
fn set_aside(output: &Path) -> std::io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    fs::rename(output, output.with_extension(format!("{ASIDE}-{}", NEXT.fetch_add(1, Ordering::Relaxed))))
}

/// So long ext4 counts what was deleted as recent.
const RECENT: Duration = Duration::from_secs(45);

/// Removes what was set aside, and waits until that is long ago.
pub(super) fn clear(dir: &Path) -> Result<()> {
    let mut removed = false;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if extension.starts_with(ASIDE) && path.is_dir() {
            fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
            removed = true;
        }
    }
    if removed {
        std::thread::sleep(RECENT);
    }
    Ok(())
}

/// Reads a file, or all in a directory, and forgets it: its pages are in the cache then.
fn read(path: &Path) -> Result<()> {
    if path.is_dir() {
        return fs::read_dir(path)?.try_for_each(|entry| read(&entry?.path()));
    }
    if !path.is_file() || path.is_symlink() {
        return Ok(());
    }
    let mut file = File::open(path)?;
    let mut buf = vec![0; 256 * 1024];
    while file.read(&mut buf)? > 0 {}
    Ok(())
}

/// Runs one command and adds what it cost.
fn run(words: &[String], dir: &Path, sample: &mut Sample) -> Result<()> {
    // Beside the scratch file system, not in it: what is written there is counted.
    let log = dir.with_extension("stderr");
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env("LC_ALL", "C").current_dir(dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?);
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| process::shown(&command))?;
    sample.said.clear();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut sample.said)?;
    }
    let usage = kernel::wait(&child)?;
    sample.wall += start.elapsed();
    sample.cpu += usage.cpu;
    sample.max_rss_bytes = sample.max_rss_bytes.max(usage.max_rss_bytes);
    let said = fs::read_to_string(&log).unwrap_or_default();
    fs::remove_file(&log)?;
    if !usage.success {
        bail!("`{}`: exit {}: {}", process::shown(&command), usage.code, said.trim());
    }
    Ok(())
}

/// Sizes here are far below 2^52: nothing is lost.
pub(super) fn float(value: u64) -> f64 {
    value as f64
}

/// Makes what the row works on, once.
pub(super) fn inputs(case: &Case, scratch: &Scratch, sizes: &Sizes) -> Result<()> {
    case.inputs.iter().try_for_each(|data| data.ensure(&scratch.dir, sizes))
}

/// The middle one; of an even number, the mean of the two in the middle.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}
