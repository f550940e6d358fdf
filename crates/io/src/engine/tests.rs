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
    let (from, to) = (file(dir.path(), "from"), file(dir.path(), "to"));
    for choice in [Choice::Threads, Choice::Uring] {
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

#[test]
fn runs_of_zeros_are_found_block_by_block() {
    let mut bytes = vec![0; 5 * ZERO_BLOCK + 10];
    bytes[ZERO_BLOCK] = 1;
    bytes[5 * ZERO_BLOCK + 9] = 1;
    let runs: Vec<_> = zero_runs(&bytes).collect();
    let b = ZERO_BLOCK;
    assert_eq!(runs, [(0, b, true), (b, 2 * b, false), (2 * b, 5 * b, true), (5 * b, 5 * b + 10, false)]);
}
