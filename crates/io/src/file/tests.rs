use super::*;
use std::sync::Arc;

fn temp() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    (dir, path)
}

fn made(path: &Path, len: u64) -> File {
    let file = File::open(path, Options { create_new: true, ..Options::default() }).unwrap();
    file.set_len(len).unwrap();
    file
}

#[test]
fn reads_what_was_written_and_refuses_what_is_past_the_end() {
    let (_dir, path) = temp();
    let file = made(&path, 10_000);
    file.write_at(5, b"abc", Wait::Allowed).unwrap();
    let mut buf = [0; 5];
    file.read_at(4, &mut buf, Wait::Allowed).unwrap();
    assert_eq!(&buf, b"\0abc\0");
    assert_eq!(file.read_at(9_998, &mut buf, Wait::Allowed).unwrap_err().kind(), chart::Kind::OutOfRange);
    assert_eq!(file.write_at(u64::MAX, b"x", Wait::Allowed).unwrap_err().kind(), chart::Kind::OutOfRange);
}

#[test]
fn holes_are_known_and_can_be_made() {
    let (_dir, path) = temp();
    let file = made(&path, 1 << 20);
    file.write_at(256 << 10, &vec![7; 256 << 10], Wait::Allowed).unwrap();
    assert_eq!(file.data_at(0, 1 << 20).unwrap(), Run { len: 256 << 10, data: false });
    assert_eq!(file.data_at(256 << 10, 1 << 20).unwrap(), Run { len: 256 << 10, data: true });
    assert_eq!(file.data_at(512 << 10, 1 << 20).unwrap(), Run { len: 512 << 10, data: false });
    file.punch(256 << 10, 128 << 10).unwrap();
    assert_eq!(file.data_at(0, 1 << 20).unwrap(), Run { len: 384 << 10, data: false });
    file.zero(384 << 10, 4096, false).unwrap();
    let mut buf = [1; 4097];
    file.read_at(384 << 10, &mut buf, Wait::Allowed).unwrap();
    assert_eq!((&buf[..4096], buf[4096]), (&[0; 4096][..], 7));
}

#[test]
fn a_file_that_shrank_is_an_error_that_names_it() {
    let (_dir, path) = temp();
    let file = made(&path, 8192);
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
    let e = file.read_at(4096, &mut [0; 10], Wait::Allowed).unwrap_err();
    assert_eq!(e.kind(), chart::Kind::Conflict);
    assert!(e.to_string().contains("disk"), "{e}");
}

#[test]
fn direct_requests_may_be_unaligned() {
    let (_dir, path) = temp();
    made(&path, 10_001);
    let file = match File::open(&path, Options { writable: true, direct: true, ..Options::default() }) {
        Ok(file) => file,
        Err(e) => return assert_eq!(e.os_code(), Some(libc::EINVAL), "only where the file system has none"),
    };
    let data: Vec<u8> = (0..5000u32).map(|i| i as u8).collect();
    file.write_at(5001, &data, Wait::Allowed).unwrap();
    file.write_at(3, b"xyz", Wait::Allowed).unwrap();
    assert_eq!(Source::len(&file), 10_001);
    let mut back = vec![0; 10_001];
    file.read_at(0, &mut back, Wait::Allowed).unwrap();
    assert_eq!((&back[3..6], &back[5001..]), (&b"xyz"[..], &data[..]));
    assert_eq!(std::fs::read(&path).unwrap(), back);
}

#[test]
fn two_writers_refuse_each_other_and_readers_share() {
    let (_dir, path) = temp();
    made(&path, 4096);
    let open = |writable| File::open(&path, Options { writable, ..Options::default() }).unwrap();
    let (a, b) = (open(false), open(false));
    lock(&a, Access::Read).unwrap();
    lock(&b, Access::Read).unwrap();
    let writer = open(true);
    assert_eq!(lock(&writer, Access::Write).unwrap_err().kind(), chart::Kind::Conflict);
    drop((a, b));
    lock(&writer, Access::Write).unwrap();
    assert_eq!(lock(&open(false), Access::Read).unwrap_err().kind(), chart::Kind::Conflict);
    lock(&open(false), Access::Unlocked).unwrap();
}

#[test]
fn identity_survives_reopening_and_tells_files_apart() {
    let (dir, path) = temp();
    let a = Arc::new(made(&path, 1));
    let again = File::open(&path, Options::default()).unwrap();
    assert_eq!(a.identity(), again.identity());
    assert_ne!(a.identity(), made(&dir.path().join("other"), 1).identity());
}

#[test]
fn what_is_rewritten_past_the_cache_leaves_zeros_beside_it() {
    let (_dir, path) = temp();
    let len = 4 << 20;
    drop(made(&path, len));
    let options = Options { writable: true, direct: true, ..Options::default() };
    let Ok(file) = File::open(&path, options) else {
        eprintln!("SKIPPED: needs O_DIRECT in the temporary directory");
        return;
    };
    file.write_at(0, &vec![1; len as usize], Wait::Allowed).unwrap();
    // The first half of every block is written while its second becomes zeros.
    let together = std::sync::Barrier::new(2);
    let each = |act: &dyn Fn(u64)| {
        (0..len).step_by(4096).for_each(|at| {
            together.wait();
            act(at);
        });
    };
    std::thread::scope(|threads| {
        threads.spawn(|| each(&|at| file.write_at(at, &[2; 2048], Wait::Allowed).unwrap()));
        threads.spawn(|| each(&|at| file.punch(at + 2048, 2048).unwrap()));
    });
    let mut held = vec![0; len as usize];
    file.read_at(0, &mut held, Wait::Allowed).unwrap();
    for block in held.chunks(4096) {
        assert!(block[..2048] == [2; 2048] && block[2048..] == [0; 2048]);
    }
}
