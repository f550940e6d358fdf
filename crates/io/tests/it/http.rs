//! The HTTP source against a server that does as the test says.

pub(crate) mod server;

use chart::{Kind, Source, Wait};
use io::http::{Options, Ranged};
use server::{Act, Seen, Server, pattern};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const BLOCK: u32 = 4096;

/// Short limits, small blocks, nothing read ahead.
fn options() -> Options {
    Options {
        connect_timeout: Duration::from_secs(2),
        timeout: Duration::from_millis(400),
        request_timeout: Duration::from_secs(5),
        tries: 4,
        patience: Duration::from_secs(5),
        block: BLOCK,
        cache: 16 * u64::from(BLOCK),
        read_ahead: 0,
        ..Options::default()
    }
}

fn open(server: &Server) -> Ranged {
    Ranged::open(&server.url(), &options()).unwrap()
}

fn refused(server: &Server) -> chart::Error {
    Ranged::open(&server.url(), &options()).err().unwrap()
}

fn read(source: &Ranged, offset: u64, len: usize) -> chart::Result<Vec<u8>> {
    let mut buf = vec![0xa5; len];
    source.read_at(offset, &mut buf, Wait::Allowed).map(|()| buf)
}

#[test]
fn every_range_reads_as_it_is() {
    let object = pattern(300_001);
    for read_ahead in [0, 16 << 10] {
        let server = Server::new(object.clone(), |_| Act::Serve);
        let source = Ranged::open(&server.url(), &Options { read_ahead, ..options() }).unwrap();
        assert_eq!(source.len(), 300_001);
        let mut seed = 88172645463325252u64;
        for _ in 0..300 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let offset = seed % 300_001;
            let len = ((seed >> 32) % 20_000).min(300_001 - offset);
            let found = read(&source, offset, len as usize).unwrap();
            assert!(found == object[offset as usize..(offset + len) as usize], "{offset} {len}");
        }
        assert!(read(&source, 0, 300_001).unwrap() == object);
        assert_eq!(read(&source, 300_000, 2).unwrap_err().kind(), Kind::OutOfRange);
        assert_eq!(source.write_at(0, &[1], Wait::Allowed).unwrap_err().kind(), Kind::ReadOnly);
    }
}

#[test]
fn never_is_answered_from_the_cache() {
    let server = Server::new(pattern(100_000), |_| Act::Serve);
    let source = open(&server);
    let limits = source.limits();
    assert!(limits.never && limits.read_only);
    let mut buf = [0; 100];
    source.read_at(10, &mut buf, Wait::Never).unwrap();
    assert_eq!(buf[..], pattern(100_000)[10..110]);
    assert!(source.read_at(50_000, &mut buf, Wait::Never).unwrap_err().is_would_block());
    read(&source, 50_000, 10).unwrap();
    let before = source.counts();
    source.read_at(50_000, &mut buf, Wait::Never).unwrap();
    assert_eq!(source.counts(), before);
}

#[test]
fn the_cache_is_bounded_and_least_recently_used_goes_first() {
    let server = Server::new(pattern(100 * 4096), |_| Act::Serve);
    let source = open(&server);
    for block in 0..100 {
        read(&source, block * 4096, 1).unwrap();
        // Kept warm throughout.
        read(&source, 0, 1).unwrap();
    }
    let here = (0..100u64).filter(|b| source.read_at(b * 4096, &mut [0], Wait::Never).is_ok()).count();
    assert_eq!(here, 16);
    source.read_at(0, &mut [0], Wait::Never).unwrap();
    assert_eq!(source.counts().requests, 100);
}

#[test]
fn empty_objects_and_servers_without_ranges() {
    let source = open(&Server::new(Vec::new(), |_| Act::Serve));
    assert_eq!(source.len(), 0);
    read(&source, 0, 0).unwrap();
    let error = refused(&Server::new(pattern(10_000), |_| Act::Whole));
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    let error = refused(&Server::new(pattern(10_000), |_| Act::Status(404, "")));
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    let error = refused(&Server::new(pattern(10_000), |_| Act::Status(403, "")));
    assert_eq!(error.kind(), Kind::Denied, "{error}");
}

#[test]
fn an_object_without_a_version_has_to_be_allowed() {
    let server = Server::new(pattern(10_000), |_| Act::Serve).with_headers("ETag: W/\"weak\"\r\n");
    let error = refused(&server);
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    let source = Ranged::open(&server.url(), &Options { allow_unpinned: true, ..options() }).unwrap();
    assert!(read(&source, 0, 10_000).unwrap() == pattern(10_000));
}

#[test]
fn a_changed_object_is_a_conflict_however_the_server_says_so() {
    // By the tag of a part, by the whole, by a refusal, by the length, by the date alone.
    let tagged = "ETag: \"two\"\r\n";
    for (name, headers, act) in [
        ("tag", "ETag: \"one\"\r\n", Act::With(tagged)),
        ("whole", "ETag: \"one\"\r\n", Act::WholeWith(tagged)),
        ("no tag", "ETag: \"one\"\r\n", Act::With("")),
        ("refusal", "ETag: \"one\"\r\n", Act::Status(412, tagged)),
        ("length", "ETag: \"one\"\r\n", Act::Longer),
        (
            "date",
            "Last-Modified: Sat, 01 Jan 2022 00:00:00 GMT\r\n",
            Act::With("Last-Modified: Sat, 01 Jan 2022 00:00:01 GMT\r\n"),
        ),
    ] {
        let server =
            Server::new(pattern(10_000), move |seen| if seen.number == 0 { Act::Serve } else { act })
                .with_headers(headers);
        let source = open(&server);
        let error = read(&source, 8192, 100).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict, "{name}: {error}");
        assert!(error.to_string().contains("127.0.0.1"), "{name}: {error}");
        assert_eq!(source.counts().requests, 2, "{name}: a change is not retried");
    }
}

#[test]
fn a_change_in_the_middle_of_one_answer_and_its_retry_is_never_mixed() {
    // The first answer breaks off; what the retry finds is another version.
    let server = Server::new(pattern(40_000), |seen| match seen.number {
        0 => Act::Serve,
        1 => Act::Truncate(5000),
        _ => Act::With("ETag: \"two\"\r\n"),
    });
    let source = open(&server);
    let error = read(&source, 8192, 20_000).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
}

#[test]
fn a_date_need_not_be_repeated_with_the_part() {
    let server =
        Server::new(pattern(10_000), |seen| if seen.number == 0 { Act::Serve } else { Act::With("") })
            .with_headers("Last-Modified: Sat, 01 Jan 2022 00:00:00 GMT\r\n");
    let source = open(&server);
    assert!(read(&source, 0, 10_000).unwrap() == pattern(10_000));
}

#[test]
fn a_server_that_misreads_if_range_is_asked_without() {
    let server =
        Server::new(pattern(50_000), |seen| if seen.has("if-range") { Act::Whole } else { Act::Serve });
    let source = open(&server);
    assert!(read(&source, 0, 50_000).unwrap() == pattern(50_000));
    // It ceases to serve ranges at all.
    let server = Server::new(pattern(50_000), |seen| if seen.number == 0 { Act::Serve } else { Act::Whole });
    let error = read(&open(&server), 20_000, 1).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
}

#[test]
fn what_can_pass_is_tried_again() {
    for act in [
        Act::Status(503, ""),
        Act::Status(429, "Retry-After: 1\r\n"),
        Act::Status(500, ""),
        Act::Truncate(100),
        Act::Close,
        Act::WrongRange,
        Act::WrongLength,
        Act::Garbage,
        Act::Stall,
    ] {
        for bad in [0, 1] {
            let server =
                Server::new(pattern(10_000), move |seen| if seen.number == bad { act } else { Act::Serve });
            let source = Ranged::open(&server.url(), &options()).unwrap_or_else(|e| panic!("{act:?}: {e}"));
            let found = read(&source, 4096, 5000).unwrap_or_else(|e| panic!("{act:?}: {e}"));
            assert!(found == pattern(10_000)[4096..9096], "{act:?}");
            assert_eq!(source.counts().retries, 1, "{act:?}");
        }
    }
}

#[test]
fn a_truncated_answer_goes_on_where_it_ended() {
    let most = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&most);
    let server = Server::new(pattern(200_000), move |seen| {
        asked.fetch_add(seen.asked as usize, Ordering::Relaxed);
        if seen.number % 2 == 1 { Act::Truncate(30_000) } else { Act::Serve }
    });
    let source = open(&server);
    assert!(read(&source, 0, 200_000).unwrap() == pattern(200_000));
    assert!(most.load(Ordering::Relaxed) < 400_000, "what had come was asked for again");
}

#[test]
fn tries_are_bounded_and_a_failure_is_not_kept() {
    let down = Arc::new(AtomicU32::new(0));
    let is_down = Arc::clone(&down);
    let server = Server::new(pattern(10_000), move |_| {
        if is_down.load(Ordering::Relaxed) == 1 { Act::Status(503, "") } else { Act::Serve }
    });
    let source = open(&server);
    down.store(1, Ordering::Relaxed);
    let error = read(&source, 4096, 10).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("after 4 tries") && error.to_string().contains("503"), "{error}");
    assert_eq!(source.counts().requests, 5);
    down.store(0, Ordering::Relaxed);
    assert!(read(&source, 4096, 10).unwrap() == pattern(10_000)[4096..4106]);
}

#[test]
fn a_server_that_asks_for_too_much_patience_does_not_get_it() {
    let server = Server::new(pattern(10_000), |seen| {
        if seen.number == 0 { Act::Serve } else { Act::Status(503, "Retry-After: 3600\r\n") }
    });
    let source = open(&server);
    let began = Instant::now();
    assert_eq!(read(&source, 4096, 10).unwrap_err().kind(), Kind::Unavailable);
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_silent_server_is_an_error_soon_and_in_words() {
    let server = Server::new(pattern(10_000), |_| Act::Stall);
    let began = Instant::now();
    let error = refused(&server);
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    for word in ["after 2 tries", "connected", "not answered within 400ms"] {
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let usual = Options::default();
    assert_eq!((usual.timeout, usual.connect_timeout), (Duration::from_secs(10), Duration::from_secs(10)));
}

#[test]
fn a_try_ends_however_slowly_its_answer_goes_on() {
    let server = Server::new(pattern(10_000), |seen| match seen.number {
        0 => Act::Serve,
        _ => Act::Drip(Duration::from_millis(50)),
    });
    let hasty = Options { request_timeout: Duration::from_secs(1), tries: 2, ..options() };
    let source = Ranged::open(&server.url(), &hasty).unwrap();
    let began = Instant::now();
    let error = read(&source, 4096, 10).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(error.to_string().contains("not complete after 1s"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[test]
fn a_long_range_may_take_more_tries_than_a_short_one_as_long_as_it_goes_on() {
    let object = pattern(600_000);
    let server = Server::new(object.clone(), |seen| match seen.number {
        0 => Act::Serve,
        // Seven broken answers, where four tries are all that is allowed for nothing.
        _ => Act::Truncate(80_000),
    });
    let blocks = Options { block: 64 << 10, cache: 4 << 20, ..options() };
    let source = Ranged::open(&server.url(), &blocks).unwrap();
    assert!(read(&source, 65_536, 534_464).unwrap() == object[65_536..]);
    assert!(source.counts().retries >= 6, "{:?}", source.counts());
}

#[test]
fn a_server_that_asks_to_wait_until_a_date_is_waited_for() {
    let server = Server::new(pattern(10_000), |seen| match seen.number {
        1 => Act::Status(
            503,
            "Date: Sat, 01 Jan 2022 12:00:00 GMT\r\nRetry-After: Sat, 01 Jan 2022 12:00:01 GMT\r\n",
        ),
        _ => Act::Serve,
    });
    let source = open(&server);
    let began = Instant::now();
    assert!(read(&source, 4096, 10).unwrap() == pattern(10_000)[4096..4106]);
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[test]
fn readers_of_one_block_share_one_fetch() {
    let server = Server::new(pattern(100_000), |_| Act::Slow(Duration::from_millis(100)));
    let source = open(&server);
    let before = source.counts().requests;
    std::thread::scope(|scope| {
        for i in 0..16 {
            let source = &source;
            scope.spawn(move || {
                assert!(
                    read(source, 40_960 + i, 100).unwrap() == pattern(100_000)[40_960 + i as usize..][..100]
                );
            });
        }
    });
    assert_eq!(source.counts().requests - before, 1);
}

#[test]
fn a_failing_fetch_fails_all_who_wait_for_it_and_nobody_later() {
    let server = Server::new(pattern(100_000), |seen| match seen.number {
        1 => Act::Status(403, ""),
        _ => Act::Slow(Duration::from_millis(100)),
    });
    let source = open(&server);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                if let Err(e) = read(&source, 40_960, 10) {
                    assert_eq!(e.kind(), Kind::Denied, "{e}");
                }
            });
        }
    });
    assert!(read(&source, 40_960, 10).unwrap() == pattern(100_000)[40_960..40_970]);
}

#[test]
fn a_sequential_reader_is_read_ahead_of() {
    let object = pattern(4 << 20);
    let plain = {
        let server = Server::new(object.clone(), |_| Act::Serve);
        let source = open(&server);
        for offset in (0..object.len() as u64).step_by(4096) {
            assert!(read(&source, offset, 4096).unwrap() == object[offset as usize..][..4096]);
        }
        source.counts().requests
    };
    let server = Server::new(object.clone(), |_| Act::Slow(Duration::from_millis(1)));
    let ahead = Options { read_ahead: 64 << 10, cache: 1 << 20, ..options() };
    let source = Ranged::open(&server.url(), &ahead).unwrap();
    for offset in (0..object.len() as u64).step_by(4096) {
        assert!(read(&source, offset, 4096).unwrap() == object[offset as usize..][..4096]);
    }
    assert!(source.counts().requests * 4 < plain, "{} against {plain}", source.counts().requests);
}

#[test]
fn what_is_read_ahead_may_fail_without_anyone_knowing() {
    let object = pattern(1 << 20);
    // Every request of more than one block fails: those that read ahead.
    let server =
        Server::new(object.clone(), |seen| if seen.asked > 4096 { Act::Status(500, "") } else { Act::Serve });
    let ahead = Options { read_ahead: 64 << 10, cache: 1 << 20, ..options() };
    let source = Ranged::open(&server.url(), &ahead).unwrap();
    for offset in (0..200 * 4096u64).step_by(4096) {
        assert!(read(&source, offset, 4096).unwrap() == object[offset as usize..][..4096]);
    }
}

#[test]
fn redirects_are_followed_boundedly() {
    let target = Server::new(pattern(50_000), |_| Act::Serve);
    let to = target.url();
    let server = Server::new(Vec::new(), move |_| Act::Redirect).with_headers(&format!("Location: {to}\r\n"));
    let source = open(&server);
    assert!(read(&source, 0, 50_000).unwrap() == pattern(50_000));
    let server = Server::new(Vec::new(), |_| Act::Redirect).with_headers("Location: /again\r\n");
    let error = refused(&server);
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
}

#[test]
fn credentials_are_sent_and_never_shown() {
    let elsewhere = Server::new(pattern(10_000), |seen| {
        if seen.has("authorization") { Act::Status(400, "") } else { Act::Serve }
    });
    let location = format!("Location: {}\r\n", elsewhere.url());
    let server = Server::new(pattern(10_000), |_| Act::Status(401, ""));
    let url = server.url().replace("//", "//bob:s3cret@") + "?signature=abcdef";
    let error = Ranged::open(&url, &options()).err().unwrap();
    assert_eq!(error.kind(), Kind::Denied, "{error}");
    for secret in ["s3cret", "abcdef", "bob"] {
        assert!(!error.to_string().contains(secret), "{error}");
    }
    let server = Server::new(pattern(10_000), |seen: &Seen| {
        if seen.headers.contains("Basic Ym9iOnMzY3JldA==") { Act::Serve } else { Act::Status(401, "") }
    });
    let url = server.url().replace("//", "//bob:s3cret@") + "?signature=abcdef";
    let source = Ranged::open(&url, &options()).unwrap();
    for secret in ["s3cret", "abcdef", "bob"] {
        assert!(!source.name().contains(secret), "{}", source.name());
        assert!(!format!("{:?}", source.identity()).contains(secret));
    }
    // Nor are they sent on to whom the server names.
    let server = Server::new(Vec::new(), |_| Act::Redirect).with_headers(&location);
    let url = server.url().replace("//", "//bob:s3cret@");
    assert!(read(&Ranged::open(&url, &options()).unwrap(), 0, 10).unwrap() == pattern(10_000)[..10]);
    for bad in ["http://user:s3cret@", "ftp://u:s3cret@h/", "http://[s3cret", "s3cret"] {
        let error = Ranged::open(bad, &options()).err().unwrap();
        assert!(error.kind() == Kind::Invalid && !error.to_string().contains("s3cret"), "{error}");
    }
}

#[test]
fn identity_is_the_address_and_the_version() {
    let server = Server::new(pattern(10_000), |_| Act::Serve);
    let (one, two) = (open(&server), open(&server));
    assert_eq!(one.identity(), two.identity());
    let other = Ranged::open(&(server.url() + "?version=2"), &options()).unwrap();
    assert_ne!(one.identity(), other.identity());
    let newer = Server::new(pattern(10_000), |_| Act::Serve).with_headers("ETag: \"two\"\r\n");
    assert_ne!(one.identity(), open(&newer).identity());
}

#[test]
fn nobody_there_is_an_error_in_bounded_time() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let began = Instant::now();
    let error = Ranged::open(&format!("http://127.0.0.1:{port}/x"), &options()).err().unwrap();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn https_with_a_certificate_of_our_own() {
    if !testkit::peer::require(&["openssl"]) {
        return;
    }
    let directory = tempfile::TempDir::new().unwrap();
    let ca = server::tls::certificates(directory.path());
    let server = Server::tls(pattern(100_000), directory.path());
    let trusting = Options { ca: Some(ca), ..options() };
    let source = Ranged::open(&server.url(), &trusting).unwrap();
    assert!(read(&source, 0, 100_000).unwrap() == pattern(100_000));
    let error = refused(&server);
    assert_eq!(error.kind(), Kind::Denied, "{error}");
    let downgrade = Server::tls(Vec::new(), directory.path()).with_act(|_| Act::Redirect);
    let downgrade = downgrade.with_headers("Location: http://127.0.0.1:1/\r\n");
    let error = Ranged::open(&downgrade.url(), &trusting).err().unwrap();
    assert!(error.kind() == Kind::Denied && error.to_string().contains("https to http"), "{error}");
}
