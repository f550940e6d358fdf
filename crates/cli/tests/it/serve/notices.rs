//! What `portolan serve` says of what goes wrong, and when it is to be quiet.

use super::client::Client;
use super::{Server, refused, wait_until};
use crate::run::Dir;
use io::nbd::wire::{Code, Command, CommandFlags};
use std::os::unix::net::UnixStream;
use testkit::peer;

#[test]
fn who_is_quiet_still_says_what_cannot_be_read() {
    if !peer::require(&["qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    std::fs::create_dir(dir.join("shown")).unwrap();
    std::fs::write(dir.join("shown/precious.txt"), vec![7; 100_000]).unwrap();
    for (args, says) in [("shown", true), ("-q shown", false)] {
        let server = Server::start(&dir, "s", args);
        // In the midst of its handshake.
        drop(UnixStream::connect(server.socket()).unwrap());
        wait_until("a client is told of", || !says || server.log("err").contains("client"));
        let kept = std::fs::read(dir.join("shown/precious.txt")).unwrap();
        std::fs::remove_file(dir.join("shown/precious.txt")).unwrap();
        refused(&dir, "qemu-img", &format!("convert -f raw -O raw {} out.raw", server.uri("")));
        wait_until("the file is named", || server.log("err").contains("precious.txt"));
        let said = server.end();
        assert_eq!(said.err.contains("client"), says, "{}", said.err);
        assert_eq!(said.out.is_empty(), !says, "{}", said.out);
        std::fs::write(dir.join("shown/precious.txt"), kept).unwrap();
    }
}

#[test]
fn a_state_that_is_gone_is_told_of_by_its_name() {
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 16M");
    let server = Server::start(&dir, "s", "-q --history 50ms --keep 1 --name vm disk.qcow2");
    let mut writer = Client::connect_to(&server.socket(), "vm").unwrap();
    let mut reader = Client::connect_to(&server.socket(), "vm/v0").unwrap();
    let mut number = 0;
    wait_until("the state is gone", || {
        number += 1;
        writer.send(Command::WRITE, CommandFlags::NONE, (0, 512), &[number; 512]).unwrap();
        writer.answer().unwrap();
        // A written range: what was never written is nobody's, and reads as zeros for ever.
        reader.send(Command::READ, CommandFlags::NONE, (0, 512), &[]).unwrap();
        let code = reader.outcome().unwrap().code;
        if code == Code::OK {
            let mut data = [0; 512];
            std::io::Read::read_exact(&mut reader.socket, &mut data).unwrap();
        }
        code != Code::OK
    });
    wait_until("that is told", || server.log("err").contains("\"vm/v0\" is served no more"));
    let said = server.end();
    assert!(!said.err.contains("version"), "{}", said.err);
}

#[test]
fn disks_have_names_of_their_own_or_the_error_says_how_to_name_them() {
    let dir = Dir::new();
    dir.raw("g.img", 4 << 20);
    let read = "serve --read-only --listen unix:s.sock";
    dir.fails(&format!("{read} g.img g.img"), &["\"g\"", "--name"]);
    // It has no partitions: that is what is wrong with it, and not its name.
    dir.fails(&format!("{read} g.img g.img#1"), &["no partition table"]);
}

/// Whoever is named first.
#[test]
fn a_base_is_not_written_beside_its_overlay() {
    if !peer::require(&["qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    dir.ok("create -q base.qcow2 1M");
    dir.ok("create -q -b base.qcow2 -F qcow2 top.qcow2");
    for order in ["base.qcow2 top.qcow2", "top.qcow2 base.qcow2"] {
        let words = ["base.qcow2: cannot be written while", "top.qcow2 stands on it"];
        dir.fails(&format!("serve --listen unix:s.sock {order}"), &words);
    }
    Server::start(&dir, "s", "--read-only base.qcow2 top.qcow2").end();
}
