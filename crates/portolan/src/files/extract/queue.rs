//! What is to be made, from who finds it to those who make it.

use fs::Stat;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// So many files may be found and not yet be made: then whoever finds them waits.
const MAX_WAITING: usize = 1 << 20;

/// Something that is to be made in a directory.
pub(super) struct Item {
    pub(super) name: Box<[u8]>,
    pub(super) stat: Stat,
}

/// Things of one directory.
pub(super) struct Unit {
    /// The directory, from the outermost one.
    pub(super) folder: Arc<Path>,
    pub(super) items: Vec<Item>,
}

#[derive(Default)]
struct State {
    units: VecDeque<Unit>,
    items: usize,
    /// So many wait for one: to wake nobody is a system call as well.
    waiting: usize,
    /// No more will come.
    closed: bool,
}

/// Units on their way.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// There is a unit more, or there will be none.
    filled: Condvar,
    /// There may be room for more.
    emptied: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a unit, when there is room; not, when the queue is closed already.
    pub(super) fn put(&self, unit: Unit) {
        let mut state = self.lock();
        while state.items > MAX_WAITING && !state.closed {
            state = self.emptied.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !state.closed {
            state.items += unit.items.len();
            state.units.push_back(unit);
            if state.waiting > 0 {
                self.filled.notify_one();
            }
        }
    }

    /// The next unit: waits for it. None when there will be none.
    pub(super) fn next(&self) -> Option<Unit> {
        let mut state = self.lock();
        loop {
            if let Some(unit) = state.units.pop_front() {
                let was_full = state.items > MAX_WAITING;
                state.items -= unit.items.len();
                if was_full {
                    self.emptied.notify_one();
                }
                return Some(unit);
            }
            if state.closed {
                return None;
            }
            state.waiting += 1;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }

    /// No more will come.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }

    /// Nothing more is to be made, not even what was found.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        (state.closed, state.items) = (true, 0);
        state.units.clear();
        self.filled.notify_all();
        self.emptied.notify_all();
    }
}
