//! What the numbers were measured on and with.

use std::fs;
use std::path::Path;

use super::case::word;
use crate::process;

/// The machine in one line.
pub(super) fn describe() -> String {
    let cpu = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kib: u64 = field("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(0);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = release.split(['.', '-']).take(2).collect::<Vec<_>>().join(".");
    format!("{cpu}, {cores} cores, {} GiB of memory, Linux {}", kib.div_ceil(1 << 20), kernel.trim())
}

/// The value of the first `NAME : value` line of a file in /proc.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The versions of all that was run.
pub(super) fn versions(binary: &Path) -> Vec<String> {
    let commit = first_line(&["git", "describe", "--always", "--dirty"]);
    let ours = first_line(&[&word(binary), "--version"]);
    [Some(format!("{} at {}", ours.unwrap_or_else(|| "portolan".into()), commit.unwrap_or_default()))]
        .into_iter()
        .chain([first_line(&["qemu-img", "--version"]), first_line(&["rustc", "--version"])])
        .flatten()
        .collect()
}

/// Today, as a row remembers it.
pub(super) fn date() -> String {
    first_line(&["date", "-u", "+%Y-%m-%d"]).unwrap_or_default()
}

fn first_line(words: &[&str]) -> Option<String> {
    let out = process::output(&mut process::command(words)).ok()?;
    Some(out.lines().next()?.trim().to_owned())
}
