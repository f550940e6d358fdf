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

/// What a server is told of, to tell a person: the words, ready to print.
pub type Notice = dyn Fn(&str) + Send + Sync;

/// Passes notices on, and counts those it does not.
pub(super) struct Notices {
    tell: Arc<Notice>,
    state: Mutex<State>,
}

struct State {
    window: Window,
    teller: Option<Teller>,
    over: bool,
}

struct Window {
    began: Instant,
    told: u32,
    kept: u64,
}

/// The thread that passes notices on, which is there from the first of them.
struct Teller {
    words: SyncSender<String>,
    /// Says nothing, and ends when the thread does.
    end: Receiver<()>,
}

impl Notices {
    pub(super) fn new(tell: Box<Notice>) -> Self {
        let window = Window { began: Instant::now(), told: 0, kept: 0 };
        Notices { tell: Arc::from(tell), state: Mutex::new(State { window, teller: None, over: false }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells it, unless too much was told just now. Never waits.
    pub(super) fn tell(&self, words: &str) {
        let mut state = self.state();
        if state.over {
            return;
        }
        if state.window.began.elapsed() > WHILE {
            self.tell_kept(&mut state);
            state.window.began = Instant::now();
            state.window.told = 0;
        }
        if state.window.told >= MOST || !self.pass_on(&mut state, words.to_owned()) {
            state.window.kept = state.window.kept.saturating_add(1);
        } else {
            state.window.told = state.window.told.saturating_add(1);
        }
    }

    fn tell_kept(&self, state: &mut State) {
        let kept = state.window.kept;
        if kept > 0 && self.pass_on(state, format!("and {kept} more like these")) {
            state.window.kept = 0;
        }
    }

    /// Gives it to the thread; `false` where that has too much to tell already.
    fn pass_on(&self, state: &mut State, words: String) -> bool {
        if state.teller.is_none() {
            state.teller = Teller::start(&self.tell).ok();
        }
        state.teller.as_ref().is_some_and(|teller| teller.words.try_send(words).is_ok())
    }

    /// Nothing more will be told. Waits so long until all of it was heard.
    pub(super) fn finish(&self, patience: Duration) {
        let mut state = self.state();
        self.tell_kept(&mut state);
        state.over = true;
        let teller = state.teller.take();
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
        let (words, heard) = sync_channel::<String>(WAITING);
        let (until, end): (Sender<()>, _) = channel();
        let tell = Arc::clone(tell);
        std::thread::Builder::new().name("notices".to_owned()).stack_size(STACK).spawn(move || {
            let _until = until;
            heard.iter().for_each(|words| tell(&words));
        })?;
        Ok(Teller { words, end })
    }
}
