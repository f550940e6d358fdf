//! The steps of `cargo xtask test`, but for fuzzing.

use std::fs;
use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::{Options, Outcome};
use crate::house::{self, Workspace};
use crate::{guest, layers, peers, process};

/// Runs a command and shows what it is.
fn run(command: &mut Command) -> Result<()> {
    println!("   {}", process::shown(command));
    process::run(command)
}

fn passed(note: impl Into<String>) -> Result<Outcome> {
    Ok(Outcome::Passed(note.into()))
}

/// Installs the real peers.
pub(super) fn peers(options: &Options) -> Result<Outcome> {
    let mut done = peers::install(options.install)?;
    if let Err(why) = guest::prepare(options.install) {
        done.missing.push(format!("{why:#}"));
    }
    if done.missing.is_empty() {
        let all = "all here".to_owned();
        return passed(if done.new.is_empty() { all } else { format!("installed {}", done.new.join(", ")) });
    }
    Ok(Outcome::skipped(format!("missing: {}", done.missing.join(", "))))
}

pub(super) fn fmt(_: &Options) -> Result<Outcome> {
    run(&mut process::command(&["cargo", "fmt", "--all", "--check"]))?;
    if house::root().join("fuzz/Cargo.toml").exists() {
        run(&mut process::command(&["cargo", "fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]))?;
    }
    passed("")
}

pub(super) fn clippy(_: &Options) -> Result<Outcome> {
    let words = ["cargo", "clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    run(&mut process::command(&words))?;
    passed("")
}

pub(super) fn layers(_: &Options) -> Result<Outcome> {
    layers::task(&[])?;
    passed("")
}

/// Licences, advisories, duplicates. Optional even in CI: cargo-deny takes minutes to build from source.
pub(super) fn deny(_: &Options) -> Result<Outcome> {
    if !process::succeeds(&mut process::command(&["cargo", "deny", "--version"])) {
        let reason = "optional: cargo-deny is not installed (cargo install --locked cargo-deny)".to_owned();
        return Ok(Outcome::Skipped { reason, optional: true });
    }
    run(&mut process::command(&["cargo", "deny", "check", "bans", "licenses", "sources"]))?;
    let mut advisories = process::command(&["cargo", "deny", "check", "advisories"]);
    match process::output(&mut advisories) {
        Ok(_) => passed(""),
        Err(error) if format!("{error:#}").contains("failed to fetch advisory database") => {
            passed("advisories not looked at: their database cannot be fetched from here")
        }
        Err(error) => Err(error),
    }
}

/// Every test, by nextest where it is installed.
pub(super) fn tests(options: &Options) -> Result<Outcome> {
    let skips = skip_list()?;
    let nextest = process::succeeds(&mut process::command(&["cargo", "nextest", "--version"]));
    let words: &[&str] = if nextest {
        &["cargo", "nextest", "run", "--workspace", "--no-fail-fast"]
    } else {
        &["cargo", "test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"]
    };
    let mut command = process::command(words);
    command.env("PORTOLAN_SKIPPED_TESTS", &skips);
    if options.ci {
        command.env("PORTOLAN_REQUIRE_PEERS", "1");
    }
    println!("   {}", process::shown(&command));
    let summary = watched(&mut command)?;

    let skipped = fs::read_to_string(&skips).unwrap_or_default();
    for line in skipped.lines() {
        println!("   skipped test: {line}");
    }
    match skipped.lines().count() {
        0 => passed(summary),
        n if options.ci => bail!("nothing is skipped in CI: {n} tests were; {summary}"),
        n => passed(format!("{summary} ({n} skipped for want of a peer, named above)")),
    }
}

/// An empty file in which each test that skips itself leaves a line: its name and the reason.
fn skip_list() -> Result<std::path::PathBuf> {
    let dir = Workspace::read(house::root())?.target_dir.join("xtask");
    fs::create_dir_all(&dir)?;
    let file = dir.join("skipped-tests.txt");
    fs::write(&file, "").with_context(|| file.display().to_string())?;
    Ok(file)
}

/// Runs the tests, letting everything through, and keeps the line that sums them up.
fn watched(command: &mut Command) -> Result<String> {
    if std::io::stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    // nextest sums up on standard error, cargo test on standard output: both go through one pipe.
    let (reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().context("cannot start the tests")?;
    // The command holds the writing ends: without this the pipe never ends.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let mut summary = Summary::default();
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        println!("{line}");
        summary.note(&plain(&line));
    }
    let status = child.wait()?;
    if status.success() { Ok(summary.to_string()) } else { bail!("{status}; {summary}") }
}

/// What the test runners said of themselves.
#[derive(Default)]
pub(super) struct Summary {
    nextest: Option<String>,
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Summary {
    /// Takes note of one line without colours.
    pub(super) fn note(&mut self, line: &str) {
        let line = line.trim();
        if line.starts_with("Summary [") {
            self.nextest = Some(line.to_owned());
        } else if let Some(counts) = line.strip_prefix("test result:") {
            self.passed += count(counts, " passed");
            self.failed += count(counts, " failed");
            self.ignored += count(counts, " ignored");
        }
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.nextest {
            Some(line) => f.write_str(line),
            None => write!(f, "{} passed, {} failed, {} ignored", self.passed, self.failed, self.ignored),
        }
    }
}

/// The number before a word, as in `ok. 3 passed; 0 failed`.
fn count(text: &str, word: &str) -> u64 {
    let before = text.split(word).next().filter(|before| before.len() < text.len()).unwrap_or_default();
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The line without the escape sequences that colour it.
pub(super) fn plain(line: &str) -> String {
    let mut out = String::new();
    let mut coloured = false;
    for c in line.chars() {
        match c {
            '\u{1b}' => coloured = true,
            'm' if coloured => coloured = false,
            _ if coloured => {}
            c => out.push(c),
        }
    }
    out
}

/// Minutes of load on the NBD server, alone: its memory, descriptors and threads stay where they were.
pub(super) fn soak(options: &Options) -> Result<Outcome> {
    // Not nextest, which ends what takes minutes; but what that has built.
    let words = ["cargo", "test", "--workspace", "--lib", "--bins", "--tests", "--"];
    let mut command = process::command(&words);
    command.args(["--exact", "--nocapture", "soak::soak"]);
    println!("   PORTOLAN_SOAK={} {}", options.soak_seconds, process::shown(&command));
    command.env("PORTOLAN_SOAK", options.soak_seconds.to_string()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start the soak")?;
    let mut last = None;
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()) {
        let line = line?;
        // The other crates have no such test, and say so.
        if line.contains("requests;") {
            println!("   {line}");
            last = Some(line);
        }
    }
    let status = child.wait()?;
    match last {
        Some(last) if status.success() => passed(format!("{} s, and then {last}", options.soak_seconds)),
        Some(_) => bail!("{status}"),
        None => bail!("{status}, and no load was put on anything"),
    }
}

pub(super) fn doc_tests(_: &Options) -> Result<Outcome> {
    run(&mut process::command(&["cargo", "test", "--workspace", "--doc"]))?;
    passed("")
}

/// The documentation of every library: a broken link is an error. The binaries' would overwrite the
/// libraries' of the same name.
pub(super) fn docs(_: &Options) -> Result<Outcome> {
    let words = ["cargo", "doc", "--workspace", "--no-deps", "--lib"];
    run(process::command(&words).env("RUSTDOCFLAGS", "-Dwarnings"))?;
    passed("")
}
