//! The progress bar: on a terminal, for what takes over a second, never where nobody looks.

use crate::signal;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use portolan::{Progress, Watch};
use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What is done sooner needs no bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// A bar that appears when it is worth it.
pub(crate) struct Bar {
    doing: &'static str,
    began: Instant,
    /// Whether anybody could see it.
    seen: bool,
    bar: OnceLock<ProgressBar>,
}

impl Bar {
    /// A bar for `doing`.
    pub(crate) fn new(doing: &'static str, quiet: bool) -> Bar {
        let seen = !quiet && std::io::stderr().is_terminal();
        Bar { doing, began: Instant::now(), seen, bar: OnceLock::new() }
    }

    /// Shows how far it is. Called from any thread, often.
    pub(crate) fn tell(&self, progress: Progress) {
        if !self.seen || self.began.elapsed() < PATIENCE {
            return;
        }
        let bar = self.bar.get_or_init(|| self.show(progress.total));
        // Threads may tell out of order.
        bar.set_position(progress.done.max(bar.position()));
    }

    fn show(&self, total: u64) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
        let template = "{msg} {percent:>3}% [{wide_bar}] {binary_bytes}/{binary_total_bytes}  \
                        {binary_bytes_per_sec}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(self.doing);
        bar.with_elapsed(self.began.elapsed())
    }

    /// Does `work`, watched.
    pub(crate) fn watch<T>(&self, work: impl FnOnce(Watch<'_>) -> T) -> T {
        let tell = |progress| self.tell(progress);
        work(Watch { progress: Some(&tell), cancel: Some(signal::cancel()) })
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }
}
