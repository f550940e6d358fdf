//! TLS that somebody wants to get around.

use super::{MIB, disk, until};
use crate::client::{Client, request};
use crate::support::Serving;
use io::nbd::wire::{BASE_ALLOCATION, Code, Command, Go, Headers, Opt, OptionHeader, Rep};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serve::Export;
use serve::nbd::tls::Tls;
use serve::nbd::{Config, Limits, Listener, Server};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use testkit::peer;

/// An authority, and a certificate of its for a server and for a client; `None` where there is no openssl.
fn certificates() -> Option<tempfile::TempDir> {
    if !peer::require(&["openssl"]) {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let (ca, ca_key, extensions) = (at("ca-cert.pem"), at("ca-key.pem"), at("extensions"));
    let root = ["req", "-x509", "-days", "2", "-subj", "/CN=test-ca", "-keyout", &ca_key, "-out", &ca];
    peer::run("openssl", &[&root[..], &new].concat());
    std::fs::write(&extensions, "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n").unwrap();
    for who in ["server", "client"] {
        let (key, asked) = (at(&format!("{who}-key.pem")), at(&format!("{who}-request")));
        let subject = format!("/CN={who}");
        let ask = ["req", "-subj", &subject, "-keyout", &key, "-out", &asked];
        peer::run("openssl", &[&ask[..], &new].concat());
        let signed = at(&format!("{who}-cert.pem"));
        let sign = ["x509", "-req", "-days", "2", "-in", &asked, "-CA", &ca, "-CAkey", &ca_key];
        let to = ["-CAcreateserial", "-extfile", &extensions, "-out", &signed];
        peer::run("openssl", &[&sign[..], &to].concat());
    }
    Some(dir)
}

/// A server that speaks nothing but TLS.
fn guarded(dir: &Path, verify: bool) -> Serving {
    let limits = Limits {
        handshake: Duration::from_millis(500),
        drain: Duration::from_millis(300),
        in_flight_bytes: 4 * MIB,
        request: MIB as u32,
        ..Limits::default()
    };
    let tls = Tls::load(dir, verify).unwrap();
    Serving::start(vec![Export::new("disk", disk(4 * MIB))], limits, Some(tls))
}

type Secure<S = UnixStream> = Client<StreamOwned<ClientConnection, S>>;

/// Goes on under TLS. Nothing is checked before the first byte is heard.
fn secured<S: Read + Write>(stream: S, dir: &Path, shows: Option<&str>) -> Secure<S> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(dir.join("ca-cert.pem")).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = match shows {
        None => builder.with_no_client_auth(),
        Some(who) => {
            let chain = CertificateDer::from_pem_file(dir.join(format!("{who}-cert.pem"))).unwrap();
            let key = PrivateKeyDer::from_pem_file(dir.join(format!("{who}-key.pem"))).unwrap();
            builder.with_client_auth_cert(vec![chain], key).unwrap()
        }
    };
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    Client::over(StreamOwned::new(session, stream))
}

/// Asks for TLS, and begins it.
fn started(serving: &Serving, dir: &Path) -> Secure {
    let mut client = Client::greeted(&serving.socket);
    assert_eq!(client.ask(Opt::STARTTLS, &[]), Rep::ACK);
    secured(client.stream, dir, None)
}

fn works(serving: &Serving, dir: &Path) {
    let mut client = started(serving, dir);
    client.agree(Headers::Structured);
    client.go("disk");
    assert!(client.is_served());
    client.write(512, &[0x5a; 100_000]);
    assert_eq!(client.read(0, 200_000), vec![0x5a; 200_000]);
}

#[test]
fn nothing_but_starttls_is_answered_in_the_clear() {
    let Some(dir) = certificates() else { return };
    let serving = guarded(dir.path(), false);
    let mut client = Client::greeted(&serving.socket);
    let mut go = Vec::new();
    Go { name: "disk".to_owned(), infos: Vec::new() }.put(&mut go).unwrap();
    let options = [
        (Opt::LIST, &[][..]),
        (Opt::GO, &go),
        (Opt::INFO, &go),
        (Opt::STRUCTURED_REPLY, &[]),
        (Opt::EXTENDED_HEADERS, &[]),
        (Opt::SET_META_CONTEXT, &[]),
        (Opt(1234), &[]),
    ];
    for (option, payload) in options {
        assert_eq!(client.ask(option, payload), Rep::ERR_TLS_REQD, "{option}");
    }
    // What was asked for in the clear does not hold under TLS either.
    assert_eq!(client.ask(Opt::STARTTLS, &[]), Rep::ACK);
    let mut client = secured(client.stream, dir.path(), None);
    client.go("disk");
    assert!(client.is_served(), "with simple replies");

    let mut client = Client::greeted(&serving.socket);
    client.option(Opt::EXPORT_NAME, b"disk");
    let mut heard = Vec::new();
    let _ = client.stream.read_to_end(&mut heard);
    assert_eq!(heard, b"", "an export was shown in the clear");
    let mut client = Client::greeted(&serving.socket);
    assert_eq!(client.ask(Opt::ABORT, &[]), Rep::ACK);
    client.hears_the_end();
    works(&serving, dir.path());
}

/// What somebody in between adds behind STARTTLS, in the clear, is never taken for something said under TLS.
#[test]
fn cve_2021_3716_what_is_added_in_the_clear_behind_starttls_is_not_heard() {
    let Some(dir) = certificates() else { return };
    let serving = guarded(dir.path(), false);
    let mut go = Vec::new();
    Go { name: "disk".to_owned(), infos: Vec::new() }.put(&mut go).unwrap();
    for (option, payload) in [(Opt::STRUCTURED_REPLY, &[][..]), (Opt::GO, &go), (Opt::EXPORT_NAME, b"disk")] {
        let mut client = Client::greeted(&serving.socket);
        let mut out = Vec::new();
        OptionHeader::put(Opt::STARTTLS, &[], &mut out).unwrap();
        OptionHeader::put(option, payload, &mut out).unwrap();
        client.stream.write_all(&out).unwrap();
        assert_eq!(client.outcome(Opt::STARTTLS), Rep::ACK);
        let mut client = secured(client.stream, dir.path(), None);
        client.stream.write_all(&[0; 1]).err();
        let mut heard = Vec::new();
        let ended = client.stream.read_to_end(&mut heard);
        assert!(ended.is_err() && heard.is_empty(), "{option} was heard: {heard:x?}");
    }
    works(&serving, dir.path());
}

#[test]
fn tls_begins_once() {
    let Some(dir) = certificates() else { return };
    let serving = guarded(dir.path(), false);
    let mut client = started(&serving, dir.path());
    assert_eq!(client.ask(Opt::STARTTLS, &[]), Rep::ERR_INVALID);
    client.agree(Headers::Extended);
    assert_eq!(client.contexts(Opt::SET_META_CONTEXT, "disk", &[BASE_ALLOCATION]).len(), 1);
    assert_eq!(client.ask(Opt::STARTTLS, &[]), Rep::ERR_INVALID);
    client.go("disk");
    let status = client.call(&request(Command::BLOCK_STATUS, 1, 0, MIB), &[]);
    assert_eq!((status.code, status.status.len()), (Code::OK, 1));
    // In a second coat of TLS, that is, in records where a request belongs.
    let mut client = started(&serving, dir.path());
    client.go("disk");
    client.stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on, and so on").unwrap();
    client.hears_the_end();
}

#[test]
fn tls_handshakes_that_come_to_nothing_end_in_time() {
    let Some(dir) = certificates() else { return };
    let serving = guarded(dir.path(), false);
    let began = Instant::now();
    let mut clients = Vec::new();
    let garbage = [0xff; 600];
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    for bytes in [&[][..], b"\x16", hello, &garbage, b"\x17\x03\x03\x00\x10aaaaaaaaaaaaaaaa"] {
        let mut client = Client::greeted(&serving.socket);
        assert_eq!(client.ask(Opt::STARTTLS, &[]), Rep::ACK);
        client.stream.write_all(bytes).unwrap();
        clients.push(client);
    }
    works(&serving, dir.path());
    clients.iter_mut().for_each(Client::hears_the_end);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    until("clients stay", || serving.server.is_deserted());
}

#[test]
fn a_client_without_a_certificate_gets_no_further() {
    let Some(dir) = certificates() else { return };
    let serving = guarded(dir.path(), true);
    for shows in [None, Some("client")] {
        let mut client = Client::greeted(&serving.socket);
        assert_eq!(client.ask(Opt::STARTTLS, &[]), Rep::ACK);
        let mut client = secured(client.stream, dir.path(), shows);
        let mut out = Vec::new();
        OptionHeader::put(Opt::LIST, &[], &mut out).unwrap();
        let told = client.stream.write_all(&out);
        let heard = told.and_then(|()| client.heard());
        assert_eq!(heard.is_ok(), shows.is_some(), "{heard:?}");
    }
    // A certificate that another authority vouches for.
    let other = certificates().unwrap();
    let mut client = Client::greeted(&serving.socket);
    assert_eq!(client.ask(Opt::STARTTLS, &[]), Rep::ACK);
    std::fs::copy(dir.path().join("ca-cert.pem"), other.path().join("ca-cert.pem")).unwrap();
    let mut client = secured(client.stream, other.path(), Some("client"));
    let mut out = Vec::new();
    OptionHeader::put(Opt::LIST, &[], &mut out).unwrap();
    assert!(client.stream.write_all(&out).and_then(|()| client.heard()).is_err());
}

/// The server ends, and the client says something more before it reads: what was answered arrives all the same.
#[test]
fn replies_on_their_way_are_not_lost_at_the_end() {
    let Some(dir) = certificates() else { return };
    let listeners = Listener::tcp("localhost", 0, false).unwrap();
    let stream = TcpStream::connect(("localhost", listeners[0].port().unwrap())).unwrap();
    // The rest of a reply waits at the server.
    rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 16 << 10).unwrap();
    let tls = Some(Tls::load(dir.path(), false).unwrap());
    let config = Config { tls, ..Config::new(vec![Export::new("disk", disk(MIB))]) };
    let server = Server::start(config).unwrap();
    let accepting = Arc::clone(&server);
    let accepting = std::thread::spawn(move || accepting.listen(&listeners));
    let mut client = Client::over(stream).greet();
    assert_eq!(client.ask(Opt::STARTTLS, &[]), Rep::ACK);
    let mut client = secured(client.stream, dir.path(), None);
    client.go("disk");
    let read = request(Command::READ, 1, 0, 256 << 10);
    client.send(&read, &[]);
    std::thread::sleep(Duration::from_millis(100));
    let ending = std::thread::spawn(move || server.finish());
    std::thread::sleep(Duration::from_millis(500));
    let mut out = Vec::new();
    read.put(Headers::Simple, &mut out).unwrap();
    // Nobody hears it any more.
    let _ = client.stream.write_all(&out);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(client.answer().data, [0x5a; 256 << 10]);
    drop(client);
    ending.join().unwrap().unwrap();
    accepting.join().unwrap().unwrap();
}

#[test]
fn a_server_without_a_certificate_says_so() {
    let serving = super::strict();
    let mut client = Client::greeted(&serving.socket);
    assert_eq!(client.ask(Opt::STARTTLS, &[]), Rep::ERR_POLICY);
    client.go("disk");
    assert!(client.is_served());
}

/// Under TLS, too, a client that reads nothing keeps nobody waiting, and neither it nor one that vanishes stays.
#[test]
fn stalled_and_vanishing_clients_under_tls_do_no_harm() {
    let Some(dir) = certificates() else { return };
    let serving = guarded(dir.path(), false);
    works(&serving, dir.path());
    let before = super::resident();
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let mut client = started(&serving, dir.path());
        client.go("disk");
        let mut out = Vec::new();
        for cookie in 0..200 {
            request(Command::READ, cookie, 0, MIB).put(Headers::Simple, &mut out).unwrap();
        }
        client.stream.write_all(&out).unwrap();
        client.stream.flush().unwrap();
        stalled.push(client);
    }
    std::thread::sleep(Duration::from_millis(300));
    works(&serving, dir.path());
    if super::is_alone() {
        let grown = super::resident().saturating_sub(before);
        assert!(grown < 4 * 6 * MIB + 24 * MIB, "{} MiB for clients that read nothing", grown / MIB);
    }
    // Gone without a word, replies unread.
    stalled.truncate(2);
    until("clients stay", || serving.server.counters().connections.load(Relaxed) == 2);
    let began = Instant::now();
    drop(serving);
    assert!(began.elapsed() < Duration::from_secs(3), "stopping took {:?}", began.elapsed());
}
