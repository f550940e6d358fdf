//! Clients we did not write.

use crate::support::Serving;
use chart::{Disk, Source, Wait};
use format::qcow2::create::{New, create};
use format::qcow2::{Image, Options};
use io::memory::Memory;
use serve::Export;
use serve::nbd::Limits;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
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
