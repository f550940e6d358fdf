//! What the owner of a server is told, and as what.

use crate::client::{Client, connect, request};
use crate::hostile::until;
use chart::{Kind, Source};
use io::nbd::wire::{Code, Command, CommandFlags, Headers, Request};
use serve::Export;
use serve::nbd::{Config, Listener, Server, Severity};
use std::sync::{Arc, Mutex};
use testkit::source::{Failing, Memory, Op};

/// What was told, oldest first.
type Told = Arc<Mutex<Vec<(Severity, String)>>>;

/// These exports on a socket, while `act` is at work; what was told of that.
fn told(exports: Vec<Export>, act: impl FnOnce(&Arc<Server>, &std::path::Path, &Told)) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let listener = Listener::unix(&socket).unwrap();
    let told = Told::default();
    let tells = Arc::clone(&told);
    let notice =
        Box::new(move |severity, words: &str| tells.lock().unwrap().push((severity, words.to_owned())));
    let server = Server::start(Config { notice, ..Config::new(exports) }).unwrap();
    let accepting = Arc::clone(&server);
    let accepting = std::thread::spawn(move || accepting.listen(&[listener]));
    act(&server, &socket, &told);
    let _ = server.finish();
    accepting.join().unwrap().unwrap();
}

fn failing(name: &str) -> (Arc<Failing>, Export) {
    let broken = Arc::new(Failing::new(Arc::new(Memory::new(1 << 20).named("broken.img"))));
    let disk = format::raw::open(Arc::clone(&broken) as Arc<dyn Source>, true).unwrap();
    (broken, Export::new(name, disk))
}

/// Waits until something was told with these words in it; as what.
fn severity(told: &Told, words: &str) -> Severity {
    let of =
        || told.lock().unwrap().iter().find(|(_, said)| said.contains(words)).map(|(severity, _)| *severity);
    until(words, || of().is_some());
    of().unwrap()
}

#[test]
fn failures_are_told_by_name_whatever_clients_do_meanwhile() {
    let (broken, export) = failing("vm");
    told(vec![export], |_, socket, told| {
        // Gone in the midst of their handshakes: more than is told.
        (0..100).for_each(|_| drop(connect(socket)));
        assert_eq!(severity(told, "client"), Severity::Information);
        let mut client = Client::attached(socket, "vm", Headers::Structured);
        for (op, command) in [(Op::Read, Command::READ), (Op::Flush, Command::FLUSH)] {
            broken.fail(op, 0, Kind::Io);
            let len = if command == Command::READ { 512 } else { 0 };
            assert_eq!(client.code(&request(command, 1, 0, len), &[]), Code::EIO);
            let words = format!("\"vm\": broken.img: {op:?}");
            assert_eq!(severity(told, &words), Severity::Failure);
        }
    });
}

#[test]
fn what_a_disk_does_not_do_is_no_failure() {
    let (broken, export) = failing("");
    told(vec![export], |_, socket, told| {
        let mut client = Client::attached(socket, "", Headers::Structured);
        broken.fail(Op::Zero, 0, Kind::Unsupported);
        let flags = CommandFlags::FAST_ZERO | CommandFlags::NO_HOLE;
        let zero = Request { flags, ..request(Command::WRITE_ZEROES, 1, 0, 4096) };
        assert_eq!(client.code(&zero, &[]), Code::ENOTSUP);
        assert_eq!(severity(told, "broken.img: Zero"), Severity::Information);
    });
}

#[test]
fn who_stays_with_what_was_withdrawn_is_told_of_by_its_name() {
    let (broken, export) = failing("vm/v0");
    let (_, other) = failing("vm");
    told(vec![other, export], |server, socket, told| {
        let mut client = Client::attached(socket, "vm/v0", Headers::Structured);
        server.withdraw("vm/v0").unwrap();
        assert!(client.is_served());
        broken.fail(Op::Read, 0, Kind::NotFound);
        assert_eq!(client.code(&request(Command::READ, 1, 0, 512), &[]), Code::EIO);
        assert_eq!(severity(told, "\"vm/v0\" is served no more"), Severity::Failure);
        // What else goes wrong with it is told as it is.
        broken.fail(Op::Read, 0, Kind::Io);
        assert_eq!(client.code(&request(Command::READ, 1, 0, 512), &[]), Code::EIO);
        assert_eq!(severity(told, "\"vm/v0\": broken.img"), Severity::Failure);
    });
}
