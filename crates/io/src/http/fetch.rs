//! One range by one request, tried again where that can help.

use super::address::Address;
use super::answer::{ContentRange, Version, check_encoding, content_length};
use super::backoff;
use super::failure::{Attempt, Failure, Times, refusal};
use super::options::{Options, REDIRECTS_MAX};
use chart::{Error, Result};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use ureq::http::Response;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body};

const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Who said nothing at all so often in a row is asked no more, however many tries there are.
const SILENCES_MAX: u32 = 2;
/// A try that brought so much before it failed was none in vain: what is counted begins anew.
const WORTHWHILE: u64 = 64 << 10;
const USER_AGENT: &str = concat!("portolan/", env!("CARGO_PKG_VERSION"));

/// What fetches ranges of one object.
pub(super) struct Fetcher {
    pub(super) address: Address,
    agent: Agent,
    tries: u32,
    patience: Duration,
    times: Times,
    pub(super) version: Version,
    pub(super) len: u64,
    /// `If-Range` is left out for a server that answers it with the whole of the same version.
    plain: AtomicBool,
    pub(super) requests: AtomicU64,
    pub(super) retries: AtomicU64,
}

/// What the tries for a range have come to.
struct SoFar {
    /// Since when nothing came.
    since: Instant,
    tries: u32,
    /// Those of them, the last in a row, to which nothing was said at all.
    silences: u32,
}

impl SoFar {
    fn begin() -> Self {
        SoFar { since: Instant::now(), tries: 0, silences: 0 }
    }

    fn note(&mut self, failure: &Failure) {
        if failure.brought >= WORTHWHILE {
            *self = SoFar::begin();
        }
        self.tries += 1;
        self.silences = if failure.silent { self.silences + 1 } else { 0 };
    }

    /// As what was being done, for an error.
    fn words(&self, asked: Duration) -> String {
        let tries = if self.tries == 1 { "1 try".to_owned() } else { format!("{} tries", self.tries) };
        if asked.is_zero() {
            return format!("after {tries}");
        }
        format!("after {tries}, the server asking to be left alone for {asked:?}")
    }
}

impl Fetcher {
    /// Finds out what the object is, with the request that also brings its first `want` bytes.
    pub(super) fn open(address: Address, options: &Options, want: u64) -> Result<(Self, Vec<u8>)> {
        let agent = agent(&address, options)?;
        let mut fetcher = Fetcher {
            address,
            agent,
            tries: options.tries.max(1),
            patience: options.patience,
            times: Times::of(options),
            version: Version::default(),
            len: 0,
            plain: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            retries: AtomicU64::new(0),
        };
        let (version, len, first) = fetcher.with_tries(true, |f| f.probe(want))?;
        if !version.is_known() && !options.allow_unpinned {
            let what = "the server names no version of it (no strong ETag, no Last-Modified), so a change could not \
                        be noticed; copy it first";
            return Err(Error::unsupported(what).in_path(fetcher.address.to_string()));
        }
        (fetcher.version, fetcher.len) = (version, len);
        Ok((fetcher, first))
    }

    /// Reads `[start, end)` and hands it on as it comes. A try that failed half-way goes on from there.
    pub(super) fn fetch(
        &self,
        start: u64,
        end: u64,
        insist: bool,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut at = start;
        self.with_tries(insist, |f| {
            let from = at;
            f.range(&mut at, end, &mut take).map_err(|failure| Failure { brought: at - from, ..failure })
        })
    }

    fn with_tries<T>(&self, insist: bool, mut act: impl FnMut(&Self) -> Attempt<T>) -> Result<T> {
        let mut so_far = SoFar::begin();
        loop {
            self.requests.fetch_add(1, Ordering::Relaxed);
            let failure = match act(self) {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            so_far.note(&failure);
            let error = failure.error.in_path(self.address.to_string());
            let Some(asked) = failure.again.filter(|_| insist) else { return Err(error) };
            let pause = backoff(so_far.tries, BACKOFF_MIN, BACKOFF_MAX).max(asked);
            let over = so_far.since.elapsed().saturating_add(pause) > self.patience;
            if over || so_far.tries >= self.tries || so_far.silences >= SILENCES_MAX {
                return Err(error.during(so_far.words(asked)));
            }
            self.retries.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(pause);
        }
    }

    fn ask(&self, first: u64, last: u64) -> Attempt<Response<Body>> {
        let mut request =
            self.agent.get(self.address.full()).header("Range", format!("bytes={first}-{last}"));
        if let Some(condition) = self.version.condition()
            && !self.plain.load(Ordering::Relaxed)
        {
            request = request.header("If-Range", condition);
        }
        request.call().map_err(|e| self.times.unreached(&e))
    }

    /// The first request: nothing is known yet.
    fn probe(&self, want: u64) -> Attempt<(Version, u64, Vec<u8>)> {
        let response = self.ask(0, want.saturating_sub(1))?;
        let headers = response.headers();
        check_encoding(headers).map_err(Failure::last)?;
        let (version, range) = (Version::of(headers), ContentRange::of(headers));
        match (response.status().as_u16(), range) {
            (206, Some(ContentRange { bytes: Some((0, last)), total })) if last < want => {
                if last + 1 != want.min(total) {
                    return Err(Failure::again(wrong_range()));
                }
                let mut body = Vec::new();
                self.read_body(response, last + 1, &mut |part| {
                    body.extend_from_slice(part);
                    Ok(())
                })?;
                Ok((version, total, body))
            }
            (206, _) => Err(Failure::again(wrong_range())),
            // No byte of an empty object can be asked for.
            (416, Some(ContentRange { total: 0, .. })) => Ok((version, 0, Vec::new())),
            (200, _) if content_length(headers) == Some(0) => Ok((version, 0, Vec::new())),
            (200, _) => Err(Failure::last(Error::unsupported(
                "the server does not serve parts of it (it answers a range with the whole); copy it first",
            ))),
            _ => Err(refusal(&response)),
        }
    }

    fn range(&self, at: &mut u64, end: u64, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Attempt<()> {
        if *at >= end {
            return Ok(());
        }
        let response = self.ask(*at, end - 1)?;
        let headers = response.headers();
        let (version, range) = (Version::of(headers), ContentRange::of(headers));
        let status = response.status().as_u16();
        // An answer to If-Range need not repeat the date: that it is a part says that the date is the same.
        let implied = status == 206
            && self.version.etag.is_none()
            && !version.is_known()
            && !self.plain.load(Ordering::Relaxed);
        let same = !self.version.is_known() || self.version.is(&version) || implied;
        match (status, range) {
            (200 | 206 | 412 | 416, range) if !same || range.is_some_and(|r| r.total != self.len) => {
                Err(Failure::last(self.changed(&version)))
            }
            (206, Some(ContentRange { bytes: Some(bytes), .. })) if bytes == (*at, end - 1) => {
                check_encoding(headers).map_err(Failure::last)?;
                self.read_body(response, end - *at, &mut |part| {
                    *at += part.len() as u64;
                    take(part)
                })
            }
            (206, _) => Err(Failure::again(wrong_range())),
            (200, _) if !self.plain.swap(true, Ordering::Relaxed) => Err(Failure::again(no_range())),
            (200, _) => Err(Failure::last(no_range())),
            _ => Err(refusal(&response)),
        }
    }

    #[cold]
    fn changed(&self, now: &Version) -> Error {
        let was = self.version.condition().unwrap_or("unnamed");
        let now = now.condition().unwrap_or("unnamed");
        Error::conflict(format!(
            "it changed while it was being read (version {was}, now {now}): open it again, or copy it first"
        ))
    }

    /// Reads exactly `len` bytes and hands them on.
    fn read_body(
        &self,
        response: Response<Body>,
        len: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Attempt<()> {
        let said = content_length(response.headers());
        if said.is_some_and(|said| said != len) {
            return Err(Failure::again(Error::io("the server's answer has another length than its range")));
        }
        let mut body = response.into_body().into_reader();
        let mut left = len;
        let mut buffer = vec![0; 64 << 10];
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let Some(room) = buffer.get_mut(..room) else { break };
            let n = match body.read(room) {
                Ok(0) => {
                    return Err(Failure::again(Error::unavailable("the server's answer ends too early")));
                }
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(self.times.broken(&e)),
            };
            take(room.get(..n).unwrap_or_default()).map_err(Failure::last)?;
            left -= n as u64;
        }
        if said.is_some() {
            // Its end has to be seen before the connection can be used again.
            let _ = body.read(&mut [0]);
        }
        Ok(())
    }
}

#[cold]
fn wrong_range() -> Error {
    Error::io("the server answers with other bytes than were asked for")
}

#[cold]
fn no_range() -> Error {
    Error::unsupported("the server has ceased to serve parts of it (it answers a range with the whole)")
}

fn agent(address: &Address, options: &Options) -> Result<Agent> {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .https_only(address.is_secure())
        .max_redirects(REDIRECTS_MAX)
        .user_agent(USER_AGENT)
        .accept_encoding("identity")
        .timeout_connect(Some(options.connect_timeout))
        .timeout_resolve(Some(options.connect_timeout))
        .timeout_recv_response(Some(options.timeout))
        .timeout_per_read(Some(options.timeout))
        .timeout_global(Some(options.request_timeout));
    if address.is_loopback() {
        config = config.proxy(None);
    }
    if let Some(path) = &options.ca {
        let unreadable = |e: &dyn std::fmt::Display| {
            Error::invalid(format!("the certificates cannot be read: {e}")).in_path(path.clone())
        };
        let pem = std::fs::read(path).map_err(|e| unreadable(&e))?;
        let mut roots: Vec<Certificate<'static>> = Vec::new();
        for item in ureq::tls::parse_pem(&pem) {
            if let PemItem::Certificate(certificate) = item.map_err(|e| unreadable(&e))? {
                roots.push(certificate);
            }
        }
        let tls = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(roots))).build();
        config = config.tls_config(tls);
    }
    Ok(config.build().new_agent())
}
