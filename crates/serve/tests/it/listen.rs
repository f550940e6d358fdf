//! Sockets: whose they are, and who is told what and when.

use crate::client::{Client, connect, request};
use crate::hostile::until;
use crate::support::Serving;
use io::memory::Memory;
use io::nbd::wire::{Code, Command, Headers, Opt, Rep};
use serve::Export;
use serve::nbd::{Config, Limits, Listener, Server};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[test]
fn a_socket_that_somebody_else_has_put_there_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    drop(Listener::unix(&path).unwrap());
    assert!(!path.exists());
    let first = Listener::unix(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let _second = UnixListener::bind(&path).unwrap();
    drop(first);
    assert!(path.exists(), "the socket of another server is gone");
    // One that is gone already is nobody's loss.
    let dir = tempfile::tempdir().unwrap();
    let listener = Listener::unix(&dir.path().join("socket")).unwrap();
    std::fs::remove_file(dir.path().join("socket")).unwrap();
    drop(listener);
}

/// What the protocol has no room for is refused at the beginning, or cut, and no list ends in the midst of it.
#[test]
fn names_and_descriptions_fit_the_protocol() {
    let disk = || format::raw::open(Arc::new(Memory::new("memory", 1 << 20)), true).unwrap();
    for wrong in ["a".repeat(4097), "nul\0".to_owned()] {
        assert!(Server::start(Config::new(vec![Export::new(wrong, disk())])).is_err());
    }
    let mut export = Export::new("a".repeat(4096), disk());
    export.description = format!("a{}", "é".repeat(4000));
    let serving = Serving::start(vec![export], Limits::default(), None);
    let mut client = Client::greeted(&serving.socket);
    assert_eq!(client.ask(Opt::LIST, &[]), Rep::ACK);
    assert_eq!(client.go(&"a".repeat(4096)).0, 1 << 20);
}

/// What is not a dead server's is not taken away: a socket of another kind, say, a service manager's.
#[test]
fn only_a_socket_that_is_nobodys_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let manager = UnixDatagram::bind(&path).unwrap();
    let refused = Listener::unix(&path).unwrap_err();
    assert!(refused.to_string().contains("another kind"), "{refused}");
    assert!(path.exists());
    drop(manager);
    // Nobody hears it any more.
    drop(Listener::unix(&path).unwrap());
    let _first = UnixListener::bind(&path).unwrap();
    let refused = Listener::unix(&path).unwrap_err();
    assert!(refused.to_string().contains("another server"), "{refused}");
    assert!(path.exists());
}

/// A server that has no room for another client, and is busy, is there all the same.
#[test]
fn a_server_that_accepts_nobody_now_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let full = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&full, 0).unwrap();
    let _waiting = connect(&path);
    let refused = Listener::unix(&path).unwrap_err();
    assert!(refused.to_string().contains("another server"), "{refused}");
    assert!(path.exists());
}

/// A name may stand for several addresses, of which clients choose any.
#[test]
fn every_address_of_a_host_is_listened_on() {
    let listeners = Listener::tcp("localhost", 0, false).unwrap();
    let port = listeners[0].port().unwrap();
    // A name may stand for more than a machine has: IPv6, where that is turned off.
    let has = |address: &SocketAddr| TcpListener::bind((address.ip(), 0)).is_ok();
    for address in ("localhost", port).to_socket_addrs().unwrap().filter(has) {
        TcpStream::connect(address).unwrap();
    }
    let refused = Listener::tcp("localhost", port, false).unwrap_err();
    assert!(refused.to_string().contains("localhost"), "{refused}");
}

/// Whoever reads the notices has stopped doing so.
#[test]
fn nobody_waits_for_whoever_hears_the_notices() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let listener = Listener::unix(&socket).unwrap();
    let (told, deaf) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(())));
    let held = deaf.lock().unwrap();
    let (count, full) = (Arc::clone(&told), Arc::clone(&deaf));
    let notice = Box::new(move |_, _: &str| {
        count.fetch_add(1, Relaxed);
        drop(full.lock());
    });
    let disk = format::raw::open(Arc::new(Memory::new("memory", 1 << 20)), true).unwrap();
    let server = Server::start(Config { notice, ..Config::new(vec![Export::new("", disk)]) }).unwrap();
    let accepting = Arc::clone(&server);
    let accepting = std::thread::spawn(move || accepting.listen(&[listener]));
    for _ in 0..200 {
        // Gone in the midst of its handshake, which is worth a notice.
        drop(connect(&socket));
    }
    until("the notices are not heard", || told.load(Relaxed) == 1);
    assert!(Client::attached(&socket, "", Headers::Structured).is_served());
    let began = Instant::now();
    server.finish().unwrap();
    accepting.join().unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "stopping took {:?}", began.elapsed());
    drop(held);
    until("what was to be told is lost", || told.load(Relaxed) > 1);
    assert!(told.load(Relaxed) < 70, "{told:?} notices");
}

/// A disk may change its length while it is served: requests go by what it has now, and whoever connects is told.
#[test]
fn a_disk_that_changes_its_length_has_the_new_one_for_everybody() {
    let disk = format::raw::open(Arc::new(Memory::new("memory", 1 << 20)), true).unwrap();
    let serving = Serving::one(Arc::clone(&disk));
    let told = |headers| {
        let mut client = Client::greeted(&serving.socket);
        client.agree(headers);
        client.go("").0
    };
    for headers in [Headers::Simple, Headers::Structured, Headers::Extended] {
        disk.resize(1 << 20).unwrap();
        assert_eq!(told(headers), 1 << 20);
        let mut client = Client::attached(&serving.socket, "", headers);
        let last = request(Command::READ, 1, (2 << 20) - 512, 512);
        assert_eq!(client.code(&last, &[]), Code::EINVAL);
        let write = client.write_request((2 << 20) - 512, 512);
        assert_eq!(client.code(&write, &[7; 512]), Code::ENOSPC);
        disk.resize(2 << 20).unwrap();
        // Who was here before need not come anew.
        assert_eq!(client.read((2 << 20) - 512, 512), [0; 512]);
        client.write((2 << 20) - 512, &[7; 512]);
        assert_eq!(client.read((2 << 20) - 512, 512), [7; 512]);
        assert_eq!(told(headers), 2 << 20);
        disk.resize(512 << 10).unwrap();
        let past = request(Command::READ, 2, (512 << 10) - 511, 512);
        assert_eq!(client.code(&past, &[]), Code::EINVAL);
        assert_eq!(client.read((512 << 10) - 512, 512).len(), 512);
        assert_eq!(told(headers), 512 << 10);
    }
}
