//! Every tool, on every format, over every way to a server.

use super::activation::{Inetd, handed_over};
use super::{Server, on_a_port, on_a_socket, tls};
use crate::run::Dir;
use std::path::Path;
use std::process::Command;

const SIZE: u64 = 16 << 20;

const FORMATS: [&str; 3] = ["raw", "qcow2", "vdi"];

const TOOLS: [&str; 7] = ["nbdinfo", "nbdcopy", "nbdsh", "qemu-img", "qemu-io", "fio", "cmp"];

/// What nbdsh says, and must be told.
const SESSION: &str = r#"
h = nbd.NBD()
h.set_uri_allow_local_file(True)
h.add_meta_context("base:allocation")
h.connect_uri(uri)
assert h.get_size() == size and h.get_tls_negotiated() == tls
h.pwrite(b"words" * 1000, 12345, nbd.CMD_FLAG_FUA)
h.zero(1000, 13345)
h.trim(65536, 1 << 20)
h.flush()
expected = b"words" * 200 + bytes(1000) + b"words" * 600
assert h.pread(5000, 12345) == expected
assert h.pread_structured(5000, 12345, lambda *chunk: None, nbd.CMD_FLAG_DF) == expected
assert h.pread(65536, 1 << 20) == bytes(65536)
told = []
h.block_status(65536, 1 << 20, lambda context, offset, entries, error: told.extend(entries))
assert told[1] & nbd.STATE_ZERO, told
h.cache(65536, 0)
h.shutdown()
"#;

/// An export as the tools name it.
struct Reached {
    uri: String,
    /// What QEMU's tools are told before the disk, and the disk.
    qemu: (Vec<String>, String),
    /// How many connections there may be at a time.
    connections: usize,
}

impl Reached {
    fn at(uri: String) -> Reached {
        Reached { qemu: (vec!["-f".into(), "raw".into()], uri.clone()), uri, connections: 4 }
    }

    /// At a port under TLS, by whoever trusts what is in this directory.
    fn guarded(server: &Server<'_>, trusted: &Path) -> Reached {
        let uri = tls::uri(server, trusted);
        let port = uri.split(['/', '?', ':']).find(|part| part.parse::<u16>().is_ok()).unwrap();
        let credentials = format!("tls-creds-x509,id=t,endpoint=client,dir={}", trusted.display());
        let words = ["--object".to_owned(), credentials, "--image-opts".to_owned()];
        let disk =
            format!("driver=nbd,server.type=inet,server.host=localhost,server.port={port},tls-creds=t");
        Reached { qemu: (words.into(), disk), uri, connections: 4 }
    }

    fn is_guarded(&self) -> bool {
        self.uri.starts_with("nbds")
    }

    /// All tools write and read; what the disk holds then is in `served.raw`.
    #[track_caller]
    fn used(&self, dir: &Dir) {
        let (uri, connections) = (&self.uri, self.connections);
        assert_eq!(dir.tool("nbdinfo", &format!("--size {uri}")).trim(), SIZE.to_string());
        dir.tool("nbdcopy", &format!("--flush -C {connections} from.raw {uri}"));
        dir.tool("nbdcopy", &format!("-C {connections} {uri} to.raw"));
        dir.tool("cmp", "from.raw to.raw");
        assert!(dir.tool("nbdinfo", &format!("--map {uri}")).contains("data"));

        let begin = format!("uri, size, tls = {uri:?}, {SIZE}, {}", u8::from(self.is_guarded()));
        // It takes the first python3, and only the system's knows libnbd.
        let path = format!("/usr/bin:{}", std::env::var("PATH").unwrap_or_default());
        let mut nbdsh = Command::new("nbdsh");
        let said = nbdsh.args(["-c", &begin, "-c", SESSION]).env("PATH", path).current_dir(dir.path());
        let said = said.output().unwrap();
        assert!(said.status.success(), "{uri}: {}", String::from_utf8_lossy(&said.stderr));

        let (words, disk) = (self.qemu.0.join("|"), &self.qemu.1);
        let commands = ["write -P 7 2M 300k", "write -z 2100k 64k", "discard 3M 1M", "flush"];
        let reads = ["read -P 7 2M 52k", "read -P 0 2100k 64k", "read -P 0 3M 1M"];
        let all: String = commands.iter().chain(&reads).map(|c| format!("-c|{c}|")).collect();
        let said = dir.tool("qemu-io", &format!("{words}|{all}{disk}"));
        assert!(!said.contains("failed") && !said.contains("error"), "{said}");

        // fio cannot say whom it trusts: see `tls::fio_verifies_what_it_wrote_under_tls`.
        if !self.is_guarded() {
            for work in super::load::WORKS {
                let own = format!(
                    "--size=2M --offset=4M --offset_increment=2M --numjobs={connections} --thread --iodepth=16"
                );
                let verify =
                    "--serialize_overlap=1 --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=5";
                dir.tool("fio", &format!("--name=v --ioengine=nbd --uri={uri} {own} {verify} {work}"));
            }
        }
        dir.tool("qemu-img", &format!("convert|{words}|-O|raw|{disk}|served.raw"));
    }
}

/// Empty disks, one after another, each reached in this way; what was served is what the image holds then.
fn works(way: impl Fn(&Dir, &str, &dyn Fn(Reached))) {
    if !testkit::peer::require(&TOOLS) {
        return;
    }
    for format in FORMATS {
        let dir = Dir::new();
        dir.raw("from.raw", SIZE);
        let image = format!("disk.{format}");
        dir.tool("qemu-img", &format!("create -q -f {format} {image} {SIZE}"));
        way(&dir, &format!("-f {format} {image}"), &|reached| reached.used(&dir));
        dir.tool("qemu-img", &format!("compare -q -f {format} -F raw {image} served.raw"));
        if format != "raw" {
            dir.tool("qemu-img", &format!("check -q -f {format} {image}"));
        }
    }
}

#[test]
fn all_tools_work_over_a_unix_socket() {
    works(|dir, args, used| {
        let server = on_a_socket(dir, "s", args);
        used(Reached::at(server.uri("")));
        server.end();
    });
}

#[test]
fn all_tools_work_over_tcp() {
    works(|dir, args, used| {
        let server = on_a_port(dir, "s", args);
        used(Reached::at(server.uri("")));
        server.end();
    });
}

#[test]
fn all_tools_work_under_tls() {
    if !testkit::peer::require(&["openssl"]) {
        return;
    }
    works(|dir, args, used| {
        let ours = tls::certificates(dir, "ours");
        let server = on_a_port(dir, "s", &format!("--tls ours --tls-verify-peer {args}"));
        used(Reached::guarded(&server, &tls::trusting(dir, "client", &ours, Some(&ours))));
        server.end();
    });
}

#[test]
fn all_tools_work_over_a_socket_of_a_service_manager() {
    works(|dir, args, used| {
        let server = handed_over(dir, "s", args);
        used(Reached::at(server.uri("")));
        server.end();
    });
}

/// Every connection has a server of its own, so that there is one at a time: the image is locked meanwhile.
#[test]
fn all_tools_work_over_standard_input() {
    works(|dir, args, used| {
        let inetd = Inetd::start(dir, args);
        let uri = format!("nbd+unix:///?socket={}", dir.join("inetd.sock").display());
        used(Reached { connections: 1, ..Reached::at(uri) });
        let ends = inetd.end();
        assert!(ends.len() > 6 && ends.iter().all(|code| *code == 0), "{ends:?}");
    });
}
