use super::cache::{MIN_CACHE_BYTES, SliceCache, enough};
use super::layout::OFLAG_COPIED;
use super::refcount::Width;
use super::{Clusters, L1, L1Entry, L2Entry, Meaning, Subcluster, probe};
use chart::{Kind, Source, Wait};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use testkit::source::{Memory, Op, Paused, When};

/// A file whose every word is its own offset.
fn counting(len: u64) -> Arc<Memory> {
    Arc::new(Memory::of((0..len / 8).flat_map(|word| (word * 8).to_be_bytes()).collect()))
}

fn small() -> SliceCache {
    SliceCache::new(Clusters::new(16, false).unwrap(), 0)
}

fn word(cache: &SliceCache, file: &dyn Source, offset: u64) -> u64 {
    let (slice, word) = cache.slice_of(offset);
    let mut out = [0];
    cache.read(file, slice, word, &mut out, Wait::Allowed).unwrap();
    out[0]
}

#[test]
fn a_cache_reads_what_the_file_holds_however_small_it_is() {
    let file = counting(4 << 20);
    for bits in [9, 16] {
        let cache = SliceCache::new(Clusters::new(bits, false).unwrap(), 0);
        for round in 0..3u64 {
            for offset in (4096..4 << 20).step_by(4096 - 8 * round as usize) {
                assert_eq!(word(&cache, file.as_ref(), offset / 8 * 8), offset / 8 * 8);
            }
        }
    }
}

#[test]
fn what_is_stored_is_read_and_stays_until_it_is_clean() {
    let (file, cache) = (counting(4 << 20), small());
    assert!(!cache.store(4096, 3, &[1]).unwrap());
    assert!(cache.ensure(file.as_ref(), 4096, Wait::Allowed).unwrap());
    assert!(cache.store(4096, 3, &[1, 2]).unwrap());
    for offset in (8192..4 << 20).step_by(4096) {
        word(&cache, file.as_ref(), offset);
    }
    assert_eq!(word(&cache, file.as_ref(), 4096 + 32), 2);
    let dirty = cache.dirty();
    assert_eq!(dirty.len(), 1);
    assert_eq!((dirty[0].offset, dirty[0].bytes.len()), (4096, 4096));
    assert_eq!(dirty[0].bytes[24..40], [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
    // What changed since it was taken is not clean.
    assert!(cache.store(4096, 3, &[9]).unwrap());
    cache.mark_clean(&dirty[0]).unwrap();
    let again = cache.dirty();
    assert_eq!(again.len(), 1);
    file.write_at(4096, &again[0].bytes, Wait::Allowed).unwrap();
    cache.mark_clean(&again[0]).unwrap();
    assert!(cache.dirty().is_empty());
    assert_eq!(word(&cache, file.as_ref(), 4096 + 24), 9);
    assert!(cache.store(4096, 512, &[1]).is_err());
}

#[test]
fn a_new_table_needs_no_file_and_an_old_one_is_forgotten() {
    let (file, cache) = (counting(1 << 20), small());
    assert!(cache.put(8192, &[7; 512]).unwrap());
    assert_eq!(word(&cache, file.as_ref(), 8192), 7);
    cache.invalidate(4096, 12288).unwrap();
    assert!(cache.dirty().is_empty());
    assert_eq!(word(&cache, file.as_ref(), 8192), 8192);
    assert!(cache.put(8192, &[7; 3]).is_err());
}

#[test]
fn when_all_slots_are_dirty_readers_read_past_them() {
    let (file, cache) = (counting(4 << 20), small());
    let mut held = 0;
    for slice in (4096..4 << 20).step_by(4096) {
        held += u64::from(cache.put(slice, &[1; 512]).unwrap());
    }
    assert_eq!(held, MIN_CACHE_BYTES as u64 / 4096);
    let dirty = cache.dirty();
    assert_eq!(dirty.len() as u64, held);
    for slice in (4096..4 << 20).step_by(4096) {
        let is_held = dirty.iter().any(|d| d.offset == slice);
        assert_eq!(word(&cache, file.as_ref(), slice + 16), if is_held { 1 } else { slice + 16 });
        assert_eq!(cache.ensure(file.as_ref(), slice, Wait::Allowed).unwrap(), is_held);
    }
}

/// A file of slices that go up evenly, slices that are all the same, and others.
fn regular(slices: u64) -> Vec<u64> {
    let word = |slice: u64, word: u64| match slice % 4 {
        0 => 1 << 63 | (slice * 512 + word) << 16,
        1 => 0,
        2 => OFLAG_COPIED | slice << 16,
        _ => (word + slice) * 8,
    };
    (0..slices).flat_map(|slice| (0..512).map(move |i| word(slice, i))).collect()
}

/// Whatever a cache holds as a run, and however it is changed: it says what a file without a cache would.
#[test]
fn slices_that_go_up_evenly_are_as_others_are() {
    const SLICES: u64 = 160;
    let mut model = regular(SLICES);
    let file = Memory::of(model.iter().flat_map(|word| word.to_be_bytes()).collect());
    let cache = small();
    let mut dice = testkit::Rng::new(31);
    for _ in 0..40_000 {
        let (slice, at) = (1 + dice.below(SLICES - 1), dice.below(512));
        let (offset, index) = (slice * 4096, (slice * 512 + at) as usize);
        match dice.below(16) {
            0 => {
                let value = if dice.below(2) == 0 { model[index - 1] } else { model[index - 1] + 65_536 };
                if cache.ensure(&file, offset, Wait::Allowed).unwrap() {
                    assert!(cache.store(offset, at, &[value]).unwrap());
                    model[index] = value;
                }
            }
            1 if dice.below(8) == 0 => {
                let first = OFLAG_COPIED | dice.below(1 << 20) << 16;
                let words: Vec<u64> = (0..512).map(|i| first + i * 65_536).collect();
                if cache.put(offset, &words).unwrap() {
                    model[slice as usize * 512..][..512].copy_from_slice(&words);
                }
            }
            2 if dice.below(4) == 0 => {
                for dirty in cache.dirty() {
                    file.write_at(dirty.offset, &dirty.bytes, Wait::Allowed).unwrap();
                    cache.mark_clean(&dirty).unwrap();
                }
                if dice.below(8) == 0 {
                    cache.clear();
                }
                cache.invalidate(offset, offset + 3 * 4096).unwrap();
            }
            _ => {
                let mut out = [0; 7];
                let out = &mut out[..(512 - at).min(1 + dice.below(7)) as usize];
                cache.read(&file, offset, at, out, Wait::Allowed).unwrap();
                assert_eq!(out, &model[index..index + out.len()], "slice {slice}, word {at}");
            }
        }
    }
}

#[test]
fn no_image_gets_more_than_it_has_a_use_for() {
    let clusters = Clusters::new(16, false).unwrap();
    assert_eq!(enough(clusters, 0), 0);
    assert_eq!(enough(clusters, 1 << 30), 4 * (128 << 10));
    assert_eq!(enough(Clusters::new(16, true).unwrap(), 1 << 30), 8 * (128 << 10));
    assert!(enough(Clusters::new(9, false).unwrap(), u64::MAX) > 1 << 50);
}

#[test]
fn a_slice_that_goes_up_evenly_takes_no_slot() {
    let words = |slice: u64| (0..512).map(move |i| (slice * 512 + i) << 16);
    let file = Memory::of((0..60).flat_map(words).flat_map(u64::to_be_bytes).collect());
    let cache = small();
    for slice in 1..60 {
        assert_eq!(word(&cache, &file, slice * 4096 + 8), (slice * 512 + 1) << 16);
    }
    // The smallest cache has 16 slots, and still knows all of them where the file says nothing any more.
    let zeros = Memory::new(60 * 4096);
    let known = (1..60).filter(|slice| word(&cache, &zeros, slice * 4096 + 8) != 0).count();
    assert!(known > 50, "{known}");
}

#[test]
fn a_miss_never_waits_for_a_lock_or_a_read() {
    let paused = Arc::new(Paused::new(counting(1 << 20)));
    let cache = SliceCache::new(Clusters::new(16, false).unwrap(), 0);
    let hold = paused.stop(Op::Read, When::Before);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| word(&cache, paused.as_ref(), 4096));
        assert!(hold.reached(std::time::Duration::from_secs(10)));
        let mut out = [0];
        let e = cache.read(paused.as_ref(), 4096, 0, &mut out, Wait::Never).unwrap_err();
        assert!(e.is_would_block());
        hold.release();
        assert_eq!(reader.join().unwrap(), 4096);
    });
}

#[test]
fn a_table_past_the_end_is_corrupt() {
    let (file, cache) = (counting(10_000), small());
    let e = cache.read(file.as_ref(), 8192, 0, &mut [0], Wait::Allowed).unwrap_err();
    assert_eq!((e.kind(), e.offset()), (Kind::Corrupt, Some(8192)));
}

#[test]
fn readers_never_see_half_a_change_or_another_slice() {
    let (file, cache) = (counting(1 << 20), small());
    let (file, cache) = (file.as_ref(), &cache);
    let done = AtomicBool::new(false);
    // Words 0 and 1 of slice 4096 always say the same; all other slices are what the file says.
    assert!(cache.put(4096, &[0; 512]).unwrap());
    std::thread::scope(|scope| {
        for seed in 0..3u64 {
            let done = &done;
            scope.spawn(move || {
                let (mut slice, mut last, mut reads) = (seed, 0, 0u64);
                while !done.load(Ordering::Relaxed) || reads < 1000 {
                    let mut pair = [0; 2];
                    cache.read(file, 4096, 0, &mut pair, Wait::Allowed).unwrap();
                    assert_eq!(pair[0], pair[1]);
                    assert!(pair[0] >= last);
                    last = pair[0];
                    slice = (slice * 5 + 3) % 255;
                    let offset = 8192 + slice % 253 * 4096 + 64;
                    assert_eq!(word(cache, file, offset), offset);
                    reads += 1;
                }
            });
        }
        for n in 1..=20_000u64 {
            assert!(cache.store(4096, 0, &[n, n]).unwrap());
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn refcounts_of_every_width() {
    let clusters = Clusters::new(9, false).unwrap();
    for order in 0..=6 {
        let width = Width::new(order).unwrap();
        assert_eq!(width.bits(), 1 << order);
        assert_eq!(width.per_block(clusters), 4096 >> order);
        let mut block = vec![0; 512];
        for index in 0..width.per_block(clusters) {
            width.write(&mut block, index, index.wrapping_mul(0x9e37_79b9_7f4a_7c15) & width.max());
        }
        for index in 0..width.per_block(clusters) {
            let expected = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) & width.max();
            assert_eq!(width.read(&block, index), expected, "{order} {index}");
        }
        assert_eq!(width.read(&block, width.per_block(clusters)), 0);
        width.write(&mut block, u64::MAX, 1);
    }
    let mut block = [0; 8];
    Width::new(0).unwrap().write(&mut block, 0, 1);
    Width::new(2).unwrap().write(&mut block, 3, 0xa);
    Width::new(4).unwrap().write(&mut block, 3, 0x1234);
    assert_eq!(block, [1, 0xa0, 0, 0, 0, 0, 0x12, 0x34]);
    assert!(Width::new(7).is_err());
}

#[test]
fn clusters_add_up() {
    for bits in 9..=21u32 {
        for extended in [false, true] {
            let Ok(c) = Clusters::new(bits, extended) else {
                assert!(extended && bits < 14);
                continue;
            };
            let size = 1u64 << bits;
            assert_eq!((c.size(), c.count(0), c.count(1), c.count(size + 1)), (size, 0, 1, 2));
            assert_eq!((c.round_up(1), c.start(size + 3), c.within(size + 3)), (size, size, 3));
            assert_eq!(c.l2_entries() * 8 * c.entry_words(), size);
            assert_eq!(c.l2_span(), size * c.l2_entries());
            assert_eq!(c.l1_entries(0), 0);
            assert_eq!(c.l1_entries(c.l2_span()), 1);
            assert_eq!(c.l1_entries(c.l2_span() + 1), 2);
            assert_eq!(c.l1_index(c.l2_span()), 1);
            assert_eq!(c.l2_index(c.l2_span() + size), 1);
            assert_eq!(c.offset(u64::MAX), None);
            assert!(c.round_up(u64::MAX) > u64::MAX - size);
            assert_eq!(c.subcluster(size - 1), if extended { 31 } else { 0 });
            assert_eq!(c.subcluster_size(), if extended { size / 32 } else { size });
        }
    }
    assert!(Clusters::new(8, false).is_err() && Clusters::new(22, false).is_err());
}

#[test]
fn an_l1_table_grows_and_forgets() {
    let l1 = L1::new(10).unwrap();
    l1.set(9, L1Entry(0x10000 | OFLAG_COPIED));
    l1.set(10, L1Entry(5));
    assert_eq!(l1.entry(9).table(), Some(0x10000));
    assert!(l1.entry(9).is_copied());
    assert_eq!((l1.entry(10), l1.entry(u64::MAX)), (L1Entry(0), L1Entry(0)));
    l1.resize(4 << 20).unwrap();
    l1.set((4 << 20) - 1, L1Entry(0x20000));
    assert_eq!(l1.entries().filter(|e| e.table().is_some()).count(), 2);
    l1.resize(9).unwrap();
    l1.resize(20).unwrap();
    assert_eq!((l1.entry(9), l1.len(), l1.bytes()), (L1Entry(0), 20, 160));
    assert!(l1.resize((4 << 20) + 1).is_err());
    assert!(L1::new(u64::MAX).is_err());
}

#[test]
fn l2_entries_say_what_the_specification_says() {
    let plain = Clusters::new(16, false).unwrap();
    let say = |word: u64, data_file: bool| L2Entry { word, bitmap: 0 }.meaning(plain, data_file);
    assert_eq!(say(0, false), Meaning::Unallocated);
    assert_eq!(say(1, false), Meaning::Zero { kept: None });
    assert_eq!(say(0x50001, false), Meaning::Zero { kept: Some(0x50000) });
    assert_eq!(say(OFLAG_COPIED, true), Meaning::Standard { offset: 0 });
    assert_eq!(say(OFLAG_COPIED, false), Meaning::Unallocated);
    assert_eq!(say(OFLAG_COPIED | 0x50000, false), Meaning::Standard { offset: 0x50000 });
    // 64 KiB clusters: x = 54, so 8 bits of sectors above 54 bits of offset.
    let compressed = 1 << 62 | 3 << 54 | 0x12345;
    let expected = Meaning::Compressed { offset: 0x12345, stored_len: 4 * 512 - 0x145 };
    assert_eq!(say(compressed, false), expected);
    let extended = Clusters::new(16, true).unwrap();
    // Bit 0 means nothing there.
    assert_eq!(L2Entry { word: 1, bitmap: 0 }.meaning(extended, false), Meaning::Unallocated);
    let entry = L2Entry { word: 0x50000, bitmap: 0x0000_00f0_8000_000f };
    assert_eq!(entry.subclusters(0), (Subcluster::Allocated, 4));
    assert_eq!(entry.subclusters(3), (Subcluster::Allocated, 1));
    assert_eq!(entry.subclusters(5), (Subcluster::Zero, 3));
    assert_eq!(entry.subclusters(8), (Subcluster::Unallocated, 23));
    assert_eq!(entry.subclusters(31), (Subcluster::Allocated, 1));
    assert_eq!(L2Entry { word: 0, bitmap: 0xffff_ffff }.subclusters(0), (Subcluster::Allocated, 32));
}

#[test]
fn the_magic_number_is_enough_to_ask() {
    assert!(probe(b"QFI\xfb\0\0\0\x03"));
    assert!(!probe(b"QFI") && !probe(b"") && !probe(b"KDMV"));
}
