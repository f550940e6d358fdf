//! A short run of every fuzz target, with nothing installed but a nightly compiler.
//!
//! cargo-fuzz is not needed: a target is a program linked with libFuzzer, and what cargo-fuzz adds are the
//! compiler flags below. A crash is kept in fuzz/artifacts/TARGET, what was learnt in fuzz/corpus/TARGET.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context as _, Result, bail};

use super::{Options, Outcome};
use crate::house::{self, Workspace};
use crate::process;

/// Coverage as libFuzzer reads it, comparisons traced, addresses checked, arithmetic checked.
const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Zsanitizer=address",
    "-Cdebug-assertions",
    "-Coverflow-checks",
];

/// Two targets at a time: as many as the smallest machine has cores.
const AT_ONCE: usize = 2;

/// Builds the targets and runs each for a while.
pub(super) fn step(options: &Options) -> Result<Outcome> {
    let fuzz = house::root().join("fuzz");
    if !fuzz.join("Cargo.toml").exists() {
        return Ok(Outcome::skipped("there is no fuzz/Cargo.toml"));
    }
    if !process::succeeds(&mut process::command(&["cargo", "+nightly", "--version"])) {
        return Ok(Outcome::skipped("no nightly compiler (rustup toolchain install nightly)"));
    }
    smoke(&fuzz, options.fuzz_seconds)
}

/// Builds and runs every target of the fuzz crate in `dir`.
pub(super) fn smoke(dir: &Path, seconds: u32) -> Result<Outcome> {
    let workspace = Workspace::read(dir)?;
    let targets: Vec<String> = workspace.packages.into_iter().flat_map(|package| package.bins).collect();
    if targets.is_empty() {
        bail!("{} has no targets", dir.display());
    }
    let host = host()?;
    build(dir, &host)?;
    let binaries = workspace.target_dir.join(&host).join("release");
    println!("   {seconds} s for each of {}, {AT_ONCE} at a time", targets.join(", "));

    let queue = Mutex::new(targets.iter());
    let failures = Mutex::new(Vec::new());
    let work = || {
        // The lock is let go before the target runs.
        let next = || queue.lock().ok()?.next();
        while let Some(target) = next() {
            match run_target(dir, &binaries.join(target), target, seconds) {
                Ok(last) => println!("   {target}: {last}"),
                Err(error) => {
                    println!("   {target}: FAILED: {error:#}");
                    failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(target.clone());
                }
            }
        }
    };
    thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(work))));

    let failures = failures.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !failures.is_empty() {
        bail!("{} of {} targets: {}", failures.len(), targets.len(), failures.join(", "));
    }
    Ok(Outcome::Passed(format!("{seconds} s for each of {}", targets.join(", "))))
}

/// The triple of this machine: naming it keeps the flags away from build scripts.
fn host() -> Result<String> {
    let text = process::output(&mut process::command(&["rustc", "-vV"]))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

fn build(dir: &Path, host: &str) -> Result<()> {
    let mut command =
        process::command(&["cargo", "+nightly", "build", "--release", "--bins", "--target", host]);
    command.arg("--manifest-path").arg(dir.join("Cargo.toml"));
    command.env("RUSTFLAGS", FLAGS.join(" ")).env_remove("CARGO_ENCODED_RUSTFLAGS");
    println!("   cargo +nightly build --release --bins --target {host}, instrumented");
    process::run(&mut command)
}

/// Runs one target; gives libFuzzer's last word on it.
fn run_target(dir: &Path, binary: &Path, target: &str, seconds: u32) -> Result<String> {
    let corpus = made(dir.join("corpus").join(target))?;
    let artifacts = made(dir.join("artifacts").join(target))?;
    let log = artifacts.join("log.txt");
    let mut command = Command::new(binary);
    command
        .args([&format!("-max_total_time={seconds}"), "-rss_limit_mb=2048", "-timeout=10"])
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(&corpus)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log)?);
    let seeds = dir.join("seeds").join(target);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    let status = command.status().with_context(|| binary.display().to_string())?;
    let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if !status.success() {
        bail!("{status}; the input and log.txt are in {}\n{}", artifacts.display(), verdict(&said));
    }
    let done = said.lines().rfind(|line| line.contains("\tDONE ")).or(said.lines().last());
    Ok(done.unwrap_or_default().trim().to_owned())
}

fn made(dir: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    Ok(dir)
}

/// What libFuzzer and the panic said, without the progress lines before and the stack between.
fn verdict(log: &str) -> String {
    let progress = |line: &str| line.starts_with('#') || line.starts_with("INFO:");
    let frame = |line: &str| line.trim_start().starts_with('#') && line.contains(" 0x");
    let lines: Vec<&str> = log.lines().filter(|line| !progress(line) && !frame(line)).collect();
    lines[..lines.len().min(40)].join("\n")
}
