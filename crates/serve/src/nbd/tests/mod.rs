//! What needs no client: buffers, and what replies look like. The rest is tested against real ones, in `tests/it`.

use super::buffer::{Input, Output};
use super::means::Means;
use super::reply::Chunks;
use io::nbd::wire::{Chunk, ChunkKind, Command, CommandFlags, Headers, Request};

#[test]
fn output_keeps_what_is_put_and_forgets_what_is_cut() {
    let mut out = Output::new(&Means::new(0));
    out.put(|head| head.extend_from_slice(b"head"));
    let mark = out.len();
    out.room(200 << 10).fill(7);
    out.cut(mark);
    out.room(2).copy_from_slice(b"ab");
    out.patch(1, |head| head.extend_from_slice(b"EA"));
    assert_eq!(out.filled(), b"hEAdab");
    let (bytes, used) = out.take();
    assert_eq!((&bytes[..used], out.len()), (&b"hEAdab"[..], 0));
    out.room(4 << 20);
    out.clear();
    assert_eq!(out.filled(), b"");
}

#[test]
fn input_makes_room_for_what_is_missing() {
    let mut input = Input::new(8);
    input.space(1)[..8].copy_from_slice(b"abcdefgh");
    input.filled_by(8);
    input.eat(6);
    assert_eq!(input.filled(), b"gh");
    let space = input.space(4);
    assert_eq!(space.len(), 6);
    space[..2].copy_from_slice(b"ij");
    input.filled_by(2);
    assert_eq!(input.filled(), b"ghij");
    input.eat(4);
    assert_eq!(input.space(8).len(), 8);
}

#[test]
fn chunks_tell_runs_apart_and_the_last_one() {
    for headers in [Headers::Structured, Headers::Extended] {
        let request =
            Request { flags: CommandFlags::NONE, command: Command::READ, cookie: 9, offset: 4096, len: 3072 };
        let mut out = Output::new(&Means::new(0));
        let mut chunks = Chunks::new(headers, &request, &mut out);
        chunks.data(512).fill(1);
        chunks.data(512).fill(2);
        chunks.hole(1024);
        chunks.data(1024).fill(3);
        assert_eq!(chunks.missing(), 0);
        chunks.close();
        let head = if headers == Headers::Extended { Chunk::EXTENDED_LEN } else { Chunk::STRUCTURED_LEN };
        let (mut rest, mut seen) = (out.filled(), Vec::new());
        while !rest.is_empty() {
            let io::nbd::wire::Reply::Chunk(chunk) =
                io::nbd::wire::Reply::parse(headers, &rest[..head]).unwrap()
            else {
                panic!("a simple reply")
            };
            seen.push((chunk.kind, chunk.len, chunk.is_last()));
            rest = &rest[head + chunk.len as usize..];
        }
        let data = ChunkKind::OFFSET_DATA;
        let hole = ChunkKind::OFFSET_HOLE;
        assert_eq!(seen, [(data, 1032, false), (hole, 12, false), (data, 1032, true)]);
    }
}

#[test]
fn a_buffer_goes_from_one_to_the_next() {
    let means = Means::new(1 << 20);
    let (mut one, mut other) = (Output::new(&means), Output::new(&means));
    one.room(300 << 10).fill(1);
    let first = one.filled().as_ptr();
    one.clear();
    other.room(10).fill(2);
    assert_eq!(other.filled().as_ptr(), first);
    // What it already held goes with it where it grows.
    other.room(500 << 10).fill(3);
    assert_eq!((&other.filled()[..10], other.len()), (&[2; 10][..], (500 << 10) + 10));
    drop(other);
    // The larger one was given back last, but is not as large as this.
    assert!(means.pool.take(2 << 20).len() >= 2 << 20);
    let (larger, smaller) = (means.pool.take(100), means.pool.take(100));
    assert_eq!((larger.len(), smaller.as_ptr()), (512 << 10, first));
}

#[test]
fn what_is_held_is_counted_until_it_is_dropped() {
    let means = Means::new(100);
    let share = means.budget.hold(60);
    assert!(means.budget.has_room(40) && !means.budget.has_room(41));
    let more = means.budget.hold(60);
    assert_eq!((means.budget.held(), means.budget.has_room(0)), (120, false));
    drop((share, more));
    assert!(means.budget.has_room(100));
}
