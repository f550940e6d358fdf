//! Real tools, which have the last word.

use std::ffi::OsStr;
use std::io::{Read, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Set in CI, where every peer is installed: a missing one is then a failure, not a skip.
pub const REQUIRE: &str = "PORTOLAN_REQUIRE_PEERS";

/// No tool, but what some need: the right to mount.
const ROOT: &str = "root";

/// Names the file that tests which skip themselves are written to.
const SKIPS: &str = "PORTOLAN_SKIPPED_TESTS";

/// How long a tool may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(120);

/// The Debian package that brings a tool.
fn package(tool: &str) -> &str {
    match tool {
        "qemu-img" | "qemu-io" | "qemu-nbd" => "qemu-utils",
        "nbdinfo" | "nbdcopy" => "libnbd-bin",
        "nbdsh" => "python3-libnbd",
        "mkfs.ext4" | "e2fsck" | "debugfs" => "e2fsprogs",
        "mkfs.xfs" => "xfsprogs",
        "7zz" => "7zip",
        "bsdtar" => "libarchive-tools",
        "isoinfo" => "genisoimage",
        "sfdisk" => "fdisk",
        "sgdisk" => "gdisk",
        "unshare" | "setpriv" | "losetup" | "partx" => "util-linux",
        other => other,
    }
}

/// Whether all these tools are here. If not, says so where a person sees it, or panics under
/// `PORTOLAN_REQUIRE_PEERS=1`.
pub fn require(tools: &[&str]) -> bool {
    let absent: Vec<&str> = tools.iter().copied().filter(|t| !is_here(t)).collect();
    if absent.is_empty() {
        return true;
    }
    let needs: Vec<String> = absent.iter().map(|t| format!("{t} (package {})", package(t))).collect();
    skip(&needs.join(", "));
    false
}

/// Whether all these files are here that something else makes; if not, as [`require`] does.
pub fn require_files(files: &[&Path], made_by: &str) -> bool {
    let absent = files.iter().find(|file| !file.exists());
    if let Some(absent) = absent {
        skip(&format!("{} (made by {made_by})", absent.display()));
    }
    absent.is_none()
}

/// Says that a test is skipped, or panics where none may be.
fn skip(needs: &str) {
    let what = format!("SKIPPED: needs {needs}");
    assert!(std::env::var_os(REQUIRE).is_none_or(|v| v != "1"), "{what}, and {REQUIRE}=1 allows no skipping");
    eprintln!("{what}");
    note_skip(&what);
}

/// Tells whoever runs the tests, in the file they named: of a test that passes, nobody sees the output.
fn note_skip(what: &str) {
    let Some(path) = std::env::var_os(SKIPS) else { return };
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
    // One write a line, so that tests that run side by side do not mix theirs.
    let _ = file.and_then(|mut file| file.write_all(format!("{test}: {what}\n").as_bytes()));
}

fn is_here(tool: &str) -> bool {
    if tool == ROOT {
        return std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    }
    let Some(path) = std::env::var_os("PATH") else { return false };
    std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|d| d.join(tool).is_file())
}

/// Runs a tool to its end and panics with what it said unless it succeeded.
#[track_caller]
pub fn run(tool: impl AsRef<OsStr>, args: &[impl AsRef<OsStr>]) -> Output {
    let output = attempt(tool.as_ref(), args);
    let words: Vec<_> = args.iter().map(|a| a.as_ref().to_string_lossy()).collect();
    assert!(
        output.status.success(),
        "{} {}: {}\n{}{}",
        tool.as_ref().to_string_lossy(),
        words.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    output
}

/// Runs a tool to its end, however that turns out. Panics only if it cannot be started or hangs.
#[track_caller]
pub fn attempt(tool: impl AsRef<OsStr>, args: &[impl AsRef<OsStr>]) -> Output {
    let tool = tool.as_ref();
    let mut command = Command::new(tool);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let name = tool.to_string_lossy().into_owned();
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{name} cannot be started: {e}"));
    // Both pipes are emptied while it runs: a tool that says much must not wait for us.
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let status = wait(&mut child, &name);
    let join = |t: std::thread::JoinHandle<Vec<u8>>| t.join().unwrap_or_default();
    Output { status, stdout: join(stdout), stderr: join(stderr) }
}

fn drain<R: Read + Send + 'static>(pipe: Option<R>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth showing.
            let _ = pipe.read_to_end(&mut all);
        }
        all
    })
}

fn wait(child: &mut Child, name: &str) -> std::process::ExitStatus {
    let began = Instant::now();
    let mut nap = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait().unwrap_or_else(|e| panic!("{name}: {e}")) {
            return status;
        }
        if began.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{name} did not end within {PATIENCE:?}");
        }
        std::thread::sleep(nap);
        nap = (nap * 2).min(Duration::from_millis(50));
    }
}

/// `qemu-img` with these arguments; what it printed.
#[track_caller]
pub fn qemu_img(args: &[impl AsRef<OsStr>]) -> String {
    String::from_utf8_lossy(&run("qemu-img", args).stdout).into_owned()
}

/// `qemu-io -f FORMAT -c COMMAND... FILE`; what it printed.
#[track_caller]
pub fn qemu_io(format: &str, file: &Path, commands: &[&str]) -> String {
    let mut args = vec![OsStr::new("-f").to_owned(), format.into()];
    for command in commands {
        args.push("-c".into());
        args.push(command.into());
    }
    args.push(file.into());
    let output = run("qemu-io", &args);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // It ends with 0 even where a command failed.
    assert!(!said.contains("failed"), "qemu-io {commands:?} {}:\n{said}", file.display());
    said
}

#[cfg(test)]
mod tests;
