//! The request array, and the proxies that take from it.
//!
//! Every client has a lane of its own, and the lanes take turns: a client with a thousand slow requests delays
//! another's single one by the length of one, not of a thousand. And no client has all proxies: some are left for
//! whoever else comes. Nor have the clients of one export, where there are several: a source that hangs keeps those who
//! wait for it, and some proxies are left for exports that have none. The array is bounded by what each client may have
//! under way, which whoever puts requests in sees to.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Requests that wait for a proxy.
pub struct Array<J> {
    state: Mutex<State<J>>,
    more: Condvar,
    proxies: usize,
}

/// Whose a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The client that has sent it.
    pub client: u64,
    /// The export that it is for.
    pub export: u64,
}

struct State<J> {
    lanes: HashMap<u64, VecDeque<J>>,
    /// The clients that have something in their lane, in the order of their turns.
    turns: VecDeque<Lane>,
    busy: Busy,
    /// How many proxies wait for something to do.
    idle: usize,
    closed: bool,
}

/// Who has how many proxies.
struct Busy {
    clients: HashMap<u64, usize>,
    exports: HashMap<u64, usize>,
    all: usize,
    shares: Shares,
}

/// How many proxies may be had.
#[derive(Clone, Copy)]
struct Shares {
    /// By everybody together; more only for an export that has none.
    open: usize,
    /// By one client.
    client: usize,
}

impl Shares {
    /// A quarter is kept: of all proxies for exports that have none, where there are several, and of the others for
    /// other clients.
    fn of(proxies: usize, several: bool) -> Shares {
        let kept = if several { (proxies / 4).max(1).min(proxies.saturating_sub(1)) } else { 0 };
        let open = proxies - kept;
        Shares { open, client: (open - open / 4).max(1) }
    }
}

impl<J> Array<J> {
    /// For so many proxies.
    pub fn new(proxies: usize) -> Self {
        let busy = Busy {
            clients: HashMap::new(),
            exports: HashMap::new(),
            all: 0,
            shares: Shares::of(proxies, false),
        };
        let state = State { lanes: HashMap::new(), turns: VecDeque::new(), busy, idle: 0, closed: false };
        Array { state: Mutex::new(state), more: Condvar::new(), proxies }
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there are several exports, so that some proxies are to be left for each.
    pub fn set_several(&self, several: bool) {
        self.lock().busy.shares = Shares::of(self.proxies, several);
        // Some may have waited for what is nobody's any more.
        self.more.notify_all();
    }

    /// Puts a request into a client's lane. Given back where the array is closed.
    pub fn put(&self, lane: Lane, job: J) -> Result<(), J> {
        let mut state = self.lock();
        if state.closed {
            return Err(job);
        }
        state.add(lane, job);
        let wake = state.idle > 0;
        drop(state);
        if wake {
            self.more.notify_one();
        }
        Ok(())
    }

    /// The same, if a proxy that has nothing to do can take it now.
    pub fn put_if_idle(&self, lane: Lane, job: J) -> Result<(), J> {
        let mut state = self.lock();
        if state.closed || state.idle == 0 || !state.turns.is_empty() || !state.busy.may_have(lane) {
            return Err(job);
        }
        state.add(lane, job);
        drop(state);
        self.more.notify_one();
        Ok(())
    }

    /// Takes the next request, waiting for one; `None` when the array is closed and empty. Whose it is has to be
    /// told when it is [`Array::done`].
    pub fn take(&self) -> Option<(Lane, J)> {
        let mut state = self.lock();
        loop {
            if let Some(taken) = state.next() {
                return Some(taken);
            }
            if state.closed && state.turns.is_empty() {
                return None;
            }
            state.idle += 1;
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// A request of this lane was carried out.
    pub fn done(&self, lane: Lane) {
        let mut state = self.lock();
        state.busy.end(lane);
        // Somebody may have waited for this client's share, or for the end.
        let wake = state.idle > 0 && (state.closed || !state.turns.is_empty());
        drop(state);
        if wake {
            self.more.notify_all();
        }
    }

    /// Takes no more requests; those in it are still carried out.
    pub fn close(&self) {
        self.lock().closed = true;
        self.more.notify_all();
    }
}

impl<J> State<J> {
    fn add(&mut self, lane: Lane, job: J) {
        let waiting = self.lanes.entry(lane.client).or_default();
        waiting.push_back(job);
        if waiting.len() == 1 {
            self.turns.push_back(lane);
        }
    }

    fn next(&mut self) -> Option<(Lane, J)> {
        for _ in 0..self.turns.len() {
            let lane = self.turns.pop_front()?;
            if !self.busy.may_have(lane) {
                self.turns.push_back(lane);
                continue;
            }
            let waiting = self.lanes.get_mut(&lane.client)?;
            let job = waiting.pop_front()?;
            if waiting.is_empty() {
                self.lanes.remove(&lane.client);
            } else {
                self.turns.push_back(lane);
            }
            self.busy.begin(lane);
            return Some((lane, job));
        }
        None
    }
}

impl Busy {
    /// Whether one more proxy may be had.
    fn may_have(&self, lane: Lane) -> bool {
        let of_client = self.clients.get(&lane.client).copied().unwrap_or(0);
        let is_open = self.all < self.shares.open || !self.exports.contains_key(&lane.export);
        is_open && of_client < self.shares.client
    }

    fn begin(&mut self, lane: Lane) {
        self.all += 1;
        *self.clients.entry(lane.client).or_default() += 1;
        *self.exports.entry(lane.export).or_default() += 1;
    }

    fn end(&mut self, lane: Lane) {
        self.all = self.all.saturating_sub(1);
        one_less(&mut self.clients, lane.client);
        one_less(&mut self.exports, lane.export);
    }
}

/// Counts one less, and forgets who has none.
fn one_less(counts: &mut HashMap<u64, usize>, of: u64) {
    let left = counts.get(&of).map_or(0, |count| count.saturating_sub(1));
    if left == 0 {
        counts.remove(&of);
    } else {
        counts.insert(of, left);
    }
}

/// The threads that carry out what is in an array.
pub struct Proxies {
    threads: Vec<JoinHandle<()>>,
    close: Box<dyn Fn() + Send + Sync>,
}

impl Proxies {
    /// Starts `count` of them. `work` makes what one proxy carries requests out with, and keeps between them.
    pub fn start<J, W, F>(array: &Arc<Array<J>>, count: usize, work: W) -> std::io::Result<Proxies>
    where
        J: Send + 'static,
        W: Fn() -> F,
        F: FnMut(J) + Send + 'static,
    {
        let closing = Arc::clone(array);
        let mut proxies = Proxies { threads: Vec::new(), close: Box::new(move || closing.close()) };
        for i in 0..count.max(1) {
            let (array, mut act) = (Arc::clone(array), work());
            let thread = std::thread::Builder::new().name(format!("proxy-{i}")).spawn(move || {
                while let Some((lane, job)) = array.take() {
                    act(job);
                    array.done(lane);
                }
            })?;
            proxies.threads.push(thread);
        }
        Ok(proxies)
    }

    /// Lets them finish what is in the array, and waits for that.
    pub fn finish(mut self) {
        self.end();
    }

    fn end(&mut self) {
        (self.close)();
        for thread in self.threads.drain(..) {
            // A proxy that panicked has said so itself, and there is nothing left to wait for.
            let _ = thread.join();
        }
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests;
