//! The source: blocks, fetched as they are asked for and a little before.

use super::address::Address;
use super::cache::{Block, Cache, Claim, Found};
use super::fetch::Fetcher;
use super::options::Options;
use chart::{Error, Identity, Limits, Result, Source, Wait, check_range};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// No request asks for more blocks than this.
const BLOCKS_MAX: u64 = 16;
/// How many sequential readers are told apart.
const STREAMS: usize = 4;
/// How many requests may be reading ahead at one time.
const AHEAD_MAX: usize = 2;

/// An object on a web server, pinned to the version it had when it was opened.
pub struct Ranged {
    inner: Arc<Inner>,
    streams: Mutex<VecDeque<Stream>>,
    read_ahead: u64,
    identity: Identity,
}

struct Inner {
    fetcher: Fetcher,
    cache: Arc<Cache>,
    block: u64,
    ahead: AtomicUsize,
}

/// Somebody who reads on where he stopped.
#[derive(Clone, Copy)]
struct Stream {
    /// Where he stopped.
    end: u64,
    /// How far to read ahead of him.
    window: u64,
}

/// What reading has cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Requests sent, retries among them.
    pub requests: u64,
    /// Requests that repeated one that failed.
    pub retries: u64,
}

impl Ranged {
    /// Opens the object at an `http` or `https` address. User and password in it are sent as Basic
    /// authentication, to that host only, and never shown.
    pub fn open(url: &str, options: &Options) -> Result<Self> {
        let address = Address::parse(url)?;
        if !options.block.is_power_of_two() {
            return Err(Error::invalid(format!(
                "a cache block of {} bytes is not a power of two",
                options.block
            )));
        }
        let block = u64::from(options.block);
        let (fetcher, first) = Fetcher::open(address, options, block)?;
        let most = usize::try_from(options.cache / block).unwrap_or(usize::MAX);
        let cache = Arc::new(Cache::new(most));
        if !first.is_empty() {
            cache.claim(0, 1, false).deliver(&first.into());
        }
        let identity = match fetcher.version.tag() {
            Some(tag) => Identity::Object { key: fetcher.address.key().to_owned(), tag },
            None => Identity::unique(),
        };
        // What is read ahead must not push out what is being read.
        let read_ahead = options.read_ahead.min(options.cache / 4);
        let inner = Inner { fetcher, cache, block, ahead: AtomicUsize::new(0) };
        Ok(Ranged { inner: Arc::new(inner), streams: Mutex::default(), read_ahead, identity })
    }

    /// What reading has cost so far.
    pub fn counts(&self) -> Counts {
        let fetcher = &self.inner.fetcher;
        Counts {
            requests: fetcher.requests.load(Ordering::Relaxed),
            retries: fetcher.retries.load(Ordering::Relaxed),
        }
    }

    /// Notes that `[start, end)` is being read: how far to read ahead of its end.
    fn window(&self, start: u64, end: u64) -> u64 {
        let block = self.inner.block;
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        // A stream's threads may be a little out of order.
        let near = |s: &Stream| start.abs_diff(s.end) <= block.max(s.window);
        let window = match streams.iter().position(near).and_then(|i| streams.remove(i)) {
            // Within the block it stopped in, nothing new is learnt.
            Some(s) if end <= s.end => {
                streams.push_back(s);
                return 0;
            }
            Some(s) => (s.window * 2).clamp(block, self.read_ahead.max(block)),
            None => 0,
        };
        if streams.len() >= STREAMS {
            streams.pop_front();
        }
        streams.push_back(Stream { end, window });
        window.min(self.read_ahead)
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let inner = &self.inner;
        let end = offset + buf.len() as u64;
        let window = self.window(offset, end);
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let blocks = inner.blocks(at / inner.block, end.div_ceil(inner.block))?;
            if at == offset && window > 0 {
                read_ahead(inner, end.div_ceil(inner.block), window.div_ceil(inner.block));
            }
            for block in blocks {
                let skip = usize::try_from(at % inner.block).unwrap_or_default();
                let part = block.get(skip..).unwrap_or_default();
                let (now, later) = rest.split_at_mut(part.len().min(rest.len()));
                now.copy_from_slice(part.get(..now.len()).unwrap_or_default());
                at += now.len() as u64;
                rest = later;
            }
        }
        Ok(())
    }
}

impl Inner {
    /// At least one block from `first` on, and no block from `end` on.
    fn blocks(self: &Arc<Self>, first: u64, end: u64) -> Result<Vec<Block>> {
        loop {
            match self.cache.find(first) {
                Found::Here(block) => return Ok(vec![block]),
                Found::Coming(coming) => {
                    if let Some(block) = coming.wait() {
                        return block.map(|b| vec![b]);
                    }
                }
                Found::Nothing => {
                    let claim = self.cache.claim(first, (end - first).min(BLOCKS_MAX), false);
                    if claim.len() > 0 {
                        return self.fetch(claim, first, true);
                    }
                }
            }
        }
    }

    /// Keeps a promise: fetches its blocks with one request, each handed out as soon as it is whole.
    fn fetch(&self, mut claim: Claim, first: u64, insist: bool) -> Result<Vec<Block>> {
        let start = first * self.block;
        let end = (first + claim.len()).saturating_mul(self.block).min(self.fetcher.len);
        let mut blocks = Vec::new();
        let mut filling: Vec<u8> = Vec::new();
        let mut at = start;
        let fetched = self.fetcher.fetch(start, end, insist, |mut part| {
            while !part.is_empty() {
                let want = self.block.min(end - (at - filling.len() as u64));
                let room = usize::try_from(want).unwrap_or(usize::MAX).saturating_sub(filling.len());
                let (now, rest) = part.split_at(room.min(part.len()));
                filling.extend_from_slice(now);
                at += now.len() as u64;
                part = rest;
                if filling.len() as u64 == want {
                    let block = Block::from(std::mem::take(&mut filling));
                    claim.deliver(&block);
                    blocks.push(block);
                }
            }
            Ok(())
        });
        match fetched {
            Ok(()) => Ok(blocks),
            Err(e) => {
                claim.fail(&e);
                Err(e)
            }
        }
    }
}

/// Fetches up to `most` blocks from `first` on in the background, if they are not known and not too much is
/// being read ahead already. It does not insist: whoever wants a block that failed fetches it himself.
fn read_ahead(inner: &Arc<Inner>, first: u64, most: u64) {
    let end = inner.fetcher.len.div_ceil(inner.block);
    // Over what is known, to where something is missing.
    let known = |index: &u64| !matches!(inner.cache.find(*index), Found::Nothing);
    let stop = end.min(first.saturating_add(most));
    let from = (first..stop).find(|i| !known(i)).unwrap_or(stop);
    // A request is worth its while when half the window is missing, or the rest of the object.
    if from >= stop || (stop - from < most.div_ceil(2) && stop < end) {
        return;
    }
    if inner.ahead.fetch_add(1, Ordering::AcqRel) >= AHEAD_MAX {
        inner.ahead.fetch_sub(1, Ordering::AcqRel);
        return;
    }
    let claim = inner.cache.claim(from, (stop - from).min(BLOCKS_MAX), true);
    let inner_too = Arc::clone(inner);
    let work = move || {
        if claim.len() > 0 {
            // Its failure was told to those who wait, and they do without.
            let _ = inner_too.fetch(claim, from, false);
        }
        inner_too.ahead.fetch_sub(1, Ordering::AcqRel);
    };
    if std::thread::Builder::new().name("read-ahead".into()).spawn(work).is_err() {
        inner.ahead.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Source for Ranged {
    fn name(&self) -> String {
        self.inner.fetcher.address.to_string()
    }

    fn len(&self) -> u64 {
        self.inner.fetcher.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8], wait: Wait) -> Result<()> {
        check_range(self.len(), offset, buf.len() as u64)?;
        if buf.is_empty() {
            return Ok(());
        }
        if wait == Wait::Allowed {
            return self.read(offset, buf);
        }
        let block = self.inner.block;
        let end = offset + buf.len() as u64;
        let (mut at, mut rest) = (offset, buf);
        while at < end {
            let Found::Here(bytes) = self.inner.cache.find(at / block) else {
                return Err(Error::WOULD_BLOCK);
            };
            let skip = usize::try_from(at % block).unwrap_or_default();
            let part = bytes.get(skip..).unwrap_or_default();
            let (now, later) = rest.split_at_mut(part.len().min(rest.len()));
            now.copy_from_slice(part.get(..now.len()).unwrap_or_default());
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn limits(&self) -> Limits {
        let preferred = self.inner.block.saturating_mul(4).min(1 << 20);
        let preferred = u32::try_from(preferred).unwrap_or(u32::MAX);
        Limits { read_only: true, never: true, align: 1, preferred }
    }

    /// The address, without what is secret in it, and the version. Without a version, nothing but itself.
    fn identity(&self) -> Identity {
        self.identity.clone()
    }
}
