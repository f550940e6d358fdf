//! The progress bar: on a terminal, for what takes over a second, never where nobody looks.

use crate::signal;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use portolan::{Onlooker, Progress, Watch};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// What is done sooner needs no bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// A bar that appears when it is worth it.
pub(crate) struct Bar(Arc<Shown>);

/// What it shows, as those know it who tell how far they are. They may outlive the bar.
struct Shown {
    doing: &'static str,
    began: Instant,
    /// Whether anybody could see it.
    seen: bool,
    over: AtomicBool,
    bar: OnceLock<ProgressBar>,
}

impl Bar {
    /// A bar for `doing`.
    pub(crate) fn new(doing: &'static str, quiet: bool) -> Bar {
        let seen = !quiet && std::io::stderr().is_terminal();
        let (began, over, bar) = (Instant::now(), AtomicBool::new(false), OnceLock::new());
        Bar(Arc::new(Shown { doing, began, seen, over, bar }))
    }

    /// Does `work`, watched.
    pub(crate) fn watch<T>(&self, work: impl FnOnce(Watch<'_>) -> T) -> T {
        work(self.onlooker().watch())
    }

    /// Who looks on for this bar, to be kept by an image that is opened.
    pub(crate) fn onlooker(&self) -> Onlooker {
        let shown = Arc::clone(&self.0);
        Onlooker::new(Arc::new(move |progress| shown.tell(progress)), Arc::clone(signal::cancel()))
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
        if let Some(bar) = self.0.bar.get() {
            bar.finish_and_clear();
        }
    }
}

impl Shown {
    /// Shows how far it is. Called from any thread, often.
    fn tell(&self, progress: Progress) {
        if !self.seen || self.began.elapsed() < PATIENCE || self.over.load(Ordering::Relaxed) {
            return;
        }
        let bar = self.bar.get_or_init(|| self.show(progress.total));
        if progress.done == 0 || bar.length() != Some(progress.total) {
            // Another part of the work begins.
            bar.reset();
            bar.set_length(progress.total);
        }
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
}
