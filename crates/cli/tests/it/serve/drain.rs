//! The end of a server while a client has much under way.

use super::client::Client;
use super::on_a_port;
use crate::run::Dir;
use io::nbd::wire::{Command, CommandFlags, Headers, Request, SimpleReply};
use rustix::net::sockopt;
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const LEN: usize = 256 << 10;

/// A client that reads late, and has said something more before it does: what was answered is not lost on its way.
#[test]
fn whoever_speaks_again_before_it_reads_gets_whole_replies() {
    let dir = Dir::new();
    dir.raw("disk.raw", 16 << 20);
    let disk = std::fs::read(dir.join("disk.raw")).unwrap();
    let server = on_a_port(&dir, "s", "-f raw --read-only disk.raw");
    let uri = server.uri("");
    let port: u16 = uri.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
    let socket = TcpStream::connect(("localhost", port)).unwrap();
    // The rest of a reply waits at the server.
    sockopt::set_socket_recv_buffer_size(&socket, 16 << 10).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut client = Client::over(socket).unwrap();
    let read =
        |client: &mut Client<TcpStream>| client.send(Command::READ, CommandFlags::NONE, (0, LEN as u64), &[]);
    read(&mut client).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    server.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(500));
    // Nobody hears it any more.
    let _ = read(&mut client);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(client.answer().unwrap(), 1);
    let mut data = vec![0; LEN];
    client.socket.read_exact(&mut data).unwrap();
    assert!(data == disk[..LEN]);
    drop(client);
    server.ended();
}

/// A client that reads nothing has the time to drain, and no more: neither one that asked for little nor one that asked
/// for much.
#[test]
fn whoever_reads_nothing_is_waited_for_once() {
    let dir = Dir::new();
    dir.raw("disk.raw", 16 << 20);
    for count in [1, 100] {
        let server = on_a_port(&dir, "s", "-f raw --drain-timeout 2s --read-only disk.raw");
        let uri = server.uri("");
        let port: u16 = uri.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
        let socket = TcpStream::connect(("localhost", port)).unwrap();
        sockopt::set_socket_recv_buffer_size(&socket, 16 << 10).unwrap();
        let mut client = Client::over(socket).unwrap();
        for _ in 0..count {
            client.send(Command::READ, CommandFlags::NONE, (0, LEN as u64), &[]).unwrap();
        }
        std::thread::sleep(Duration::from_millis(100));
        let began = Instant::now();
        server.end();
        let took = began.elapsed();
        assert!((Duration::from_millis(1900)..Duration::from_millis(3700)).contains(&took), "{took:?}");
    }
}

/// A client that asks and asks, before the end and after it, and reads at its leisure: what was heard is answered, in
/// whole replies, and then comes the end and no reset.
#[test]
fn whoever_has_much_under_way_over_tcp_gets_whole_replies_and_an_end() {
    let dir = Dir::new();
    dir.raw("disk.raw", 16 << 20);
    let disk = std::fs::read(dir.join("disk.raw")).unwrap();
    for pause in [0, 100, 300] {
        let server = on_a_port(&dir, "s", "-f raw --read-only disk.raw");
        let uri = server.uri("");
        let port: u16 = uri.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
        let socket = TcpStream::connect(("localhost", port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut client = Client::over(socket).unwrap();
        let mut asking = client.socket.try_clone().unwrap();
        let asker = std::thread::spawn(move || {
            // Until nobody hears it.
            for cookie in 1..20_000u64 {
                let request = Request {
                    flags: CommandFlags::NONE,
                    command: Command::READ,
                    cookie,
                    offset: cookie % 60 * LEN as u64,
                    len: LEN as u64,
                };
                let mut out = Vec::new();
                request.put(Headers::Simple, &mut out).unwrap();
                if asking.write_all(&out).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        std::thread::sleep(Duration::from_millis(50));
        server.signal(Signal::TERM);
        std::thread::sleep(Duration::from_millis(pause));
        let (mut heard, mut reply, mut data) = (0, [0; SimpleReply::LEN], vec![0; LEN]);
        loop {
            match client.socket.read(&mut reply[..1]) {
                Ok(0) => break,
                Ok(_) => client.socket.read_exact(&mut reply[1..]).unwrap(),
                Err(e) => panic!("{e} after {heard} replies"),
            }
            let cookie = u64::from_be_bytes(reply[8..].try_into().unwrap());
            client.socket.read_exact(&mut data).unwrap();
            let at = (cookie % 60) as usize * LEN;
            assert!(data == disk[at..at + LEN], "reply {cookie} is another's");
            heard += 1;
        }
        assert!(heard > 0);
        drop(client);
        server.ended();
        asker.join().unwrap();
    }
}
