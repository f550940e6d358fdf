//! Requests: out of range, out of their minds.

use super::{MIB, serves_others, strict, with_limits};
use crate::client::{Client, request};
use crate::support::Serving;
use io::memory::Memory;
use io::nbd::wire::{BASE_ALLOCATION, Code, Command, CommandFlags, Headers, Request, StatusFilter};
use serve::nbd::Limits;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ALL: [Headers; 3] = [Headers::Simple, Headers::Structured, Headers::Extended];

const SIZE: u64 = 4 * MIB;

#[test]
fn a_request_without_its_magic_ends_the_connection() {
    let serving = strict();
    for headers in ALL {
        for bytes in [[0; 32], [0xff; 32]] {
            let mut client = Client::attached(&serving.socket, "disk", headers);
            client.stream.write_all(&bytes).unwrap();
            client.hears_the_end();
        }
    }
    // The other kind of header than the one agreed on.
    let mut client = Client::attached(&serving.socket, "disk", Headers::Extended);
    let mut out = Vec::new();
    request(Command::READ, 1, 0, 512).put(Headers::Simple, &mut out).unwrap();
    out.resize(64, 0);
    client.stream.write_all(&out).unwrap();
    client.hears_the_end();
    serves_others(&serving);
}

#[test]
fn commands_and_flags_that_nobody_knows_are_refused() {
    let serving = strict();
    for headers in ALL {
        let mut client = Client::attached(&serving.socket, "disk", headers);
        for command in [8u16, 9, 100, 0x7fff, u16::MAX] {
            assert_eq!(client.code(&request(Command(command), 1, 0, 512), &[]), Code::EINVAL, "{command}");
        }
        for flags in [1 << 6, 1 << 15, 0xffc0] {
            for command in
                [Command::READ, Command::TRIM, Command::FLUSH, Command::CACHE, Command::WRITE_ZEROES]
            {
                let request = Request { flags: CommandFlags(flags), ..request(command, 2, 0, 512) };
                assert_eq!(client.code(&request, &[]), Code::EINVAL, "{command} {flags:#x}");
            }
        }
        // Flags that belong to other commands.
        let df = Request { flags: CommandFlags::DF, ..request(Command::TRIM, 3, 0, 512) };
        assert_eq!(client.code(&df, &[]), Code::EINVAL);
        let fast = Request { flags: CommandFlags::FAST_ZERO, ..request(Command::READ, 3, 0, 512) };
        assert_eq!(client.code(&fast, &[]), Code::EINVAL);
        assert!(client.is_served());
    }
}

#[test]
fn ranges_that_leave_the_disk_are_refused_and_change_nothing() {
    let serving = strict();
    let ranges = [
        (SIZE, 1),
        (SIZE - 1, 2),
        (SIZE - 512, 1024),
        (u64::MAX, 1),
        (u64::MAX - 511, 512),
        (u64::MAX - 511, 1024),
        (1 << 63, 512),
        ((1 << 63) - 1, 512),
        (0, SIZE + 1),
    ];
    for headers in ALL {
        let mut client = if headers == Headers::Simple {
            Client::attached(&serving.socket, "disk", headers)
        } else {
            Client::with_contexts(&serving.socket, "disk", headers, &[BASE_ALLOCATION])
        };
        for (offset, len) in ranges {
            for command in [Command::READ, Command::TRIM, Command::CACHE, Command::BLOCK_STATUS] {
                let code = client.code(&request(command, 1, offset, len), &[]);
                assert_eq!(code, Code::EINVAL, "{command} {offset} {len}");
            }
            assert_eq!(client.code(&request(Command::WRITE_ZEROES, 1, offset, len), &[]), Code::ENOSPC);
            if len <= 1024 {
                let write = client.write_request(offset, len);
                assert_eq!(client.code(&write, &vec![1; len as usize]), Code::ENOSPC, "{offset} {len}");
            }
        }
        assert_eq!(client.read(SIZE - 1024, 1024), [0x5a; 1024]);
        assert_eq!(client.read(0, 1024), [0x5a; 1024]);
    }
}

#[test]
fn giant_lengths_are_refused() {
    let serving = strict();
    for headers in ALL {
        let mut client = Client::attached(&serving.socket, "disk", headers);
        let mut lengths = vec![(256 << 10) + 1, 1 << 31, u64::from(u32::MAX)];
        if headers == Headers::Extended {
            lengths.extend([1 << 32, (1 << 32) + 512, 1 << 63, u64::MAX]);
        }
        for &len in &lengths {
            assert_eq!(client.code(&request(Command::READ, 1, 0, len), &[]), Code::EINVAL, "{len}");
            if len > SIZE {
                for command in [Command::TRIM, Command::CACHE] {
                    assert_eq!(client.code(&request(command, 1, 0, len), &[]), Code::EINVAL);
                }
                assert_eq!(client.code(&request(Command::WRITE_ZEROES, 1, 512, len), &[]), Code::ENOSPC);
            }
        }
        assert!(client.is_served());
        // There is no going on after a payload that nobody will take.
        for len in lengths {
            let mut client = Client::attached(&serving.socket, "disk", headers);
            let write = client.write_request(0, len);
            client.send(&write, &[0; 100]);
            client.hears_the_end();
        }
    }
    serves_others(&serving);
}

#[test]
fn a_read_only_export_is_not_written() {
    let serving = strict();
    for headers in ALL {
        let mut client = Client::attached(&serving.socket, "look", headers);
        for len in [1, 512, 40 << 10, 200 << 10] {
            let write = client.write_request(0, len);
            assert_eq!(client.code(&write, &vec![1; len as usize]), Code::EPERM);
        }
        for command in [Command::TRIM, Command::WRITE_ZEROES] {
            assert_eq!(client.code(&request(command, 1, 0, 512), &[]), Code::EPERM);
        }
        assert_eq!(client.code(&request(Command::FLUSH, 1, 0, 0), &[]), Code::OK);
        assert_eq!(client.read(0, 512), [0x5a; 512]);
    }
}

/// A payload where none belongs is heard to its end, so that what follows is not taken for something else.
#[test]
fn payloads_where_none_belong_are_refused_and_passed_over() {
    let serving = strict();
    let mut client = Client::attached(&serving.socket, "disk", Headers::Extended);
    let with = |command, len| Request { flags: CommandFlags::PAYLOAD_LEN, ..request(command, 5, 0, len) };
    let commands = [
        Command::READ,
        Command::FLUSH,
        Command::TRIM,
        Command::WRITE_ZEROES,
        Command::CACHE,
        Command::RESIZE,
        Command(99),
    ];
    for len in [1, 512, 33 << 10, 256 << 10] {
        for command in commands {
            // What looks like a request in it is none.
            let mut payload = Vec::new();
            request(Command::TRIM, 6, 0, SIZE).put(Headers::Extended, &mut payload).unwrap();
            payload.resize(len as usize, 0);
            let answer = client.call(&with(command, len), &payload);
            assert_eq!(answer.code, Code::EINVAL, "{command} {len}");
        }
    }
    // A write has one whether it says so or not.
    assert_eq!(client.code(&request(Command::WRITE, 7, 0, 512), &[0x5a; 512]), Code::OK);
    assert_eq!(client.read(0, 512), [0x5a; 512]);
    // With compact headers there is no such flag, and no payload.
    let mut client = Client::attached(&serving.socket, "disk", Headers::Structured);
    assert_eq!(client.code(&with(Command::READ, 512), &[]), Code::EINVAL);
    let write = with(Command::WRITE, 512);
    assert_eq!(client.code(&write, &[1; 512]), Code::EINVAL);
    assert_eq!(client.read(0, 512), [0x5a; 512]);
}

#[test]
fn goodbye_may_carry_anything() {
    let serving = strict();
    for len in [0, 1, 100, 40 << 10] {
        let mut client = Client::attached(&serving.socket, "disk", Headers::Extended);
        let goodbye =
            Request { flags: CommandFlags::PAYLOAD_LEN, ..request(Command::DISC, 1, u64::MAX, len) };
        client.send(&goodbye, &vec![0; len as usize]);
        client.hears_the_end();
    }
    serves_others(&serving);
}

fn filtered(offset: u64, len: u64, contexts: Vec<u32>) -> (Request, Vec<u8>) {
    let mut payload = Vec::new();
    StatusFilter { len, contexts }.put(&mut payload);
    let flags = CommandFlags::PAYLOAD_LEN;
    (Request { flags, ..request(Command::BLOCK_STATUS, 8, offset, payload.len() as u64) }, payload)
}

#[test]
fn block_status_of_contexts_that_nobody_chose_is_refused() {
    let serving = strict();
    let mut bare = Client::attached(&serving.socket, "disk", Headers::Extended);
    assert_eq!(bare.code(&request(Command::BLOCK_STATUS, 1, 0, 512), &[]), Code::EINVAL);
    let names = [BASE_ALLOCATION, "qemu:allocation-depth"];
    let mut client = Client::with_contexts(&serving.socket, "disk", Headers::Extended, &names);
    let wrong = [vec![0], vec![3], vec![u32::MAX], vec![1, 1], vec![1, 2, 1], vec![1, 2, 3], vec![]];
    for contexts in wrong.into_iter().chain([vec![7; 60_000], (1..60_000).collect()]) {
        let (request, payload) = filtered(0, 4096, contexts.clone());
        let code = client.code(&request, &payload);
        assert_eq!(code, Code::EINVAL, "{:?}", &contexts[..contexts.len().min(4)]);
    }
    for payload in [&[][..], &[0; 4], &[0; 7], &[0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]] {
        let short = request(Command::BLOCK_STATUS, 9, 0, payload.len() as u64);
        let short = Request { flags: CommandFlags::PAYLOAD_LEN, ..short };
        assert_eq!(client.code(&short, payload), Code::EINVAL, "{payload:?}");
    }
    for (offset, len) in
        [(0, 0), (0, SIZE + 1), (SIZE, 1), (1, u64::MAX), (u64::MAX, 1), (u64::MAX, u64::MAX)]
    {
        let (request, payload) = filtered(offset, len, vec![1, 2]);
        assert_eq!(client.code(&request, &payload), Code::EINVAL, "{offset} {len}");
    }
    let (request, payload) = filtered(0, SIZE, vec![2, 1]);
    let answer = client.call(&request, &payload);
    assert_eq!((answer.code, answer.status.len()), (Code::OK, 2));
}

/// The length in the header is the payload's; where the disk ends has nothing to do with it.
#[test]
fn block_status_of_the_last_bytes_is_told() {
    let serving = strict();
    let mut client = Client::with_contexts(&serving.socket, "disk", Headers::Extended, &[BASE_ALLOCATION]);
    for tail in [1, 4, 11, 12, 13, 512] {
        let (request, payload) = filtered(SIZE - tail, tail, vec![1]);
        let answer = client.call(&request, &payload);
        assert_eq!(answer.code, Code::OK, "the last {tail} bytes");
        assert_eq!(answer.status[0].extents[0].len, tail);
    }
}

/// The largest disk there can be, all of it asked for at once.
#[test]
fn block_status_of_a_giant_disk_is_short_and_soon() {
    let giant = format::raw::open(Arc::new(Memory::new("giant", 1 << 62)), true).unwrap();
    let serving = Serving::one(giant);
    for headers in [Headers::Structured, Headers::Extended] {
        let mut client = Client::with_contexts(&serving.socket, "", headers, &[BASE_ALLOCATION]);
        client.write(1 << 61, &[1; 512]);
        let longest = if headers == Headers::Extended { 1 << 62 } else { u64::from(u32::MAX) };
        let began = Instant::now();
        for offset in [0, 1 << 40, (1 << 62) - longest] {
            let answer = client
                .call(&request(Command::BLOCK_STATUS, 1, offset, longest - offset.min(longest >> 1)), &[]);
            // Past the end is an error; anything else tells of at least something.
            assert!(answer.code == Code::EINVAL || !answer.status[0].extents.is_empty());
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

/// Whoever says nothing for longer than allowed is gone, whatever was said before.
#[test]
fn silent_clients_are_gone_when_their_time_is_over() {
    let idle = Duration::from_millis(200);
    let serving = with_limits(Limits { idle: Some(idle), ..Limits::default() });
    let began = Instant::now();
    let mut clients: Vec<Client> = Vec::new();
    // Never a request; one answered at once; one that went through the array; one begun; a payload begun.
    clients.push(Client::attached(&serving.socket, "disk", Headers::Structured));
    let mut client = Client::attached(&serving.socket, "disk", Headers::Structured);
    assert!(client.is_served());
    clients.push(client);
    let mut client = Client::attached(&serving.socket, "disk", Headers::Structured);
    assert_eq!(client.code(&request(Command::FLUSH, 1, 0, 0), &[]), Code::OK);
    clients.push(client);
    let mut client = Client::attached(&serving.socket, "disk", Headers::Structured);
    client.stream.write_all(&[0x25, 0x60]).unwrap();
    clients.push(client);
    for len in [512, 100 << 10] {
        let mut client = Client::attached(&serving.socket, "disk", Headers::Structured);
        let write = client.write_request(0, len);
        client.send(&write, &[1; 100]);
        clients.push(client);
    }
    clients.iter_mut().for_each(Client::hears_the_end);
    let took = began.elapsed();
    assert!(took >= idle && took < idle + Duration::from_secs(2), "{took:?}");
    assert_eq!(Client::attached(&serving.socket, "disk", Headers::Simple).read(0, 512), [0x5a; 512]);
}
