//! TLS, with certificates of an authority of our own.

use super::{Server, Start, on_a_port, on_a_socket, refused};
use crate::run::Dir;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes a directory of certificates: an authority, and a server and a client that it vouches for.
pub(super) fn certificates(dir: &Dir, name: &str) -> PathBuf {
    let here = dir.join(name);
    std::fs::create_dir(&here).unwrap();
    let at = |name: &str| here.join(name).display().to_string();
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    let (ca, ca_key) = (at("ca-cert.pem"), at("ca-key.pem"));
    dir.tool("openssl", &format!("req -x509 -days 2 -subj /CN={name} -keyout {ca_key} -out {ca} {new}"));
    for (who, extensions) in [
        ("server", "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n"),
        ("client", "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n"),
    ] {
        let (request, file) = (at("request"), at("extensions"));
        std::fs::write(&file, extensions).unwrap();
        let key = at(&format!("{who}-key.pem"));
        let certificate = at(&format!("{who}-cert.pem"));
        dir.tool("openssl", &format!("req -subj /CN={who} -keyout {key} -out {request} {new}"));
        let sign = format!("x509 -req -days 2 -in {request} -CA {ca} -CAkey {ca_key} -CAcreateserial");
        dir.tool("openssl", &format!("{sign} -extfile {file} -out {certificate}"));
    }
    here
}

/// A directory as a client has it that trusts `authority`, and shows the certificate in `own` where it has one.
pub(super) fn trusting(dir: &Dir, name: &str, authority: &Path, own: Option<&Path>) -> PathBuf {
    let here = dir.join(name);
    std::fs::create_dir(&here).unwrap();
    std::fs::copy(authority.join("ca-cert.pem"), here.join("ca-cert.pem")).unwrap();
    for file in ["client-cert.pem", "client-key.pem"] {
        if let Some(own) = own {
            std::fs::copy(own.join(file), here.join(file)).unwrap();
        }
    }
    here
}

/// The address under TLS, with what the client trusts and shows.
pub(super) fn uri(server: &Server<'_>, certificates: &Path) -> String {
    let uri = server.uri("").replace("nbd+unix", "nbds+unix");
    let and = if uri.contains('?') { '&' } else { '?' };
    format!("{uri}{and}tls-certificates={}", certificates.display())
}

#[test]
fn clients_under_tls_read_and_write() {
    if !testkit::peer::require(&["openssl", "nbdinfo", "nbdcopy", "qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    let ours = certificates(&dir, "ours");
    let client = trusting(&dir, "client", &ours, None);
    dir.raw("from.raw", 16 << 20);
    dir.ok("create -q disk.qcow2 16M");
    for (name, start) in [("u", on_a_socket as Start), ("t", on_a_port)] {
        let server = start(&dir, name, "--tls ours disk.qcow2");
        let uri = uri(&server, &client);
        let told: serde_json::Value =
            serde_json::from_str(&dir.tool("nbdinfo", &format!("--json {uri}"))).unwrap();
        assert_eq!(told["TLS"], true, "{told}");
        dir.tool("nbdcopy", &format!("--flush from.raw {uri}"));
        dir.tool("nbdcopy", &format!("{uri} to.raw"));
        dir.tool("cmp", "from.raw to.raw");
        // Ours, and QEMU's.
        dir.ok(&format!("convert --force -f raw {uri} ours.raw"));
        dir.tool("cmp", "from.raw ours.raw");
        dir.ok(&format!("bench -f raw --write --operations 500 --depth 16 --flush-every 50 {uri}"));
        let credentials = format!("tls-creds-x509,id=t,endpoint=client,dir={}", client.display());
        let place = if name == "u" {
            format!("server.type=unix,server.path={}", server.socket().display())
        } else {
            let port = uri.split(['/', '?', ':']).find(|p| p.parse::<u16>().is_ok()).unwrap();
            format!("server.type=inet,server.host=localhost,server.port={port}")
        };
        let disk = format!("driver=nbd,{place},tls-creds=t,tls-hostname=localhost");
        dir.tool("qemu-img", &format!("convert --object {credentials} --image-opts {disk} -O raw qemu.raw"));
        server.end();
        dir.tool("qemu-img", "compare -q -F raw disk.qcow2 qemu.raw");
        dir.tool("qemu-img", "check -q disk.qcow2");
    }
}

#[test]
fn raw_disks_are_served_under_tls_too() {
    if !testkit::peer::require(&["openssl", "nbdcopy"]) {
        return;
    }
    let dir = Dir::new();
    let ours = certificates(&dir, "ours");
    let client = trusting(&dir, "client", &ours, None);
    dir.raw("from.raw", 8 << 20);
    for (name, start) in [("u", on_a_socket as Start), ("t", on_a_port)] {
        dir.ok("create -q --force -f raw disk.raw 8M");
        let server = start(&dir, name, "--tls ours -f raw disk.raw");
        let uri = uri(&server, &client);
        dir.tool("nbdcopy", &format!("--flush from.raw {uri}"));
        dir.tool("nbdcopy", &format!("{uri} to.raw"));
        dir.tool("cmp", "from.raw to.raw");
        server.end();
        dir.tool("cmp", "from.raw disk.raw");
    }
}

/// The words of the line for this client that the server has printed, with the client's own directory in its place.
#[track_caller]
pub(super) fn pasted(server: &Server<'_>, who: &str, certificates: &Path) -> Vec<String> {
    let said = server.log("out");
    let line =
        said.lines().find_map(|line| line.trim().strip_prefix(who)).unwrap_or_else(|| panic!("{said}"));
    let line = line.replace("DIR", &certificates.display().to_string()).replace("HOST", "localhost");
    let script = format!("printf '%s\\n' {}", line.trim());
    let words = Command::new("sh").args(["-c", &script]).output().unwrap();
    String::from_utf8_lossy(&words.stdout).lines().map(str::to_owned).collect()
}

/// What the nbd-client of such a line lists, where it would attach.
#[track_caller]
pub(super) fn listed(dir: &Dir, line: &[String]) -> String {
    let [sudo, tool, words @ .., device] = line else { panic!("{line:?}") };
    assert_eq!((sudo.as_str(), tool.as_str(), device.as_str()), ("sudo", "nbd-client", "/dev/nbd0"));
    let tool = ["/usr/sbin/nbd-client", "/sbin/nbd-client"].into_iter().find(|path| Path::new(path).exists());
    dir.tool(tool.unwrap_or("nbd-client"), &format!("-l|{}", words.join("|")))
}

#[test]
fn what_is_printed_can_be_pasted() {
    if !testkit::peer::require(&["openssl", "nbdinfo", "qemu-img", "nbd-client"]) {
        return;
    }
    let dir = Dir::new();
    let ours = certificates(&dir, "ours");
    let client = trusting(&dir, "client", &ours, Some(&ours));
    dir.ok("create -q disk.qcow2 1M");
    for (name, start) in [("a,b", on_a_socket as Start), ("t", on_a_port)] {
        let server = start(&dir, name, "--name x,y --tls ours --tls-verify-peer disk.qcow2");
        let nbdinfo = pasted(&server, "nbdinfo", &client);
        dir.tool("nbdinfo", &format!("--size|{}", nbdinfo[1]));
        // Not to the kernel, which would have to be asked, but as far as a list.
        let listed = listed(&dir, &pasted(&server, "kernel", &client));
        assert!(listed.contains("x,y: disk.qcow2"), "{listed}");
        let portolan = pasted(&server, "Portolan", &client);
        dir.ok(&portolan[1..].join(" "));
        // The same words as of the emulator, but for the device.
        let qemu = pasted(&server, "QEMU", &client);
        let [_, object, credentials, drive, disk] = &qemu[..] else { panic!("{qemu:?}") };
        assert_eq!((object.as_str(), drive.as_str()), ("-object", "-drive"));
        let disk = disk.strip_suffix(",format=raw,if=virtio").unwrap();
        let said =
            dir.tool("qemu-img", &format!("info|--object|{credentials}|--image-opts|driver=raw,{disk}"));
        assert!(said.contains("1 MiB"), "{said}");
        server.end();
    }
}

/// fio has no way of saying whom it trusts; a server of ours that stands on the one under TLS has.
#[test]
fn fio_verifies_what_it_wrote_under_tls() {
    if !testkit::peer::require(&["openssl", "fio", "qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    let ours = certificates(&dir, "ours");
    dir.ok("create -q disk.qcow2 16M");
    let inner = on_a_port(&dir, "inner", "--tls ours --tls-verify-peer disk.qcow2");
    let outer = Server::start(&dir, "outer", &format!("-f raw {}", uri(&inner, &ours)));
    for work in super::load::WORKS {
        super::load::fio(&dir, &outer.uri(""), work);
    }
    dir.tool("qemu-img", &format!("convert -f raw -O raw {} served.raw", outer.uri("")));
    outer.end();
    inner.end();
    dir.tool("qemu-img", "check -q disk.qcow2");
    dir.tool("qemu-img", "compare -q -F raw disk.qcow2 served.raw");
}

#[test]
fn who_is_not_trusted_is_refused() {
    if !testkit::peer::require(&["openssl", "nbdinfo", "qemu-img"]) {
        return;
    }
    let dir = Dir::new();
    let (ours, theirs) = (certificates(&dir, "ours"), certificates(&dir, "theirs"));
    dir.ok("create -q disk.qcow2 1M");
    let known = trusting(&dir, "known", &ours, Some(&ours));
    let nobody = trusting(&dir, "nobody", &ours, None);
    let stranger = trusting(&dir, "stranger", &ours, Some(&theirs));
    let misled = trusting(&dir, "misled", &theirs, Some(&ours));

    // On a port: over a unix socket libnbd verifies nobody.
    let server = on_a_port(&dir, "any", "--tls ours disk.qcow2");
    let plain = server.uri("").replace("nbds:", "nbd:");
    for (tool, args) in [
        ("nbdinfo", plain.clone()),
        ("nbdinfo", format!("--list {plain}")),
        ("qemu-img", format!("info -f raw {plain}")),
        ("nbdinfo", uri(&server, &misled)),
    ] {
        refused(&dir, tool, &args);
        dir.tool("nbdinfo", &format!("--size {}", uri(&server, &nobody)));
    }
    dir.fails(&format!("info {plain}"), &["TLS"]);
    dir.fails(&format!("info {}", uri(&server, &misled)), &["TLS"]);
    dir.fails(&format!("info {}&tls-hostname=elsewhere", uri(&server, &nobody)), &["TLS"]);
    server.end();

    let server = on_a_port(&dir, "known", "--tls ours --tls-verify-peer disk.qcow2");
    for wrong in [&nobody, &stranger, &misled] {
        refused(&dir, "nbdinfo", &uri(&server, wrong));
        dir.tool("nbdinfo", &format!("--size {}", uri(&server, &known)));
    }
    dir.fails(&format!("info {}", uri(&server, &stranger)), &["nbds"]);
    refused(&dir, "nbdinfo", &server.uri("").replace("nbds:", "nbd:"));
    let said = server.end();
    assert!(said.err.contains("TLS"), "{}", said.err);
}

#[test]
fn what_others_can_reach_needs_tls() {
    let dir = Dir::new();
    dir.ok("create -q disk.qcow2 1M");
    dir.fails("serve --listen tcp:0.0.0.0:0 disk.qcow2", &["0.0.0.0", "TLS"]);
    dir.fails("serve --listen tcp:[::]:0 disk.qcow2", &["::", "TLS"]);
    std::fs::create_dir(dir.join("empty")).unwrap();
    dir.fails("serve --listen tcp:0 --tls empty disk.qcow2", &["server-key.pem"]);
    assert_eq!(dir.run("serve --tls-verify-peer disk.qcow2").code, 2);
}
