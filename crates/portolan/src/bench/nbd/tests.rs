//! Against our own server, and against servers that follow a script instead of the protocol.

use super::*;
use crate::bench::Pattern;
use chart::{Kind, Source, Wait};
use io::memory::Memory;
use io::nbd::wire::{
    Chunk, ChunkFlags, ChunkKind, Code, ErrorChunk, ExportNameReply, Greeting, HandshakeFlags, Hole, Opt,
    OptionHeader, OptionReply, Rep, Request, SimpleReply,
};
use serve::Export as Served;
use serve::nbd::{Config, Listener, Server};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const LEN: u64 = 1 << 20;

fn address(path: &std::path::Path) -> String {
    format!("nbd+unix:///?socket={}", path.display())
}

/// Serves `memory`, writable or not, while `act` is at it.
fn served(memory: &Arc<Memory>, writable: bool, act: impl FnOnce(&str)) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let source: Arc<dyn Source> = Arc::clone(memory) as Arc<dyn Source>;
    let disk = format::raw::open(source, writable).unwrap();
    let server = Server::start(Config::new(vec![Served::new("", disk)])).unwrap();
    let listeners = [Listener::unix(&path).unwrap()];
    std::thread::scope(|scope| {
        let listening = scope.spawn(|| server.listen(&listeners));
        act(&address(&path));
        server.stop();
        listening.join().unwrap().unwrap();
    });
    server.finish().unwrap();
}

#[test]
fn a_server_is_loaded_and_what_was_written_is_known_again() {
    let memory = Arc::new(Memory::new("m", LEN));
    served(&memory, true, |address| {
        let all = Load { pattern: Pattern::Sequential, operations: Some(256), depth: 7, ..Load::default() };
        let write = Load { write: true, flush_every: Some(10), ..all };
        let outcome = bench(address, &write, Watch::default()).unwrap();
        assert_eq!((outcome.operations, outcome.bytes), (256, LEN));
        assert!((24..=26).contains(&outcome.flushes), "{}", outcome.flushes);
        for (depth, connections, structured) in [(1, 1, false), (64, 3, false), (5, 2, true)] {
            let read = Load { verify: true, operations: Some(2000), depth, connections, structured, ..all };
            for pattern in [Pattern::Sequential, Pattern::Random(None)] {
                let outcome = bench(address, &Load { pattern, ..read }, Watch::default()).unwrap();
                assert_eq!((outcome.operations, outcome.bytes, outcome.flushes), (2000, 2000 << 12, 0));
                assert!(outcome.latency.p50 > 0 && outcome.latency.p50 <= outcome.latency.max);
            }
        }
        // The disk is read as the generator wrote it.
        let spec = crate::Spec::parse(address).unwrap();
        let read = Load { verify: true, depth: 3, ..all };
        crate::bench::bench(&spec, &crate::Options::default(), &read, Watch::default()).unwrap();
        let mut first = [0; 4096];
        memory.read_at(0, &mut first, Wait::Allowed).unwrap();
        first[4095] ^= 1;
        memory.write_at(8192, &first, Wait::Allowed).unwrap();
        let error = bench(address, &read, Watch::default()).unwrap_err();
        assert_eq!((error.kind(), error.offset()), (Kind::Corrupt, Some(8192)));
    });
}

#[test]
fn sizes_from_a_byte_to_more_than_a_socket_holds() {
    let memory = Arc::new(Memory::new("m", 8 << 20));
    served(&memory, true, |address| {
        for size in [1, 9, 512, 65_537, 1 << 20] {
            let load = Load {
                pattern: Pattern::Sequential,
                size,
                depth: 40,
                operations: Some(50),
                ..Load::default()
            };
            let load = Load { within: Some(size * 50).filter(|len| *len <= 8 << 20), ..load };
            bench(address, &Load { write: true, ..load }, Watch::default()).unwrap();
            bench(address, &Load { verify: true, ..load }, Watch::default()).unwrap();
            bench(address, &Load { verify: true, structured: true, ..load }, Watch::default()).unwrap();
            for structured in [false, true] {
                let outcome = bench(address, &Load { structured, ..load }, Watch::default()).unwrap();
                assert_eq!((outcome.operations, outcome.bytes), (50, 50 * size));
            }
        }
    });
}

#[test]
fn a_load_ends_in_time() {
    let memory = Arc::new(Memory::new("m", LEN));
    served(&memory, false, |address| {
        let load = Load { time: Duration::from_millis(200), depth: 16, connections: 2, ..Load::default() };
        let outcome = bench(address, &load, Watch::default()).unwrap();
        assert!((0.2..5.0).contains(&outcome.seconds) && outcome.operations > 100, "{outcome:?}");
        let error = bench(address, &Load { write: true, ..load }, Watch::default()).unwrap_err();
        assert_eq!(error.kind(), Kind::ReadOnly);
        assert!(bench(address, &Load { size: 64 << 20, ..load }, Watch::default()).is_err());
        let cancel = AtomicBool::new(true);
        let watch = Watch { cancel: Some(&cancel), progress: None };
        assert_eq!(bench(address, &load, watch).unwrap_err().kind(), Kind::Conflict);
    });
}

fn read_exact<const N: usize>(stream: &mut UnixStream) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).ok().map(|()| bytes)
}

/// An honest handshake, the old way where that is short.
fn shake_hands(stream: &mut UnixStream) {
    let mut out = Vec::new();
    Greeting { flags: HandshakeFlags::FIXED_NEWSTYLE | HandshakeFlags::NO_ZEROES }.put(&mut out);
    stream.write_all(&out).unwrap();
    read_exact::<4>(stream).unwrap();
    loop {
        let header = OptionHeader::parse(&read_exact(stream).unwrap()).unwrap();
        let mut payload = vec![0; header.len as usize];
        stream.read_exact(&mut payload).unwrap();
        let mut out = Vec::new();
        if header.option == Opt::EXPORT_NAME {
            let flags = TransmissionFlags::HAS_FLAGS;
            ExportNameReply { size: LEN, flags }.put(true, &mut out);
            stream.write_all(&out).unwrap();
            return;
        }
        let consent = header.option == Opt::STRUCTURED_REPLY;
        let reply = if consent { Rep::ACK } else { Rep::ERR_UNSUP };
        OptionReply::put(header.option, reply, &[], &mut out).unwrap();
        stream.write_all(&out).unwrap();
    }
}

/// What becomes of two reads at once when the server answers the first with `reply`.
fn answered(structured: bool, reply: impl FnOnce(Request) -> Vec<u8> + Send) -> Error {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            shake_hands(&mut stream);
            let request = read_exact::<{ Request::COMPACT_LEN }>(&mut stream).unwrap();
            let request = Request::parse(Headers::Simple, &request).unwrap();
            stream.write_all(&reply(request)).unwrap();
            // A client that is not told more gives up by itself, or is at its end.
        });
        let load = Load { depth: 2, operations: Some(2), verify: true, structured, ..Load::default() };
        bench(&address(&path), &load, Watch::default()).unwrap_err()
    })
}

fn simple(code: Code, cookie: u64) -> Vec<u8> {
    let mut out = Vec::new();
    SimpleReply { code, cookie }.put(&mut out);
    out
}

fn chunk(kind: ChunkKind, cookie: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let len = u32::try_from(payload.len()).unwrap();
    Chunk { flags: ChunkFlags::DONE, kind, cookie, offset: 0, len }.put(Headers::Structured, &mut out);
    out.extend_from_slice(payload);
    out
}

#[test]
fn servers_that_lie_are_told_from_those_that_fail() {
    let error = answered(false, |r| simple(Code::EIO, r.cookie));
    assert_eq!(error.kind(), Kind::Io);
    assert!(error.to_string().contains("EIO"), "{error}");
    assert_eq!(answered(false, |r| simple(Code::OK, r.cookie + 2)).kind(), Kind::Corrupt);
    assert_eq!(answered(false, |_| vec![7; 100]).kind(), Kind::Corrupt);
    assert_eq!(answered(false, |_| Vec::new()).kind(), Kind::Unavailable);
    let wrong = |r: Request| [simple(Code::OK, r.cookie), vec![1; 4096]].concat();
    assert_eq!(answered(false, wrong).kind(), Kind::Corrupt);
    let twice = |r: Request| [simple(Code::EIO, r.cookie), simple(Code::EIO, r.cookie)].concat();
    assert_eq!(answered(false, twice).kind(), Kind::Io);
}

#[test]
fn chunks_that_lie_are_errors() {
    let told = |kind, payload: Vec<u8>| answered(true, move |r| chunk(kind, r.cookie, &payload));
    let mut message = Vec::new();
    let error = ErrorChunk { code: Code::EIO, message: "worn out".to_owned(), offset: None };
    error.put(&mut message).unwrap();
    let error = told(ChunkKind::ERROR, message);
    assert!(error.kind() == Kind::Io && error.to_string().contains("worn out"), "{error}");
    // Nothing, although something was asked for; too little; nothing at all; nonsense.
    assert_eq!(told(ChunkKind::NONE, Vec::new()).kind(), Kind::Corrupt);
    assert_eq!(told(ChunkKind::OFFSET_DATA, vec![0; 8]).kind(), Kind::Corrupt);
    assert_eq!(told(ChunkKind::BLOCK_STATUS, vec![0; 8]).kind(), Kind::Corrupt);
    let outside = answered(true, |r| {
        let payload = [&(r.offset + 1).to_be_bytes()[..], &[0; 4096]].concat();
        chunk(ChunkKind::OFFSET_DATA, r.cookie, &payload)
    });
    assert_eq!(outside.kind(), Kind::Corrupt);
    let hole = answered(true, |r| {
        let mut payload = Vec::new();
        Hole { offset: r.offset, len: 4096 }.put(&mut payload);
        chunk(ChunkKind::OFFSET_HOLE, r.cookie, &payload)
    });
    assert_eq!((hole.kind(), hole.offset().is_some()), (Kind::Corrupt, true));
}
