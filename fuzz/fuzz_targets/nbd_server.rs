//! A client of the NBD server that says anything: it is answered or left, soon, and what it is told is well formed.
//!
//! The first byte chooses how the rest is said. As it is, from the first byte after the greeting on; or behind a sound
//! handshake, with one of the three kinds of headers; or as requests, so that the fuzzer need not guess magic numbers.
#![no_main]

use chart::{Source, Wait};
use io::memory::Memory;
use io::nbd::wire::{
    BASE_ALLOCATION, Chunk, Command, CommandFlags, Go, Greeting, Headers, MetaQuery, Opt, OptionHeader,
    OptionReply, Rep, Reply, Request,
};
use libfuzzer_sys::fuzz_target;
use serve::Export;
use serve::nbd::{Config, Limits, Server};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

const SIZE: u64 = 256 << 10;

/// More than this is not said: it has to fit into a socket.
const SAID: usize = 32 << 10;

/// The longest read or write.
const REQUEST: u32 = 64 << 10;

fn server() -> &'static Arc<Server> {
    static SERVER: OnceLock<Arc<Server>> = OnceLock::new();
    SERVER.get_or_init(|| {
        let memory = Memory::new("fuzz", SIZE);
        memory.write_at(SIZE / 2, &[7; 70_000], Wait::Allowed).unwrap();
        let disk = format(memory, true);
        let mut look = Export::new("look", format(Memory::new("look", 1000), false));
        look.description = "small and odd".to_owned();
        let mut places = Export::new("", disk);
        places.places = true;
        let limits = Limits {
            request: REQUEST,
            in_flight: 8,
            in_flight_bytes: 256 << 10,
            handshake: Duration::from_secs(5),
            idle: Some(Duration::from_secs(5)),
            drain: Duration::from_secs(5),
            ..Limits::default()
        };
        Server::start(Config { limits, proxies: 2, ..Config::new(vec![places, look]) }).unwrap()
    })
}

fn format(memory: Memory, writable: bool) -> Arc<chart::Disk> {
    ::format::raw::open(Arc::new(memory), writable).unwrap()
}

/// What a client says to get past the handshake, and the headers it has then.
fn handshake(choice: u8) -> (Vec<u8>, Headers) {
    let mut said = vec![0, 0, 0, 3];
    let mut option = |option, payload: &[u8]| OptionHeader::put(option, payload, &mut said).unwrap();
    let headers = [Headers::Simple, Headers::Structured, Headers::Extended][usize::from(choice % 3)];
    match headers {
        Headers::Simple => {}
        Headers::Structured => option(Opt::STRUCTURED_REPLY, &[]),
        Headers::Extended => option(Opt::EXTENDED_HEADERS, &[]),
    }
    if headers != Headers::Simple {
        let queries = vec![BASE_ALLOCATION.to_owned(), "portolan:place".to_owned()];
        let mut payload = Vec::new();
        MetaQuery { name: String::new(), queries }.put(&mut payload).unwrap();
        option(Opt::SET_META_CONTEXT, &payload);
    }
    let mut payload = Vec::new();
    Go::default().put(&mut payload).unwrap();
    option(Opt::GO, &payload);
    (said, headers)
}

/// The most that is said of a request's payload.
const PAYLOAD: u64 = 4096;

/// Requests with their magic numbers: eight bytes each of command, flags, offset and length.
///
/// One whose payload is not said whole is the last: what came behind it would be payload to the server, and what it
/// answered to a request it found in there would be no answer to any of these.
fn requests(bytes: &[u8], headers: Headers) -> (Vec<u8>, Vec<Request>) {
    let (mut said, mut all) = (Vec::new(), Vec::new());
    for (cookie, record) in bytes.chunks_exact(8).enumerate() {
        let &[command, flags, a, b, c, d, e, f] = record else { continue };
        let offset = (u64::from(u16::from_be_bytes([a, b])) << 4 | u64::from(c & 15)) << (c >> 4) * 4 % 64;
        let len = u64::from(u16::from_be_bytes([d, e])) << f % 52;
        let len = if headers == Headers::Extended { len } else { len & 0xffff_ffff };
        let command = Command(u16::from(command % 10));
        let request =
            Request { flags: CommandFlags(u16::from(flags)), command, cookie: cookie as u64, offset, len };
        request.put(headers, &mut said).unwrap();
        let payload = request.payload_len(headers);
        said.extend(record.iter().cycle().take(payload.min(PAYLOAD) as usize));
        all.push(request);
        if payload > PAYLOAD || said.len() > SAID {
            break;
        }
    }
    (said, all)
}

/// What the server answers to a sound handshake, and then to these requests, is well formed.
fn heard(mut from: &[u8], headers: Headers, asked: &[Request]) {
    take(&mut from, Greeting::LEN);
    loop {
        let head = take(&mut from, OptionReply::LEN);
        let reply = OptionReply::parse(head.try_into().unwrap()).unwrap();
        take(&mut from, reply.len as usize);
        assert!(!reply.reply.is_error());
        if reply.option == Opt::GO && reply.reply == Rep::ACK {
            break;
        }
    }
    while !from.is_empty() {
        let len = Reply::header_len(headers, *from.first_chunk().unwrap()).unwrap();
        let reply = Reply::parse(headers, take(&mut from, len)).unwrap();
        let request = usize::try_from(reply.cookie()).ok().and_then(|cookie| asked.get(cookie));
        let request = request.expect("an answer to nothing that was asked");
        match reply {
            Reply::Simple(simple) if simple.code.0 == 0 && request.command == Command::READ => {
                take(&mut from, request.len as usize);
            }
            Reply::Simple(_) => {}
            Reply::Chunk(Chunk { len, .. }) => drop(take(&mut from, len as usize)),
        }
    }
}

fn take<'a>(from: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, rest) = from.split_at_checked(len).expect("an answer ends in the midst of a message");
    *from = rest;
    taken
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&how, rest)) = bytes.split_first() else { return };
    let rest = &rest[..rest.len().min(SAID)];
    let (mut said, headers) = if how == 0 { (Vec::new(), Headers::Simple) } else { handshake(how) };
    let mut asked = None;
    if how < 4 {
        said.extend_from_slice(rest);
    } else {
        let (requests, all) = requests(rest, headers);
        said.extend_from_slice(&requests);
        asked = Some(all);
    }
    let (mut client, socket) = UnixStream::pair().unwrap();
    client.write_all(&said).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let hearing: JoinHandle<Vec<u8>> = std::thread::spawn(move || {
        let mut all = Vec::new();
        // What came before an end that is none is kept.
        let _ = client.read_to_end(&mut all);
        all
    });
    server().serve(socket.into()).unwrap();
    let all = hearing.join().unwrap();
    assert!(server().is_deserted());
    if let Some(asked) = asked {
        heard(&all, headers, &asked);
    }
});
