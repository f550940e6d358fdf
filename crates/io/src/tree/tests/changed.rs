//! Files that are not what they were (S0.5): an error by name, never other bytes, and nothing else suffers.

use super::*;
use chart::{Kind as Fault, Run};
use rustix::fs::{AtFlags, CWD, FallocateFlags, Timespec, Timestamps};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::time::Instant;

const LEN: usize = 5000;

/// Three files; what is done to the second, once it was read and before; and what is said of it then.
fn refused(word: &str, change: impl Fn(&Dir)) {
    for warm in [false, true] {
        let dir = Dir::new();
        for (name, byte) in [("a", 1), ("dir/victim", 2), ("z", 3)] {
            dir.file(name, &[byte; LEN]);
        }
        let files = laid_out(&dir.tree());
        let starts: Vec<u64> = (0..3).map(|i| files.member(i).start).collect();
        let victim = (0..3).find(|&i| files.member(i).name.ends_with("victim")).unwrap();
        if warm {
            assert_eq!(read(&files, starts[victim], LEN).unwrap(), [2; LEN]);
        }
        change(&dir);
        for wait in [Wait::Allowed, Wait::Never, Wait::Allowed] {
            let mut buf = vec![0; 100];
            let e = files.read_at(starts[victim] + 50, &mut buf, wait).unwrap_err();
            if wait == Wait::Never {
                assert!(e.is_would_block() || e.kind() == Fault::Conflict, "{e}");
                continue;
            }
            assert_eq!((e.kind(), e.remedy()), (Fault::Conflict, Some(chart::Remedy::ChartAgain)), "{e}");
            assert!(e.to_string().contains("dir/victim: ") && e.to_string().contains(word), "{e}");
        }
        // Nor is it lent to anybody.
        let e = files.lend(starts[victim] + 50, &mut |_, _| ()).unwrap_err();
        assert_eq!(e.kind(), Fault::Conflict, "{e}");
        // A read that spans it fails; others do not suffer.
        read(&files, 0, files.len() as usize).unwrap_err();
        for i in (0..3).filter(|&i| i != victim) {
            let bytes = read(&files, starts[i], LEN).unwrap();
            assert!(bytes == [1; LEN] || bytes == [3; LEN]);
        }
        // What is stored may always be said; only reading must not lie.
        assert!(files.data_at(starts[victim], 10).unwrap().data);
    }
}

/// Who is lent a file gets the right part of it, and hears when it changed meanwhile.
#[test]
fn a_file_is_lent_as_long_as_it_is_what_it_was() {
    let dir = Dir::new();
    dir.file("a", &[1; LEN]);
    dir.file("b", &[[2; LEN], [3; LEN]].concat());
    let files = laid_out(&dir.tree());
    let start = files.member(1).start;
    let mut lent = Vec::new();
    let mut look = |fd: std::os::fd::BorrowedFd<'_>, from: u64| {
        lent = vec![0; 10];
        rustix::io::pread(fd, &mut lent, from).unwrap();
    };
    files.lend(start + LEN as u64 - 4, &mut look).unwrap();
    assert_eq!(lent, [2, 2, 2, 2, 3, 3, 3, 3, 3, 3]);
    let gap = files.lend(files.len() - 1, &mut |_, _| ());
    assert!(gap.is_err() || files.member_at(files.len() - 1).is_some());
    a_tick();
    let change = &mut |_: std::os::fd::BorrowedFd<'_>, _| {
        fs::OpenOptions::new().append(true).open(dir.0.path().join("b")).unwrap().set_len(3).unwrap();
    };
    let e = files.lend(start, change).unwrap_err();
    assert!(e.kind() == Fault::Conflict && e.to_string().contains("/b: "), "{e}");
}

/// The times of a file, put back as they were: all but the one that only the system sets.
fn restore_times(path: &Path, meta: &fs::Metadata) {
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let times = Timestamps {
        last_access: time(meta.atime(), meta.atime_nsec()),
        last_modification: time(meta.mtime(), meta.mtime_nsec()),
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
}

/// Longer than the clock that file systems note times by takes to go on.
fn a_tick() {
    std::thread::sleep(std::time::Duration::from_millis(15));
}

#[test]
fn missing() {
    refused("is gone", |dir| fs::remove_file(dir.at("dir/victim")).unwrap());
}

#[test]
fn renamed() {
    refused("is gone", |dir| fs::rename(dir.at("dir/victim"), dir.at("other")).unwrap());
}

#[test]
fn replaced_by_renaming_over_it() {
    refused("another file", |dir| {
        dir.file("new", &[2; LEN]);
        restore_times(&dir.at("new"), &fs::metadata(dir.at("dir/victim")).unwrap());
        fs::rename(dir.at("new"), dir.at("dir/victim")).unwrap();
    });
}

#[test]
fn removed_and_made_anew() {
    refused("", |dir| {
        fs::remove_file(dir.at("dir/victim")).unwrap();
        a_tick();
        dir.file("dir/victim", &[2; LEN]);
    });
}

#[test]
fn shorter() {
    refused("had 5000 bytes when it was found, and has 4999 now", |dir| {
        fs::File::options().write(true).open(dir.at("dir/victim")).unwrap().set_len(LEN as u64 - 1).unwrap();
    });
}

#[test]
fn longer() {
    refused("has 5003 now", |dir| {
        let file = fs::File::options().append(true).open(dir.at("dir/victim")).unwrap();
        std::io::Write::write_all(&mut &file, b"abc").unwrap();
    });
}

#[test]
fn written_to_in_its_length() {
    refused("written to", |dir| {
        a_tick();
        let file = fs::File::options().write(true).open(dir.at("dir/victim")).unwrap();
        file.write_all_at(b"other", 60).unwrap();
    });
}

#[test]
fn a_hole_is_punched_into_it() {
    refused("written to", |dir| {
        a_tick();
        let file = fs::File::options().write(true).open(dir.at("dir/victim")).unwrap();
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, how, 0, 4096).unwrap();
    });
}

#[test]
fn written_to_and_its_time_of_change_put_back() {
    refused("has been changed", |dir| {
        a_tick();
        let path = dir.at("dir/victim");
        let meta = fs::metadata(&path).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(b"other", 60).unwrap();
        restore_times(&path, &meta);
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), meta.modified().unwrap());
    });
}

#[test]
fn written_to_through_a_mapping() {
    if !testkit::peer::require(&["python3"]) {
        return;
    }
    refused("written to", |dir| {
        a_tick();
        let status = std::process::Command::new("python3")
            .args(["-c", "import mmap,sys; f=open(sys.argv[1],'r+b'); m=mmap.mmap(f.fileno(),0); m[60]=9"])
            .arg(dir.at("dir/victim"))
            .status();
        assert!(status.unwrap().success());
    });
}

#[test]
fn with_another_mode_or_another_name_beside() {
    // Its bytes are the same, but nothing says so: the time that tells of this tells of writing too.
    refused("its mode", |dir| {
        a_tick();
        fs::set_permissions(dir.at("dir/victim"), fs::Permissions::from_mode(0o600)).unwrap();
    });
    refused("number of links", |dir| {
        a_tick();
        fs::hard_link(dir.at("dir/victim"), dir.at("second name")).unwrap();
    });
}

#[test]
fn a_pipe_in_its_place_does_not_hang() {
    refused("no regular file", |dir| {
        fs::remove_file(dir.at("dir/victim")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(dir.at("dir/victim")).status();
        assert!(made.unwrap().success());
    });
}

#[test]
fn a_directory_or_a_link_in_its_place() {
    refused("no regular file", |dir| {
        fs::remove_file(dir.at("dir/victim")).unwrap();
        fs::create_dir(dir.at("dir/victim")).unwrap();
    });
    refused("symbolic link", |dir| {
        fs::rename(dir.at("dir/victim"), dir.at("moved")).unwrap();
        symlink("../moved", dir.at("dir/victim")).unwrap();
    });
}

/// The file is as it was, but its name no longer leads there within the root. Somebody who has it open is told so
/// when the name is looked up anew.
fn lost_on_the_way(word: &str, change: impl Fn(&Dir)) {
    let dir = Dir::new();
    dir.file("dir/sub/file", &[7; LEN]);
    dir.file("other", &[8; LEN]);
    for warm in [false, true] {
        let files = laid_out(&dir.tree());
        let start = (0..2).map(|i| files.member(i)).find(|m| m.name.starts_with("dir")).unwrap().start;
        if warm {
            read(&files, start, LEN).unwrap();
        }
        change(&dir);
        let begun = Instant::now();
        let e = loop {
            match read(&files, start, LEN) {
                Ok(bytes) => assert_eq!(bytes, [7; LEN]),
                Err(e) => break e,
            }
            assert!(warm && begun.elapsed() < std::time::Duration::from_secs(5));
            std::thread::sleep(std::time::Duration::from_millis(20));
        };
        assert_eq!(e.kind(), Fault::Conflict);
        assert!(e.to_string().contains("dir/sub/file: ") && e.to_string().contains(word), "{e}");
        // Put back, with nothing of it changed, it is read again.
        let _ = fs::remove_file(dir.at("dir"));
        fs::rename(dir.at("moved"), dir.at("dir")).unwrap();
        assert_eq!(read(&files, start, LEN).unwrap(), [7; LEN]);
    }
}

#[test]
fn a_directory_on_the_way_is_moved() {
    lost_on_the_way("is gone", |dir| fs::rename(dir.at("dir"), dir.at("moved")).unwrap());
}

#[test]
fn a_symbolic_link_takes_the_place_of_a_directory_on_the_way() {
    lost_on_the_way("symbolic link", |dir| {
        fs::rename(dir.at("dir"), dir.at("moved")).unwrap();
        symlink("moved", dir.at("dir")).unwrap();
    });
}

#[test]
fn more_files_are_read_than_descriptors_are_kept() {
    let dir = Dir::new();
    for i in 0..700 {
        dir.file(&format!("{i:03}"), &[i as u8; 10]);
    }
    let files = laid_out(&dir.tree());
    let open_here = || {
        let all = fs::read_dir("/proc/self/fd").unwrap();
        all.filter(|fd| fs::read_link(fd.as_ref().unwrap().path()).is_ok_and(|p| p.starts_with(&dir.0)))
            .count()
    };
    let before = open_here();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let files = &files;
            scope.spawn(move || {
                for i in (0..700_u64).map(|i| (i * 37 + thread) % 700).chain(0..700) {
                    let mut buf = [0; 10];
                    match files.read_at(i * 1000, &mut buf, Wait::Never) {
                        Err(e) if e.is_would_block() => {
                            files.read_at(i * 1000, &mut buf, Wait::Allowed).unwrap();
                        }
                        done => done.unwrap(),
                    }
                    assert_eq!(buf, [i as u8; 10]);
                }
            });
        }
    });
    let after = open_here();
    assert!(after > before + 10 && after <= before + 256, "{before} {after}");
}

#[test]
fn what_is_in_memory_is_read_without_waiting_once_it_is_open() {
    let dir = Dir::new();
    dir.file("a", &[1; LEN]);
    let files = laid_out(&dir.tree());
    let mut buf = [0; 100];
    assert!(files.read_at(0, &mut buf, Wait::Never).unwrap_err().is_would_block());
    assert_eq!(read(&files, 0, LEN).unwrap(), [1; LEN]);
    match files.read_at(7, &mut buf, Wait::Never) {
        Ok(()) => assert_eq!(buf, [1; 100]),
        // tmpfs refuses such reads.
        Err(e) => assert!(e.is_would_block(), "{e}"),
    }
    // What is between files needs no file.
    files.read_at(LEN as u64, &mut buf, Wait::Never).unwrap();
    assert_eq!(buf, [0; 100]);
}

#[test]
fn holes_are_those_of_the_files() {
    let dir = Dir::new();
    let sparse = fs::File::create(dir.at("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    sparse.write_all_at(&[1; 4096], 512 << 10).unwrap();
    sparse.sync_all().unwrap();
    dir.file("whole", &[2; 10_000]);
    let files = laid_out(&dir.tree());
    let whole = files.member(1).start;
    assert_eq!(files.data_at(0, u64::MAX).unwrap(), Run { len: 512 << 10, data: false });
    assert_eq!(files.data_at(512 << 10, 1 << 20).unwrap(), Run { len: 4096, data: true });
    assert_eq!(files.data_at(1 << 20, 1 << 20).unwrap(), Run { len: whole - (1 << 20), data: false });
    assert_eq!(files.data_at(whole, u64::MAX).unwrap(), Run { len: 10_000, data: true });
    testkit::contract::source_law(files.as_ref(), 7).unwrap();
}

#[test]
fn files_that_were_told_are_those_that_were_found() {
    let dir = Dir::new();
    for (name, byte) in [("a", 1), ("dir/b", 2), ("dir/c", 3)] {
        dir.file(name, &[byte; LEN]);
    }
    let found = laid_out(&dir.tree());
    let mut told = Files::beneath(open_root(dir.0.path()).unwrap(), dir.0.path().to_path_buf());
    (0..3).for_each(|i| told.member(&found.member(i)).unwrap());
    let told = told.build(found.len()).unwrap();
    assert_eq!(read(&told, 0, told.len() as usize).unwrap(), read(&found, 0, found.len() as usize).unwrap());
    assert_eq!(told.member_at(LEN as u64), found.member_at(LEN as u64));
    testkit::contract::source_law(told.as_ref(), 3).unwrap();
    // Nothing outside is opened, whatever name is told.
    dir.file("outside", &[9; LEN]);
    let outside =
        laid_out(&dir.tree()).member_at(LEN as u64).filter(|m| m.name.ends_with("outside")).unwrap();
    for name in ["../outside", "/etc/passwd", "b/../../outside", "./../outside"] {
        let mut files = Files::beneath(open_root(&dir.at("dir")).unwrap(), dir.at("dir"));
        files.member(&chart::Member { name: name.into(), start: 0, ..outside.clone() }).unwrap();
        let e = read(&files.build(LEN as u64).unwrap(), 0, 10).unwrap_err();
        assert_eq!(e.kind(), Fault::Conflict, "{name}: {e}");
    }
}

#[test]
fn files_do_not_overlap() {
    let dir = Dir::new();
    ["a", "b", "c"].iter().for_each(|name| dir.file(name, &[1; 100]));
    let tree = dir.tree();
    let mut files = tree.files();
    files.file(10, NodeId(1)).unwrap();
    assert_eq!(files.file(109, NodeId(2)).unwrap_err().kind(), Fault::Invalid);
    files.file(110, NodeId(2)).unwrap();
    assert_eq!(files.file(300, NodeId(1)).unwrap_err().kind(), Fault::Invalid);
    assert_eq!(files.file(u64::MAX - 50, NodeId(3)).unwrap_err().kind(), Fault::Invalid);
    assert_eq!(files.build(209).err().unwrap().kind(), Fault::OutOfRange);
}

#[test]
fn who_reads_while_somebody_writes_gets_old_bytes_or_an_error() {
    let dir = Dir::new();
    dir.file("victim", &[0; 256 << 10]);
    let path = dir.at("victim");
    let read_most = std::sync::atomic::AtomicUsize::new(0);
    for round in 0..25_u8 {
        a_tick();
        let files = laid_out(&dir.tree());
        let begun = fs::metadata(&path).unwrap();
        a_tick();
        let written = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for reader in 0..2 {
                let (files, written, read_most) = (&files, &written, &read_most);
                scope.spawn(move || {
                    let mut buf = vec![0; 200 << 10];
                    loop {
                        let last = written.load(std::sync::atomic::Ordering::Acquire);
                        let wait = if reader == 0 { Wait::Allowed } else { Wait::Never };
                        match files.read_at(1000, &mut buf, wait) {
                            Ok(()) => {
                                assert!(!last, "read after it was written to");
                                assert!(buf.iter().all(|&b| b == round), "bytes of two times");
                                read_most.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            }
                            Err(e) => assert!(e.is_would_block() || e.kind() == Fault::Conflict, "{e}"),
                        }
                        if last {
                            break;
                        }
                    }
                });
            }
            std::thread::sleep(std::time::Duration::from_micros(u64::from(round) * 137));
            let file = fs::File::options().write(true).open(&path).unwrap();
            for at in 0..16 {
                file.write_all_at(&[round + 1; 16 << 10], at << 14).unwrap();
                restore_times(&path, &begun);
            }
            written.store(true, std::sync::atomic::Ordering::Release);
        });
    }
    assert!(read_most.into_inner() > 25, "nothing was read");
}
