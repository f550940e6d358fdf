//! What an answer says of the object: its validators and which bytes it carries.

use super::date;
use super::digits::number;
use chart::{Error, Result};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use ureq::http::{HeaderMap, header};

/// What tells one version of an object from another.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Version {
    /// A strong entity tag, with its quotes where it has them.
    pub(super) etag: Option<String>,
    /// Compared as text: it has to come back as it was.
    pub(super) modified: Option<String>,
}

impl Version {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let etag = text(headers, &header::ETAG).filter(|t| !t.is_empty() && !t.starts_with("W/"));
        Version { etag, modified: text(headers, &header::LAST_MODIFIED).filter(|t| !t.is_empty()) }
    }

    /// Whether there is anything to tell versions by.
    pub(super) fn is_known(&self) -> bool {
        self.etag.is_some() || self.modified.is_some()
    }

    /// What `If-Range` is sent with. Servers that do not quote their tags do not expect quotes either.
    pub(super) fn condition(&self) -> Option<&str> {
        self.etag.as_deref().or(self.modified.as_deref())
    }

    /// Whether `other` is this version. Where both have a tag, the tag decides; else the date.
    pub(super) fn is(&self, other: &Version) -> bool {
        match (&self.etag, &other.etag) {
            (Some(one), Some(two)) => one == two,
            (Some(_), None) => false,
            _ => self.modified == other.modified,
        }
    }

    /// For identities.
    pub(super) fn tag(&self) -> Option<String> {
        self.condition().map(str::to_owned)
    }
}

fn text(headers: &HeaderMap, name: &header::HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(|t| t.trim().to_owned())
}

/// Which bytes of how many an answer carries (`Content-Range`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContentRange {
    /// The first byte and the last; none in a refusal (`bytes */TOTAL`).
    pub(super) bytes: Option<(u64, u64)>,
    pub(super) total: u64,
}

impl ContentRange {
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        Self::parse(&text(headers, &header::CONTENT_RANGE)?)
    }

    pub(super) fn parse(value: &str) -> Option<Self> {
        let (unit, value) = value.trim().split_once(' ')?;
        let (range, total) = value.trim().split_once('/')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let total = number(total)?;
        if range == "*" {
            return Some(ContentRange { bytes: None, total });
        }
        let (first, last) = range.split_once('-')?;
        let (first, last) = (number(first)?, number(last)?);
        (first <= last && last < total).then_some(ContentRange { bytes: Some((first, last)), total })
    }
}

/// Refuses bodies that are not the object's own bytes.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<()> {
    match text(headers, &header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") => Err(
            Error::unsupported(format!("the server sends it encoded as {encoding:?}, although asked not to")),
        ),
        _ => Ok(()),
    }
}

/// How long the body says it is.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    number(&text(headers, &header::CONTENT_LENGTH)?)
}

/// For how long the server asks to be left alone: in seconds, or until a date, by its own clock where it tells it.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let asked = text(headers, &header::RETRY_AFTER)?;
    if let Some(seconds) = number(&asked) {
        return Some(Duration::from_secs(seconds));
    }
    let until = date::parse(&asked)?;
    let its_now = text(headers, &header::DATE).and_then(|now| date::parse(&now));
    let now = its_now.or_else(|| Some(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs()))?;
    Some(Duration::from_secs(until.saturating_sub(now)))
}
