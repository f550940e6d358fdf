//! The end of a server while a client has much under way.

use super::client::Client;
use super::on_a_port;
use crate::run::Dir;
use io::nbd::wire::{Command, CommandFlags, Headers, Request, SimpleReply};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const LEN: usize = 256 << 10;

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
