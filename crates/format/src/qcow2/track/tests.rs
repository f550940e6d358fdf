use super::*;

fn set_one_by_one(bits: &Bits) -> Vec<bool> {
    (0..bits.len).map(|bit| bits.words[(bit / 64) as usize] >> (bit % 64) & 1 != 0).collect()
}

#[test]
fn ranges_of_bits_are_set_and_found_as_one_by_one() {
    let mut rng = testkit::Rng::new(1);
    for _ in 0..300 {
        let size = 1 + rng.below(300 * 512);
        let mut bits = Bits::new(size, 9);
        let mut model = vec![false; size.div_ceil(512) as usize];
        for _ in 0..6 {
            let (at, len) = rng.range(size, 40 * 512);
            let granules = (at / 512) as usize..(at + len).div_ceil(512) as usize;
            let fresh = model[granules.clone()].iter().any(|set| !set);
            assert_eq!(bits.set(at, len), fresh);
            model[granules].fill(true);
        }
        assert_eq!(set_one_by_one(&bits), model);
        let bit = rng.below(model.len() as u64);
        let run = model[bit as usize..].iter().take_while(|set| **set == model[bit as usize]).count();
        assert_eq!(bits.same(bit, bits.len), (model[bit as usize], run as u64));
        let new = 1 + rng.below(300 * 512);
        bits.resize(new);
        bits.resize(size);
        let kept = new.div_ceil(512).min(model.len() as u64) as usize;
        model[kept..].fill(false);
        assert_eq!(set_one_by_one(&bits), model);
    }
}

#[test]
fn marks_are_where_all_bitmaps_are_set() {
    let mut rng = testkit::Rng::new(2);
    for _ in 0..200 {
        let size = 200 * 4096;
        let mut all: Vec<Bits> = [9, 12, 9, 14].iter().map(|&g| Bits::new(size, g)).collect();
        all.truncate(1 + rng.below(4) as usize);
        for bits in &mut all {
            for _ in 0..8 {
                let (at, len) = rng.range(size, 300_000);
                bits.set(at, len);
            }
        }
        let marks = Marks::default();
        marks.follow(&all.iter().collect::<Vec<_>>());
        compare(&marks, &all, size, |marked, set| marked == set);
        let (at, len) = rng.range(size, 3000);
        for bits in &mut all {
            bits.set(at, len);
        }
        marks.set(at, len);
        // What one granule of a coarse bitmap says of its surroundings need not be known.
        compare(&marks, &all, size, |marked, set| !marked || set);
        assert_eq!(marks.run(at, len), (true, len));
    }
}

fn compare(marks: &Marks, all: &[Bits], size: u64, agree: impl Fn(bool, bool) -> bool) {
    let all: Vec<_> = all.iter().map(|bits| (bits.granularity_bits, set_one_by_one(bits))).collect();
    let mut at = 0;
    while at < size {
        let (marked, len) = marks.run(at, size - at);
        assert!(len > 0);
        for byte in (at..at + len).step_by(512) {
            let set = all.iter().all(|(bits, set)| set[(byte >> bits) as usize]);
            assert!(agree(marked, set), "{byte}");
        }
        at += len;
    }
}
