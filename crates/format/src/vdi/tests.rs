use super::alloc::{Bits, Slots};
use super::layout::{BLOCK_FREE, BLOCK_ZERO, ENTRY};
use super::map::{Entry, Map};
use super::{Header, Uuid, probe};
use chart::{Epochs, Kind, Pin, Source};
use std::sync::Arc;
use testkit::source::Memory;

#[test]
fn a_mark_is_known_behind_any_text() {
    let mut head = [b'<'; 512];
    assert!(!probe(&head));
    head[64..68].copy_from_slice(&[0x7f, 0x10, 0xda, 0xbe]);
    assert!(probe(&head) && probe(&head[..68]) && !probe(&head[..67]));
}

#[test]
fn a_uuid_is_shown_as_virtualbox_shows_it() {
    let stored = Uuid(std::array::from_fn(|i| i as u8));
    assert_eq!(stored.to_string(), "03020100-0504-0706-0809-0a0b0c0d0e0f");
    let fresh = Uuid::fresh();
    assert_ne!(fresh, Uuid::fresh());
    let text = fresh.to_string();
    assert_eq!(text.len(), 36);
    assert_eq!(&text[14..15], "4");
    assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"));
}

#[test]
fn a_new_header_reads_as_what_it_was_made_of() {
    for size in [0, 512, 1 << 20, (5 << 30) + 512] {
        let new = super::New::of(size);
        let header = new.header(3).unwrap();
        let memory = Memory::new(512);
        let bytes = zerocopy::IntoBytes::as_bytes(&header.head);
        memory.write_at(0, bytes, chart::Wait::Allowed).unwrap();
        let read = Header::read(&memory).unwrap();
        assert_eq!(read, header);
        assert_eq!((read.size(), read.block_size(), read.uuid()), (size, 1 << 20, new.uuid));
        assert!(read.data_offset().is_multiple_of(1 << 20));
    }
    assert_eq!(super::New::of(513).size, 1024);
    let too_long = super::New::of(33 << 40).header(0).unwrap_err();
    assert_eq!(too_long.kind(), Kind::Invalid);
    assert_eq!(Header::read(&Memory::new(100)).unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn a_map_says_what_it_was_given() {
    let blocks = 40_000;
    let mut bytes = vec![0xff; blocks * ENTRY as usize + 512];
    for (block, word) in [(0, 7_u32), (16_384, BLOCK_ZERO), (39_999, 1)] {
        bytes[512 + block * 4..][..4].copy_from_slice(&word.to_le_bytes());
    }
    let map = Map::read(&Memory::of(bytes), 512, blocks as u64).unwrap();
    assert_eq!((map.entry(0), map.entry(1)), (Entry::At(7), Entry::Free));
    assert_eq!((map.entry(16_384), map.entry(39_999)), (Entry::Zero, Entry::At(1)));
    assert_eq!((map.entry(40_000), map.entry(u64::MAX)), (Entry::Free, Entry::Free));
    map.set(35_000, Entry::At(9));
    let stored: Vec<_> = map.stored(39_999).collect();
    assert_eq!(stored, [(0, 7), (35_000, 9)]);
    let mut out = [0; 8];
    map.write(34_999, 2, &mut out);
    assert_eq!(out, [BLOCK_FREE.to_le_bytes(), 7_u32.to_le_bytes()].concat()[..]);
}

#[test]
fn bits_are_found_by_number_and_by_gap() {
    let mut bits = Bits::default();
    assert_eq!((bits.end(), bits.next_clear(70), bits.next_set(0)), (0, 70, 0));
    for bit in [0, 1, 63, 64, 200] {
        assert!(bits.set(bit) && !bits.set(bit));
    }
    assert_eq!((bits.end(), bits.next_clear(0), bits.next_clear(63)), (201, 2, 65));
    assert_eq!((bits.next_set(2), bits.next_set(65)), (63, 200));
    bits.clear(200);
    assert_eq!((bits.end(), bits.has(64), bits.has(200), bits.has(9999)), (65, true, false, false));
}

/// Ten slots, of which the first four are taken.
fn slots() -> (Slots, Arc<Epochs>) {
    let mut taken = Bits::default();
    (0..4).for_each(|slot| assert!(taken.set(slot)));
    (Slots::new(taken, 6), Arc::default())
}

#[test]
fn a_slot_is_nobody_elses_before_its_map_is_durable_and_its_readers_are_gone() {
    let (mut slots, epochs) = slots();
    slots.let_go(7, 2);
    assert_eq!(slots.take(10, &epochs).unwrap(), (4, false));
    let leaving = slots.leaving();
    assert_eq!(slots.take(10, &epochs).unwrap(), (5, false));
    let reader = Pin::on(&[Arc::clone(&epochs)]);
    slots.left(leaving, epochs.now());
    // Nothing was ever written to this one.
    assert_eq!(slots.take(10, &epochs).unwrap(), (6, true));
    drop(reader);
    assert_eq!(slots.take(10, &epochs).unwrap(), (2, false));
    assert_eq!(slots.holes(), []);
    assert_eq!(slots.take(7, &epochs).unwrap_err().kind(), Kind::NoSpace);
}

#[test]
fn a_slot_that_is_taken_back_while_its_map_is_written_stays_taken() {
    let (mut slots, epochs) = slots();
    slots.let_go(7, 2);
    let leaving = slots.leaving();
    assert_eq!(slots.again(7), Some(2));
    assert_eq!(slots.again(7), None);
    slots.let_go(7, 2);
    slots.left(leaving, epochs.now());
    slots.reclaim(&epochs);
    // The second time is not durable yet.
    assert_eq!(slots.take(10, &epochs).unwrap().0, 4);
    let leaving = slots.leaving();
    slots.stay(leaving);
    let leaving = slots.leaving();
    slots.left(leaving, epochs.now());
    assert_eq!(slots.take(10, &epochs).unwrap().0, 2);
}

#[test]
fn holes_are_what_lies_free_between_taken_slots() {
    let (mut slots, _) = slots();
    [0, 2, 3].into_iter().for_each(|slot| slots.release(slot));
    assert_eq!((slots.holes(), slots.end()), (vec![(0, 1)], 2));
    slots.take_this(5);
    assert_eq!((slots.holes(), slots.end()), (vec![(0, 1), (2, 3)], 6));
}
