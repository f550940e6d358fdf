//! What the server's owner hears of: not everything a client can make happen, as often as it likes.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many notices are passed on in a while.
const MOST: u32 = 20;
/// How long that is.
const WHILE: Duration = Duration::from_secs(1);

/// What a server is told of, to tell a person: the words, ready to print.
pub type Notice = dyn Fn(&str) + Send + Sync;

/// Passes notices on, and counts those it does not.
pub(super) struct Notices {
    tell: Box<Notice>,
    window: Mutex<Window>,
}

struct Window {
    began: Instant,
    told: u32,
    kept: u64,
}

impl Notices {
    pub(super) fn new(tell: Box<Notice>) -> Self {
        Notices { tell, window: Mutex::new(Window { began: Instant::now(), told: 0, kept: 0 }) }
    }

    /// Tells it, unless too much was told just now.
    pub(super) fn tell(&self, words: &str) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.began.elapsed() > WHILE {
            if window.kept > 0 {
                (self.tell)(&format!("and {} more like these", window.kept));
            }
            *window = Window { began: Instant::now(), told: 0, kept: 0 };
        }
        if window.told >= MOST {
            window.kept = window.kept.saturating_add(1);
            return;
        }
        window.told = window.told.saturating_add(1);
        drop(window);
        (self.tell)(words);
    }
}
