//! What `portolan serve` is told, and what it leaves behind.

use super::client::Client;
use super::{Server, qemu_io, refused};
use crate::run::Dir;
use io::nbd::wire::{Command, CommandFlags};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn an_overlay_takes_the_writes() {
    if !testkit::peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    let before = std::fs::read(dir.join("top.qcow2")).unwrap();
    // Two servers share a base that neither writes.
    let one = Server::start(&dir, "one", "--overlay one.qcow2 top.qcow2");
    let two = Server::start(&dir, "two", "--overlay two.qcow2 top.qcow2");
    assert!(one.log("out").contains("writes go to one.qcow2"));
    qemu_io(&dir, &["read -P 99 64k 64k", "write -P 1 64k 4k", "discard 15M 64k"], &one.uri(""));
    qemu_io(&dir, &["read -P 99 64k 64k", "write -P 2 64k 4k"], &two.uri(""));
    qemu_io(&dir, &["read -P 1 64k 4k", "read -P 0 15M 64k", "read -P 5 15424k 64k"], &one.uri(""));
    dir.fails("serve --overlay one.qcow2 --listen unix:x.sock top.qcow2", &["one.qcow2"]);
    one.end();
    two.end();
    assert!(before == std::fs::read(dir.join("top.qcow2")).unwrap());
    // It is there the next time, also for others.
    let again = Server::start(&dir, "one", "--overlay one.qcow2 top.qcow2");
    qemu_io(&dir, &["read -P 1 64k 4k", "read -P 99 68k 60k"], &again.uri(""));
    again.end();
    dir.tool("qemu-img", "check -q one.qcow2");
    dir.tool("qemu-io", "-c|read -P 2 64k 4k|-c|read -P 99 68k 60k|two.qcow2");
    dir.fails("serve --overlay one.qcow2 --listen unix:x.sock mid.qcow2", &["no overlay of mid.qcow2"]);
    dir.fails("serve --overlay new.qcow2 --listen unix:x.sock mid.qcow2 base.raw", &["one overlay"]);
    assert!(!dir.join("new.qcow2").exists());
}

#[test]
fn a_temporary_overlay_is_gone_at_the_end() {
    if !testkit::peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.chain();
    let before = std::fs::read(dir.join("top.qcow2")).unwrap();
    for end in [|server: Server<'_>| server.kill(), |server: Server<'_>| drop(server.end())] {
        let server = Server::start(&dir, "s", "--temporary top.qcow2");
        assert!(server.log("out").contains("gone at the end"));
        qemu_io(
            &dir,
            &["read -P 99 64k 64k", "write -P 1 64k 1M", "flush", "read -P 1 64k 1M"],
            &server.uri(""),
        );
        end(server);
        let left: Vec<_> = dir.names().into_iter().filter(|n| n.starts_with("portolan-")).collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(before == std::fs::read(dir.join("top.qcow2")).unwrap());
    }
}

#[test]
fn once_is_for_one_client() {
    if !testkit::peer::require(&["qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 4M");
    let server = Server::start(&dir, "s", "--once --json -q disk.qcow2");
    qemu_io(&dir, &["write -P 1 0 1M", "read -P 1 0 1M", "flush"], &server.uri(""));
    let counted = server.ended().json();
    for (what, least) in
        [("reads", 1), ("writes", 1), ("flushes", 1), ("bytes-written", 1 << 20), ("accepted", 1)]
    {
        assert!(counted[what].as_u64().unwrap() >= least, "{what} in {counted}");
    }
    assert_eq!((&counted["connections"], &counted["errors"]), (&0.into(), &0.into()), "{counted}");
    let at_once = counted["at-once"].as_u64().unwrap();
    let requests =
        ["reads", "writes", "flushes", "zeroes", "others"].map(|what| counted[what].as_u64().unwrap());
    assert_eq!(at_once + counted["proxy"].as_u64().unwrap(), requests.iter().sum::<u64>(), "{counted}");
}

/// Whoever only looks is not the client that is waited for; and a client is all of its connections.
#[test]
fn once_waits_for_all_connections_of_its_client() {
    if !testkit::peer::require(&["nbdcopy", "nbdinfo", "qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    dir.raw("from.raw", 64 << 20);
    dir.ok("create -q disk.qcow2 64M");
    let mut server = Server::start(&dir, "s", "--once --json -q disk.qcow2");
    // Probes: gone at once, gone after the greeting, and one that asks what there is.
    drop(UnixStream::connect(server.socket()).unwrap());
    UnixStream::connect(server.socket()).unwrap().read_exact(&mut [0; 18]).unwrap();
    dir.tool("nbdinfo", &format!("--list {}", server.uri("")));
    super::wait_until("the probes have gone", || Client::connect(&server.socket()).is_ok());
    server.ended();
    server = Server::start(&dir, "s", "--once --json -q disk.qcow2");
    dir.tool("nbdinfo", &format!("--list {}", server.uri("")));
    dir.tool("nbdcopy", &format!("-T 4 -C 4 from.raw {}", server.uri("")));
    let counted = server.ended().json();
    assert!(counted["accepted"].as_u64().unwrap() >= 5, "{counted}");
    dir.tool("qemu-img", "check -q disk.qcow2");
    dir.tool("qemu-img", "compare -q -F raw disk.qcow2 from.raw");
    // Connections that end one after another, with pauses: only the last is the end.
    let server = Server::start(&dir, "s", "--once -q disk.qcow2");
    let (first, second) = (Client::connect(&server.socket()).unwrap(), Client::connect(&server.socket()));
    drop(first);
    std::thread::sleep(Duration::from_millis(200));
    let mut second = second.unwrap();
    second.send(Command::READ, CommandFlags::NONE, (0, 512), &[]).unwrap();
    second.answer().unwrap();
    drop(second);
    server.ended();
}

/// Names that a temporary overlay could have are taken by somebody who means harm.
#[test]
fn a_temporary_overlay_is_made_where_nothing_was_planted() {
    let dir = Dir::new();
    dir.raw("base.raw", 4 << 20);
    std::fs::create_dir(dir.join("victim")).unwrap();
    std::fs::write(dir.join("victim/overlay.qcow2"), b"precious").unwrap();
    let plant = "ln -s victim $TMPDIR/portolan-$$-0; mkdir $TMPDIR/portolan-$$-1; ln -s nowhere $TMPDIR/portolan-$$-2";
    let serve = "serve --pid-file s.pid --listen unix:s.sock --temporary -f raw base.raw";
    let mut shell = std::process::Command::new("sh");
    shell.arg("-c").arg(format!("{plant}; exec {} {serve}", env!("CARGO_BIN_EXE_portolan")));
    let server = Server::of(&dir, "s", shell.current_dir(dir.path()));
    let mut client = Client::connect(&server.socket()).unwrap();
    client.send(Command::WRITE, CommandFlags::NONE, (0, 4096), &[1; 4096]).unwrap();
    client.answer().unwrap();
    let pid = server.child.id();
    drop(client);
    server.end();
    assert_eq!(std::fs::read(dir.join("victim/overlay.qcow2")).unwrap(), b"precious");
    let planted: Vec<String> = dir.names().into_iter().filter(|n| n.starts_with("portolan-")).collect();
    assert_eq!(planted, [0, 1, 2].map(|i| format!("portolan-{pid}-{i}")));
    assert!(!dir.join("nowhere").exists());
}

/// One of the disks cannot be made durable: that is said, and the others are closed well all the same.
#[test]
fn one_disk_that_fails_at_the_end_leaves_the_others_sound() {
    if !testkit::peer::require(&["qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    for name in ["far", "near", "last"] {
        dir.ok(&format!("create -q {name}.qcow2 4M"));
    }
    let far = Server::start(&dir, "far", "far.qcow2");
    let named = format!(r#"json:{{"url":"{}","format":"raw"}}"#, far.uri(""));
    let args = format!("--name near --name far --name last near.qcow2 {named} last.qcow2");
    let mut server = Server::start(&dir, "s", &args);
    for export in ["near", "far", "last"] {
        dir.ok(&format!("bench -f raw --write --operations 20 {}", server.uri(export)));
    }
    far.kill();
    server.signal(Signal::TERM);
    let mut status = None;
    super::wait_until("the server ends", || {
        status = server.child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.and_then(|s| s.code()), Some(1), "{}", server.log("err"));
    let said = server.log("err");
    // And where to look: a signal is how a server ends, and no excuse.
    assert!(said.contains("far.sock") && !said.contains("interrupted"), "{said}");
    for name in ["near", "last"] {
        dir.tool("qemu-img", &format!("check -q {name}.qcow2"));
        let info = dir.tool("qemu-img", &format!("info --output=json {name}.qcow2"));
        assert!(info.contains("\"dirty-flag\": false"), "{info}");
    }
}

/// Sizes that are no powers of two, and no multiples of one.
#[test]
fn a_request_may_be_of_any_length_at_most() {
    if !testkit::peer::require(&["nbdinfo", "nbdcopy", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.raw("from.raw", 4 << 20);
    for size in ["4096", "4097", "12345", "1000003", "67108864"] {
        dir.ok("create -q --force disk.qcow2 4M");
        let server = Server::start(&dir, "s", &format!("--max-request {size} disk.qcow2"));
        let told: serde_json::Value =
            serde_json::from_str(&dir.tool("nbdinfo", &format!("--json {}", server.uri("")))).unwrap();
        let export = &told["exports"][0];
        assert_eq!(export["block_size_maximum"].to_string(), size, "{told}");
        assert!(export["block_size_preferred"].as_u64().unwrap().is_power_of_two(), "{told}");
        qemu_io(&dir, &["write -P 1 1000 300001", "read -P 1 1000 300001", "flush"], &server.uri(""));
        let request = size.parse::<u64>().unwrap().min(1 << 18).next_power_of_two() / 2;
        dir.tool("nbdcopy", &format!("--request-size={} from.raw {}", request.max(4096), server.uri("")));
        dir.tool("nbdcopy", &format!("--request-size={} {} to.raw", request.max(4096), server.uri("")));
        dir.tool("cmp", "from.raw to.raw");
        server.end();
    }
}

/// The image is held as QEMU holds one: QEMU writes nothing to it meanwhile, and reads only where it is told to.
#[test]
fn qemu_respects_that_the_image_is_held() {
    if !testkit::peer::require(&["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 4M");
    dir.raw("disk.raw", 4 << 20);
    for (format, image) in [("qcow2", "disk.qcow2"), ("raw", "disk.raw")] {
        let write = format!("-f|{format}|-c|write -P 1 0 64k|{image}");
        let server = Server::start(&dir, "s", &format!("-f {format} {image}"));
        let said = refused(&dir, "qemu-io", &write);
        assert!(said.contains("lock"), "{said}");
        if format == "qcow2" {
            // What is written meanwhile would be read in part.
            assert!(refused(&dir, "qemu-img", &format!("info {image}")).contains("lock"));
        }
        dir.tool("qemu-img", &format!("info -U -f {format} {image}"));
        server.end();
        // Whoever only reads shares it with others who do, and with nobody who writes.
        let server = Server::start(&dir, "s", &format!("--read-only -f {format} {image}"));
        dir.tool("qemu-img", &format!("info -f {format} {image}"));
        let said = refused(&dir, "qemu-io", &write);
        assert!(said.contains("lock"), "{said}");
        server.end();
        dir.tool("qemu-io", &write);
    }
}

#[test]
fn it_leaves_nothing_behind() {
    if !testkit::peer::require(&["qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 4M");
    let server = Server::start(&dir, "s", "disk.qcow2");
    let pid = std::fs::read_to_string(dir.join("s.pid")).unwrap();
    assert_eq!(pid, format!("{}\n", server.child.id()));
    // The image, the socket and the address are taken.
    dir.fails("serve --listen unix:other.sock disk.qcow2", &["disk.qcow2"]);
    refused(&dir, "qemu-io", "-c|write 0 64k|disk.qcow2");
    dir.ok("create -q other.qcow2 4M");
    dir.fails("serve --listen unix:s.sock other.qcow2", &["s.sock", "another server"]);
    qemu_io(&dir, &["write -P 1 0 64k"], &server.uri(""));
    // Its answers to a question while it serves.
    server.signal(Signal::USR1);
    super::wait_until("it answers", || server.log("err").contains("\"writes\":1"));
    let said = server.end();
    assert!(said.out.contains("nbdinfo") && said.out.contains("-drive"), "{}", said.out);
    assert_eq!(dir.names(), ["disk.qcow2", "other.qcow2", "s.err", "s.out"]);
    // A socket that a crash has left is no obstacle.
    Server::start(&dir, "s", "disk.qcow2").kill();
    assert!(dir.join("s.sock").exists());
    let server = Server::start(&dir, "s", "disk.qcow2");
    qemu_io(&dir, &["read -P 1 0 64k"], &server.uri(""));
    server.end();
}

/// Rates on a terminal, what is said above them, and at the end nothing of them.
#[test]
fn on_a_terminal_it_shows_what_clients_do() {
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 64M");
    let (mut screen, process) = crate::progress::terminal();
    let mut command = dir.command("serve --pid-file s.pid --listen unix:s.sock disk.qcow2");
    command.env("TERM", "xterm").stdout(Stdio::null()).stderr(Stdio::from(process));
    let mut child = command.spawn().unwrap();
    drop(command);
    super::wait_until("the server is ready", || dir.join("s.pid").exists());
    let looking = std::thread::spawn(move || {
        let (mut all, mut part) = (Vec::new(), [0; 4096]);
        // When the process has ended there is an error rather than an end.
        while let Ok(n @ 1..) = screen.read(&mut part) {
            all.extend_from_slice(&part[..n]);
        }
        String::from_utf8_lossy(&all).into_owned()
    });
    dir.ok("bench --seconds 2 --depth 8 nbd+unix:///?socket=s.sock");
    UnixStream::connect(dir.join("s.sock")).unwrap().write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(700));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    let seen = looking.join().unwrap();
    let lines: Vec<&str> = seen.split("\r\x1b[2K").collect();
    assert!(
        lines.iter().any(|l| l.starts_with("1 client   read ") && !l.starts_with("1 client   read 0/s")),
        "{seen:?}"
    );
    assert!(lines.iter().any(|l| l.starts_with("portolan: client ") && l.contains(" read ")), "{seen:?}");
    assert!(lines.iter().all(|l| l.split('\n').all(|l| l.len() < 80)), "{seen:?}");
    assert_eq!(lines.last(), Some(&""), "{seen:?}");
}

/// Whoever sends a signal may send it to the process and to its group: that is one. Who asks again later is in earnest.
#[test]
fn a_signal_that_comes_twice_is_one() {
    let dir = Dir::new();
    dir.raw("disk.raw", 4 << 20);
    for later in [20, 800] {
        let server = Server::start(&dir, "s", "--drain-timeout 15s -f raw disk.raw");
        let mut client = Client::connect(&server.socket()).unwrap();
        if later > 500 {
            // More than a socket holds, and nobody reads it.
            for _ in 0..20 {
                client.send(Command::READ, CommandFlags::NONE, (0, 4 << 20), &[]).unwrap();
            }
        }
        std::thread::sleep(Duration::from_millis(50));
        server.signal(Signal::TERM);
        std::thread::sleep(Duration::from_millis(later));
        server.signal(Signal::TERM);
        if later > 500 {
            assert_eq!(server.code(), 130);
        } else {
            server.ended();
            assert!(!dir.join("s.sock").exists());
        }
    }
}

/// A server is told to go on when its terminal goes.
#[test]
fn who_ignores_hangups_is_not_ended_by_one() {
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 4M");
    let mut shell = std::process::Command::new("sh");
    let serve = "serve --pid-file s.pid --listen unix:s.sock disk.qcow2";
    let script = format!("trap '' HUP; exec {} {serve}", env!("CARGO_BIN_EXE_portolan"));
    let server = Server::of(&dir, "s", shell.args(["-c", &script]).current_dir(dir.path()));
    server.signal(Signal::HUP);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(Client::connect(&server.socket()).unwrap().size, 4 << 20);
    server.end();
}

/// As many clients as may be have descriptors, where the system has them.
#[test]
fn there_are_descriptors_for_all_clients() {
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 4M");
    let mut shell = std::process::Command::new("sh");
    let serve = "serve --pid-file s.pid --listen unix:s.sock disk.qcow2";
    let script = format!("ulimit -S -n 64; exec {} {serve}", env!("CARGO_BIN_EXE_portolan"));
    let server = Server::of(&dir, "s", shell.args(["-c", &script]).current_dir(dir.path()));
    let mut clients: Vec<Client> = (0..200).map(|_| Client::connect(&server.socket()).unwrap()).collect();
    for client in &mut clients {
        client.send(Command::READ, CommandFlags::NONE, (0, 512), &[]).unwrap();
        client.answer().unwrap();
        client.socket.read_exact(&mut [0; 512]).unwrap();
    }
    drop(clients);
    assert_eq!(server.end().err, "");
}

/// What may not be written is refused as such, and can be read.
#[test]
fn who_may_only_read_is_told_how_to() {
    if !testkit::peer::require(&["root", "setpriv", "nbdinfo"]) {
        return;
    }
    let dir = Dir::new();
    dir.raw("disk.raw", 1 << 20);
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let program = env!("CARGO_BIN_EXE_portolan");
    let copy = dir.join("portolan");
    // Where the program is nobody else may look.
    std::fs::copy(program, &copy).unwrap();
    let nobody = "--reuid 65534 --regid 65534 --clear-groups ./portolan serve --listen unix:s.sock";
    let said = refused(&dir, "setpriv", &format!("{nobody} -f raw disk.raw"));
    assert!(said.contains("disk.raw") && said.contains("--read-only"), "{said}");
    let mut command = std::process::Command::new("setpriv");
    command.args(nobody.split(' ')).args("--pid-file s.pid --once --read-only -f raw disk.raw".split(' '));
    let server = Server::of(&dir, "s", command.current_dir(dir.path()));
    assert_eq!(dir.tool("nbdinfo", &format!("--size {}", server.uri(""))).trim(), (1 << 20).to_string());
    server.ended();
}

/// A number that another server has written meanwhile is that server's, and a link that somebody planted is not
/// followed.
#[test]
fn the_pid_file_is_its_own() {
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 4M");
    let server = Server::start(&dir, "s", "disk.qcow2");
    std::fs::write(dir.join("s.pid"), "1\n").unwrap();
    server.end();
    assert_eq!(std::fs::read_to_string(dir.join("s.pid")).unwrap(), "1\n");
    std::fs::write(dir.join("precious"), "precious").unwrap();
    let mut shell = std::process::Command::new("sh");
    let serve = "serve --pid-file s.pid --listen unix:s.sock disk.qcow2";
    let plant = format!("ln -s precious s.pid.$$.new; exec {} {serve}", env!("CARGO_BIN_EXE_portolan"));
    let ended = shell.arg("-c").arg(plant).current_dir(dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.code() == Some(1) && said.contains("s.pid"), "{said}");
    assert_eq!(std::fs::read_to_string(dir.join("precious")).unwrap(), "precious");
    // Nor is what is no file replaced by one: /dev/full, say.
    let _held = std::os::unix::net::UnixListener::bind(dir.join("held")).unwrap();
    let serve = "serve --pid-file held --listen unix:s.sock disk.qcow2";
    let mut command = std::process::Command::new("timeout");
    command.args(["5", env!("CARGO_BIN_EXE_portolan")]).args(serve.split(' ')).current_dir(dir.path());
    assert_eq!(command.output().unwrap().status.code(), Some(1));
    assert!(std::fs::symlink_metadata(dir.join("held")).unwrap().file_type().is_socket());
}

#[test]
fn clients_that_stay_do_not_keep_it_from_ending() {
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 4M");
    // Who ignores hangups passes that on.
    let ignored = |signal: Signal| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1
    };
    for signal in [Signal::TERM, Signal::INT, Signal::HUP].into_iter().filter(|s| !ignored(*s)) {
        let server = Server::start(&dir, "s", "disk.qcow2");
        let idle = Client::connect(&server.socket()).unwrap();
        let half = UnixStream::connect(server.socket()).unwrap();
        let began = Instant::now();
        server.signal(signal);
        server.ended();
        assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
        drop((idle, half));
    }
}

#[test]
fn the_limits_are_those_that_were_said() {
    if !testkit::peer::require(&["nbdinfo", "qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 4M");
    let gone = |stream: &mut UnixStream| {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).is_ok()
    };
    let server =
        Server::start(&dir, "s", "--max-request 64k --max-connections 1 --handshake-timeout 1 disk.qcow2");
    let told: serde_json::Value =
        serde_json::from_str(&dir.tool("nbdinfo", &format!("--json {}", server.uri("")))).unwrap();
    assert_eq!(told["exports"][0]["block_size_maximum"], 64 << 10, "{told}");
    // Whoever respects that can still ask for more than one request may be.
    super::wait_until("the only place is free", || {
        let args = ["-f", "raw", "-c", "write -P 1 0 1M", "-c", "read -P 1 0 1M", &server.uri("")];
        let output = std::process::Command::new("qemu-io").args(args).output().unwrap();
        output.status.success() && !String::from_utf8_lossy(&output.stdout).contains("failed")
    });
    super::wait_until("the only place is free", || Client::connect(&server.socket()).is_ok());
    let mut half = None;
    super::wait_until("the only place is taken", || {
        let mut stream = UnixStream::connect(server.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        half = stream.read_exact(&mut [0; 18]).ok().map(|()| stream);
        half.is_some()
    });
    assert!(Client::connect(&server.socket()).is_err());
    let began = Instant::now();
    assert!(gone(half.as_mut().unwrap()) && began.elapsed() < Duration::from_secs(5));
    server.end();
    let server = Server::start(&dir, "i", "--idle-timeout 1 disk.qcow2");
    let mut idle = Client::connect(&server.socket()).unwrap();
    assert!(idle.answer().is_err_and(|e| e.kind() == std::io::ErrorKind::UnexpectedEof));
    server.end();
}

#[test]
fn several_addresses_are_one_server() {
    if !testkit::peer::require(&["qemu-io"]) {
        return;
    }
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 4M");
    let server =
        Server::listening(&dir, "s", "--listen unix:a.sock --listen tcp:0 --listen unix:b.sock disk.qcow2");
    let at = |name: &str| format!("nbd+unix:///?socket={}", dir.join(name).display());
    qemu_io(&dir, &["write -P 1 0 64k"], &at("a.sock"));
    qemu_io(&dir, &["read -P 1 0 64k", "write -P 2 64k 64k"], &server.uri(""));
    qemu_io(&dir, &["read -P 1 0 64k", "read -P 2 64k 64k"], &at("b.sock"));
    server.end();
    assert_eq!(dir.names(), ["disk.qcow2", "s.err", "s.out"]);
}

#[test]
fn what_to_serve_must_be_clear() {
    let dir = Dir::new();
    dir.raw("disk.raw", 1 << 20);
    dir.ok("create -q disk.qcow2 1M");
    dir.fails("serve --listen unix:s.sock disk.raw", &["raw"]);
    dir.fails("serve --listen unix:s.sock absent.qcow2", &["absent.qcow2"]);
    dir.fails("serve --listen s.sock disk.qcow2", &["unix:PATH"]);
    dir.fails("serve --listen tcp:localhost:x disk.qcow2", &["\"x\""]);
    dir.fails("serve --listen unix: disk.qcow2", &["unix:PATH"]);
    dir.fails("serve --listen unix:disk.raw disk.qcow2", &["disk.raw", "no socket"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    dir.fails(&format!("serve --listen tcp:{port} disk.qcow2"), &[&port.to_string(), "another program"]);
    dir.fails("serve --listen tcp:0.0.0.0:0 disk.qcow2", &["--tls", "--insecure"]);
    dir.fails("serve --tls nowhere disk.qcow2", &["nowhere/server-key.pem", "not found"]);
    dir.fails("serve --listen unix:no/where.sock disk.qcow2", &["no/where.sock"]);
    dir.fails("serve --listen unix:s.sock --pid-file no/where.pid disk.qcow2", &["no/where.pid"]);
    dir.fails("serve --max-request 1k disk.qcow2", &["--max-request"]);
    for limit in ["max-connections", "max-in-flight", "handshake-timeout", "idle-timeout", "proxies"] {
        // Neither none nor without a limit: it says nothing.
        assert_eq!(dir.run(&format!("serve --{limit} 0 disk.qcow2")).code, 2, "{limit}");
    }
    assert_eq!(dir.run("serve --read-only --temporary disk.qcow2").code, 2);
    for unheard in ["--read-only --keep 3", "--temporary --keep 3", "--overlay -"] {
        let mut command = std::process::Command::new("timeout");
        command.args(["5", env!("CARGO_BIN_EXE_portolan"), "serve"]).args(unheard.split(' '));
        command.args(["--listen", "unix:s.sock", "disk.qcow2"]).current_dir(dir.path());
        assert_eq!(command.output().unwrap().status.code(), Some(2), "{unheard}");
    }
    assert_eq!(dir.run("extract disk.qcow2#1 -o -").code, 2);
    assert_eq!(dir.run("serve").code, 2);
    assert_eq!(dir.names(), ["disk.qcow2", "disk.raw"]);
}
