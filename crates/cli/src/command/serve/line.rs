//! A line on a terminal that is written again and again, and what is said above it.
//!
//! It ends before the edge does, so that what the terminal echoes (`^C`) lands in it and goes with it.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

/// How much is left free at the edge.
const MARGIN: usize = 4;

/// How wide a terminal is that does not say it.
const WIDTH: usize = 80;

/// To the beginning of the line, and nothing in it.
const ANEW: &str = "\r\x1b[2K";

/// The line, on standard error.
#[derive(Default)]
pub(super) struct Line(Mutex<String>);

impl Line {
    /// With nothing in it; none where nobody looks, or where lines cannot be written again.
    pub(super) fn on_terminal() -> Option<Line> {
        let can = std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        (can && std::io::stderr().is_terminal()).then(Line::default)
    }

    /// Shows this in it, which is plain ASCII.
    pub(super) fn show(&self, text: &str) {
        let text = text.get(..width().saturating_sub(MARGIN)).unwrap_or(text);
        self.change(|shown| {
            if shown == text {
                return String::new();
            }
            text.clone_into(shown);
            format!("{ANEW}{shown}")
        });
    }

    /// Prints a line above it.
    pub(super) fn print(&self, line: &str) {
        self.change(|shown| format!("{ANEW}{line}\n{shown}"));
    }

    /// Takes it away.
    pub(super) fn clear(&self) {
        self.change(|shown| {
            shown.clear();
            ANEW.to_owned()
        });
    }

    fn change(&self, written: impl FnOnce(&mut String) -> String) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Where it cannot be shown, nobody sees it.
        let _ = std::io::stderr().write_all(written(&mut shown).as_bytes());
    }
}

fn width() -> usize {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the pointer is to a live winsize, which is all that is written.
    let known = unsafe { libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    if known == 0 && size.ws_col > 0 { usize::from(size.ws_col) } else { WIDTH }
}
