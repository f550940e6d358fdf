//! Handshakes: malformed, endless, lying, and those that never come to an end.

use super::{serves_others, strict};
use crate::client::{Client, connect, request};
use io::nbd::wire::{
    BASE_ALLOCATION, Code, Command, CommandFlags, Go, Greeting, Headers, Opt, OptionHeader, Rep, Request,
    StatusFilter,
};
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

fn go(name: &[u8], claimed: u32, infos: &[u8], count: u16) -> Vec<u8> {
    let mut payload = claimed.to_be_bytes().to_vec();
    payload.extend_from_slice(name);
    payload.extend_from_slice(&count.to_be_bytes());
    payload.extend_from_slice(infos);
    payload
}

fn query(name: &[u8], claimed: u32, count: u32, queries: &[u8]) -> Vec<u8> {
    let mut payload = claimed.to_be_bytes().to_vec();
    payload.extend_from_slice(name);
    payload.extend_from_slice(&count.to_be_bytes());
    payload.extend_from_slice(queries);
    payload
}

#[test]
fn client_flags_that_nobody_knows_end_the_connection() {
    let serving = strict();
    for flags in [4u32, 0x8000_0000, u32::MAX] {
        let mut client = Client::over(connect(&serving.socket));
        client.stream.read_exact(&mut [0; Greeting::LEN]).unwrap();
        client.stream.write_all(&flags.to_be_bytes()).unwrap();
        client.hears_the_end();
    }
    serves_others(&serving);
}

#[test]
fn whoever_speaks_another_protocol_is_shown_out() {
    let serving = strict();
    let others: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        &[0; 64],
        &[0xff; 64],
    ];
    for bytes in others {
        let mut client = Client::over(connect(&serving.socket));
        client.stream.write_all(bytes).unwrap();
        client.hears_the_end();
    }
    serves_others(&serving);
}

#[test]
fn an_option_without_its_magic_ends_the_connection() {
    let serving = strict();
    for magic in [0u64, u64::MAX, 0x4948_4156_454f_5055] {
        let mut client = Client::greeted(&serving.socket);
        let mut out = magic.to_be_bytes().to_vec();
        out.extend_from_slice(&[0; 8]);
        client.stream.write_all(&out).unwrap();
        client.hears_the_end();
    }
    serves_others(&serving);
}

#[test]
fn without_fixed_newstyle_there_is_only_export_name() {
    let serving = strict();
    let mut client = Client::over(connect(&serving.socket));
    client.stream.read_exact(&mut [0; Greeting::LEN]).unwrap();
    client.stream.write_all(&[0; 4]).unwrap();
    client.option(Opt::LIST, &[]);
    client.hears_the_end();

    let mut client = Client::over(connect(&serving.socket));
    client.stream.read_exact(&mut [0; Greeting::LEN]).unwrap();
    client.stream.write_all(&[0; 4]).unwrap();
    client.option(Opt::EXPORT_NAME, b"disk");
    let mut reply = [0; 134];
    client.stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply[..8], (4u64 << 20).to_be_bytes());
    assert!(client.is_served());
}

#[test]
fn a_flood_of_options_ends_the_connection() {
    let serving = strict();
    let mut client = Client::greeted(&serving.socket);
    for _ in 0..serve::nbd::limits::OPTIONS {
        assert_eq!(client.ask(Opt::LIST, &[]), Rep::ACK);
    }
    client.hears_the_end();
    serves_others(&serving);
}

#[test]
fn a_huge_option_is_refused_before_it_is_heard() {
    let serving = strict();
    for option in [Opt::EXPORT_NAME, Opt::GO, Opt::LIST, Opt::SET_META_CONTEXT, Opt(0x7777)] {
        for len in [u32::MAX, 1 << 31, (64 << 10) + 1] {
            let mut client = Client::greeted(&serving.socket);
            let mut out = Vec::new();
            OptionHeader::put(option, &[], &mut out).unwrap();
            out[12..].copy_from_slice(&len.to_be_bytes());
            client.stream.write_all(&out).unwrap();
            assert_eq!(client.outcome(option), Rep::ERR_TOO_BIG);
            client.hears_the_end();
        }
    }
    serves_others(&serving);
}

#[test]
fn lengths_that_lie_are_refused_and_the_client_goes_on() {
    let serving = strict();
    let long = vec![b'a'; 4097];
    let wrong = [
        Vec::new(),
        vec![0; 3],
        go(b"disk", u32::MAX, &[], 0),
        go(b"disk", u32::MAX - 3, &[], 0),
        go(b"disk", 5, &[], 0),
        go(b"disk", 3, &[], 0),
        go(b"disk", 4, &[], 1),
        go(b"disk", 4, &[0, 0, 0], 1),
        go(b"disk", 4, &[0; 4], u16::MAX),
        go(b"disk", 4, &[0; 4], 1),
        go(b"di\0k", 4, &[], 0),
        go(b"\xff\xfe\xfd\xfc", 4, &[], 0),
        go(&long, 4097, &[], 0),
    ];
    let mut client = Client::greeted(&serving.socket);
    for payload in &wrong {
        for option in [Opt::GO, Opt::INFO] {
            assert_eq!(client.ask(option, payload), Rep::ERR_INVALID, "{option} {payload:x?}");
        }
    }
    assert_eq!(client.ask(Opt::GO, &go(&long[..4096], 4096, &[], 0)), Rep::ERR_UNKNOWN);
    // As many questions as fit into an option are only questions.
    let questions = vec![0xff; 60_000];
    assert_eq!(client.ask(Opt::INFO, &go(b"disk", 4, &questions, 30_000)), Rep::ACK);
    client.go("disk");
    assert!(client.is_served());
}

#[test]
fn contexts_that_lie_are_refused_and_the_client_goes_on() {
    let serving = strict();
    let mut client = Client::greeted(&serving.socket);
    let sound = query(b"disk", 4, 0, &[]);
    for option in [Opt::LIST_META_CONTEXT, Opt::SET_META_CONTEXT] {
        assert_eq!(client.ask(option, &sound), Rep::ERR_INVALID, "without structured replies");
    }
    client.agree(Headers::Structured);
    let long = [&4097u32.to_be_bytes()[..], &[b'a'; 4097]].concat();
    let wrong = [
        Vec::new(),
        query(b"disk", u32::MAX, 0, &[]),
        query(b"disk", 4, u32::MAX, &[]),
        query(b"disk", 4, 1, &[]),
        query(b"disk", 4, 1, &u32::MAX.to_be_bytes()),
        query(b"disk", 4, 0, &[1]),
        query(b"disk", 4, 1, &[0, 0, 0, 2, 0xff, 0xfe]),
        query(b"disk", 4, 1, &[0, 0, 0, 1, 0]),
        query(b"disk", 4, 1, &long),
    ];
    for payload in &wrong {
        for option in [Opt::LIST_META_CONTEXT, Opt::SET_META_CONTEXT] {
            assert_eq!(client.ask(option, payload), Rep::ERR_INVALID, "{option} {payload:x?}");
        }
    }
    // A flood of queries, empty ones and the same one again and again, is answered once.
    let empty = query(b"disk", 4, 16_000, &[0; 64_000]);
    assert_eq!(client.ask(Opt::SET_META_CONTEXT, &empty), Rep::ACK);
    let again = vec![BASE_ALLOCATION; 2000];
    assert_eq!(client.contexts(Opt::SET_META_CONTEXT, "disk", &again).len(), 1);
    client.go("disk");
    assert!(client.is_served());
}

/// The specification: choosing contexts replaces those chosen before, also when it fails.
#[test]
fn contexts_that_could_not_be_chosen_leave_none() {
    let serving = strict();
    let failing = [query(b"nobody", 6, 0, &[]), query(b"disk", 9, 0, &[])];
    for payload in failing {
        let mut client = Client::greeted(&serving.socket);
        client.agree(Headers::Structured);
        assert_eq!(client.contexts(Opt::SET_META_CONTEXT, "disk", &[BASE_ALLOCATION]).len(), 1);
        assert!(client.ask(Opt::SET_META_CONTEXT, &payload).is_error());
        client.go("disk");
        assert_eq!(client.code(&request(Command::BLOCK_STATUS, 1, 0, 4096), &[]), Code::EINVAL);
    }
}

#[test]
fn contexts_chosen_for_another_export_are_not_there() {
    let serving = strict();
    let mut client = Client::greeted(&serving.socket);
    client.agree(Headers::Extended);
    assert_eq!(client.contexts(Opt::SET_META_CONTEXT, "look", &[BASE_ALLOCATION]).len(), 1);
    client.go("disk");
    assert_eq!(client.code(&request(Command::BLOCK_STATUS, 1, 0, 4096), &[]), Code::EINVAL);
    let mut payload = Vec::new();
    StatusFilter { len: 4096, contexts: vec![1] }.put(&mut payload);
    let filtered = request(Command::BLOCK_STATUS, 2, 0, payload.len() as u64);
    let filtered = Request { flags: CommandFlags::PAYLOAD_LEN, ..filtered };
    assert_eq!(client.code(&filtered, &payload), Code::EINVAL);
    assert!(client.is_served());
}

#[test]
fn options_that_nobody_knows_and_data_that_nobody_asked_for_are_refused() {
    let serving = strict();
    let mut client = Client::greeted(&serving.socket);
    for option in [Opt(0), Opt::PEEK_EXPORT, Opt(12), Opt(0x7fff_ffff), Opt(u32::MAX)] {
        for payload in [&[][..], &[0; 4000]] {
            assert_eq!(client.ask(option, payload), Rep::ERR_UNSUP);
        }
    }
    for option in [Opt::LIST, Opt::STARTTLS, Opt::STRUCTURED_REPLY, Opt::EXTENDED_HEADERS] {
        assert_eq!(client.ask(option, b"?"), Rep::ERR_INVALID);
    }
    assert_eq!(client.ask(Opt::EXTENDED_HEADERS, &[]), Rep::ACK);
    // As QEMU has it: the one is over for good, the other there already.
    let again =
        [(Opt::STRUCTURED_REPLY, Rep::ERR_EXT_HEADER_REQD), (Opt::EXTENDED_HEADERS, Rep::ERR_INVALID)];
    for (option, refusal) in again {
        assert_eq!(client.ask(option, &[]), refusal);
    }
    client.headers = Headers::Extended;
    client.go("disk");
    assert!(client.is_served());
}

/// Commands where options belong, and options where commands belong.
#[test]
fn what_comes_at_the_wrong_time_ends_the_connection() {
    let serving = strict();
    let mut client = Client::greeted(&serving.socket);
    client.send(&request(Command::READ, 1, 0, 512), &[]);
    client.hears_the_end();
    let mut client = Client::attached(&serving.socket, "disk", Headers::Simple);
    client.option(Opt::GO, &[0; 32]);
    client.hears_the_end();
    serves_others(&serving);
}

/// Whoever does not complete a handshake is gone when its time is over, however the time is spent.
#[test]
fn half_open_connections_end_when_their_time_is_over() {
    let serving = strict();
    let limit = serving.server.limits().handshake;
    let began = Instant::now();
    let mut silent: Vec<_> = (0..8).map(|_| Client::over(connect(&serving.socket))).collect();
    silent.extend((0..8).map(|_| Client::greeted(&serving.socket)));
    for have in [1usize, 7, 15, 16, 19] {
        let mut client = Client::greeted(&serving.socket);
        let mut out = Vec::new();
        let mut payload = Vec::new();
        Go { name: "disk".to_owned(), infos: Vec::new() }.put(&mut payload).unwrap();
        OptionHeader::put(Opt::GO, &payload, &mut out).unwrap();
        client.stream.write_all(&out[..have]).unwrap();
        silent.push(client);
    }
    // One that always says a little more, in time.
    let trickle = std::thread::spawn({
        let mut stream = Client::greeted(&serving.socket).stream;
        move || {
            let mut out = Vec::new();
            OptionHeader::put(Opt::GO, &[0; 4000], &mut out).unwrap();
            let mut said = 0;
            for byte in out {
                std::thread::sleep(Duration::from_millis(20));
                if stream.write_all(&[byte]).is_err() {
                    break;
                }
                said += 1;
            }
            said
        }
    });
    serves_others(&serving);
    silent.iter_mut().for_each(Client::hears_the_end);
    let took = began.elapsed();
    assert!(took >= limit && took < limit + Duration::from_secs(2), "{took:?}");
    assert!(trickle.join().unwrap() < 200, "the trickle went on");
    serves_others(&serving);
}

/// Asks for long lists, and reads none of them.
#[test]
fn whoever_does_not_read_answers_to_options_is_gone_in_time() {
    let limits = serve::nbd::Limits { handshake: Duration::from_millis(400), ..Default::default() };
    let named = |i| serve::Export::new(format!("{i}-{}", "n".repeat(4000)), super::disk(4096));
    let serving = crate::support::Serving::start((0..200).map(named).collect(), limits, None);
    let began = Instant::now();
    let mut client = Client::greeted(&serving.socket);
    for _ in 0..100 {
        client.option(Opt::LIST, &[]);
    }
    super::until("it is still there", || serving.server.is_deserted());
    assert!(began.elapsed() < Duration::from_secs(3));
}
