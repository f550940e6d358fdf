//! Ctrl-C: the first asks the work to end and clean up, one that comes later ends the process.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Set when the work is to end.
pub(crate) fn cancel() -> &'static Arc<AtomicBool> {
    &INTERRUPTED
}

static OBEYED: AtomicBool = AtomicBool::new(false);

/// Whether the user asked to end.
pub(crate) fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed) && !OBEYED.load(Ordering::Relaxed)
}

/// What ends only when it is asked to has ended: what fails from now on is no interruption. A second Ctrl-C still ends
/// the process.
pub(crate) fn obeyed() {
    OBEYED.store(true, Ordering::Relaxed);
}

/// When that was asked first, in milliseconds of a clock that only goes on; 0 before.
static FIRST: AtomicI64 = AtomicI64::new(0);

/// What comes sooner is the same once more: `timeout` sends each signal twice, to the process and to its group.
const ONCE_MORE: i64 = 500;

extern "C" fn interrupted(_: libc::c_int) {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime may be called in a signal handler, and the pointer is to a live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let now = time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000).max(1);
    match FIRST.compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => INTERRUPTED.store(true, Ordering::SeqCst),
        // SAFETY: _exit may be called in a signal handler.
        Err(first) if now.saturating_sub(first) >= ONCE_MORE => unsafe { libc::_exit(130) },
        Err(_) => {}
    }
}

static ASKED: AtomicBool = AtomicBool::new(false);

/// Whether the user has asked how it goes since this was last called.
pub(crate) fn is_asked() -> bool {
    ASKED.swap(false, Ordering::Relaxed)
}

extern "C" fn asked(_: libc::c_int) {
    ASKED.store(true, Ordering::Relaxed);
}

/// Takes SIGUSR1, which otherwise ends a process.
pub(crate) fn install_asking() {
    take(libc::SIGUSR1, asked);
}

/// Takes SIGINT, SIGTERM and SIGHUP; but not SIGHUP from whoever wanted it to be ignored: `nohup`.
pub(crate) fn install() {
    // Made here, so that the handler only looks at it.
    LazyLock::force(&INTERRUPTED);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        take(signal, interrupted);
    }
    if !is_ignored(libc::SIGHUP) {
        take(libc::SIGHUP, interrupted);
    }
}

fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: zeros are a sigaction, and it is only written to.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

fn take(signal: libc::c_int, by: extern "C" fn(libc::c_int)) {
    // SAFETY: the handlers only touch atomics and call _exit, and the set is emptied before it is used.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = by as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(signal, &raw const action, std::ptr::null_mut());
    }
}
