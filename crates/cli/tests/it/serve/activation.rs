//! Sockets that somebody else has opened: a service manager's, inetd's, a client's.

use super::{refused, wait_until};
use crate::run::Dir;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
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

/// Answers every client with a server of its own, as inetd does, until it is dropped.
struct Inetd {
    ending: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Vec<i32>>>,
}

impl Inetd {
    fn start(dir: &Dir, args: &str) -> Inetd {
        let listener = UnixListener::bind(dir.join("inetd.sock")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut command = dir.command(&format!("serve --listen stdio {args}"));
        let ending = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ending);
        let thread = std::thread::spawn(move || {
            let mut children = Vec::new();
            while !until.load(Ordering::Relaxed) {
                let Ok((client, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                };
                client.set_nonblocking(false).unwrap();
                let out = Stdio::from(OwnedFd::from(client.try_clone().unwrap()));
                let child = command.stdin(Stdio::from(OwnedFd::from(client))).stdout(out).spawn().unwrap();
                // The command keeps what it was given, and the client would never see the end.
                command.stdin(Stdio::null()).stdout(Stdio::null());
                children.push(child);
            }
            children.iter_mut().map(|c| c.wait().unwrap().code().unwrap_or(-1)).collect()
        });
        Inetd { ending, thread: Some(thread) }
    }

    /// With what each server ended.
    fn end(mut self) -> Vec<i32> {
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
    let server = super::Server::of(&dir, "s", command.env("NOTIFY_SOCKET", dir.join("notify")));
    let mut heard = [0; 64];
    let len = manager.recv(&mut heard).unwrap();
    assert_eq!(heard[..len], *b"READY=1\n");
    // Whoever hears it can connect.
    std::os::unix::net::UnixStream::connect(server.socket()).unwrap();
    server.end();
}
