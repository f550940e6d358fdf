//! Long answers say what short ones say.

use super::*;
use chart::{Answer, Layer};
use format::qcow2::create::{New, create as make};
use testkit::source::Memory;

/// A word that may stand in an L2 table, right or wrong, of a file of so many clusters.
fn word(rng: &mut Rng, bits: u32, clusters: u64) -> u64 {
    const FLAGS: [u64; 6] = [0, 1, 1 << 63, 1 << 63 | 1, 1 << 62, 1 << 60];
    let flags = FLAGS[if rng.once_in(4) { rng.below(6) as usize } else { 2 * rng.below(2) as usize }];
    let cluster = match rng.below(8) {
        0 => 0,
        1 => clusters - 1 - rng.below(80),
        2 => (1 << (56 - bits)) - 1 - rng.below(80),
        3 => rng.below(12),
        _ => rng.below(clusters),
    };
    let odd = if rng.once_in(10) { 1 << (bits - 2) } else { 0 };
    flags | cluster << bits | odd
}

/// An L2 table; many of them go up evenly.
fn table(rng: &mut Rng, bits: u32, clusters: u64) -> Vec<u64> {
    let (first, entries) = (word(rng, bits, clusters), 1 << (bits - 3));
    let step = if rng.once_in(3) { 0 } else { 1 << bits };
    let mut words: Vec<u64> = (0..entries).map(|i: u64| first.wrapping_add(i * step)).collect();
    if rng.once_in(3) {
        words[rng.below(entries) as usize] = word(rng, bits, clusters);
    }
    words
}

/// An image of so many tables, at the end of a file that may end in the midst of a cluster.
fn image(rng: &mut Rng, bits: u32, tables: u64) -> Arc<Image> {
    let file = Memory::new(0);
    make(&file, None, &New { cluster_bits: bits, ..New::of(tables << (2 * bits - 3)) }).unwrap();
    let mut bytes = file.bytes();
    let l1 = u64::from_be_bytes(bytes[40..48].try_into().unwrap()) as usize;
    bytes.resize(bytes.len().next_multiple_of(1 << bits) + (300 << bits), 0);
    let clusters = (bytes.len() as u64 >> bits) + tables;
    for i in 0..tables as usize {
        let entry = if rng.once_in(8) { 0 } else { 1 << 63 | bytes.len() as u64 };
        bytes[l1 + 8 * i..][..8].copy_from_slice(&entry.to_be_bytes());
        bytes.extend(table(rng, bits, clusters).into_iter().flat_map(u64::to_be_bytes));
    }
    if rng.once_in(2) {
        bytes.extend([7; 100]);
    }
    let nothing: &mut format::qcow2::Opener<'_> = &mut |_| unreachable!();
    Arc::new(Image::open(Arc::new(Memory::of(bytes)), &Options::default(), nothing).unwrap())
}

/// What every cluster is, or that it is wrong, asked for `want` bytes at a time.
fn told(image: &Image, want: u64) -> Vec<Option<Answer>> {
    let (mut told, mut at, cluster) = (Vec::new(), 0, image.clusters().size());
    while at < image.size() {
        let Ok(answer) = image.look(at, want.min(image.size() - at), Wait::Allowed) else {
            told.push(None);
            at += cluster;
            continue;
        };
        let len = answer.len();
        assert!((1..=want).contains(&len), "{answer:?}");
        for from in (0..len).step_by(cluster as usize) {
            let part = cluster.min(len - from);
            told.push(Some(match answer {
                Answer::Below { .. } => Answer::Below { len: part },
                Answer::Here(extent) => Answer::Here(extent.clip(at + from, part)),
            }));
        }
        // Parts of clusters are only asked for at their beginnings.
        at += len.next_multiple_of(cluster);
    }
    told
}

#[test]
fn long_answers_say_what_short_ones_say() {
    let (mut rng, mut long) = (Rng::new(77), 0);
    for (bits, tables, rounds) in [(9, 40, 300), (12, 6, 60)] {
        let (cluster, span) = (1 << bits, 1u64 << (2 * bits - 3));
        for round in 0..rounds {
            let image = image(&mut rng, bits, tables);
            let short = told(&image, cluster);
            // Now every table is in memory.
            for want in [image.size(), 40 * cluster, span + 2 * cluster] {
                assert_eq!(told(&image, want), short, "round {round}, {want} bytes at a time");
            }
            let first = (0..image.size()).step_by(span as usize);
            let first = first.filter_map(|at| image.look(at, 2 * span, Wait::Allowed).ok());
            long += first.filter(|answer| answer.len() > span / 2).count();
        }
    }
    assert!(long > 1500, "{long} long answers");
}
