//! The address of an object, and what of it may be shown.

use chart::{Error, Result};
use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use ureq::http::Uri;

/// An `http` or `https` address. What may be secret in it, user and password and query, is never printed.
#[derive(Clone)]
pub(super) struct Address {
    full: String,
    shown: String,
    key: String,
    secure: bool,
    loopback: bool,
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let full = text.split_once('#').map_or(text, |(before, _)| before).to_owned();
        // The parser's own words would repeat the address.
        let bad = || Error::invalid("this is not an http:// or https:// address");
        let uri: Uri = full.parse().map_err(|_| bad())?;
        let scheme = uri.scheme_str().unwrap_or_default();
        let host = uri.host().unwrap_or_default();
        if !matches!(scheme, "http" | "https") || host.is_empty() {
            return Err(bad());
        }
        let port = uri.port().map(|p| format!(":{p}")).unwrap_or_default();
        let place = format!("{scheme}://{host}{port}{}", uri.path());
        let (shown, key) = match uri.query() {
            None => (place.clone(), place),
            // A query may choose the object or carry a signature: told apart, but not told.
            Some(query) => (format!("{place}?..."), format!("{place}?{:016x}", fingerprint(query))),
        };
        let loopback = host == "localhost" || host == "[::1]" || host.starts_with("127.");
        Ok(Address { secure: scheme == "https", full, shown, key, loopback })
    }

    /// As it is sent.
    pub(super) fn full(&self) -> &str {
        &self.full
    }

    /// What tells it from other addresses, without its secrets.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn is_secure(&self) -> bool {
        self.secure
    }

    /// Whether it is on this machine, where no proxy belongs in between.
    pub(super) fn is_loopback(&self) -> bool {
        self.loopback
    }
}

/// As a person may see it.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

fn fingerprint(query: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(query.as_bytes());
    hasher.finish()
}
