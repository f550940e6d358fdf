//! Against the servers people run.

use super::{Rng, Server, open, options, read};
use chart::{Kind, Source, Wait};
use io::nbd::wire::{Headers, TransmissionFlags};
use io::nbd::{Client, list};
use std::sync::atomic::{AtomicU64, Ordering};
use testkit::peer;

const MIB: u64 = 1 << 20;

/// Random reads, writes, zeroes and punches, against what a vector would hold.
fn model(client: &Client, seed: u64, rounds: usize) {
    let len = client.len();
    let mut rng = Rng(seed);
    let mut model = read(client, 0, len as usize);
    for round in 0..rounds {
        let offset = rng.below(len);
        let limit = if rng.below(8) == 0 { 300_000 } else { 5000 };
        let size = rng.below(limit.min(len - offset)) + 1;
        let range = offset as usize..(offset + size) as usize;
        match rng.below(6) {
            0 | 1 => {
                let data: Vec<u8> = (0..size).map(|_| rng.next() as u8).collect();
                if rng.below(4) == 0 {
                    client.write_fua(offset, &data).unwrap();
                } else {
                    client.write_at(offset, &data, Wait::Allowed).unwrap();
                }
                model[range].copy_from_slice(&data);
            }
            2 => {
                client.zero(offset, size, false).unwrap();
                model[range].fill(0);
            }
            3 => match client.punch(offset, size) {
                Ok(()) => model[range].fill(0),
                Err(e) => {
                    assert_eq!(e.kind(), Kind::Unsupported, "{e}");
                    // A refusal should change nothing, but QEMU may have zeroed a part.
                    let now = read(client, offset, size as usize);
                    let sound = now.iter().zip(&model[range.clone()]).all(|(&n, &m)| n == m || n == 0);
                    assert!(sound, "round {round}");
                    model[range].copy_from_slice(&now);
                }
            },
            4 => match client.data_at(offset, size).unwrap() {
                run if run.data => assert!(run.len >= 1 && run.len <= size),
                run => {
                    assert!(run.len >= 1 && run.len <= size);
                    let zero = model[range][..run.len as usize].iter().all(|&b| b == 0);
                    assert!(zero, "round {round}: {offset} {run:?}");
                }
            },
            _ => assert!(read(client, offset, size as usize) == model[range], "round {round}"),
        }
    }
    client.flush().unwrap();
    assert!(read(client, 0, len as usize) == model);
}

#[test]
fn a_vector_and_nbdkit_agree() {
    if !peer::require(&["nbdkit"]) {
        return;
    }
    for arguments in [
        &["memory", "3M"][..],
        &["--no-sr", "memory", "3M"],
        &["--filter=nozero", "memory", "3M"],
        &[
            "--filter=blocksize-policy",
            "memory",
            "3M",
            "blocksize-minimum=512",
            "blocksize-error-policy=error",
        ],
        &[
            "--filter=blocksize-policy",
            "memory",
            "3M",
            "blocksize-minimum=4096",
            "blocksize-preferred=64K",
            "blocksize-maximum=64K",
            "blocksize-error-policy=error",
        ],
        &["--filter=noextents", "--filter=fua", "memory", "3M", "fuamode=emulate"],
    ] {
        let server = Server::nbdkit(arguments);
        let client = open(&server.uri());
        let simple = arguments.contains(&"--no-sr");
        assert_eq!(client.export().headers, if simple { Headers::Simple } else { Headers::Structured });
        assert_eq!(client.tells_holes(), !simple);
        model(&client, 7, 400);
    }
}

#[test]
fn a_vector_and_qemu_nbd_agree_with_extended_headers() {
    if !peer::require(&["qemu-nbd", "qemu-img"]) {
        return;
    }
    let directory = tempfile::TempDir::new().unwrap();
    for format in ["raw", "qcow2"] {
        let image = directory.path().join(format).display().to_string();
        peer::run("qemu-img", &["create", "-q", "-f", format, &image, "3M"]);
        let server =
            Server::start("qemu-nbd", &["-f", format, "-k", "{}", "-x", "disk one", "-D", "words", &image]);
        let uri = server.uri().replace("///?", "///disk%20one?");
        let client = open(&uri);
        let export = client.export();
        assert_eq!(export.headers, Headers::Extended);
        assert_eq!((export.name.as_str(), export.description.as_str()), ("disk one", "words"));
        assert!(export.contexts.iter().any(|c| c == "base:allocation"), "{:?}", export.contexts);
        model(&client, 11, 400);
    }
}

#[test]
fn holes_of_a_qcow2_are_holes() {
    if !peer::require(&["qemu-nbd", "qemu-img", "qemu-io"]) {
        return;
    }
    let directory = tempfile::TempDir::new().unwrap();
    let image = directory.path().join("q").display().to_string();
    peer::run("qemu-img", &["create", "-q", "-f", "qcow2", &image, "64G"]);
    peer::run("qemu-io", &["-f", "qcow2", "-c", "write -P 7 1M 128k", "-c", "write -P 8 5G 64k", &image]);
    let server = Server::start("qemu-nbd", &["-r", "-f", "qcow2", "-k", "{}", &image]);
    let client = open(&server.uri());
    assert!(client.limits().read_only);
    let (mut at, mut data) = (0, Vec::new());
    while at < client.len() {
        let run = client.data_at(at, client.len() - at).unwrap();
        if run.data {
            data.push((at, run.len));
        }
        at += run.len;
    }
    assert_eq!(data, [(MIB, 128 << 10), (5 << 30, 64 << 10)]);
    assert_eq!(read(&client, 5 << 30, 3), [8, 8, 8]);
    let refused = client.write_at(0, &[1], Wait::Allowed).unwrap_err();
    assert_eq!(refused.kind(), Kind::ReadOnly);
    assert!(client.read_at(0, &mut [0], Wait::Never).unwrap_err().is_would_block());
    assert_eq!(client.read_at(client.len(), &mut [0], Wait::Allowed).unwrap_err().kind(), Kind::OutOfRange);
}

#[test]
fn writes_make_the_kept_block_status_stale() {
    if !peer::require(&["nbdkit"]) {
        return;
    }
    let server = Server::nbdkit(&["memory", "1M"]);
    let client = open(&server.uri());
    assert!(!client.data_at(0, MIB).unwrap().data);
    client.write_at(100_000, &[1], Wait::Allowed).unwrap();
    let run = client.data_at(100_000, 1).unwrap();
    assert!(run.data);
    client.zero(0, MIB, false).unwrap();
    client.punch(0, MIB).unwrap();
    assert!(!client.data_at(100_000, 1).unwrap().data);
}

#[test]
fn many_threads_share_one_connection() {
    if !peer::require(&["nbdkit"]) {
        return;
    }
    for arguments in [&["memory", "64M"][..], &["--no-sr", "memory", "64M"]] {
        let server = Server::nbdkit(arguments);
        let client = open(&server.uri());
        let done = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..16u64 {
                let (client, done) = (&client, &done);
                scope.spawn(move || {
                    let mut rng = Rng(thread + 1);
                    let base = thread * 4 * MIB;
                    let mut model = vec![0u8; 4 << 20];
                    for _ in 0..150 {
                        let offset = rng.below(4 * MIB - 1);
                        let size = rng.below((4 * MIB - offset).min(200_000)) + 1;
                        let range = offset as usize..(offset + size) as usize;
                        if rng.below(2) == 0 {
                            model[range.clone()].fill(rng.next() as u8);
                            client.write_at(base + offset, &model[range], Wait::Allowed).unwrap();
                        } else {
                            assert!(read(client, base + offset, size as usize) == model[range]);
                        }
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(done.into_inner(), 16);
    }
}

#[test]
fn unaligned_writes_that_share_a_block_do_not_undo_each_other() {
    if !peer::require(&["nbdkit"]) {
        return;
    }
    let server = Server::nbdkit(&[
        "--filter=blocksize-policy",
        "memory",
        "64K",
        "blocksize-minimum=4096",
        "blocksize-error-policy=error",
    ]);
    let client = open(&server.uri());
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let client = &client;
            scope.spawn(move || {
                for round in 0..60u8 {
                    for slot in 0..16 {
                        client.write_at(slot * 4096 + thread * 512, &[round; 512], Wait::Allowed).unwrap();
                    }
                }
            });
        }
    });
    assert!(read(&client, 0, 65536).iter().all(|&b| b == 59));
}

#[test]
fn overlapping_requests_reach_the_server_together() {
    if !peer::require(&["nbdkit"]) {
        return;
    }
    let server = Server::nbdkit(&["--filter=delay", "memory", "1M", "rdelay=100ms"]);
    let client = open(&server.uri());
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| read(&client, 0, 512));
        }
    });
    assert!(began.elapsed().as_millis() < 500, "{:?}", began.elapsed());
}

#[test]
fn the_servers_errors_keep_their_meaning() {
    if !peer::require(&["nbdkit"]) {
        return;
    }
    for (error, kind) in [("EPERM", Kind::Denied), ("EIO", Kind::Io), ("ENOSPC", Kind::NoSpace)] {
        let pread = format!("error-pwrite={error}");
        let server = Server::nbdkit(&["--filter=error", "memory", "1M", &pread, "error-pwrite-rate=100%"]);
        let client = open(&server.uri());
        let failed = client.write_at(4096, &[0; 512], Wait::Allowed).unwrap_err();
        assert_eq!(failed.kind(), kind, "{failed}");
        // The connection, and the source, go on.
        assert_eq!(read(&client, 0, 4), [0; 4]);
        client.flush().unwrap();
        assert!(!client.limits().read_only);
    }
}

#[test]
fn a_failed_flush_latches_the_source() {
    if !peer::require(&["nbdkit"]) {
        return;
    }
    let script = "case \"$1\" in get_size) echo 1M;; can_write|can_flush) exit 0;; \
                  pread) dd if=/dev/zero bs=$3 count=1 status=none;; pwrite) cat >/dev/null;; \
                  flush) echo 'EIO the disk is gone' >&2; exit 1;; *) exit 2;; esac";
    let script: Vec<String> = ["get_size", "can_write", "can_flush", "pread", "pwrite", "flush"]
        .iter()
        .map(|m| format!("{m}=set -- {m} \"$@\"; shift; set -- {m} \"$@\"; {}", script.replace("\"$1\"", m)))
        .collect();
    let mut arguments = vec!["eval"];
    arguments.extend(script.iter().map(String::as_str));
    let server = Server::nbdkit(&arguments);
    let client = open(&server.uri());
    client.write_at(0, &[1], Wait::Allowed).unwrap();
    let failed = client.flush().unwrap_err();
    assert_eq!(failed.kind(), Kind::Io, "{failed}");
    assert!(client.limits().read_only);
    assert_eq!(client.flush().unwrap_err().kind(), Kind::ReadOnly);
    let refused = client.write_at(0, &[1], Wait::Allowed).unwrap_err();
    assert!(refused.to_string().contains("a flush failed"), "{refused}");
}

#[test]
fn delays_past_the_limit_break_the_connection() {
    if !peer::require(&["nbdkit"]) {
        return;
    }
    let server = Server::nbdkit(&["--filter=delay", "memory", "1M", "rdelay=3"]);
    let mut options = options();
    options.timeout = std::time::Duration::from_millis(300);
    let client = Client::open(&server.uri(), options).unwrap();
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let failed = client.read_at(0, &mut [0; 512], Wait::Allowed).unwrap_err();
                assert_eq!(failed.kind(), Kind::Unavailable, "{failed}");
            });
        }
    });
    // Reconnecting is tried elsewhere: this nbdkit may die of an assertion when its client goes.
    assert!(began.elapsed().as_secs() < 2);
}

#[test]
fn a_killed_server_fails_what_is_in_flight_and_reads_come_back() {
    if !peer::require(&["nbdkit"]) {
        return;
    }
    let arguments = ["-f", "--exit-with-parent", "-U", "{}", "memory", "1M"];
    let mut server = Server::start("nbdkit", &arguments);
    let client = open(&server.uri());
    client.write_at(0, &[9; 512], Wait::Allowed).unwrap();
    client.flush().unwrap();
    let before = client.identity();
    server.again("nbdkit", &arguments);
    // Nothing was unflushed: the first request may find out, but the source goes on, writes included.
    let _ = client.read_at(0, &mut [0; 512], Wait::Allowed);
    assert_eq!(read(&client, 0, 512), [0; 512]);
    assert_ne!(client.identity(), before, "another connection may be to another disk");
    client.write_at(0, &[7; 512], Wait::Allowed).unwrap();

    // Now something is.
    server.again("nbdkit", &arguments);
    let _ = client.read_at(0, &mut [0; 512], Wait::Allowed);
    let failed = client.flush().unwrap_err();
    assert_eq!(failed.kind(), Kind::ReadOnly, "{failed}");
    assert!(failed.to_string().contains("not flushed"), "{failed}");
    assert_eq!(client.write_at(0, &[1], Wait::Allowed).unwrap_err().kind(), Kind::ReadOnly);
    assert!(client.limits().read_only);
    assert_eq!(read(&client, 0, 512), [0; 512], "reading goes on");
}

#[test]
fn a_write_after_the_server_restarted_while_nothing_was_asked_goes_through() {
    if !peer::require(&["nbdkit"]) {
        return;
    }
    let arguments = ["-f", "--exit-with-parent", "-U", "{}", "memory", "1M"];
    let mut server = Server::start("nbdkit", &arguments);
    let client = open(&server.uri());
    client.write_at(0, &[9; 512], Wait::Allowed).unwrap();
    client.flush().unwrap();
    server.again("nbdkit", &arguments);
    std::thread::sleep(std::time::Duration::from_millis(60));
    client.write_at(0, &[8; 512], Wait::Allowed).unwrap();
    client.flush().unwrap();
    assert_eq!(read(&client, 0, 512), [8; 512]);
}

#[test]
fn a_server_that_stays_away_and_one_that_comes_back_as_another() {
    if !peer::require(&["nbdkit"]) {
        return;
    }
    let arguments = ["-f", "--exit-with-parent", "-U", "{}", "memory", "1M"];
    let mut server = Server::start("nbdkit", &arguments);
    let mut patient = options();
    patient.patience = std::time::Duration::from_millis(300);
    let client = Client::open(&server.uri(), patient).unwrap();
    server.kill();
    let _ = client.read_at(0, &mut [0; 512], Wait::Allowed);
    let began = std::time::Instant::now();
    let failed = client.read_at(0, &mut [0; 512], Wait::Allowed).unwrap_err();
    assert_eq!(failed.kind(), Kind::Unavailable, "{failed}");
    assert!(began.elapsed().as_secs() < 2);
    server.again("nbdkit", &["-f", "--exit-with-parent", "-U", "{}", "memory", "2M"]);
    std::thread::sleep(std::time::Duration::from_millis(500));
    let failed = client.read_at(0, &mut [0; 512], Wait::Allowed).unwrap_err();
    assert_eq!(failed.kind(), Kind::Conflict, "{failed}");
}

#[test]
fn exports_are_listed_and_missing_ones_named() {
    if !peer::require(&["qemu-nbd", "qemu-img", "nbdkit"]) {
        return;
    }
    let directory = tempfile::TempDir::new().unwrap();
    let image = directory.path().join("r").display().to_string();
    peer::run("qemu-img", &["create", "-q", "-f", "raw", &image, "1M"]);
    let server =
        Server::start("qemu-nbd", &["-t", "-f", "raw", "-k", "{}", "-x", "one", "-D", "words", &image]);
    let found = list(&server.uri(), &options()).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].name.as_str(), found[0].description.as_str()), ("one", "words"));
    let missing = Client::open(&server.uri(), options()).err().unwrap();
    assert_eq!(missing.kind(), Kind::NotFound, "{missing}");
    assert!(missing.to_string().contains("nbd+unix:///"), "{missing}");

    let server = Server::nbdkit(&[
        "--filter=exportname",
        "memory",
        "1M",
        "exportname-list=explicit",
        "exportname=a",
        "exportname=b",
    ]);
    let names: Vec<_> = list(&server.uri(), &options()).unwrap().into_iter().map(|l| l.name).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn over_tcp_with_all_flags() {
    if !peer::require(&["nbdkit"]) {
        return;
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port_text = port.to_string();
    let directory = tempfile::TempDir::new().unwrap();
    let pid = directory.path().join("pid").display().to_string();
    let mut child = std::process::Command::new("nbdkit")
        .args(["-f", "--exit-with-parent", "-i", "127.0.0.1", "-p", &port_text, "-P", &pid, "memory", "4M"])
        .spawn()
        .unwrap();
    let began = std::time::Instant::now();
    while !std::path::Path::new(&pid).exists() && began.elapsed().as_secs() < 10 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let result = std::panic::catch_unwind(|| {
        let client = open(&format!("nbd://127.0.0.1:{port}/"));
        for flags in
            [TransmissionFlags::SEND_FLUSH, TransmissionFlags::SEND_FUA, TransmissionFlags::SEND_TRIM]
        {
            assert!(client.export().flags.has(flags));
        }
        client.write_at(5, &[1; 100], Wait::Allowed).unwrap();
        client.trim(0, MIB).unwrap();
        model(&client, 3, 100);
    });
    let _ = child.kill();
    let _ = child.wait();
    result.unwrap();
}

#[test]
fn under_tls_with_a_certificate_of_our_own() {
    if !peer::require(&["nbdkit", "openssl"]) {
        return;
    }
    let directory = tempfile::TempDir::new().unwrap();
    crate::http::server::tls::certificates(directory.path());
    let certificates = format!("--tls-certificates={}", directory.path().display());
    let server = Server::nbdkit(&["--tls=require", &certificates, "memory", "3M"]);
    let plain = Client::open(&server.uri(), options()).err().unwrap();
    assert_eq!(plain.kind(), Kind::Denied, "{plain}");
    let secure = server.uri().replace("nbd+unix", "nbds+unix");
    let untrusting = Client::open(&secure, options()).err().unwrap();
    assert_eq!(untrusting.kind(), Kind::Invalid, "{untrusting}");
    let secure = format!("{secure}&tls-certificates={}", directory.path().display());
    let other_name = Client::open(&format!("{secure}&tls-hostname=elsewhere"), options()).err().unwrap();
    assert!(other_name.to_string().contains("TLS"), "{other_name}");

    let client = open(&secure);
    assert!(client.export().tls);
    model(&client, 5, 200);
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let client = &client;
            scope.spawn(move || {
                for round in 0..20u8 {
                    let data = vec![round; 100_000];
                    client.write_at(thread * 300_000, &data, Wait::Allowed).unwrap();
                    assert!(read(client, thread * 300_000, data.len()) == data);
                }
            });
        }
    });
    // A server that restarted while nothing was asked is noticed through TLS as well.
    client.flush().unwrap();
    let mut server = server;
    server.again(
        "nbdkit",
        &["-f", "--exit-with-parent", "-U", "{}", "--tls=require", &certificates, "memory", "3M"],
    );
    std::thread::sleep(std::time::Duration::from_millis(60));
    client.write_at(0, &[1; 512], Wait::Allowed).unwrap();
    client.flush().unwrap();
    // A server without TLS cannot pass for one with it.
    let server = Server::nbdkit(&["memory", "3M"]);
    let secure = format!("{}&tls-certificates={}", server.uri(), directory.path().display());
    let refused = Client::open(&secure.replace("nbd+unix", "nbds+unix"), options()).err().unwrap();
    assert!(refused.to_string().contains("STARTTLS"), "{refused}");
}
