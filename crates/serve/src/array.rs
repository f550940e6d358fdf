//! The request array, and the proxies that take from it.
//!
//! Every client has a lane of its own, and the lanes take turns: a client with a thousand slow requests delays
//! another's single one by the length of one, not of a thousand. And no client has all proxies: some are left for
//! whoever else comes. The array is bounded by what each client may have under way, which whoever puts requests in
//! sees to.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Requests that wait for a proxy.
pub struct Array<J> {
    state: Mutex<State<J>>,
    more: Condvar,
    /// How many proxies one client may have.
    share: usize,
}

struct State<J> {
    lanes: HashMap<u64, VecDeque<J>>,
    /// The clients that have something in their lane, in the order of their turns.
    turns: VecDeque<u64>,
    /// How many proxies each client has.
    busy: HashMap<u64, usize>,
    /// How many proxies wait for something to do.
    idle: usize,
    closed: bool,
}

impl<J> Array<J> {
    /// For so many proxies.
    pub fn new(proxies: usize) -> Self {
        let state = State {
            lanes: HashMap::new(),
            turns: VecDeque::new(),
            busy: HashMap::new(),
            idle: 0,
            closed: false,
        };
        Array { state: Mutex::new(state), more: Condvar::new(), share: (proxies - proxies / 4).max(1) }
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a request into a client's lane. Given back where the array is closed.
    pub fn put(&self, client: u64, job: J) -> Result<(), J> {
        let mut state = self.lock();
        if state.closed {
            return Err(job);
        }
        let lane = state.lanes.entry(client).or_default();
        lane.push_back(job);
        if lane.len() == 1 {
            state.turns.push_back(client);
        }
        let wake = state.idle > 0;
        drop(state);
        if wake {
            self.more.notify_one();
        }
        Ok(())
    }

    /// Takes the next request, waiting for one; `None` when the array is closed and empty. Whose it is has to be
    /// told when it is [`Array::done`].
    pub fn take(&self) -> Option<(u64, J)> {
        let mut state = self.lock();
        loop {
            if let Some(taken) = state.next(self.share) {
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

    /// A request of this client was carried out.
    pub fn done(&self, client: u64) {
        let mut state = self.lock();
        let left = state.busy.get(&client).map_or(0, |busy| busy.saturating_sub(1));
        if left == 0 {
            state.busy.remove(&client);
        } else {
            state.busy.insert(client, left);
        }
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
    fn next(&mut self, share: usize) -> Option<(u64, J)> {
        for _ in 0..self.turns.len() {
            let client = self.turns.pop_front()?;
            let busy = self.busy.entry(client).or_default();
            if *busy >= share {
                self.turns.push_back(client);
                continue;
            }
            *busy += 1;
            let lane = self.lanes.get_mut(&client)?;
            let job = lane.pop_front()?;
            if lane.is_empty() {
                self.lanes.remove(&client);
            } else {
                self.turns.push_back(client);
            }
            return Some((client, job));
        }
        None
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
                while let Some((client, job)) = array.take() {
                    act(job);
                    array.done(client);
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
