//! Blocks of the object that are at hand or on their way.

use chart::Error;
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A block's bytes.
pub(super) type Block = Arc<[u8]>;

/// A block that somebody is fetching, and everyone who waits for it.
pub(super) struct Coming {
    state: Mutex<State>,
    arrived: Condvar,
    /// Fetched only because it may be wanted: that it fails is nobody's error.
    ahead: bool,
}

enum State {
    Open,
    Here(Block),
    Failed(Error),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Coming {
    /// Waits for it. Nothing if it was fetched ahead and that failed: fetch it yourself.
    pub(super) fn wait(&self) -> Option<chart::Result<Block>> {
        let mut state = lock(&self.state);
        loop {
            match &*state {
                State::Here(block) => return Some(Ok(Arc::clone(block))),
                State::Failed(_) if self.ahead => return None,
                State::Failed(e) => return Some(Err(e.repeat())),
                State::Open => state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn settle(&self, to: State) {
        let mut state = lock(&self.state);
        if matches!(*state, State::Open) {
            *state = to;
            self.arrived.notify_all();
        }
    }
}

/// What there is at a block.
pub(super) enum Found {
    Here(Block),
    Coming(Arc<Coming>),
    /// Neither.
    Nothing,
}

/// The blocks at hand, least recently used out first, and those on their way.
pub(super) struct Cache {
    most: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    clock: u64,
    here: HashMap<u64, (Block, u64)>,
    coming: HashMap<u64, Arc<Coming>>,
}

impl Cache {
    /// At most `most` blocks are kept; those on their way are not counted.
    pub(super) fn new(most: usize) -> Self {
        Cache { most: most.max(1), kept: Mutex::default() }
    }

    /// What is known of a block, without waiting.
    pub(super) fn find(&self, index: u64) -> Found {
        let mut kept = lock(&self.kept);
        kept.clock += 1;
        let now = kept.clock;
        if let Some((block, used)) = kept.here.get_mut(&index) {
            *used = now;
            return Found::Here(Arc::clone(block));
        }
        kept.coming.get(&index).map_or(Found::Nothing, |c| Found::Coming(Arc::clone(c)))
    }

    /// Promises to fetch the blocks from `first` on, at most `most` of them, up to the first that is known.
    pub(super) fn claim(self: &Arc<Self>, first: u64, most: u64, ahead: bool) -> Claim {
        let mut kept = lock(&self.kept);
        let mut claimed = Vec::new();
        for index in first..first.saturating_add(most) {
            if kept.here.contains_key(&index) || kept.coming.contains_key(&index) {
                break;
            }
            let coming = Arc::new(Coming { state: Mutex::new(State::Open), arrived: Condvar::new(), ahead });
            kept.coming.insert(index, Arc::clone(&coming));
            claimed.push(coming);
        }
        Claim { cache: Arc::clone(self), first, claimed, done: 0, error: None }
    }

    fn put(&self, index: u64, block: &Block) {
        let mut kept = lock(&self.kept);
        kept.coming.remove(&index);
        kept.clock += 1;
        let now = kept.clock;
        kept.here.insert(index, (Arc::clone(block), now));
        while kept.here.len() > self.most {
            let Some(oldest) = kept.here.iter().min_by_key(|(_, (_, used))| *used).map(|(&i, _)| i) else {
                break;
            };
            kept.here.remove(&oldest);
        }
    }
}

/// A promise to fetch some blocks in a row. Dropped, it fails those that did not come, and whoever asks next
/// fetches them anew: a failure is never kept.
pub(super) struct Claim {
    cache: Arc<Cache>,
    first: u64,
    claimed: Vec<Arc<Coming>>,
    done: usize,
    error: Option<Error>,
}

impl Claim {
    /// How many blocks it is for. None if the first was known already.
    pub(super) fn len(&self) -> u64 {
        self.claimed.len() as u64
    }

    /// The next block is here.
    pub(super) fn deliver(&mut self, block: &Block) {
        if let Some(coming) = self.claimed.get(self.done) {
            self.cache.put(self.first + self.done as u64, block);
            coming.settle(State::Here(Arc::clone(block)));
            self.done += 1;
        }
    }

    /// The others will not come.
    pub(super) fn fail(mut self, error: &Error) {
        self.error = Some(error.repeat());
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let rest = self.claimed.get(self.done..).unwrap_or_default();
        if rest.is_empty() {
            return;
        }
        let mut kept = lock(&self.cache.kept);
        for index in (self.first + self.done as u64..).take(rest.len()) {
            kept.coming.remove(&index);
        }
        drop(kept);
        for coming in rest {
            let why =
                self.error.as_ref().map_or_else(|| Error::unavailable("it was not fetched"), Error::repeat);
            coming.settle(State::Failed(why));
        }
    }
}
