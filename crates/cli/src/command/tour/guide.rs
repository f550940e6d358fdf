//! The guide: runs commands as a person would, shows them, and counts what they wrote.

use crate::output::{Out, duration};
use crate::signal;
use anyhow::{Context, bail};
use portolan::size::show;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a command that runs beside others may take to start.
const START: Duration = Duration::from_secs(10);
/// How long a pause is.
const PAUSE: Duration = Duration::from_millis(450);

/// Shows the way.
pub(super) struct Guide<'a> {
    out: &'a mut Out,
    dir: &'a Path,
    program: PathBuf,
    /// Whether the reader can see colours.
    colours: bool,
    /// What the last command wrote.
    last: u64,
    /// What those commands wrote that can be done by copying, and what that would have written.
    written: u64,
    copies: u64,
}

impl<'a> Guide<'a> {
    pub(super) fn new(out: &'a mut Out, dir: &'a Path) -> anyhow::Result<Guide<'a>> {
        let program = std::env::current_exe().context("finding this program")?;
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Ok(Guide { out, dir, program, colours, last: 0, written: 0, copies: 0 })
    }

    /// What was written where copying was the other way, and what that would have written.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.written, self.copies)
    }

    pub(super) fn welcome(&mut self) -> anyhow::Result<()> {
        let dir = self.dir.display().to_string();
        self.say("A virtual disk is a promise that sector N exists. Where it really lives is a table:")?;
        self.say("a chart. Portolan keeps the data where it is and redraws the chart.")?;
        self.say(&format!("Everything here happens in {dir}."))
    }

    pub(super) fn heading(&mut self, number: usize, title: &str) -> anyhow::Result<()> {
        let (on, off) = self.ink("1;36");
        writeln!(self.out, "\n{on}{number}. {title}{off}")?;
        Ok(self.out.flush()?)
    }

    /// Tells something.
    pub(super) fn say(&mut self, text: &str) -> anyhow::Result<()> {
        writeln!(self.out, "{text}")?;
        Ok(self.out.flush()?)
    }

    /// Runs `portolan` with these arguments, split at blanks, and shows at most `lines` of what it says. Returns
    /// all of that.
    pub(super) fn run(&mut self, args: &str, lines: usize) -> anyhow::Result<String> {
        self.run_expecting(args, lines, 0)
    }

    /// The same, for a command whose answer is an exit code.
    pub(super) fn run_expecting(&mut self, args: &str, lines: usize, code: i32) -> anyhow::Result<String> {
        let (on, off) = self.ink("1");
        writeln!(self.out, "  $ {on}portolan {args}{off}")?;
        self.out.flush()?;
        let began = Instant::now();
        let done = run(&self.program, args, self.dir)?;
        if signal::is_interrupted() {
            bail!("interrupted");
        }
        if done.code != Some(code) {
            bail!("`portolan {args}` failed:\n{}", done.said.trim_end());
        }
        let took = began.elapsed();
        let (on, off) = self.ink("2");
        let all: Vec<_> = done.said.lines().collect();
        for line in all.iter().take(lines) {
            writeln!(self.out, "    {line}")?;
        }
        if all.len() > lines {
            let more = all.len() - lines;
            let what = if more == 1 { "line" } else { "lines" };
            writeln!(self.out, "    {on}... and {more} {what} more{off}")?;
        }
        self.last = done.written;
        let wrote = if done.written < 1 << 10 { "nothing".to_owned() } else { show(done.written) };
        writeln!(self.out, "    {on}({}, wrote {wrote}){off}", duration(took))?;
        self.out.flush()?;
        Ok(done.said)
    }

    /// Starts `portolan` with these arguments beside what follows, and waits until `ready` is there.
    pub(super) fn beside(&mut self, args: &str, ready: &str) -> anyhow::Result<Beside> {
        let (on, off) = self.ink("1");
        writeln!(self.out, "  $ {on}portolan {args} &{off}")?;
        self.out.flush()?;
        let child =
            command(&self.program, args, self.dir).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut beside = Beside(child.with_context(|| format!("starting {}", self.program.display()))?);
        let began = Instant::now();
        while !self.dir.join(ready).exists() {
            if beside.0.try_wait()?.is_some() || began.elapsed() > START || signal::is_interrupted() {
                bail!("`portolan {args}` did not start:\n{}", beside.complaints());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(beside)
    }

    /// Ends what runs beside, as Ctrl-C would.
    pub(super) fn end(&mut self, mut beside: Beside) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&beside.0), Signal::TERM)?;
        let status = beside.0.wait()?;
        if !status.success() {
            bail!("what ran beside ended with {status}:\n{}", beside.complaints());
        }
        let (on, off) = self.ink("1");
        writeln!(self.out, "  $ {on}kill %1{off}")?;
        Ok(self.out.flush()?)
    }

    /// Notes what copying would have written instead of the last command, and tells it.
    pub(super) fn instead_of(&mut self, bytes: u64, how: &str) -> anyhow::Result<()> {
        self.written += self.last;
        self.copies += bytes;
        self.say(&format!("  {how} would have written {}.", show(bytes)))
    }

    /// Waits a moment, for what runs beside.
    pub(super) fn pause(&self) {
        std::thread::sleep(PAUSE);
    }

    /// Puts a file here.
    pub(super) fn place(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        std::fs::write(self.dir.join(name), bytes).with_context(|| format!("making {name}"))
    }

    /// Bytes that the host has given to a file here.
    pub(super) fn stored(&self, name: &str) -> u64 {
        std::fs::metadata(self.dir.join(name)).map_or(0, |m| m.blocks() * 512)
    }

    fn ink(&self, code: &str) -> (String, &'static str) {
        if self.colours { (format!("\x1b[{code}m"), "\x1b[0m") } else { (String::new(), "") }
    }
}

/// A command that runs beside the others, and not longer than this is held.
pub(super) struct Beside(Child);

impl Beside {
    /// What it says is wrong, once it has ended.
    fn complaints(&mut self) -> String {
        // It may have ended already.
        let _ = self.0.kill();
        let mut said = String::new();
        if let Some(pipe) = &mut self.0.stderr {
            let _ = pipe.read_to_string(&mut said);
        }
        said
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // It may have ended already, and then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a command did.
struct Done {
    code: Option<i32>,
    said: String,
    /// Bytes it handed to the kernel for writing.
    written: u64,
}

/// `program` with these arguments, split at blanks, and nothing to hear.
fn command(program: &Path, args: &str, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(args.split(' ')).current_dir(dir).stdin(Stdio::null());
    command
}

fn run(program: &Path, args: &str, dir: &Path) -> anyhow::Result<Done> {
    let mut child = command(program, args, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let complaints = std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(pipe) = &mut stderr {
            let _ = pipe.read_to_string(&mut text);
        }
        text
    });
    let mut said = String::new();
    if let Some(pipe) = &mut stdout {
        pipe.read_to_string(&mut said)?;
    }
    // It has ended, or is about to; until it is waited for in earnest, its counters can be read.
    let pid = Pid::from_child(&child);
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    let written = written_by(pid).unwrap_or(0).saturating_sub(said.len() as u64);
    let status = child.wait()?;
    said.push_str(&complaints.join().unwrap_or_default());
    Ok(Done { code: status.code(), said, written })
}

/// What its system calls wrote, as the kernel counts: into the page cache too, and on tmpfs.
fn written_by(pid: Pid) -> Option<u64> {
    let io = std::fs::read_to_string(format!("/proc/{}/io", pid.as_raw_nonzero())).ok()?;
    io.lines().find_map(|line| line.strip_prefix("wchar:"))?.trim().parse().ok()
}
