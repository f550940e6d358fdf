use super::*;
use crate::file::{File, Options};
use chart::Wait;

const LEN: u64 = 5_000_123;

fn file(dir: &std::path::Path, name: &str) -> File {
    let file = File::open(dir.join(name), Options { create_new: true, ..Options::default() }).unwrap();
    file.set_len(LEN).unwrap();
    file
}

fn bytes(file: &File) -> Vec<u8> {
    let mut all = vec![0; LEN as usize];
    file.read_at(0, &mut all, Wait::Allowed).unwrap();
    all
}

#[test]
fn both_engines_move_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let from = file(dir.path(), "from");
    let data: Vec<u8> = (0..LEN).map(|i| if i / 9000 % 3 == 0 { 0 } else { i as u8 | 1 }).collect();
    from.write_at(0, &data, Wait::Allowed).unwrap();
    for (i, choice) in [Choice::Threads, Choice::Uring].into_iter().enumerate() {
        for (j, zeros) in [Zeros::Copied, Zeros::Told, Zeros::LeftOut].into_iter().enumerate() {
            let to = file(dir.path(), &format!("to-{i}-{j}"));
            let mut expected = vec![0; LEN as usize];
            if zeros != Zeros::LeftOut {
                expected.fill(7);
                to.write_at(0, &expected, Wait::Allowed).unwrap();
            }
            let transfer = Transfer { from: &from, offset: 100, to: &to, at: 5000, len: 4_900_000, zeros };
            let moved = choice.mover(1 << 20).transfer(&transfer).unwrap();
            expected[5000..4_905_000].copy_from_slice(&data[100..4_900_100]);
            assert!(bytes(&to) == expected, "{choice:?} {zeros:?}");
            assert_eq!(moved.copied + moved.zeros, 4_900_000);
            assert_eq!(moved.zeros > 0, zeros != Zeros::Copied);
        }
    }
}

#[test]
fn a_failed_transfer_leaves_an_engine_that_still_works() {
    let dir = tempfile::tempdir().unwrap();
    for (i, choice) in [Choice::Threads, Choice::Uring, Choice::Auto].into_iter().enumerate() {
        let (from, to) = (file(dir.path(), &format!("from-{i}")), file(dir.path(), &format!("to-{i}")));
        // Past the page cache `Auto` takes the ring.
        let from = if choice == Choice::Auto { direct(from.path()) } else { from };
        let mut mover = choice.mover(1 << 20);
        // Shorter than it says it is: somebody else cut it off.
        std::fs::OpenOptions::new().write(true).open(from.path()).unwrap().set_len(1 << 20).unwrap();
        let transfer = Transfer { from: &from, offset: 0, to: &to, at: 0, len: LEN, zeros: Zeros::Copied };
        let e = mover.transfer(&transfer).unwrap_err();
        assert_eq!(e.kind(), chart::Kind::Conflict, "{choice:?}: {e}");
        let moved = mover.transfer(&Transfer { len: 1 << 20, ..transfer }).unwrap();
        assert_eq!(moved.copied, 1 << 20);
    }
}

/// Past the page cache, or through it where the file system offers nothing else.
fn direct(path: &std::path::Path) -> File {
    let options = Options { writable: true, direct: true, ..Options::default() };
    match File::open(path, options) {
        Err(e) if e.os_code() == Some(libc::EINVAL) => {
            File::open(path, Options { direct: false, ..options }).unwrap()
        }
        file => file.unwrap(),
    }
}

#[test]
fn what_goes_past_the_page_cache_may_begin_and_end_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let from = file(dir.path(), "from");
    let data: Vec<u8> = (0..LEN).map(|i| if i / 9000 % 3 == 0 { 0 } else { (i / 5) as u8 | 1 }).collect();
    from.write_at(0, &data, Wait::Allowed).unwrap();
    let from = direct(from.path());
    for (choice, zeros) in [Choice::Auto, Choice::Threads, Choice::Uring]
        .into_iter()
        .flat_map(|choice| [Zeros::Copied, Zeros::LeftOut].map(|zeros| (choice, zeros)))
    {
        let mut mover = choice.mover(1 << 20);
        for (i, &(offset, at, len)) in [
            (0, 0, LEN),
            (100, 5000, 4_900_000),
            (4096, 4096, 1 << 21),
            (4000, 1, 97),
            (4000, 0, 200),
            (7, 7, 0),
        ]
        .iter()
        .enumerate()
        {
            let name = format!("to-{choice:?}-{zeros:?}-{i}");
            let to = direct(file(dir.path(), &name).path());
            let transfer = Transfer { from: &from, offset, to: &to, at, len, zeros };
            let moved = mover.transfer(&transfer).unwrap();
            let mut expected = vec![0; LEN as usize];
            let (offset, at, len) = (offset as usize, at as usize, len as usize);
            expected[at..at + len].copy_from_slice(&data[offset..offset + len]);
            assert!(bytes(&to) == expected, "{name}");
            assert_eq!(moved.copied + moved.zeros, len as u64);
        }
    }
}

#[test]
fn runs_of_zeros_are_found_block_by_block() {
    let mut bytes = vec![0; 5 * ZERO_BLOCK + 10];
    bytes[ZERO_BLOCK] = 1;
    bytes[5 * ZERO_BLOCK + 9] = 1;
    let runs: Vec<_> = zero_runs(&bytes).collect();
    let b = ZERO_BLOCK;
    assert_eq!(runs, [(0, b, true), (b, 2 * b, false), (2 * b, 5 * b, true), (5 * b, 5 * b + 10, false)]);
}

/// From here on this thread has no io_uring, as under the filters that containers run with; `false` where it cannot be
/// taken away.
fn forbid_io_uring() -> bool {
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let is_equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    let step = |code: u32, jf, k| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let filter = [
        // The number of the system call is the first thing a filter is shown.
        step(load, 0, 0),
        step(is_equal, 1, libc::SYS_io_uring_setup as u32),
        step(answer, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(answer, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program points to a filter that outlives the call, which copies it; both concern this thread only.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    }
}

#[test]
fn where_io_uring_is_refused_the_reference_does_the_work() {
    let dir = tempfile::tempdir().unwrap();
    let from = file(dir.path(), "from");
    let data: Vec<u8> = (0..LEN).map(|i| i as u8).collect();
    from.write_at(0, &data, Wait::Allowed).unwrap();
    let work = || {
        if !forbid_io_uring() {
            eprintln!("SKIPPED: needs seccomp");
            return;
        }
        assert!(uring::Ring::new().is_none());
        for choice in [Choice::Auto, Choice::Uring] {
            let to = file(dir.path(), &format!("{choice:?}"));
            let transfer =
                Transfer { from: &from, offset: 0, to: &to, at: 0, len: LEN, zeros: Zeros::Copied };
            let moved = choice.mover(1 << 20).transfer(&transfer).unwrap();
            assert_eq!(moved.copied, LEN);
            assert!(bytes(&to) == data, "{choice:?}");
        }
    };
    // What a thread has given up it does not get back.
    std::thread::scope(|scope| scope.spawn(work).join().unwrap());
}
