use super::{Event, Failing, Memory, Op, Paused, Recorder, Short, Slow, When};
use crate::contract::source_law;
use chart::{Kind, Source, Wait};
use std::sync::Arc;
use std::time::Duration;

fn memory() -> Arc<dyn Source> {
    Arc::new(Memory::of((0..50_000u32).map(|i| i as u8).collect()))
}

fn all() -> Vec<Arc<dyn Source>> {
    vec![
        memory(),
        Arc::new(Memory::new(30_000).read_only()),
        Arc::new(Short::new(memory(), 512)),
        Arc::new(Short::new(memory(), 777)),
        Arc::new(Slow::new(memory(), Duration::ZERO)),
        Arc::new(Failing::new(memory())),
        Arc::new(Paused::new(memory())),
        Arc::new(Recorder::new(memory()).unwrap()),
        Arc::new(Short::new(Arc::new(Slow::new(Arc::new(Failing::new(memory())), Duration::ZERO)), 4096)),
    ]
}

#[test]
fn every_source_keeps_the_contract() {
    for (i, source) in all().iter().enumerate() {
        for seed in 0..5 {
            source_law(source.as_ref(), seed).unwrap_or_else(|r| panic!("source {i}: {r}"));
        }
    }
}

#[test]
fn memory_knows_what_was_stored() {
    let memory = Memory::new(20_000);
    memory.write_at(5000, &[1], Wait::Never).unwrap();
    let run = |at| memory.data_at(at, u64::MAX).map(|r| (r.len, r.data)).unwrap();
    assert_eq!(run(0), (4096, false));
    assert_eq!(run(4100), (4092, true));
    assert_eq!(run(8192), (20_000 - 8192, false));
    memory.punch(0, 20_000).unwrap();
    assert_eq!(run(0), (20_000, false));
}

#[test]
fn slow_answers_never_only_for_what_was_read() {
    let slow = Slow::new(memory(), Duration::from_millis(1));
    let mut buf = [0; 4096];
    assert!(slow.read_at(0, &mut buf, Wait::Never).unwrap_err().is_would_block());
    slow.read_at(100, &mut buf, Wait::Allowed).unwrap();
    slow.read_at(0, &mut buf, Wait::Never).unwrap();
    slow.read_at(4096, &mut buf, Wait::Never).unwrap();
    assert!(slow.read_at(4097, &mut buf, Wait::Never).unwrap_err().is_would_block());
    slow.cool();
    assert!(slow.read_at(0, &mut buf, Wait::Never).unwrap_err().is_would_block());
}

#[test]
fn failing_fails_when_told_and_latches_after_a_flush() {
    let failing = Failing::new(memory());
    let mut buf = [0; 10];
    failing.fail(Op::Read, 1, Kind::Io);
    failing.fail(Op::Write, 0, Kind::NoSpace);
    failing.read_at(0, &mut buf, Wait::Allowed).unwrap();
    assert_eq!(failing.read_at(0, &mut buf, Wait::Allowed).unwrap_err().kind(), Kind::Io);
    failing.read_at(0, &mut buf, Wait::Allowed).unwrap();
    assert_eq!(failing.write_at(0, &buf, Wait::Allowed).unwrap_err().kind(), Kind::NoSpace);
    failing.write_at(0, &buf, Wait::Allowed).unwrap();
    failing.fail(Op::Flush, 0, Kind::Io);
    failing.flush().unwrap_err();
    failing.mend();
    failing.flush().unwrap_err();
    assert_eq!(failing.write_at(0, &buf, Wait::Allowed).unwrap_err().kind(), Kind::ReadOnly);
    assert_eq!(failing.set_len(1).unwrap_err().kind(), Kind::ReadOnly);
    assert!(failing.limits().read_only && failing.is_latched());
    assert_eq!(failing.failed(), 3);
}

#[test]
fn recorder_notes_what_took_effect() {
    let recorder = Recorder::new(Arc::new(Memory::new(1000))).unwrap();
    recorder.write_at(10, b"abc", Wait::Allowed).unwrap();
    recorder.write_at(999, b"abc", Wait::Allowed).unwrap_err();
    recorder.set_len(2000).unwrap();
    assert!(recorder.has_unflushed());
    recorder.flush().unwrap();
    recorder.mark(7);
    assert!(!recorder.has_unflushed());
    let log = recorder.log();
    assert_eq!(log.initial, vec![0; 1000]);
    let write = Event::Write { offset: 10, data: (*b"abc").into() };
    assert_eq!(log.events, [write, Event::SetLen(2000), Event::Flush, Event::Mark(7)]);
}

#[test]
fn paused_stops_one_before_or_after() {
    let inner: Arc<dyn Source> = Arc::new(Memory::new(10));
    let paused = Arc::new(Paused::new(Arc::clone(&inner)));
    for (when, seen) in [(When::Before, 0), (When::After, 1)] {
        inner.write_at(0, &[0], Wait::Allowed).unwrap();
        let hold = paused.stop(Op::Write, when);
        let writer = Arc::clone(&paused);
        let thread = std::thread::spawn(move || writer.write_at(0, &[1], Wait::Allowed));
        assert!(hold.reached(Duration::from_secs(5)));
        let mut byte = [9];
        paused.read_at(0, &mut byte, Wait::Allowed).unwrap();
        assert_eq!(byte[0], seen);
        // Others pass.
        paused.write_at(1, &[1], Wait::Allowed).unwrap();
        hold.release();
        thread.join().unwrap().unwrap();
    }
}
