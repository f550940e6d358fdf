//! The progress bar: on a terminal, and nowhere else.

use crate::run::Dir;
use std::fs::File;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::Stdio;

/// A terminal: the end that shows it, and the end that a process gets.
pub(crate) fn terminal() -> (File, OwnedFd) {
    let (mut shows, mut process) = (-1, -1);
    let none = std::ptr::null_mut();
    // SAFETY: both places are there to be filled, and what is left out may be.
    let made = unsafe { libc::openpty(&raw mut shows, &raw mut process, none, none.cast(), none.cast()) };
    assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: they were made just now, and nobody else has them.
    unsafe { (File::from_raw_fd(shows), OwnedFd::from_raw_fd(process)) }
}

/// What a command shows on a terminal that is its standard error, and what it prints.
fn shown(dir: &Dir, args: &str) -> (String, String) {
    let (mut screen, process) = terminal();
    let child = dir.command(args).stdout(Stdio::piped()).stderr(Stdio::from(process)).spawn().unwrap();
    let mut all = Vec::new();
    let mut part = [0; 4096];
    // When the process has ended there is an error rather than an end.
    while let Ok(n @ 1..) = screen.read(&mut part) {
        all.extend_from_slice(&part[..n]);
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "portolan {args}: {}", String::from_utf8_lossy(&all));
    (String::from_utf8_lossy(&all).into_owned(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn what_takes_long_shows_how_far_it_is() {
    let dir = Dir::new();
    dir.noise("a.raw");
    let slow = "convert --force -c --level 9 -m 1 -O qcow2 a.raw b.qcow2";
    let (screen, printed) = shown(&dir, slow);
    for word in ["converting", "%", "left", "MiB/s"] {
        assert!(screen.contains(word), "{screen}");
    }
    assert!(printed.contains("b.qcow2"), "{printed}");
    assert_eq!(dir.ok(slow).err, "", "no terminal");
    // Soon done: nothing to look at.
    assert_eq!(shown(&dir, "info b.qcow2").0, "");
}
