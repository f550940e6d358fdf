//! A load on a disk, measured: requests of one size, for a time.
//!
//! There are two ways. The export of an NBD server is loaded by `nbd`, which does so little for a request that what is
//! measured is the server. Everything else is loaded as a [`chart::Disk`], by [`on_disk`].

mod disk;
mod histogram;
mod nbd;
mod pace;
mod pattern;
mod payload;
#[cfg(test)]
mod tests;

pub use disk::on_disk;
pub use pattern::{Hot, Pattern};

use crate::watch::Watch;
use crate::{Format, Location, Options, Spec, open};
use chart::{Error, Result};
use histogram::Histogram;
use serde::Serialize;
use std::time::Duration;

/// The largest request.
pub const MAX_REQUEST: u64 = 64 << 20;

/// The most requests at once, on one connection where there are several.
pub const MAX_DEPTH: usize = 1024;

/// The most connections to a server.
pub const MAX_CONNECTIONS: usize = 256;

/// What load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Where requests go.
    pub pattern: Pattern,
    /// How long each is.
    pub size: u64,
    /// How many are under way at once: on each connection to an NBD server, else each in a thread of its own.
    pub depth: usize,
    /// For how long.
    pub time: Duration,
    /// For so many requests at most.
    pub operations: Option<u64>,
    /// Write rather than read. What the disk holds is lost.
    pub write: bool,
    /// Flush after so many requests of a connection or thread.
    pub flush_every: Option<u64>,
    /// Check that what is read is what the same load has written before, with the same size and seed.
    pub verify: bool,
    /// Only in the first so many bytes of the disk.
    pub within: Option<u64>,
    /// What random places and what is written begin from: the same seed asks for the same places, and writes the
    /// same bytes to the same place.
    pub seed: u64,
    /// How many connections to an NBD server.
    pub connections: usize,
    /// Agree with an NBD server on structured replies.
    pub structured: bool,
}

impl Default for Load {
    fn default() -> Self {
        Load {
            pattern: Pattern::Random(None),
            size: 4096,
            depth: 1,
            time: Duration::from_secs(5),
            operations: None,
            write: false,
            flush_every: None,
            verify: false,
            within: None,
            seed: 1,
            connections: 1,
            structured: false,
        }
    }
}

impl Load {
    /// How many bytes of a disk of `len` bytes are loaded.
    fn check(&self, len: u64) -> Result<u64> {
        let len = self.within.unwrap_or(u64::MAX).min(len);
        let most = MAX_REQUEST.min(len);
        if self.size == 0 || self.size > most {
            let what = format!("requests of {} bytes on {len}: from 1 to {most} are possible", self.size);
            return Err(Error::invalid(what));
        }
        if self.depth == 0 || self.depth > MAX_DEPTH {
            let what = format!("a depth of {}: from 1 to {MAX_DEPTH} is possible", self.depth);
            return Err(Error::invalid(what));
        }
        if self.connections == 0 || self.connections > MAX_CONNECTIONS {
            let what = format!("{} connections: from 1 to {MAX_CONNECTIONS} are possible", self.connections);
            return Err(Error::invalid(what));
        }
        Ok(len)
    }
}

/// What came out.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Outcome {
    /// Requests done, without flushes.
    pub operations: u64,
    /// Flushes done.
    pub flushes: u64,
    /// Bytes read or written.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Requests in a second.
    pub iops: f64,
    /// Bytes in a second.
    pub bytes_per_second: f64,
    /// How long requests took.
    pub latency: Latency,
}

/// How long requests took, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Latency {
    /// On average.
    pub mean: u64,
    /// Half took no longer.
    pub p50: u64,
    /// 90 of a hundred took no longer.
    pub p90: u64,
    /// 99 of a hundred took no longer.
    pub p99: u64,
    /// 999 of a thousand took no longer.
    pub p999: u64,
    /// None took longer.
    pub max: u64,
}

/// What one connection or thread has done.
struct Tally {
    histogram: Histogram,
    flushes: u64,
}

impl Tally {
    fn new() -> Tally {
        Tally { histogram: Histogram::new(), flushes: 0 }
    }

    fn add(&mut self, other: &Tally) {
        self.histogram.add(&other.histogram);
        self.flushes += other.flushes;
    }

    fn outcome(&self, load: &Load, took: Duration) -> Outcome {
        let (operations, seconds) = (self.histogram.count(), took.as_secs_f64());
        let bytes = operations * load.size;
        Outcome {
            operations,
            flushes: self.flushes,
            bytes,
            seconds,
            iops: operations as f64 / seconds,
            bytes_per_second: bytes as f64 / seconds,
            latency: self.histogram.latency(),
        }
    }
}

/// Puts a load on the disk that `spec` names.
pub fn bench(spec: &Spec, options: &Options, load: &Load, watch: Watch<'_>) -> Result<Outcome> {
    if let Some(address) = export(spec, options, load)? {
        return nbd::bench(address, load, watch);
    }
    let opened = open(spec, &Options { writable: load.write, ..options.clone() })?;
    let outcome = on_disk(&opened.disk, load, watch);
    opened.close_after(outcome)
}

/// The address of the export whose bytes the disk is, where the generator can load it: not under TLS, and not an image
/// in a format, nor a part of one.
fn export<'s>(spec: &'s Spec, options: &Options, load: &Load) -> Result<Option<&'s str>> {
    let Location::Nbd(address) = &spec.location else { return Ok(None) };
    if !spec.steps.is_empty() || !spec.options.is_empty() || io::nbd::Uri::parse(address)?.tls {
        return Ok(None);
    }
    let raw = match &spec.format {
        Some(name) => Format::named(name)? == Format::Raw,
        // Whether what is there may be written as raw is decided where disks are opened.
        None if load.write => false,
        None => open(spec, &Options { writable: false, ..options.clone() })?.image.format == Format::Raw,
    };
    Ok(raw.then_some(address))
}
