//! A source that writes down what happened to it.

use super::lock;
use chart::{Backing, Error, Identity, Limits, Result, Run, Source, Wait};
use std::sync::{Arc, Mutex};

/// What happened to a source.
#[derive(Clone, PartialEq, Eq)]
pub enum Event {
    /// Bytes were written.
    Write {
        /// Where.
        offset: u64,
        /// Which.
        data: Arc<[u8]>,
    },
    /// A range was zeroed.
    Zero {
        /// Where it begins.
        offset: u64,
        /// How long it is.
        len: u64,
    },
    /// A range was punched.
    Punch {
        /// Where it begins.
        offset: u64,
        /// How long it is.
        len: u64,
    },
    /// It became this long.
    SetLen(u64),
    /// All before this is durable.
    Flush,
    /// The test noted here how far it had got.
    Mark(u64),
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Event::Write { offset, data } => write!(f, "write {:#x}+{:#x}", offset, data.len()),
            Event::Zero { offset, len } => write!(f, "zero {offset:#x}+{len:#x}"),
            Event::Punch { offset, len } => write!(f, "punch {offset:#x}+{len:#x}"),
            Event::SetLen(len) => write!(f, "set_len {len:#x}"),
            Event::Flush => f.write_str("flush"),
            Event::Mark(n) => write!(f, "mark {n}"),
        }
    }
}

/// What a source held at first, and everything that happened to it since, in order.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// What it held when the recording began, all of it durable.
    pub initial: Vec<u8>,
    /// What happened.
    pub events: Vec<Event>,
}

/// Writes down every change and flush, in the order in which they took effect: one at a time.
pub struct Recorder {
    inner: Arc<dyn Source>,
    events: Mutex<Vec<Event>>,
    initial: Vec<u8>,
}

impl Recorder {
    /// Begins with what `inner` holds now.
    pub fn new(inner: Arc<dyn Source>) -> Result<Self> {
        let len = usize::try_from(inner.len()).map_err(|_| Error::no_space("too long to record"))?;
        let mut initial = vec![0; len];
        inner.read_at(0, &mut initial, Wait::Allowed)?;
        Ok(Recorder { inner, events: Mutex::default(), initial })
    }

    /// Notes that the test has got so far: whatever [`crash`](crate::crash) makes of a later moment knows it.
    pub fn mark(&self, n: u64) {
        lock(&self.events).push(Event::Mark(n));
    }

    /// Everything up to now.
    pub fn log(&self) -> Log {
        Log { initial: self.initial.clone(), events: lock(&self.events).clone() }
    }

    /// Whether something was changed and not flushed since.
    pub fn has_unflushed(&self) -> bool {
        let events = lock(&self.events);
        let last = events.iter().rev().find(|e| !matches!(e, Event::Mark(_)));
        last.is_some_and(|e| *e != Event::Flush)
    }

    /// How many events there are.
    pub fn count(&self) -> usize {
        lock(&self.events).len()
    }

    /// The events from the `from`th on.
    pub fn since(&self, from: usize) -> Vec<Event> {
        lock(&self.events).get(from..).unwrap_or_default().to_vec()
    }

    fn note(&self, event: Event, act: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut events = lock(&self.events);
        act()?;
        events.push(event);
        Ok(())
    }
}

impl Source for Recorder {
    fn name(&self) -> String {
        self.inner.name()
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8], wait: Wait) -> Result<()> {
        self.inner.read_at(offset, buf, wait)
    }

    fn write_at(&self, offset: u64, buf: &[u8], wait: Wait) -> Result<()> {
        let event = Event::Write { offset, data: buf.into() };
        self.note(event, || self.inner.write_at(offset, buf, wait))
    }

    fn zero(&self, offset: u64, len: u64, fast_only: bool) -> Result<()> {
        self.note(Event::Zero { offset, len }, || self.inner.zero(offset, len, fast_only))
    }

    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.note(Event::Punch { offset, len }, || self.inner.punch(offset, len))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.note(Event::SetLen(len), || self.inner.set_len(len))
    }

    fn flush(&self) -> Result<()> {
        self.note(Event::Flush, || self.inner.flush())
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn data_at(&self, offset: u64, want: u64) -> Result<Run> {
        self.inner.data_at(offset, want)
    }

    fn identity(&self) -> Identity {
        self.inner.identity()
    }

    fn backing(&self) -> Backing<'_> {
        Backing::Wraps(self.inner.as_ref())
    }
}
