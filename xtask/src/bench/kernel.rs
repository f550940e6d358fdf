//! What only the kernel can do for a benchmark: account for processes, end them, and hide our mounts.

use std::io;
use std::process::Child;
use std::time::Duration;

/// What a finished child has used.
pub(super) struct Usage {
    pub(super) success: bool,
    /// The exit code, or 128 + the signal.
    pub(super) code: i32,
    /// User and system time, of the child and of what it waited for.
    pub(super) cpu: Duration,
    /// The largest resident set.
    pub(super) max_rss_bytes: u64,
}

/// Waits for a child and learns what it used. The standard library's `wait` does not tell.
pub(super) fn wait(child: &Child) -> io::Result<Usage> {
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    let mut status = 0;
    loop {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: both pointers are to live, writable values of the types wait4 expects.
        let waited = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
        if waited == pid {
            // SAFETY: zeroes are a valid rusage, and wait4 has filled it.
            let usage = unsafe { usage.assume_init() };
            let code = if libc::WIFEXITED(status) {
                libc::WEXITSTATUS(status)
            } else {
                128 + libc::WTERMSIG(status)
            };
            return Ok(Usage {
                success: code == 0,
                code,
                cpu: time(usage.ru_utime) + time(usage.ru_stime),
                max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
            });
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn time(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}

/// The processor time a running process has had, user and system, threads that have ended included.
pub(super) fn cpu_of(pid: u32) -> io::Result<Duration> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    let mut clock = 0;
    // SAFETY: the pointer is to a live clockid_t, which is all that is written.
    let failed = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if failed != 0 {
        return Err(io::Error::from_raw_os_error(failed));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, which is all that is written.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let whole = |n: i64| u64::try_from(n).unwrap_or(0);
    Ok(Duration::from_secs(whole(time.tv_sec)) + Duration::from_nanos(whole(time.tv_nsec)))
}

/// Asks a child to end.
pub(super) fn ask_to_end(pid: u32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: kill takes no pointers. The child was not waited for, so its number is nobody else's.
    if unsafe { libc::kill(pid, libc::SIGTERM) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives this process a mount table of its own: what it mounts is gone when it ends, however it ends.
pub(super) fn own_mount_table() -> io::Result<()> {
    // SAFETY: unshare takes no pointers and changes only this process's view of the mounts.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
