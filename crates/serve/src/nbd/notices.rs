//! What the server's owner hears of: not everything a client can make happen, as often as it likes.
//!
//! Who tells something never waits until it is heard: what is told goes to a thread of its own, and what that has no
//! room for is counted.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many notices are passed on in a while.
const MOST: u32 = 20;
/// How long that is.
const WHILE: Duration = Duration::from_secs(1);
/// How many notices may wait to be heard.
const WAITING: usize = 64;
/// What the thread that passes them on needs of stack; most of it is never touched.
const STACK: usize = 256 << 10;

/// How much a notice matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// A client left in the midst of something, broke the protocol or asked for what cannot be had: nothing is wrong
    /// with what is served.
    Information,
    /// What is served could not be read or written or made durable, or the server itself lacks something: somebody must
    /// know.
    Failure,
}

/// What a server is told of, to tell a person: how much it matters, and the words, ready to print.
pub type Notice = dyn Fn(Severity, &str) + Send + Sync;

/// Passes notices on, and counts those it does not.
pub(super) struct Notices {
    tell: Arc<Notice>,
    state: Mutex<State>,
}

struct State {
    /// Of each severity: what clients do must not keep a failure from being heard.
    windows: [Window; 2],
    teller: Option<Teller>,
    over: bool,
}

struct Window {
    severity: Severity,
    began: Instant,
    told: u32,
    kept: u64,
}

/// The thread that passes notices on, which is there from the first of them.
struct Teller {
    words: SyncSender<(Severity, String)>,
    /// Says nothing, and ends when the thread does.
    end: Receiver<()>,
}

impl Notices {
    pub(super) fn new(tell: Box<Notice>) -> Self {
        let window = |severity| Window { severity, began: Instant::now(), told: 0, kept: 0 };
        let windows = [Severity::Information, Severity::Failure].map(window);
        Notices { tell: Arc::from(tell), state: Mutex::new(State { windows, teller: None, over: false }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells it, unless too much of its severity was told just now. Never waits.
    pub(super) fn tell(&self, severity: Severity, words: &str) {
        let mut state = self.state();
        let State { windows, teller, over } = &mut *state;
        if *over {
            return;
        }
        for window in windows.iter_mut().filter(|w| w.severity == severity) {
            if window.began.elapsed() > WHILE {
                self.tell_kept(teller, window);
                window.began = Instant::now();
                window.told = 0;
            }
            if window.told >= MOST || !self.pass_on(teller, severity, words.to_owned()) {
                window.kept = window.kept.saturating_add(1);
            } else {
                window.told = window.told.saturating_add(1);
            }
        }
    }

    fn tell_kept(&self, teller: &mut Option<Teller>, window: &mut Window) {
        let kept = window.kept;
        if kept > 0 && self.pass_on(teller, window.severity, format!("and {kept} more like these")) {
            window.kept = 0;
        }
    }

    /// Gives it to the thread; `false` where that has too much to tell already.
    fn pass_on(&self, teller: &mut Option<Teller>, severity: Severity, words: String) -> bool {
        if teller.is_none() {
            *teller = Teller::start(&self.tell).ok();
        }
        teller.as_ref().is_some_and(|teller| teller.words.try_send((severity, words)).is_ok())
    }

    /// Nothing more will be told. Waits so long until all of it was heard.
    pub(super) fn finish(&self, patience: Duration) {
        let mut state = self.state();
        let State { windows, teller, over } = &mut *state;
        windows.iter_mut().for_each(|window| self.tell_kept(teller, window));
        *over = true;
        let teller = teller.take();
        drop(state);
        let Some(Teller { words, end }) = teller else { return };
        drop(words);
        // Where nobody listens, nobody misses it.
        let ended = end.recv_timeout(patience);
        debug_assert!(matches!(ended, Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout)));
    }
}

impl Teller {
    fn start(tell: &Arc<Notice>) -> std::io::Result<Teller> {
        let (words, heard) = sync_channel::<(Severity, String)>(WAITING);
        let (until, end): (Sender<()>, _) = channel();
        let tell = Arc::clone(tell);
        std::thread::Builder::new().name("notices".to_owned()).stack_size(STACK).spawn(move || {
            let _until = until;
            heard.iter().for_each(|(severity, words)| tell(severity, &words));
        })?;
        Ok(Teller { words, end })
    }
}
