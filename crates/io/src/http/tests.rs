use super::address::Address;
use super::answer::{ContentRange, Version, retry_after};
use super::cache::{Cache, Found};
use super::*;
use chart::Error;
use std::sync::Arc;
use std::time::Duration;
use ureq::http::{HeaderMap, HeaderValue, header};

#[test]
fn content_ranges_are_read_strictly() {
    let parse = ContentRange::parse;
    assert_eq!(parse("bytes 0-9/10"), Some(ContentRange { bytes: Some((0, 9)), total: 10 }));
    assert_eq!(parse("Bytes 5-5/100"), Some(ContentRange { bytes: Some((5, 5)), total: 100 }));
    assert_eq!(parse("bytes */7"), Some(ContentRange { bytes: None, total: 7 }));
    for wrong in [
        "",
        "bytes",
        "bytes 0-9",
        "bytes 0-9/*",
        "bytes 9-0/10",
        "bytes 0-10/10",
        "lines 0-9/10",
        "bytes +0-9/10",
        "bytes -1-9/10",
        "bytes 0-9/99999999999999999999",
        "bytes 0x0-9/10",
        "bytes -/10",
    ] {
        assert_eq!(parse(wrong), None, "{wrong}");
    }
}

fn version(etag: Option<&'static str>, modified: Option<&'static str>) -> Version {
    let mut headers = HeaderMap::new();
    for (name, value) in [(header::ETAG, etag), (header::LAST_MODIFIED, modified)] {
        if let Some(value) = value {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    Version::of(&headers)
}

#[test]
fn a_version_is_told_by_its_tag_else_by_its_date() {
    let one = version(Some("\"one\""), Some("monday"));
    assert!(one.is(&version(Some("\"one\""), Some("tuesday"))));
    assert!(!one.is(&version(Some("\"two\""), Some("monday"))));
    assert!(!one.is(&version(None, Some("monday"))));
    let dated = version(Some("W/\"weak\""), Some("monday"));
    assert_eq!(dated.condition(), Some("monday"));
    assert!(dated.is(&version(None, Some("monday"))) && !dated.is(&version(None, Some("tuesday"))));
    assert!(!version(Some("W/\"weak\""), None).is_known() && !version(Some(""), None).is_known());
}

#[test]
fn an_address_shows_no_secrets_and_keeps_queries_apart() {
    let address = |text: &str| Address::parse(text).unwrap();
    let one = address("https://u:p@host:8443/a/b?token=x#part");
    assert_eq!(one.to_string(), "https://host:8443/a/b?...");
    assert_eq!(format!("{one:?}"), one.to_string());
    assert!(!one.key().contains("token") && one.is_secure() && !one.is_loopback());
    assert_eq!(one.key(), address("https://host:8443/a/b?token=x").key());
    assert_ne!(one.key(), address("https://host:8443/a/b?token=y").key());
    assert!(address("http://127.0.0.1/").is_loopback() && address("http://[::1]:80/").is_loopback());
    for wrong in ["", "host/a", "file:///etc", "http:///a", "https://", "http://a b/"] {
        assert!(Address::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn dates_are_read_in_all_three_forms() {
    for (text, seconds) in [
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
        ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
        ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
        ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
        ("Thu, 29 Feb 2024 23:59:60 GMT", Some(1_709_251_200)),
        ("Fri, 01-Mar-24 00:00:00 GMT", Some(1_709_251_200)),
        ("Thu, 01 Jan 1969 00:00:00 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 CET", None),
        ("Sun, 06 Nov 1994 24:00:00 GMT", None),
        ("Sun, 00 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nev 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49 GMT", None),
        ("Sun, 06 Nov 99999999999999999999 08:49:37 GMT", None),
        ("tomorrow", None),
        ("", None),
    ] {
        assert_eq!(date::parse(text), seconds, "{text}");
    }
}

#[test]
fn to_be_left_alone_is_asked_for_in_seconds_or_until_a_date() {
    let asked = |after: &'static str, now: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(after));
        if let Some(now) = now {
            headers.insert(header::DATE, HeaderValue::from_static(now));
        }
        retry_after(&headers).map(|wait| wait.as_secs())
    };
    let noon = "Sat, 01 Jan 2022 12:00:00 GMT";
    assert_eq!(asked("17", None), Some(17));
    // By the server's clock, wherever ours is.
    assert_eq!(asked("Sat, 01 Jan 2022 12:00:30 GMT", Some(noon)), Some(30));
    assert_eq!(asked("Sat, 01 Jan 2022 11:00:00 GMT", Some(noon)), Some(0));
    assert_eq!(asked(noon, None), Some(0));
    assert!(asked("Fri, 01 Jan 2199 00:00:00 GMT", None).unwrap() > 1_000_000);
    assert_eq!(asked("soon", Some(noon)), None);
}

#[test]
fn waiting_doubles_up_to_a_bound() {
    let (min, max) = (Duration::from_millis(100), Duration::from_secs(2));
    for (tries, full) in [(1, 100), (2, 200), (3, 400), (10, 2000), (u32::MAX, 2000)] {
        let wait = backoff(tries, min, max).as_millis() as u64;
        assert!((full * 3 / 4..=full * 5 / 4).contains(&wait), "{tries}: {wait}");
    }
}

#[test]
fn a_claim_that_is_dropped_frees_its_blocks() {
    let cache = Arc::new(Cache::new(4));
    let claim = cache.claim(3, 10, false);
    assert_eq!(claim.len(), 10);
    assert_eq!(cache.claim(0, 10, false).len(), 3, "up to what is known");
    assert_eq!(cache.claim(5, 1, false).len(), 0);
    let Found::Coming(coming) = cache.find(5) else { panic!("it is on its way") };
    drop(claim);
    assert!(coming.wait().unwrap().is_err());
    assert!(matches!(cache.find(5), Found::Nothing));
}

#[test]
fn blocks_arrive_one_by_one() {
    let cache = Arc::new(Cache::new(4));
    let mut claim = cache.claim(0, 2, false);
    let Found::Coming(second) = cache.find(1) else { panic!("it is on its way") };
    claim.deliver(&Arc::from(&b"first"[..]));
    let Found::Here(first) = cache.find(0) else { panic!("it is here") };
    assert_eq!(&first[..], b"first");
    claim.fail(&Error::denied("no"));
    assert_eq!(second.wait().unwrap().unwrap_err().kind(), chart::Kind::Denied);
    // Of what was fetched ahead a failure says only: fetch it yourself.
    let claim = cache.claim(1, 1, true);
    let Found::Coming(ahead) = cache.find(1) else { panic!("it is on its way") };
    claim.fail(&Error::denied("no"));
    assert!(ahead.wait().is_none());
}
