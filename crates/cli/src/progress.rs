//! The progress bar: on a terminal, for what takes over a second, never where nobody looks.

use crate::signal;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use portolan::{Onlooker, Progress, Watch, size};
use std::fmt::Write;
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
        let bar = self.bar.get_or_init(|| self.show(progress));
        if progress.done == 0 || bar.length() != Some(progress.total) {
            // Another part of the work begins.
            bar.reset();
            bar.set_length(progress.total);
        }
        // Threads may tell out of order.
        bar.set_position(progress.done.max(bar.position()));
    }

    fn show(&self, progress: Progress) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(Some(progress.total), ProgressDrawTarget::stderr_with_hz(10));
        // Before anything that draws it.
        let bar = bar.with_position(progress.done).with_elapsed(self.began.elapsed());
        let template = "{msg} {percent:>3}% [{wide_bar}] {binary_bytes}/{binary_total_bytes}  {rate}  {left}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            let style = style.with_key("rate", |state: &ProgressState, to: &mut dyn Write| {
                let _ = write!(to, "{}/s", size::show(rate(state) as u64));
            });
            let style = style.with_key("left", |state: &ProgressState, to: &mut dyn Write| {
                if state.pos() == 0 {
                    return;
                }
                let rest = state.len().unwrap_or(0).saturating_sub(state.pos());
                let seconds = (rest as f64 / rate(state).max(1.0)).round() as u64;
                let _ = match seconds / 60 {
                    0 => write!(to, "{seconds} s left"),
                    minutes => write!(to, "{minutes} min {} s left", seconds % 60),
                };
            });
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(self.doing);
        bar
    }
}

/// Bytes a second since the work began: what was done before the bar appeared counts too.
fn rate(state: &ProgressState) -> f64 {
    state.pos() as f64 / state.elapsed().as_secs_f64().max(0.001)
}
