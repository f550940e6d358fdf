//! What happened to requests, step by step.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How many classes of latency are told apart: powers of two of a microsecond, the last for a quarter of an hour
/// and more.
pub const CLASSES: usize = 31;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        /// What a server counts. Everything since it began, but for `connections`.
        #[derive(Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
            /// From hearing a request to its reply, for those answered at once.
            pub at_once_latency: Histogram,
            /// The same for those that went through the array.
            pub array_latency: Histogram,
        }

        impl Counters {
            /// Every counter with its name.
            pub fn each(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Relaxed)),)*]
            }
        }
    };
}

counters! {
    /// Connections that are open now.
    connections;
    /// Connections that were accepted.
    accepted;
    /// Connections that were turned away: too many, or not allowed.
    turned_away;
    /// Connections that ended during the handshake, or against the protocol.
    broken;
    /// Reads.
    reads;
    /// Writes.
    writes;
    /// Flushes.
    flushes;
    /// Trims and writes of zeroes.
    zeroes;
    /// Block status, cache and all others.
    others;
    /// Bytes that were read.
    bytes_read;
    /// Bytes that were written.
    bytes_written;
    /// Requests answered at once, by the thread that heard them.
    at_once;
    /// Requests that went into the array.
    array;
    /// Requests that a proxy has carried out.
    proxy;
    /// Requests that read again, since a write came in between.
    again;
    /// Requests that were answered with an error.
    errors;
}

/// How often each class of latency occurred.
pub struct Histogram([AtomicU64; CLASSES]);

impl Default for Histogram {
    fn default() -> Self {
        Histogram(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Histogram {
    /// Counts `count` requests that took `took`.
    pub fn add(&self, took: Duration, count: u64) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let class = (u64::BITS - micros.leading_zeros()) as usize;
        self.0[class.min(CLASSES - 1)].fetch_add(count, Relaxed);
    }

    /// By class: how many took less than this many microseconds, and not less than half of it.
    pub fn classes(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().enumerate().map(|(class, count)| (1 << class, count.load(Relaxed)))
    }

    /// The latency, in microseconds, that `share` (0 to 1) of the requests stayed under; 0 where there were none.
    pub fn percentile(&self, share: f64) -> u64 {
        let all: u64 = self.classes().map(|(_, count)| count).sum();
        let mut seen = 0;
        for (below, count) in self.classes() {
            seen += count;
            if count > 0 && seen as f64 >= share * all as f64 {
                return below;
            }
        }
        0
    }
}

/// What one thread has counted and not told yet: the shared counters are touched once a batch.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) flushes: u64,
    pub(crate) zeroes: u64,
    pub(crate) others: u64,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_written: u64,
    pub(crate) at_once: u64,
    pub(crate) array: u64,
    pub(crate) proxy: u64,
    pub(crate) again: u64,
    pub(crate) errors: u64,
}

impl Tally {
    /// Tells it, and begins anew.
    pub(crate) fn tell(&mut self, counters: &Counters) {
        let told = std::mem::take(self);
        let pairs = [
            (&counters.reads, told.reads),
            (&counters.writes, told.writes),
            (&counters.flushes, told.flushes),
            (&counters.zeroes, told.zeroes),
            (&counters.others, told.others),
            (&counters.bytes_read, told.bytes_read),
            (&counters.bytes_written, told.bytes_written),
            (&counters.at_once, told.at_once),
            (&counters.array, told.array),
            (&counters.proxy, told.proxy),
            (&counters.again, told.again),
            (&counters.errors, told.errors),
        ];
        for (counter, more) in pairs.into_iter().filter(|(_, more)| *more > 0) {
            counter.fetch_add(more, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
