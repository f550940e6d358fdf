//! Servers that follow a script instead of the protocol. Everything must end soon, with an error.

use super::options;
use chart::{Kind, Source, Wait};
use io::nbd::wire::{
    BlockStatus, Chunk, ChunkFlags, ChunkKind, Code, Command, ExportInfo, Greeting, HandshakeFlags, Headers,
    Opt, OptionHeader, OptionReply, Rep, Request, SimpleReply, StatusExtent, TransmissionFlags,
};
use io::nbd::{Client, Options};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

const SIZE: u64 = 1 << 20;

/// Runs `script` for one connection and hands `act` the address.
fn with_server(script: impl FnOnce(&mut UnixStream) + Send + 'static, act: impl FnOnce(&str)) {
    with_servers(vec![Box::new(script)], act);
}

type Script = Box<dyn FnOnce(&mut UnixStream) + Send>;

/// Runs a script for each connection, one after the other.
fn with_servers(scripts: Vec<Script>, act: impl FnOnce(&str)) {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        for script in scripts {
            let (mut stream, _) = listener.accept().unwrap();
            let limit = Some(Duration::from_secs(5));
            stream.set_read_timeout(limit).unwrap();
            stream.set_write_timeout(limit).unwrap();
            script(&mut stream);
        }
    });
    let began = Instant::now();
    act(&super::uri(&path));
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    server.join().unwrap();
}

fn impatient() -> Options {
    Options {
        timeout: Duration::from_millis(300),
        connect_timeout: Duration::from_millis(300),
        patience: Duration::ZERO,
        ..options()
    }
}

fn read_exact<const N: usize>(stream: &mut UnixStream) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).ok().map(|()| bytes)
}

fn greet(stream: &mut UnixStream) {
    let mut out = Vec::new();
    Greeting { flags: HandshakeFlags::FIXED_NEWSTYLE | HandshakeFlags::NO_ZEROES }.put(&mut out);
    stream.write_all(&out).unwrap();
    let _ = read_exact::<4>(stream);
}

fn next_option(stream: &mut UnixStream) -> Option<Opt> {
    let header = OptionHeader::parse(&read_exact(stream)?).ok()?;
    let mut payload = vec![0; header.len as usize];
    stream.read_exact(&mut payload).ok()?;
    Some(header.option)
}

fn reply(stream: &mut UnixStream, option: Opt, reply: Rep, payload: &[u8]) {
    let mut out = Vec::new();
    OptionReply::put(option, reply, payload, &mut out).unwrap();
    let _ = stream.write_all(&out);
}

/// An honest handshake, up to the headers wanted.
fn shake_hands(stream: &mut UnixStream, headers: Headers) {
    greet(stream);
    while let Some(option) = next_option(stream) {
        match option {
            Opt::EXTENDED_HEADERS if headers == Headers::Extended => reply(stream, option, Rep::ACK, &[]),
            Opt::STRUCTURED_REPLY if headers != Headers::Simple => reply(stream, option, Rep::ACK, &[]),
            Opt::SET_META_CONTEXT => {
                reply(stream, option, Rep::META_CONTEXT, b"\0\0\0\x05base:allocation");
                reply(stream, option, Rep::ACK, &[]);
            }
            Opt::GO => {
                let mut info = Vec::new();
                let flags = TransmissionFlags::HAS_FLAGS | TransmissionFlags::SEND_FLUSH;
                ExportInfo::Export { size: SIZE, flags }.put(&mut info).unwrap();
                reply(stream, option, Rep::INFO, &info);
                reply(stream, option, Rep::ACK, &[]);
                return;
            }
            _ => reply(stream, option, Rep::ERR_UNSUP, &[]),
        }
    }
}

fn next_request(stream: &mut UnixStream, headers: Headers) -> Option<Request> {
    let mut bytes = vec![0; headers.request_len()];
    stream.read_exact(&mut bytes).ok()?;
    let request = Request::parse(headers, &bytes).unwrap();
    let mut payload = vec![0; request.payload_len(headers) as usize];
    stream.read_exact(&mut payload).ok()?;
    Some(request)
}

/// What a read of 4096 bytes at 8192 gives when the server answers with what `answer` makes.
fn read_answered(
    headers: Headers,
    answer: impl FnOnce(Request) -> Vec<u8> + Send + 'static,
) -> (Kind, String) {
    let mut seen = None;
    with_server(
        move |stream| {
            shake_hands(stream, headers);
            if let Some(request) = next_request(stream, headers) {
                let _ = stream.write_all(&answer(request));
            }
            // Until the client has had enough.
            let _ = stream.read_to_end(&mut Vec::new());
        },
        |uri| {
            let client = Client::open(uri, impatient()).unwrap();
            let failed = client.read_at(8192, &mut [0; 4096], Wait::Allowed).unwrap_err();
            seen = Some((failed.kind(), failed.to_string()));
        },
    );
    seen.unwrap()
}

fn chunk(headers: Headers, request: Request, kind: ChunkKind, last: bool, payload: &[u8]) -> Vec<u8> {
    let flags = ChunkFlags::DONE.only_if(last);
    let (cookie, offset) = (request.cookie, request.offset);
    let mut out = Vec::new();
    Chunk { flags, kind, cookie, offset, len: payload.len() as u32 }.put(headers, &mut out);
    out.extend_from_slice(payload);
    out
}

fn data(offset: u64, len: usize) -> Vec<u8> {
    [&offset.to_be_bytes()[..], &vec![1; len]].concat()
}

#[test]
fn garbage_and_silence_in_the_handshake() {
    let garbage: Vec<u8> = (0..4096u32).map(|i| (i * 31 % 251) as u8).collect();
    with_server(
        move |stream| {
            let _ = stream.write_all(&garbage);
        },
        |uri| assert_eq!(Client::open(uri, impatient()).err().unwrap().kind(), Kind::Corrupt),
    );
    with_server(
        |stream| {
            let _ = stream.read_to_end(&mut Vec::new());
        },
        |uri| assert_eq!(Client::open(uri, impatient()).err().unwrap().kind(), Kind::Unavailable),
    );
    // A byte now and then is no progress.
    with_server(
        |stream| {
            for byte in b"NBDMAGICIHAVEOPT" {
                std::thread::sleep(Duration::from_millis(50));
                if stream.write_all(&[*byte]).is_err() {
                    break;
                }
            }
        },
        |uri| assert_eq!(Client::open(uri, impatient()).err().unwrap().kind(), Kind::Unavailable),
    );
    with_server(
        |stream| stream.write_all(b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53\0\0").unwrap(),
        |uri| assert_eq!(Client::open(uri, impatient()).err().unwrap().kind(), Kind::Unsupported),
    );
}

#[test]
fn giant_and_endless_option_replies() {
    with_server(
        |stream| {
            greet(stream);
            let option = next_option(stream).unwrap();
            let mut out = Vec::new();
            OptionReply::put(option, Rep::ACK, &[], &mut out).unwrap();
            let at = out.len() - 4;
            out[at..].copy_from_slice(&u32::MAX.to_be_bytes());
            let _ = stream.write_all(&out);
        },
        |uri| assert_eq!(Client::open(uri, impatient()).err().unwrap().kind(), Kind::Corrupt),
    );
    with_server(
        |stream| {
            greet(stream);
            let option = next_option(stream).unwrap();
            let mut out = Vec::new();
            for _ in 0..1000 {
                OptionReply::put(option, Rep::INFO, &[0; 64], &mut out).unwrap();
            }
            while stream.write_all(&out).is_ok() {}
        },
        |uri| {
            let mut options = impatient();
            options.connect_timeout = Duration::from_secs(4);
            assert_eq!(Client::open(uri, options).err().unwrap().kind(), Kind::Corrupt);
        },
    );
    with_server(
        |stream| {
            greet(stream);
            next_option(stream).unwrap();
            reply(stream, Opt::LIST, Rep::ACK, &[]);
        },
        |uri| assert_eq!(Client::open(uri, impatient()).err().unwrap().kind(), Kind::Corrupt),
    );
}

#[test]
fn block_sizes_and_exports_that_make_no_sense() {
    for sizes in [[0u32, 0, 0], [3, 4096, 65536], [512, 512, 1], [1 << 31, 1 << 31, u32::MAX]] {
        with_server(
            move |stream| {
                greet(stream);
                while let Some(option) = next_option(stream) {
                    if option == Opt::GO {
                        let payload: Vec<u8> = [&[0, 3][..], &sizes.map(u32::to_be_bytes).concat()].concat();
                        reply(stream, option, Rep::INFO, &payload);
                        reply(stream, option, Rep::ACK, &[]);
                        return;
                    }
                    reply(stream, option, Rep::ERR_UNSUP, &[]);
                }
            },
            |uri| {
                assert_eq!(Client::open(uri, impatient()).err().unwrap().kind(), Kind::Corrupt, "{sizes:?}");
            },
        );
    }
}

#[test]
fn replies_that_were_not_asked_for() {
    for headers in [Headers::Simple, Headers::Structured, Headers::Extended] {
        let (kind, words) = read_answered(headers, move |request| {
            let other = Request { cookie: request.cookie ^ 77, ..request };
            if headers == Headers::Simple {
                let mut out = Vec::new();
                SimpleReply { code: Code::OK, cookie: other.cookie }.put(&mut out);
                return out;
            }
            chunk(headers, other, ChunkKind::NONE, true, &[])
        });
        assert_eq!(kind, Kind::Corrupt, "{words}");
        let (kind, words) = read_answered(headers, |_| vec![0x5a; 64]);
        assert_eq!(kind, Kind::Corrupt, "{words}");
    }
}

#[test]
fn chunks_that_lie_about_their_place_or_length() {
    use ChunkKind as K;
    let headers = Headers::Structured;
    type Answer = fn(Request) -> Vec<u8>;
    let lies: [(&str, Answer); 12] = [
        ("before", |r| chunk(Headers::Structured, r, K::OFFSET_DATA, true, &data(0, 4096))),
        ("behind", |r| chunk(Headers::Structured, r, K::OFFSET_DATA, true, &data(8192, 4097))),
        ("wrapping", |r| chunk(Headers::Structured, r, K::OFFSET_DATA, true, &data(u64::MAX - 4, 8))),
        ("empty data", |r| chunk(Headers::Structured, r, K::OFFSET_DATA, true, &data(8192, 0))),
        ("short data", |r| chunk(Headers::Structured, r, K::OFFSET_DATA, true, &[0; 4])),
        ("incomplete", |r| chunk(Headers::Structured, r, K::OFFSET_DATA, true, &data(8192, 4095))),
        ("twice", |r| {
            let one = chunk(Headers::Structured, r, K::OFFSET_DATA, false, &data(8192, 4000));
            [one.clone(), one].concat()
        }),
        ("no hole", |r| chunk(Headers::Structured, r, K::OFFSET_HOLE, true, &[0; 12])),
        ("long hole", |r| {
            let hole = [&8192u64.to_be_bytes()[..], &u32::MAX.to_be_bytes()].concat();
            chunk(Headers::Structured, r, K::OFFSET_HOLE, true, &hole)
        }),
        ("status", |r| chunk(Headers::Structured, r, K::BLOCK_STATUS, true, &[0; 12])),
        ("no error", |r| chunk(Headers::Structured, r, K::ERROR, true, &[0; 6])),
        ("a kind nobody knows", |r| chunk(Headers::Structured, r, ChunkKind(77), true, &[])),
    ];
    for (name, answer) in lies {
        let (kind, words) = read_answered(headers, answer);
        assert_eq!(kind, Kind::Corrupt, "{name}: {words}");
    }
    // Lengths that nothing follows: not believed, or waited for within the limit.
    for kind in [K::OFFSET_DATA, K::OFFSET_HOLE, K::BLOCK_STATUS, K::ERROR, K::NONE] {
        for headers in [Headers::Structured, Headers::Extended] {
            let (seen, words) = read_answered(headers, move |r| {
                let mut out = Vec::new();
                let flags = ChunkFlags::DONE;
                Chunk { flags, kind, cookie: r.cookie, offset: r.offset, len: u32::MAX }
                    .put(headers, &mut out);
                out
            });
            assert!(matches!(seen, Kind::Corrupt | Kind::Unavailable), "{kind}: {words}");
        }
    }
}

#[test]
fn a_stalled_reply_is_given_up() {
    let (kind, words) = read_answered(Headers::Simple, |request| {
        let mut out = Vec::new();
        SimpleReply { code: Code::OK, cookie: request.cookie }.put(&mut out);
        out.extend_from_slice(&[0; 4095]);
        out
    });
    assert_eq!(kind, Kind::Unavailable, "{words}");
    assert!(words.contains("in time"), "{words}");
}

#[test]
fn pieces_in_any_order_make_a_read() {
    with_server(
        |stream| {
            shake_hands(stream, Headers::Structured);
            let r = next_request(stream, Headers::Structured).unwrap();
            let hole = [&(8192u64 + 1024).to_be_bytes()[..], &1024u32.to_be_bytes()].concat();
            let h = Headers::Structured;
            for part in [
                chunk(h, r, ChunkKind::OFFSET_DATA, false, &data(8192 + 2048, 2048)),
                chunk(h, r, ChunkKind::OFFSET_DATA, false, &data(8192, 1024)),
                chunk(h, r, ChunkKind::OFFSET_HOLE, false, &hole),
                chunk(h, r, ChunkKind::NONE, true, &[]),
            ] {
                stream.write_all(&part).unwrap();
            }
            let _ = stream.read_to_end(&mut Vec::new());
        },
        |uri| {
            let client = Client::open(uri, impatient()).unwrap();
            let mut buf = [9; 4096];
            client.read_at(8192, &mut buf, Wait::Allowed).unwrap();
            let expected: Vec<u8> = [vec![1; 1024], vec![0; 1024], vec![1; 2048]].concat();
            assert_eq!(buf[..], expected);
        },
    );
}

#[test]
fn replies_out_of_order_reach_their_callers() {
    with_server(
        |stream| {
            shake_hands(stream, Headers::Simple);
            let mut requests: Vec<_> =
                (0..4).map(|_| next_request(stream, Headers::Simple).unwrap()).collect();
            requests.sort_by_key(|r| std::cmp::Reverse(r.offset));
            for r in requests {
                let mut out = Vec::new();
                SimpleReply { code: Code::OK, cookie: r.cookie }.put(&mut out);
                out.resize(out.len() + r.len as usize, (r.offset / 4096) as u8);
                stream.write_all(&out).unwrap();
            }
            let _ = stream.read_to_end(&mut Vec::new());
        },
        |uri| {
            let client = Client::open(uri, options()).unwrap();
            std::thread::scope(|scope| {
                for i in 0..4u64 {
                    let client = &client;
                    scope.spawn(move || {
                        let mut buf = [9; 4096];
                        client.read_at(i * 4096, &mut buf, Wait::Allowed).unwrap();
                        assert_eq!(buf, [i as u8; 4096]);
                    });
                }
            });
        },
    );
}

#[test]
fn a_write_lost_in_flight_latches() {
    with_server(
        |stream| {
            shake_hands(stream, Headers::Extended);
            let _ = next_request(stream, Headers::Extended);
        },
        |uri| {
            let client = Client::open(uri, impatient()).unwrap();
            let failed = client.write_at(0, &[1; 512], Wait::Allowed).unwrap_err();
            assert_eq!(failed.kind(), Kind::Unavailable, "{failed}");
            assert!(client.limits().read_only);
            assert_eq!(
                client.read_at(0, &mut [0; 512], Wait::Allowed).unwrap_err().kind(),
                Kind::Unavailable
            );
        },
    );
}

#[test]
fn a_server_going_away_is_left() {
    with_server(
        |stream| {
            shake_hands(stream, Headers::Simple);
            let r = next_request(stream, Headers::Simple).unwrap();
            let mut out = Vec::new();
            SimpleReply { code: Code::ESHUTDOWN, cookie: r.cookie }.put(&mut out);
            stream.write_all(&out).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        },
        |uri| {
            let client = Client::open(uri, impatient()).unwrap();
            let failed = client.read_at(0, &mut [0; 512], Wait::Allowed).unwrap_err();
            assert!(failed.to_string().contains("shutting down"), "{failed}");
        },
    );
}

#[test]
fn after_a_stall_the_next_request_reconnects() {
    let honest = |stream: &mut UnixStream| {
        shake_hands(stream, Headers::Simple);
        while let Some(r) = next_request(stream, Headers::Simple) {
            let mut out = Vec::new();
            SimpleReply { code: Code::OK, cookie: r.cookie }.put(&mut out);
            if r.command == Command::READ {
                out.resize(out.len() + r.len as usize, 7);
            }
            let _ = stream.write_all(&out);
        }
    };
    let stalled = |stream: &mut UnixStream| {
        shake_hands(stream, Headers::Simple);
        let _ = stream.read_to_end(&mut Vec::new());
    };
    with_servers(vec![Box::new(stalled), Box::new(honest)], |uri| {
        let client = Client::open(uri, impatient()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let failed = client.read_at(0, &mut [0; 512], Wait::Allowed).unwrap_err();
                    assert_eq!(failed.kind(), Kind::Unavailable, "{failed}");
                });
            }
        });
        let mut buf = [0; 512];
        client.read_at(0, &mut buf, Wait::Allowed).unwrap();
        assert_eq!(buf, [7; 512]);
        client.write_at(0, &buf, Wait::Allowed).unwrap();
        client.flush().unwrap();
    });
}

/// Answers honestly, but for one flipped bit.
fn serve_with_a_flip(stream: UnixStream, headers: Headers, flip: usize) {
    let mut stream = Flipping { stream, written: 0, flip };
    let mut talk = || -> std::io::Result<()> {
        let mut out = Vec::new();
        Greeting { flags: HandshakeFlags::FIXED_NEWSTYLE | HandshakeFlags::NO_ZEROES }.put(&mut out);
        stream.write_all(&out)?;
        stream.stream.read_exact(&mut [0; 4])?;
        while let Some(option) = next_option(&mut stream.stream) {
            let mut out = Vec::new();
            let mut put = |rep, payload: &[u8]| OptionReply::put(option, rep, payload, &mut out).unwrap();
            match option {
                Opt::EXTENDED_HEADERS if headers == Headers::Extended => put(Rep::ACK, &[]),
                Opt::STRUCTURED_REPLY if headers == Headers::Structured => put(Rep::ACK, &[]),
                Opt::SET_META_CONTEXT => {
                    put(Rep::META_CONTEXT, b"\0\0\0\x05base:allocation");
                    put(Rep::ACK, &[]);
                }
                Opt::GO => {
                    let mut info = Vec::new();
                    let flags = TransmissionFlags::HAS_FLAGS | TransmissionFlags::SEND_FLUSH;
                    ExportInfo::Export { size: SIZE, flags }.put(&mut info).unwrap();
                    put(Rep::INFO, &info);
                    put(Rep::INFO, &[&[0, 3, 0, 0, 2, 0, 0, 0, 16, 0, 0, 1, 0, 0][..]].concat());
                    put(Rep::ACK, &[]);
                }
                _ => put(Rep::ERR_UNSUP, b"no"),
            }
            stream.write_all(&out)?;
            if option == Opt::GO {
                break;
            }
        }
        while let Some(r) = next_request(&mut stream.stream, headers) {
            stream.write_all(&honest(headers, r))?;
        }
        Ok(())
    };
    let _ = talk();
}

fn honest(headers: Headers, r: Request) -> Vec<u8> {
    if headers == Headers::Simple {
        let mut out = Vec::new();
        SimpleReply { code: Code::OK, cookie: r.cookie }.put(&mut out);
        out.resize(out.len() + if r.command == Command::READ { r.len as usize } else { 0 }, 1);
        return out;
    }
    match r.command {
        Command::READ => {
            let half = r.len / 2;
            let hole =
                [&(r.offset + half).to_be_bytes()[..], &((r.len - half) as u32).to_be_bytes()].concat();
            let first = chunk(headers, r, ChunkKind::OFFSET_DATA, false, &data(r.offset, half as usize));
            [first, chunk(headers, r, ChunkKind::OFFSET_HOLE, true, &hole)].concat()
        }
        Command::BLOCK_STATUS => {
            let mut payload = Vec::new();
            let extents = vec![StatusExtent { len: r.len, status: 3 }];
            BlockStatus { context: 5, extents }.put(headers, &mut payload).unwrap();
            chunk(headers, r, BlockStatus::kind(headers), true, &payload)
        }
        _ => chunk(headers, r, ChunkKind::NONE, true, &[]),
    }
}

/// Flips a bit of what is written through it.
struct Flipping {
    stream: UnixStream,
    written: usize,
    flip: usize,
}

impl Flipping {
    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut bytes = bytes.to_vec();
        if let Some(byte) = (self.flip / 8).checked_sub(self.written).and_then(|i| bytes.get_mut(i)) {
            *byte ^= 1 << (self.flip % 8);
        }
        self.written += bytes.len();
        self.stream.write_all(&bytes)
    }
}

#[test]
fn one_flipped_bit_anywhere_ends_soon_and_without_panic() {
    let mut rng = super::Rng(99);
    let flips: Vec<(usize, usize)> = (0..240).map(|i| (i % 3, rng.below(1100 * 8) as usize)).collect();
    std::thread::scope(|scope| {
        for part in flips.chunks(15) {
            scope.spawn(move || {
                for &(kind, flip) in part {
                    let headers = [Headers::Simple, Headers::Structured, Headers::Extended][kind];
                    converse(headers, flip);
                }
            });
        }
    });
}

fn converse(headers: Headers, flip: usize) {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        drop(listener);
        serve_with_a_flip(stream, headers, flip);
    });
    let began = Instant::now();
    let limits = Options { timeout: Duration::from_millis(150), ..impatient() };
    if let Ok(client) = Client::open(&super::uri(&path), limits) {
        for offset in [0, 8192] {
            let _ = client.read_at(offset, &mut [0; 300], Wait::Allowed);
            if let Ok(run) = client.data_at(offset, 4096) {
                assert!((1..=4096).contains(&run.len));
            }
        }
        let _ = client.write_at(100, &[1; 1000], Wait::Allowed);
        let _ = client.flush();
    }
    assert!(began.elapsed() < Duration::from_secs(3), "{headers:?} {flip}: {:?}", began.elapsed());
    server.join().unwrap();
}
