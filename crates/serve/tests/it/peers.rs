//! Clients we did not write.

use crate::support::Serving;
use chart::{Disk, Source, Wait};
use format::qcow2::create::{New, create};
use format::qcow2::{Image, Options};
use io::memory::Memory;
use io::nbd::wire::{Opt, OptionHeader};
use serve::Export;
use serve::nbd::Limits;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Output};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use testkit::source::Slow;

/// A qcow2 image in what `container` makes of memory.
fn image_in(len: u64, container: impl FnOnce(Arc<dyn Source>) -> Arc<dyn Source>) -> Arc<Disk> {
    let memory: Arc<dyn Source> = Arc::new(Memory::new("image", 0));
    create(memory.as_ref(), None, &New::of(len)).unwrap();
    let options = Options { writable: true, ..Options::default() };
    let image = Image::open(container(memory), &options, &mut |_| unreachable!()).unwrap();
    Arc::new(image).disk("image").unwrap()
}

/// A qcow2 image of 8 MiB in memory.
fn image() -> Arc<Disk> {
    image_in(8 << 20, |memory| memory)
}

fn run(words: &[&str]) -> Output {
    // nbdsh takes the first python3, and only the system's knows libnbd.
    let path = std::env::var("PATH").unwrap_or_default();
    let path = if words[0] == "nbdsh" { format!("/usr/bin:{path}") } else { path };
    // Some leave files where they are run.
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env("PATH", path).current_dir(dir.path());
    let done = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(done.status.success(), "{}: {}{}", words.join(" "), text(&done.stdout), text(&done.stderr));
    done
}

#[test]
fn nbdinfo_and_qemu_io_agree_with_the_disk() {
    if !testkit::peer::require(&["nbdinfo", "qemu-io"]) {
        return;
    }
    let disk = image();
    let serving = Serving::one(Arc::clone(&disk));
    let uri = serving.uri("");
    let size = run(&["nbdinfo", "--size", &uri]);
    assert_eq!(String::from_utf8_lossy(&size.stdout).trim(), (8 << 20).to_string());
    let io = |what: &[&str]| {
        let mut words = vec!["qemu-io", "-f", "raw"];
        what.iter().for_each(|w| words.extend(["-c", w]));
        words.push(&uri);
        run(&words)
    };
    io(&["write -P 7 64k 100k", "write -z 100k 4k", "read -P 7 64k 36k", "read -P 0 100k 4k", "flush"]);
    let mut buf = vec![0; 100 << 10];
    disk.read_at(64 << 10, &mut buf, Wait::Allowed).unwrap();
    let zeros = 36 << 10..40 << 10;
    assert!(buf.iter().enumerate().all(|(i, b)| *b == if zeros.contains(&i) { 0 } else { 7 }));
    io(&["discard 64k 64k", "read -P 0 64k 64k", "read -P 7 128k 36k"]);
    let map = run(&["nbdinfo", "--map", &uri]);
    assert!(String::from_utf8_lossy(&map.stdout).contains("hole,zero"));
}

#[test]
fn nbdsh_is_answered_word_by_word() {
    if !testkit::peer::require(&["nbdsh"]) {
        return;
    }
    let exports = || vec![Export::new("disk", image()), Export::new("other", image_in(1 << 20, |m| m))];
    // What is at hand at once, and what goes through the array.
    for slow in [false, true] {
        let mut exports = exports();
        if slow {
            exports[0] = Export::new("disk", image_in(8 << 20, |m| Arc::new(Slow::new(m, Duration::ZERO))));
        }
        let serving = Serving::start(exports, Limits::default(), None);
        let begin = format!("uri, size = {:?}, {}", serving.uri("disk"), 8 << 20);
        let said = run(&["nbdsh", "-c", &begin, "-c", include_str!("session.py")]);
        assert!(String::from_utf8_lossy(&said.stdout).ends_with("all well\n"));
        let counters = serving.server.counters();
        assert_eq!(counters.broken.load(Relaxed), 0);
        assert!(counters.errors.load(Relaxed) >= 10 && counters.array.load(Relaxed) > 0);
    }
}

/// Stands between a client and the server, and notes what the client says.
fn overheard(serving: &Serving, work: impl FnOnce(&str)) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("between");
    let listener = UnixListener::bind(&path).unwrap();
    let (server, heard) = (serving.socket.clone(), Arc::new(Mutex::new(Vec::new())));
    let note = Arc::clone(&heard);
    std::thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            let server = UnixStream::connect(&server).unwrap();
            let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || {
                // Whichever side ends, the other hears of it.
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
            let (mut from, mut to, note) = (client, server, Arc::clone(&note));
            std::thread::spawn(move || {
                let mut piece = [0; 4096];
                while let Ok(len @ 1..) = from.read(&mut piece) {
                    note.lock().unwrap().extend_from_slice(&piece[..len]);
                    if to.write_all(&piece[..len]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    });
    work(&format!("nbd+unix:///?socket={}", path.display()));
    let heard = heard.lock().unwrap().clone();
    assert!(!heard.is_empty());
    heard
}

/// QEMU asks for extended headers from version 8.2 on, and uses them: what is longer than 32 bits is one request.
#[test]
fn qemu_agrees_on_extended_headers() {
    if !testkit::peer::require(&["qemu-io", "qemu-img"]) {
        return;
    }
    let memory: Arc<dyn Source> = Arc::new(Memory::new("image", 0));
    create(memory.as_ref(), None, &New::of(1 << 40)).unwrap();
    let options = Options { writable: true, ..Options::default() };
    let image = Image::open(memory, &options, &mut |_| unreachable!()).unwrap();
    let serving = Serving::one(Arc::new(image).disk("image").unwrap());
    let said = overheard(&serving, |uri| {
        let commands =
            ["write -P 7 5G 1M", "read -P 7 5G 1M", "write -z -n 6G 6G", "read -P 0 11G 1M", "flush"];
        let mut words = vec!["qemu-io", "-f", "raw"];
        commands.iter().for_each(|c| words.extend(["-c", c]));
        let done = run(&[&words[..], &[uri]].concat());
        assert!(!String::from_utf8_lossy(&done.stdout).contains("failed"), "{done:?}");
        let map = run(&["qemu-img", "map", "-f", "raw", "--output=json", uri]);
        let map = String::from_utf8_lossy(&map.stdout).into_owned();
        assert_eq!(map.lines().count(), 3, "{map}");
        assert!(map.contains(&format!("\"length\": {}", (1u64 << 40) - (5 << 30) - (1 << 20))), "{map}");
    });
    let count = |bytes: &[u8]| said.windows(bytes.len()).filter(|window| *window == bytes).count();
    let version = run(&["qemu-io", "--version"]);
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let number = version.split_whitespace().find_map(|word| word.split('.').next()?.parse::<u32>().ok());
    let mut option = Vec::new();
    OptionHeader::put(Opt::EXTENDED_HEADERS, &[], &mut option).unwrap();
    if number.is_some_and(|number| number >= 9) || count(&option) > 0 {
        assert!(count(&option) > 0, "{version} does not ask for extended headers");
        let (extended, compact) = (0x21e4_1c71_u32.to_be_bytes(), 0x2560_9513_u32.to_be_bytes());
        assert!(count(&extended) > 5 && count(&compact) == 0, "not one request as agreed on");
    } else {
        eprintln!("not tested: {version} knows no extended headers");
    }
    assert_eq!(serving.server.counters().errors.load(Relaxed), 0);
}

/// Requests of one connection overtake each other where some are at hand and some are not; what fio wrote it finds.
#[test]
fn fio_verifies_what_is_now_at_hand_and_now_is_not() {
    if !testkit::peer::require(&["fio"]) {
        return;
    }
    let mut cold = None;
    let disk = image_in(16 << 20, |memory| {
        let slow = Arc::new(Slow::new(memory, Duration::from_micros(100)));
        cold = Some(Arc::clone(&slow));
        slow
    });
    let (serving, cold) = (Serving::one(disk), cold.unwrap());
    let uri = format!("--uri={}", serving.uri(""));
    std::thread::scope(|scope| {
        let fio = scope.spawn(|| {
            for work in [
                &["--rw=randwrite", "--bsrange=512-64k"][..],
                &["--rw=randrw", "--bssplit=512/20:4k/60:32k/20", "--verify_backlog=64", "--fsync=40"],
            ] {
                let fixed = [
                    "fio",
                    "--name=v",
                    "--ioengine=nbd",
                    &uri,
                    "--size=4M",
                    "--offset_increment=4M",
                    "--numjobs=4",
                    "--thread",
                    "--iodepth=16",
                    "--serialize_overlap=1",
                    "--verify=crc32c",
                    "--verify_fatal=1",
                ];
                run(&[&fixed[..], work].concat());
            }
        });
        while !fio.is_finished() {
            cold.cool();
            std::thread::sleep(Duration::from_millis(3));
        }
        fio.join().unwrap();
    });
    let counters = serving.server.counters();
    assert!(counters.at_once.load(Relaxed) > 100, "{:?}", counters.each());
    assert!(counters.proxy.load(Relaxed) > 100, "{:?}", counters.each());
    assert_eq!(counters.errors.load(Relaxed), 0);
}
