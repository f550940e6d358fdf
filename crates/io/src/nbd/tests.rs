use super::*;
use crate::nbd::status::{StatusCache, runs};
use crate::nbd::wire::StatusExtent;
use chart::Kind;
use std::path::PathBuf;

#[test]
fn addresses_of_the_specification() {
    let name = |text: &str| Uri::parse(text).unwrap().export;
    assert_eq!(name("nbd://example.com/disk"), "disk");
    assert_eq!(name("nbd+unix:///disk?socket=sock"), "disk");
    assert_eq!(name("nbd://example.com/"), "");
    assert_eq!(name("nbd://example.com"), "");
    assert_eq!(name("nbd://example.com//disk"), "/disk");
    assert_eq!(name("nbd://example.com/hello%20world"), "hello world");
    let tcp = |text: &str| match Uri::parse(text).unwrap().endpoint {
        Endpoint::Tcp { host, port } => (host, port),
        Endpoint::Unix(path) => panic!("{path:?}"),
    };
    assert_eq!(tcp("nbd://example.com"), ("example.com".into(), 10809));
    assert_eq!(tcp("nbd://[::1]:99/x"), ("::1".into(), 99));
    assert_eq!(tcp("nbds://h:1"), ("h".into(), 1));
    assert_eq!(tcp("nbd:///x"), ("localhost".into(), 10809));
    let uri = Uri::parse("nbd+unix:///?socket=%00/abstract").unwrap();
    assert_eq!(uri.endpoint, Endpoint::Unix(PathBuf::from("\0/abstract")));
}

#[test]
fn an_address_is_printed_as_it_can_be_parsed() {
    for text in [
        "nbd://example.com/",
        "nbd://[fe80::1]:7/a%20b",
        "nbds://h/x?tls-hostname=other&tls-certificates=/etc/pki",
        "nbd+unix:///disk?socket=/tmp/a%3Fb",
        "nbds+unix:///?socket=s&tls-certificates=d",
    ] {
        let uri = Uri::parse(text).unwrap();
        assert_eq!(uri.to_string(), text);
        assert_eq!(Uri::parse(&uri.to_string()).unwrap(), uri);
    }
    let other = Uri::parse("nbd://h/a").unwrap().with_export("b c");
    assert_eq!(other.to_string(), "nbd://h/b%20c");
    assert!(Uri::is_one("nbd+unix:///?socket=x") && !Uri::is_one("nbdx://h") && !Uri::is_one("/nbd:"));
}

#[test]
fn addresses_that_mean_nothing() {
    for text in [
        "nbd:example",
        "http://h/",
        "nbd+unix:///disk",
        "nbd+unix://host/disk?socket=s",
        "nbd://h/?socket=s",
        "nbd://h:0/",
        "nbd://h:77777/",
        "nbd://h/%4",
        "nbd://h/%zz",
        "nbd://h/%00",
        "nbd://h/?colour=red",
        "nbd://h/?tls-hostname=x",
    ] {
        let error = Uri::parse(text).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{text}: {error}");
    }
    for text in ["nbds://h/?tls-verify-peer=0", "nbds://h/?tls-type=psk", "nbd://user@h/"] {
        assert_eq!(Uri::parse(text).unwrap_err().kind(), Kind::Unsupported, "{text}");
    }
}

#[test]
fn extents_become_runs_that_end_with_the_export() {
    let extent = |len, status| StatusExtent { len, status };
    let found = runs(100, 1000, &[extent(10, 3), extent(10, 2), extent(5, 1), extent(u64::MAX, 0)]);
    // A hole that does not promise zeroes counts as data.
    assert_eq!(found, [(120, false), (1000, true)]);
    assert_eq!(runs(0, 5, &[extent(5, 0), extent(u64::MAX, 3)]), [(5, true)]);
}

#[test]
fn an_answer_that_a_write_overtook_is_not_kept() {
    let cache = StatusCache::default();
    let before = cache.generation();
    cache.forget();
    cache.keep(before, 0, vec![(10, false)]);
    assert_eq!(cache.look(0, 5), None);
    cache.keep(cache.generation(), 4, vec![(10, false), (20, true)]);
    assert_eq!(cache.look(3, 5), None);
    assert_eq!(cache.look(4, 3).map(|r| (r.len, r.data)), Some((3, false)));
    assert_eq!(cache.look(9, 3).map(|r| (r.len, r.data)), Some((1, false)));
    assert_eq!(cache.look(10, 100).map(|r| (r.len, r.data)), Some((10, true)));
    assert_eq!(cache.look(20, 1), None);
}
