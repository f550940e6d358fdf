//! Large disks, and many versions of them: what a look, a snapshot, a deletion and a diff cost does not depend on how
//! large the disk is, nor on how many versions there are.

use chart::{Disk, Identity, Limits, Result, SetMode, Source, To, Wait};
use depot::{Options, Versions};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use testkit::Rng;
use testkit::source::Memory;

const BLOCK: u64 = 512;

/// Keeps nothing but its length: for what is about maps alone.
#[derive(Default)]
struct Nothing(AtomicU64);

impl Source for Nothing {
    fn name(&self) -> String {
        "nothing".into()
    }
    fn len(&self) -> u64 {
        self.0.load(Relaxed)
    }
    fn read_at(&self, _: u64, buf: &mut [u8], _: Wait) -> Result<()> {
        buf.fill(0);
        Ok(())
    }
    fn write_at(&self, _: u64, _: &[u8], _: Wait) -> Result<()> {
        Ok(())
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.0.store(len, Relaxed);
        Ok(())
    }
    fn limits(&self) -> Limits {
        Limits { read_only: false, never: true, ..Limits::default() }
    }
    fn identity(&self) -> Identity {
        Identity::Unique(u64::MAX)
    }
}

/// A version among a thousand is found by as many steps, and with as little read, as the only one.
#[test]
fn one_among_a_thousand() {
    const LEN: u64 = 64 << 20;
    let options = Options { interval: 4096, cache_bytes: 1 << 20, maps: None };
    let versions = Versions::new(LEN, Arc::new(Nothing::default()), options).unwrap();
    let head = versions.head();
    let mut rng = Rng::new(5);
    let mut order: Vec<u64> = (0..LEN / 4096).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, rng.below(i as u64 + 1) as usize);
    }
    order.iter().for_each(|block| head.write_at(block * 4096, &[1; 4096], Wait::Allowed).unwrap());
    let only = versions.snapshot("the only one").unwrap();
    let look = |disk: &Disk| {
        versions.evict().unwrap();
        let before = versions.usage().loads;
        for block in 0..LEN / 4096 {
            disk.answer(block * 4096, 4096, Wait::Allowed).unwrap();
        }
        versions.usage().loads - before
    };
    let alone = look(&versions.open(only).unwrap());
    let (mut ids, mut nodes) = (Vec::new(), Vec::new());
    for i in 0..1000 {
        nodes.push(versions.usage().nodes);
        for _ in 0..3 {
            head.write_at(rng.below(LEN / 4096) * 4096, &[2; 4096], Wait::Allowed).unwrap();
        }
        ids.push(versions.snapshot(&format!("version {i}")).unwrap());
    }
    // 64 leaves below one node; each version adds what it changes.
    let most = nodes.windows(2).map(|two| two[1] - two[0]).max().unwrap();
    assert!(most <= 1 + 3, "a version adds {most} nodes");
    for id in [only, ids[0], ids[500], ids[999]] {
        let many = look(&versions.open(id).unwrap());
        assert_eq!(many, alone, "nodes read to look up all of a version");
        let steps = versions.steps(id, rng.below(LEN)).unwrap();
        assert_eq!(steps, 2, "nodes on the way to a block");
    }
    // Nor does a deletion: the nodes around it, not the disk.
    versions.evict().unwrap();
    let before = versions.usage();
    versions.delete(ids[500]).unwrap();
    let after = versions.usage();
    assert!(after.loads - before.loads <= 12, "{} loads", after.loads - before.loads);
    assert!(before.data - after.data <= 3 * 4096 && before.nodes - after.nodes <= 4);
    let mut told = 0;
    versions
        .diff(ids[498], ids[502], |range| {
            told += range.end - range.start;
            Ok(())
        })
        .unwrap();
    assert!(told <= 4 * 3 * 4096 && versions.usage().loads - after.loads <= 2 + 2 * 12);
}

/// By block: what was written there last. What is not in it is zeros.
type Model = BTreeMap<u64, u8>;

fn block_is(disk: &Disk, block: u64, model: &Model) {
    let mut got = [0xa5; BLOCK as usize];
    disk.read_at(block * BLOCK, &mut got, Wait::Allowed).unwrap();
    let wanted = model.get(&block).copied().unwrap_or(0);
    assert!(got.iter().all(|&byte| byte == wanted), "block {block}: {} instead of {wanted}", got[0]);
}

/// Trees of three and four nodes' height, growing and shrinking, with blocks far apart.
#[test]
fn tall_trees() {
    for (seed, cache_bytes) in [(1, 0), (2, 1 << 20)] {
        let options = Options { interval: BLOCK, cache_bytes, maps: None };
        let versions = Versions::new(1 << 30, Arc::new(Memory::new(0)), options).unwrap();
        let (disk, mut rng) = (versions.head(), Rng::new(seed));
        let mut model = Model::new();
        let mut frozen: Vec<(_, u64, Model)> = Vec::new();
        let discard = SetMode { may_unmap: true, fast_only: true };
        for step in 0..1500 {
            let blocks = disk.len() / BLOCK;
            match rng.below(12) {
                0..=4 => {
                    let block =
                        if rng.once_in(3) { rng.below(blocks) } else { rng.below(1 << 12).min(blocks - 1) };
                    disk.write_at(block * BLOCK, &[1 + (step % 250) as u8; BLOCK as usize], Wait::Allowed)
                        .unwrap();
                    model.insert(block, 1 + (step % 250) as u8);
                }
                5 => {
                    let (from, to) = (rng.below(blocks), rng.below(blocks));
                    let (from, to) = (from.min(to), from.max(to) + 1);
                    disk.set(from * BLOCK, (to - from) * BLOCK, To::Hole, discard).unwrap();
                    model.retain(|&block, _| block < from || block >= to);
                }
                6 => {
                    let len = BLOCK << if rng.once_in(4) { rng.below(32) } else { 20 + rng.below(12) };
                    disk.resize(len).unwrap();
                    model.retain(|&block, _| block < len / BLOCK);
                }
                7..=8 => frozen.push((versions.snapshot("tall").unwrap(), disk.len(), model.clone())),
                9 if !frozen.is_empty() => {
                    let (id, len, of) = &frozen[rng.below(frozen.len() as u64) as usize];
                    let kept = versions.roll_back(*id).unwrap();
                    let before = (kept, blocks * BLOCK, std::mem::replace(&mut model, of.clone()));
                    assert_eq!(disk.len(), *len);
                    frozen.push(before);
                }
                10 if frozen.len() > 12 => {
                    versions.delete(frozen.swap_remove(rng.below(frozen.len() as u64) as usize).0).unwrap();
                }
                11 if frozen.len() > 1 => differs(&versions, &frozen, &mut rng),
                _ => {
                    model
                        .keys()
                        .chain([&rng.below(blocks)])
                        .for_each(|&block| block_is(&disk, block, &model));
                }
            }
        }
        for (id, len, model) in &frozen {
            let disk = versions.open(*id).unwrap();
            assert_eq!(disk.len(), *len);
            model.keys().for_each(|&block| block_is(&disk, block, model));
        }
        frozen.iter().for_each(|(id, ..)| versions.delete(*id).unwrap());
        let usage = versions.usage();
        assert_eq!(usage.data, model.len() as u64 * BLOCK);
        disk.set(0, disk.len(), To::Hole, discard).unwrap();
        // What was discarded in parts leaves empty nodes, no more than there are on one way down.
        assert!((versions.usage().data, versions.usage().nodes) <= (0, 4));
        versions.audit().unwrap();
    }
}

/// A diff of disks of any length is about what is in them.
fn differs(versions: &Versions, frozen: &[(depot::VersionId, u64, Model)], rng: &mut Rng) {
    let mut any = || &frozen[rng.below(frozen.len() as u64) as usize];
    let ((a, a_len, x), (b, b_len, y)) = (any(), any());
    let mut told = Vec::new();
    versions
        .diff(*a, *b, |range| {
            told.push(range);
            Ok(())
        })
        .unwrap();
    let shorter = *a_len.min(b_len);
    for block in x.keys().chain(y.keys()).filter(|&&block| x.get(&block) != y.get(&block)) {
        assert!(told.iter().any(|range| range.contains(&(block * BLOCK))), "block {block} differs");
    }
    for range in told {
        let (first, end) = (range.start / BLOCK, range.end.min(shorter).div_ceil(BLOCK));
        let named = |block: u64| x.contains_key(&block) || y.contains_key(&block);
        assert!(range.start >= shorter || end - first <= 4096, "{range:?}");
        assert!((first..end).all(named), "{range:?}");
    }
}
