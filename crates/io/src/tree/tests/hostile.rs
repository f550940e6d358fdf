//! What is done to a directory, while it is shown, by somebody who means no good: nothing is opened that is no file,
//! nothing waits, and what is left alone is read as ever.

use super::found::as_nobody;
use super::*;
use chart::Kind as Fault;
use rustix::fs::inotify;
use rustix::fs::{CWD, FileType};
use std::io::{BufRead, BufReader};
use std::mem::MaybeUninit;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Where a test that was started again finds its directory.
const AGAIN: &str = "TREE_AGAIN";

/// Makes something at a path.
type Make = fn(&Path) -> std::io::Result<()>;

/// Runs a test again as what another command starts.
fn again(command: &[&str], test: &str, dir: &Path) {
    let output = Command::new(command[0])
        .args(&command[1..])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("tree::tests::hostile::{test}"), "--nocapture"])
        .env(AGAIN, dir)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
}

/// What a read of a file fails with, which is to be at once and by its name.
#[track_caller]
fn refused(files: &Files, name: &str) -> chart::Error {
    let (began, at) = (Instant::now(), start(files, name));
    let error = read(files, at, 100).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(5), "{error} after {:?}", began.elapsed());
    assert!(error.to_string().contains(&format!("{name}: ")), "{error}");
    error
}

fn start(files: &Files, name: &str) -> u64 {
    (0..files.count()).map(|i| files.member(i)).find(|member| member.name == Path::new(name)).unwrap().start
}

fn mknod(path: &Path, kind: FileType, device: u64) -> std::io::Result<()> {
    Ok(rustix::fs::mknodat(CWD, path, kind, 0o666.into(), device)?)
}

#[test]
fn what_took_the_place_of_a_file_is_not_opened() {
    let dir = Dir::new();
    let places: [(&str, Make); 6] = [
        ("pipe", |path| mknod(path, FileType::Fifo, 0)),
        ("console", |path| mknod(path, FileType::CharacterDevice, rustix::fs::makedev(5, 1))),
        ("disk", |path| mknod(path, FileType::BlockDevice, rustix::fs::makedev(7, 200))),
        ("socket", |path| mknod(path, FileType::Socket, 0)),
        ("link", |path| symlink("/dev/null", path)),
        ("other", |path| fs::write(path, [7; 5000])),
    ];
    places.iter().for_each(|(name, _)| dir.file(&format!("sub/{name}"), &[7; 5000]));
    dir.file("left alone", &[8; 5000]);
    let files = laid_out(&dir.tree());
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    for (name, make) in places {
        let path = dir.at(&format!("sub/{name}"));
        fs::remove_file(&path).unwrap();
        match make(&path) {
            // Only root makes devices.
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => continue,
            made => made.unwrap(),
        }
        let opened = inotify::WatchFlags::OPEN | inotify::WatchFlags::DONT_FOLLOW;
        inotify::add_watch(&watch, &path, opened).unwrap();
        for _ in 0..3 {
            assert_eq!(refused(&files, &format!("sub/{name}")).kind(), Fault::Conflict);
        }
        let mut buf = [MaybeUninit::uninit(); 512];
        let told = inotify::Reader::new(&watch, &mut buf).next().err();
        assert_eq!(told, Some(rustix::io::Errno::AGAIN), "{name} was opened");
    }
    assert_eq!(read(&files, start(&files, "left alone"), 5000).unwrap(), [8; 5000]);
}

#[test]
fn a_pipe_on_the_way_leads_nowhere() {
    let dir = Dir::new();
    dir.file("sub/file", &[7; 5000]);
    let files = laid_out(&dir.tree());
    fs::rename(dir.at("sub"), dir.at("moved")).unwrap();
    mknod(&dir.at("sub"), FileType::Fifo, 0).unwrap();
    assert_eq!(refused(&files, "sub/file").kind(), Fault::Conflict);
}

#[test]
fn nobody_waits_for_who_has_a_lease_on_a_file() {
    if !testkit::peer::require(&["python3"]) {
        return;
    }
    let dir = Dir::new();
    dir.file("leased", &[7; 5000]);
    dir.file("left alone", &[8; 5000]);
    let files = laid_out(&dir.tree());
    let hold =
        "import fcntl, signal, sys; signal.signal(signal.SIGIO, signal.SIG_IGN); f = open(sys.argv[1], 'r+b')
fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_WRLCK); print('held', flush=True); sys.stdin.read()";
    let mut holder = Command::new("python3")
        .args(["-c", hold])
        .arg(dir.at("leased"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let error = refused(&files, "leased");
    assert_eq!((said.as_str(), error.kind()), ("held\n", Fault::Unavailable), "{error}");
    assert_eq!(read(&files, start(&files, "left alone"), 5000).unwrap(), [8; 5000]);
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    // It was not written to.
    assert_eq!(read(&files, start(&files, "leased"), 5000).unwrap(), [7; 5000]);
}

#[test]
fn the_right_to_read_is_taken_away() {
    const TEST: &str = "tree::tests::hostile::the_right_to_read_is_taken_away";
    if rustix::process::geteuid().is_root() {
        as_nobody(TEST, Path::new("/"));
        return;
    }
    let dir = Dir::new();
    for name in ["open/file", "shut/file", "left alone"] {
        dir.file(name, &[7; 5000]);
    }
    let mode =
        |name: &str, mode| fs::set_permissions(dir.at(name), fs::Permissions::from_mode(mode)).unwrap();
    let files = laid_out(&dir.tree());
    std::thread::sleep(Duration::from_millis(15));
    mode("open/file", 0o000);
    mode("shut", 0o000);
    assert_eq!(refused(&files, "open/file").kind(), Fault::Conflict);
    let error = refused(&files, "shut/file");
    assert!(error.kind() == Fault::Conflict && error.to_string().contains("may not be read"), "{error}");
    assert_eq!(read(&files, start(&files, "left alone"), 5000).unwrap(), [7; 5000]);
    // As it was, it is read: nothing of the file itself was changed.
    mode("shut", 0o700);
    assert_eq!(read(&files, start(&files, "shut/file"), 5000).unwrap(), [7; 5000]);
}

#[test]
fn something_is_mounted_over_it() {
    const TEST: &str = "something_is_mounted_over_it";
    let Some(dir) = std::env::var_os(AGAIN) else {
        if testkit::peer::require(&["root", "unshare"]) {
            let dir = Dir::new();
            ["file", "other", "sub/file", "elsewhere/file"]
                .iter()
                .for_each(|name| dir.file(name, &[7; 5000]));
            // Whatever is mounted there goes with the last who sees it.
            again(&["unshare", "--mount", "--propagation", "private"], TEST, dir.0.path());
        }
        return;
    };
    let dir = Path::new(&dir);
    let run = |words: &[&str]| {
        let status = Command::new(words[0]).args(&words[1..]).current_dir(dir).status().unwrap();
        assert!(status.success(), "{words:?}");
    };
    let files = laid_out(&Arc::new(Tree::of(dir, &Options::default()).unwrap()));
    for (over, with, file) in [("file", "other", "file"), ("sub", "elsewhere", "sub/file")] {
        run(&["mount", "--bind", with, over]);
        assert!(refused(&files, file).to_string().contains("is another file"));
        assert_eq!(read(&files, start(&files, with_file(with)), 5000).unwrap(), [7; 5000]);
        run(&["umount", over]);
        assert_eq!(read(&files, start(&files, file), 5000).unwrap(), [7; 5000]);
    }
}

fn with_file(name: &str) -> &str {
    if name == "elsewhere" { "elsewhere/file" } else { name }
}

/// So many files, and so many descriptors in all, for so many who read.
const FILES: u64 = 3000;
const DESCRIPTORS: u32 = 64;
const READERS: u64 = 24;

#[test]
fn who_may_have_few_descriptors_reads_thousands_of_files_and_leaves_some_to_others() {
    const TEST: &str = "who_may_have_few_descriptors_reads_thousands_of_files_and_leaves_some_to_others";
    let Some(dir) = std::env::var_os(AGAIN) else {
        let dir = Dir::new();
        (0..FILES).for_each(|i| dir.file(&format!("{}/{i:04}", i % 7), &[i as u8; 10]));
        let limit = format!("ulimit -n {DESCRIPTORS}; exec \"$0\" \"$@\"");
        again(&["sh", "-c", &limit], TEST, dir.0.path());
        return;
    };
    let files = laid_out(&Arc::new(Tree::of(Path::new(&dir), &Options::default()).unwrap()));
    let bytes: Vec<u8> = (0..files.count())
        .map(|i| files.member(i).name.file_name().unwrap().to_str().unwrap().parse::<u64>().unwrap() as u8)
        .collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                let (files, bytes) = (&files, &bytes);
                scope.spawn(move || {
                    for i in (0..FILES).map(|i| (i * 997 + reader * 131) % FILES) {
                        let mut buf = [0; 10];
                        files.read_at(i * 1000, &mut buf, Wait::Allowed).unwrap();
                        assert_eq!(buf, [bytes[i as usize]; 10]);
                    }
                })
            })
            .collect();
        // Whoever else wants a descriptor gets one soon.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let began = Instant::now();
                while fs::File::open("/dev/null").is_err() {
                    assert!(began.elapsed() < Duration::from_secs(5), "none left");
                    std::thread::sleep(Duration::from_millis(1));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let failed = readers.into_iter().filter_map(|reader| reader.join().err()).count();
        done.store(true, Ordering::Relaxed);
        assert_eq!(failed, 0, "readers failed");
    });
    let kept = fs::read_dir("/proc/self/fd").unwrap().count() as u32;
    assert!(kept < DESCRIPTORS / 2, "{kept} descriptors are in use when nobody reads");
}

/// What a file held when it was found: told by its name alone.
fn original(name: usize, at: usize) -> u8 {
    (name * 31 + at / 7) as u8
}

/// So many files in so many directories, of which those with even numbers are left alone.
const TARGETS: usize = 60;
const BRANCHES: usize = 6;
const LEN: usize = 20_000;

/// Does something to a file that it is not to be read any more after; or, now and then, something else.
fn attack(dir: &Dir, rng: &mut testkit::Rng, victim: usize) -> std::io::Result<()> {
    let path = dir.at(&format!("{}/{victim}", victim % BRANCHES));
    let (aside, wrong) = (dir.at("aside"), vec![0xee; LEN]);
    let open = || fs::File::options().write(true).open(&path);
    match rng.below(9) {
        0 => open()?.set_len(rng.below(LEN as u64 + 1))?,
        1 => open()?.write_all_at(&wrong[..100], rng.below(LEN as u64))?,
        2 => fs::write(&aside, &wrong).and_then(|()| fs::rename(&aside, &path))?,
        3 => fs::remove_file(&path).and_then(|()| fs::write(&path, &wrong))?,
        4 => fs::remove_file(&path).and_then(|()| mknod(&path, FileType::Fifo, 0))?,
        5 => fs::remove_file(&path).and_then(|()| symlink("../0/0", &path))?,
        6 => fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?,
        7 => {
            let file = open()?;
            let modified = file.metadata()?.modified()?;
            file.write_all_at(&wrong, 0)?;
            file.set_modified(modified)?;
        }
        // The directory of victims alone: it is back in a moment.
        _ => {
            let branch = dir.at("1");
            fs::rename(&branch, &aside)?;
            symlink("0", &branch)?;
            fs::remove_file(&branch)?;
            fs::rename(&aside, &branch)?;
        }
    }
    Ok(())
}

#[test]
fn whatever_is_done_to_files_old_bytes_or_an_error_and_nothing_else_suffers() {
    let dir = Dir::new();
    for i in 0..TARGETS {
        let bytes: Vec<u8> = (0..LEN).map(|at| original(i, at)).collect();
        dir.file(&format!("{}/{i}", i % BRANCHES), &bytes);
    }
    let files = laid_out(&dir.tree());
    let number = |i| files.member(i).name.file_name().unwrap().to_str().unwrap().parse::<usize>().unwrap();
    let numbers: Vec<usize> = (0..TARGETS).map(number).collect();
    let (done, read, refused) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let look = &|seed| {
        let (mut rng, mut buf) = (testkit::Rng::new(seed), vec![0; LEN]);
        while !done.load(Ordering::Relaxed) {
            let (i, from) = (rng.below(TARGETS as u64) as usize, rng.below(LEN as u64) as usize);
            let part = &mut buf[..LEN - from];
            let wait = if rng.below(2) == 0 { Wait::Allowed } else { Wait::Never };
            match files.read_at(files.member(i).start + from as u64, part, wait) {
                Ok(()) => {
                    let same = part.iter().enumerate().all(|(at, &b)| b == original(numbers[i], from + at));
                    assert!(same, "wrong bytes of file {}", numbers[i]);
                    read.fetch_add(1, Ordering::Relaxed);
                }
                Err(e) if e.is_would_block() => assert_eq!(wait, Wait::Never),
                Err(e) => {
                    assert!(numbers[i] % 2 == 1, "{e}");
                    assert!(e.to_string().contains(&format!("/{}: ", numbers[i])), "{e}");
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4).map(|seed| scope.spawn(move || look(seed))).collect();
        let (began, mut rng) = (Instant::now(), testkit::Rng::new(9));
        while began.elapsed() < Duration::from_secs(2) && readers.iter().all(|reader| !reader.is_finished()) {
            let victim = rng.below(TARGETS as u64 / 2) as usize * 2 + 1;
            // Some of it meets with what was done before: a pipe, say, is not to be opened here either.
            let path = dir.at(&format!("{}/{victim}", victim % BRANCHES));
            if fs::symlink_metadata(&path).is_ok_and(|found| found.is_file()) {
                attack(&dir, &mut rng, victim).unwrap();
            }
            std::thread::sleep(Duration::from_millis(rng.below(15)));
        }
        done.store(true, Ordering::Relaxed);
    });
    let (read, refused) = (read.into_inner(), refused.into_inner());
    assert!(read > 1000 && refused > 100, "{read} reads, {refused} refused");
}
