//! What may be said of a source on a web server.

use std::path::PathBuf;
use std::time::Duration;

/// So many redirections are followed.
pub(super) const REDIRECTS_MAX: u32 = 5;

/// How patient, how careful and how large a source is.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long the server may take to begin an answer, and to go on with it.
    pub timeout: Duration,
    /// How long one request may take as a whole.
    pub request_timeout: Duration,
    /// How often a range is asked for before that is an error; half-way through it, how often from there.
    pub tries: u32,
    /// How long after the first try for a range, or after the last that brought some of it, another may begin.
    pub patience: Duration,
    /// The unit of the cache. A power of two.
    pub block: u32,
    /// How much the cache may hold.
    pub cache: u64,
    /// How far to read ahead of a sequential reader, at most. 0 for not at all.
    pub read_ahead: u64,
    /// Accept an object that has neither a strong `ETag` nor a `Last-Modified`. That it changes is then noticed
    /// only by its length.
    pub allow_unpinned: bool,
    /// Certificates to trust instead of the usual ones, as PEM.
    pub ca: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
            tries: 6,
            patience: Duration::from_secs(60),
            block: 256 << 10,
            cache: 16 << 20,
            read_ahead: 4 << 20,
            allow_unpinned: false,
            ca: None,
        }
    }
}
