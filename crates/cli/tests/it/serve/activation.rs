//! Sockets that somebody else has opened: a service manager's, inetd's, a client's.

use super::client::Client;
use super::{Server, refused, wait_until};
use crate::run::Dir;
use io::nbd::wire::{Command, CommandFlags};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PORTOLAN: &str = env!("CARGO_BIN_EXE_portolan");

#[test]
fn clients_start_a_server_of_their_own() {
    if !testkit::peer::require(&["nbdinfo", "nbdcopy", "qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    dir.tool("qemu-img", "convert -O raw top.qcow2 flat.raw");
    let size = dir.tool("nbdinfo", &format!("--size -- [ {PORTOLAN} serve -q --read-only top.qcow2 ]"));
    assert_eq!(size.trim(), (16 << 20).to_string());
    let map = dir.tool("nbdinfo", &format!("--map -- [ {PORTOLAN} serve -q --read-only top.qcow2 ]"));
    assert!(map.contains("hole,zero"), "{map}");
    // However much it says of itself.
    let map_too = dir.tool("nbdinfo", &format!("--map -- [ {PORTOLAN} serve --read-only top.qcow2 ]"));
    assert!(map_too.ends_with(&map), "{map_too}");
    dir.tool("nbdcopy", &format!("-- [ {PORTOLAN} serve --read-only top.qcow2 ] copy.raw"));
    dir.tool("cmp", "flat.raw copy.raw");
    dir.ok("create -q new.qcow2 16M");
    dir.tool("nbdcopy", &format!("-- flat.raw [ {PORTOLAN} serve new.qcow2 ]"));
    // The client has gone, and asked the server to go: nobody waits for it.
    wait_until("the server has ended", || dir.run("check -q new.qcow2").code == 0);
    dir.tool("qemu-img", "compare -q -F raw new.qcow2 flat.raw");
    dir.tool("qemu-img", "check -q new.qcow2");
    dir.tool("nbdcopy", &format!("-- [ {PORTOLAN} serve top.qcow2 ] [ {PORTOLAN} serve new.qcow2 ]"));
}

/// A server on the unix socket `NAME.sock`, which is opened here and handed over as a service manager does.
#[track_caller]
pub(super) fn handed_over<'d>(dir: &'d Dir, name: &'static str, args: &str) -> Server<'d> {
    let listener = UnixListener::bind(dir.join(&format!("{name}.sock"))).unwrap();
    let mut shell = std::process::Command::new("sh");
    let script = "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$@\" 3<&0 </dev/null";
    shell.args(["-c", script, "sh", PORTOLAN, "serve", "--pid-file", &format!("{name}.pid")]);
    shell.args(args.split(' ')).current_dir(dir.path()).stdin(Stdio::from(OwnedFd::from(listener)));
    Server::of(dir, name, &mut shell)
}

/// Answers every client with a server of its own, one after another, as inetd does, until it is dropped.
pub(super) struct Inetd {
    ending: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Vec<i32>>>,
}

impl Inetd {
    pub(super) fn start(dir: &Dir, args: &str) -> Inetd {
        Inetd::giving(dir, args, false)
    }

    /// Sockets on which nobody waits, or on which everybody does.
    fn giving(dir: &Dir, args: &str, nonblocking: bool) -> Inetd {
        let listener = UnixListener::bind(dir.join("inetd.sock")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut command = dir.command(&format!("serve --listen stdio {args}"));
        let ending = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ending);
        let thread = std::thread::spawn(move || {
            let mut ends = Vec::new();
            while !until.load(Ordering::Relaxed) {
                let Ok((client, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                };
                client.set_nonblocking(nonblocking).unwrap();
                let out = Stdio::from(OwnedFd::from(client.try_clone().unwrap()));
                let mut child =
                    command.stdin(Stdio::from(OwnedFd::from(client))).stdout(out).spawn().unwrap();
                // The command keeps what it was given, and the client would never see the end.
                command.stdin(Stdio::null()).stdout(Stdio::null());
                // The next needs the image that this one holds.
                ends.push(child.wait().unwrap().code().unwrap_or(-1));
            }
            ends
        });
        Inetd { ending, thread: Some(thread) }
    }

    /// With what each server ended.
    pub(super) fn end(mut self) -> Vec<i32> {
        self.ending.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Inetd {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_client_on_standard_input_is_served() {
    if !testkit::peer::require(&["nbdinfo", "nbdcopy", "qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.raw("from.raw", 8 << 20);
    dir.ok("create -q disk.qcow2 8M");
    let uri = format!("nbd+unix:///?socket={}", dir.join("inetd.sock").display());
    let inetd = Inetd::start(&dir, "disk.qcow2");
    // One at a time: the image is locked meanwhile.
    dir.tool("nbdcopy", &format!("-C 1 from.raw {uri}"));
    wait_until("the server has ended", || dir.run("check -q disk.qcow2").code == 0);
    dir.tool("nbdinfo", &format!("--size {uri}"));
    wait_until("the server has ended", || dir.run("check -q disk.qcow2").code == 0);
    dir.tool("qemu-img", &format!("convert -f raw -O raw {uri} to.raw"));
    let ends = inetd.end();
    assert!(ends.len() >= 3 && ends.iter().all(|code| *code == 0), "{ends:?}");
    dir.tool("cmp", "from.raw to.raw");
    dir.tool("qemu-img", "check -q disk.qcow2");
    dir.tool("qemu-img", "compare -q -F raw disk.qcow2 from.raw");
}

/// Whoever opened the socket had no wish to wait on it, and the server does not mind.
#[test]
fn a_client_on_a_socket_that_does_not_block_is_served() {
    if !testkit::peer::require(&["nbdcopy"]) {
        return;
    }
    let dir = Dir::new();
    dir.raw("disk.raw", 8 << 20);
    let uri = format!("nbd+unix:///?socket={}", dir.join("inetd.sock").display());
    let inetd = Inetd::giving(&dir, "--read-only -f raw disk.raw", true);
    dir.tool("nbdcopy", &format!("-C 1 {uri} to.raw"));
    dir.tool("cmp", "disk.raw to.raw");
    assert_eq!(inetd.end(), [0]);
}

/// Nothing but the protocol is on standard output where a client is.
#[test]
fn what_was_counted_does_not_come_between_client_and_server() {
    let dir = Dir::new();
    dir.raw("disk.raw", 1 << 20);
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut command = dir.command("serve --listen stdio --json --read-only -f raw disk.raw");
    command.stdout(Stdio::from(OwnedFd::from(theirs.try_clone().unwrap()))).stderr(Stdio::piped());
    let child = command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn().unwrap();
    drop(command);
    let mut client = Client::over(ours).unwrap();
    assert_eq!(client.size, 1 << 20);
    client.send(Command::READ, CommandFlags::NONE, (0, 4096), &[]).unwrap();
    client.answer().unwrap();
    client.socket.read_exact(&mut [0; 4096]).unwrap();
    client.send(Command::DISC, CommandFlags::NONE, (0, 0), &[]).unwrap();
    let mut rest = Vec::new();
    client.socket.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success());
    let counted: serde_json::Value = serde_json::from_slice(&ended.stderr).unwrap();
    assert_eq!((&counted["reads"], &counted["bytes-read"]), (&1.into(), &4096.into()), "{counted}");
}

/// Nor on standard error, where inetd has made that the client too.
#[test]
fn what_goes_wrong_does_not_come_between_client_and_server() {
    let dir = Dir::new();
    dir.raw("disk.raw", 1 << 20);
    let start = |args: &str| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut command = dir.command(args);
        let copy = || Stdio::from(OwnedFd::from(theirs.try_clone().unwrap()));
        command.stdout(copy()).stderr(copy());
        (ours, command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn().unwrap())
    };
    let (ours, mut child) = start("serve --listen stdio --json --read-only -f raw disk.raw");
    let mut client = Client::over(ours).unwrap();
    // Against the protocol, which is worth a notice.
    client.socket.write_all(&[7; 28]).unwrap();
    let mut heard = Vec::new();
    client.socket.read_to_end(&mut heard).unwrap();
    assert!(heard.is_empty() && child.wait().unwrap().success(), "{}", String::from_utf8_lossy(&heard));
    let (mut ours, mut child) = start("serve --listen stdio absent.qcow2");
    ours.read_to_end(&mut heard).unwrap();
    assert!(heard.is_empty() && !child.wait().unwrap().success(), "{}", String::from_utf8_lossy(&heard));
}

/// The same for raw disks as for others.
#[test]
fn raw_disks_are_served_on_sockets_of_others_too() {
    if !testkit::peer::require(&["nbdcopy", "nbdinfo"]) {
        return;
    }
    let dir = Dir::new();
    dir.raw("from.raw", 8 << 20);
    dir.ok("create -q -f raw disk.raw 8M");
    let server = format!("[ {PORTOLAN} serve -q -f raw disk.raw ]");
    dir.tool("nbdcopy", &format!("-- from.raw {server}"));
    wait_until("the server has ended", || dir.run("compare -q -f raw -F raw disk.raw from.raw").code == 0);
    dir.tool("nbdcopy", &format!("-- {server} to.raw"));
    dir.tool("cmp", "from.raw to.raw");
    dir.ok("create -q --force -f raw disk.raw 8M");
    let uri = format!("nbd+unix:///?socket={}", dir.join("inetd.sock").display());
    let inetd = Inetd::start(&dir, "-f raw disk.raw");
    dir.tool("nbdcopy", &format!("-C 1 --flush from.raw {uri}"));
    wait_until("the server has ended", || dir.run("compare -q -f raw -F raw disk.raw from.raw").code == 0);
    assert!(inetd.end().iter().all(|code| *code == 0));
    dir.tool("cmp", "from.raw disk.raw");
}

/// A port that other machines reach is no safer where somebody else has opened it.
#[test]
fn a_port_of_others_that_can_be_reached_from_elsewhere_is_refused() {
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 1M");
    let serve = |host: &str, args: &str| {
        let listener = std::net::TcpListener::bind((host, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let mut shell = std::process::Command::new("sh");
        let script = "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$@\" 3<&0 </dev/null";
        shell.args(["-c", script, "sh", PORTOLAN, "serve", "--pid-file", "s.pid"]).args(args.split(' '));
        shell.current_dir(dir.path()).stdin(Stdio::from(OwnedFd::from(listener)));
        (shell.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap(), address)
    };
    let (child, _) = serve("0.0.0.0", "disk.qcow2");
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("0.0.0.0") && said.contains("TLS"), "{said}");
    for (host, args) in [("127.0.0.1", "--once disk.qcow2"), ("0.0.0.0", "--once --insecure disk.qcow2")] {
        let (child, address) = serve(host, args);
        wait_until("the server is ready", || dir.join("s.pid").exists());
        let socket = std::net::TcpStream::connect(("127.0.0.1", address.port())).unwrap();
        assert_eq!(Client::over(socket).unwrap().size, 1 << 20);
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
}

#[test]
fn standard_input_that_is_no_client_is_refused() {
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 1M");
    dir.fails("serve --listen stdio disk.qcow2", &["standard input", "no socket"]);
    if testkit::peer::require(&["nbdinfo"]) {
        refused(&dir, "nbdinfo", &format!("--size -- [ {PORTOLAN} serve absent.qcow2 ]"));
    }
}

#[test]
fn a_service_manager_hears_that_it_is_ready() {
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 1M");
    let manager = UnixDatagram::bind(dir.join("notify")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut command = dir.command("serve --listen unix:s.sock --pid-file s.pid disk.qcow2");
    let server = Server::of(&dir, "s", command.env("NOTIFY_SOCKET", dir.join("notify")));
    let mut heard = [0; 64];
    let len = manager.recv(&mut heard).unwrap();
    assert_eq!(heard[..len], *b"READY=1\n");
    // Whoever hears it can connect.
    std::os::unix::net::UnixStream::connect(server.socket()).unwrap();
    server.end();
}
