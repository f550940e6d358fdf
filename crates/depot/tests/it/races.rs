//! Races: certain ones, with those stopped who must be overtaken, and many threads at once.

use chart::{Disk, Kind, Purpose, SetMode, To, Wait};
use depot::{Branch, Options, VersionId, Versions};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use testkit::Rng;
use testkit::source::{Memory, Op, Paused, When};

const SOON: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(150);
const BLOCK: u64 = 4096;

struct Stage {
    data: Arc<Paused>,
    maps: Arc<Paused>,
    versions: Versions,
    head: Arc<Disk>,
}

fn stage() -> Stage {
    let paused = || Arc::new(Paused::new(Arc::new(Memory::new(0))));
    let (data, maps) = (paused(), paused());
    let options = Options { interval: BLOCK, cache_bytes: 1 << 20, maps: Some(Arc::clone(&maps) as _) };
    let versions = Versions::new(1 << 20, Arc::clone(&data) as _, options).unwrap();
    let head = versions.head();
    Stage { data, maps, versions, head }
}

fn start<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (tell, told) = channel();
    std::thread::spawn(move || tell.send(act()));
    told
}

fn put(disk: &Disk, block: u64, byte: u8) {
    disk.write_at(block * BLOCK, &[byte; BLOCK as usize], Wait::Allowed).unwrap();
}

fn block(disk: &Disk, block: u64) -> Vec<u8> {
    let mut got = vec![0; BLOCK as usize];
    disk.read_at(block * BLOCK, &mut got, Wait::Allowed).unwrap();
    got
}

fn is_all(bytes: &[u8], byte: u8) -> bool {
    bytes.iter().all(|&b| b == byte)
}

fn writable(disk: &Disk, block: u64) -> bool {
    let _pin = disk.pin();
    disk.leaf(block * BLOCK, 1, Wait::Allowed, Purpose::Read).unwrap().writable
}

/// Whoever is reading a version that is deleted meanwhile reads what was there, although the head may now write there
/// in place.
#[test]
fn who_reads_a_deleted_version_is_not_written_under() {
    let Stage { data, versions, head, .. } = stage();
    put(&head, 0, 1);
    let id = versions.snapshot("first").unwrap();
    let disk = versions.open(id).unwrap();
    block(&disk, 0);
    let hold = data.stop(Op::Read, When::Before);
    let reader = start(move || block(&disk, 0));
    assert!(hold.reached(SOON));
    versions.delete(id).unwrap();
    assert!(!writable(&head, 0));
    put(&head, 0, 2);
    hold.release();
    assert!(is_all(&reader.recv_timeout(SOON).unwrap(), 1));
    assert!(is_all(&block(&head, 0), 2));
}

/// Once nobody is left in a deleted version, the head writes in place what has become its own.
#[test]
fn what_a_deleted_version_shared_is_written_in_place() {
    let Stage { versions, head, .. } = stage();
    (0..3).for_each(|i| put(&head, i, 1));
    let id = versions.snapshot("first").unwrap();
    assert!(!writable(&head, 0));
    versions.delete(id).unwrap();
    put(&head, 9, 1);
    let before = versions.usage().data;
    assert!(writable(&head, 0));
    (0..3).for_each(|i| put(&head, i, 2));
    assert_eq!(versions.usage().data, before);
    versions.audit().unwrap();
}

/// While somebody copies what a deleted version shared, nobody writes there in place, to whom the copy would be fatal:
/// not even if others have begun to.
#[test]
fn what_is_being_copied_is_not_written_in_place() {
    let Stage { data, versions, head, .. } = stage();
    put(&head, 0, 1);
    let id = versions.snapshot("first").unwrap();
    let hold = data.stop(Op::Write, When::Before);
    let writer = |at: u64, byte: u8| {
        let head = Arc::clone(&head);
        start(move || head.write_at(at, &[byte; 512], Wait::Allowed))
    };
    let copies = writer(512, 2);
    assert!(hold.reached(SOON));
    versions.delete(id).unwrap();
    put(&head, 9, 9);
    let second = writer(2048, 3);
    let early = second.recv_timeout(MOMENT).ok();
    hold.release();
    copies.recv_timeout(SOON).unwrap().unwrap();
    early.unwrap_or_else(|| second.recv_timeout(SOON).unwrap()).unwrap();
    let got = block(&head, 0);
    assert!(is_all(&got[512..1024], 2) && is_all(&got[2048..2560], 3) && is_all(&got[2560..], 1));
}

/// Space that only a deleted version had is not used again while somebody reads it there.
#[test]
fn what_a_deleted_version_had_alone_is_not_used_again_too_early() {
    let Stage { data, versions, head, .. } = stage();
    put(&head, 0, 1);
    let id = versions.snapshot("first").unwrap();
    put(&head, 0, 2);
    let disk = versions.open(id).unwrap();
    block(&disk, 0);
    let hold = data.stop(Op::Read, When::Before);
    let reader = start(move || block(&disk, 0));
    assert!(hold.reached(SOON));
    versions.delete(id).unwrap();
    (1..20).for_each(|i| put(&head, i, 3));
    hold.release();
    assert!(is_all(&reader.recv_timeout(SOON).unwrap(), 1));
    versions.audit().unwrap();
    assert_eq!(versions.usage().data, 20 * BLOCK);
}

/// The same for the nodes of the map: who is on its way through a version finds it, whatever is deleted.
#[test]
fn who_looks_through_a_deleted_version_finds_its_way() {
    let Stage { maps, versions, head, .. } = stage();
    put(&head, 0, 1);
    let first = versions.snapshot("first").unwrap();
    put(&head, 0, 2);
    let second = versions.snapshot("second").unwrap();
    versions.evict().unwrap();
    let hold = maps.stop(Op::Read, When::Before);
    let told = {
        let versions = versions.clone();
        start(move || {
            let mut told = Vec::new();
            let told_all = versions.diff(first, second, |range| {
                told.push(range);
                Ok(())
            });
            told_all.map(|()| told)
        })
    };
    assert!(hold.reached(SOON));
    // It cannot come by the nodes that are just being read, so it may have to wait.
    let deleted = {
        let versions = versions.clone();
        start(move || versions.delete(first))
    };
    std::thread::sleep(MOMENT);
    hold.release();
    deleted.recv_timeout(SOON).unwrap().unwrap();
    let told = told.recv_timeout(SOON).unwrap().unwrap();
    assert!(told.len() == 1 && told[0] == (0..BLOCK));
}

/// A roll back waits for who is copying: neither is what it copies mixed into what the head becomes, nor is it lost.
#[test]
fn who_copies_while_the_head_is_rolled_back() {
    let Stage { data, versions, head, .. } = stage();
    put(&head, 0, 1);
    let first = versions.snapshot("first").unwrap();
    put(&head, 0, 2);
    versions.snapshot("second").unwrap();
    let hold = data.stop(Op::Write, When::Before);
    let writer = {
        let head = Arc::clone(&head);
        start(move || head.write_at(512, &[3; 512], Wait::Allowed))
    };
    assert!(hold.reached(SOON));
    let rolled = {
        let versions = versions.clone();
        start(move || versions.roll_back(first))
    };
    assert!(rolled.recv_timeout(MOMENT).is_err(), "a roll back overtakes who copies");
    hold.release();
    writer.recv_timeout(SOON).unwrap().unwrap();
    let kept = rolled.recv_timeout(SOON).unwrap().unwrap();
    assert!(is_all(&block(&head, 0), 1));
    let kept = block(&versions.open(kept).unwrap(), 0);
    assert!(is_all(&kept[..512], 2) && is_all(&kept[512..1024], 3) && is_all(&kept[1024..], 2));
    versions.audit().unwrap();
}

/// Whoever waits for a roll back and finds the disk shorter afterwards is told so.
#[test]
fn who_writes_behind_the_end_that_a_roll_back_leaves() {
    let Stage { data, versions, head, .. } = stage();
    put(&head, 0, 1);
    head.resize(2 * BLOCK).unwrap();
    let short = versions.snapshot("short").unwrap();
    head.resize(1 << 20).unwrap();
    put(&head, 200, 1);
    versions.snapshot("long").unwrap();
    let hold = data.stop(Op::Write, When::Before);
    let writer = |at: u64| {
        let head = Arc::clone(&head);
        start(move || head.write_at(at, &[3; 512], Wait::Allowed))
    };
    let copies = writer(512);
    assert!(hold.reached(SOON));
    let rolled = {
        let versions = versions.clone();
        start(move || versions.roll_back(short))
    };
    assert!(rolled.recv_timeout(MOMENT).is_err());
    let behind = writer(200 * BLOCK);
    assert!(behind.recv_timeout(MOMENT).is_err(), "a place is given while a roll back waits");
    hold.release();
    copies.recv_timeout(SOON).unwrap().unwrap();
    rolled.recv_timeout(SOON).unwrap().unwrap();
    assert_eq!(behind.recv_timeout(SOON).unwrap().unwrap_err().kind(), Kind::OutOfRange);
    head.resize(1 << 20).unwrap();
    assert!(is_all(&block(&head, 200), 0));
    versions.audit().unwrap();
}

/// And for who writes in place: what it writes is in the version that is kept, which does not change any more.
#[test]
fn who_writes_in_place_while_the_head_is_rolled_back() {
    let Stage { data, versions, head, .. } = stage();
    put(&head, 0, 1);
    let first = versions.snapshot("first").unwrap();
    put(&head, 0, 2);
    let hold = data.stop(Op::Write, When::Before);
    let writer = {
        let head = Arc::clone(&head);
        start(move || head.write_at(512, &[3; 512], Wait::Allowed))
    };
    assert!(hold.reached(SOON));
    let rolled = {
        let versions = versions.clone();
        start(move || versions.roll_back(first))
    };
    assert!(rolled.recv_timeout(MOMENT).is_err(), "a roll back does not wait for who writes in place");
    hold.release();
    writer.recv_timeout(SOON).unwrap().unwrap();
    let kept = rolled.recv_timeout(SOON).unwrap().unwrap();
    assert!(is_all(&block(&head, 0), 1));
    assert!(is_all(&block(&versions.open(kept).unwrap(), 0)[512..1024], 3));
}

/// Whoever changes a map and waits for a node of it keeps nobody from reading.
#[test]
fn readers_do_not_wait_for_who_changes_the_map() {
    let Stage { maps, versions, head, .. } = stage();
    put(&head, 0, 1);
    let first = versions.snapshot("first").unwrap();
    put(&head, 0, 2);
    let second = versions.snapshot("second").unwrap();
    put(&head, 0, 3);
    versions.snapshot("third").unwrap();
    let disk = versions.open(first).unwrap();
    versions.evict().unwrap();
    block(&disk, 0);
    block(&head, 0);
    let hold = maps.stop(Op::Read, When::Before);
    let deleted = {
        let versions = versions.clone();
        start(move || versions.delete(second))
    };
    assert!(hold.reached(SOON));
    let mut got = [0; 512];
    for (disk, byte) in [(&disk, 1), (&head, 3)] {
        disk.read_at(0, &mut got, Wait::Never).unwrap();
        assert!(is_all(&got, byte));
    }
    hold.release();
    deleted.recv_timeout(SOON).unwrap().unwrap();
}

/// What is known of versions by all threads.
#[derive(Default)]
struct Known {
    alive: Mutex<Vec<(VersionId, u32)>>,
    dying: Mutex<Vec<VersionId>>,
    looked: AtomicU64,
    stop: AtomicBool,
}

fn all(disk: &Disk) -> chart::Result<Vec<u8>> {
    let mut all = vec![0; disk.len() as usize];
    disk.read_at(0, &mut all, Wait::Allowed)?;
    Ok(all)
}

/// Writes a branch as nobody else does, and knows what must be in it.
fn write_a_branch(versions: &Versions, branch: &Branch, known: &Known, seed: u64) {
    let (disk, mut rng) = (branch.disk(), Rng::new(seed));
    let mut model = all(disk).unwrap();
    let mut own: Vec<(VersionId, Vec<u8>)> = Vec::new();
    while !known.stop.load(SeqCst) {
        let (at, len) = rng.range(model.len() as u64, 20_000);
        match rng.below(12) {
            0..=5 => {
                let mut data = vec![0; len as usize];
                rng.fill(&mut data);
                disk.write_at(at, &data, Wait::Allowed).unwrap();
                model[at as usize..][..data.len()].copy_from_slice(&data);
            }
            6 => {
                disk.set(at, len, To::Zero, SetMode { may_unmap: true, fast_only: false }).unwrap();
                model[at as usize..][..len as usize].fill(0);
            }
            7..=8 => {
                let id = branch.snapshot("of a branch").unwrap();
                known.alive.lock().unwrap().push((id, crc32c::crc32c(&model)));
                own.push((id, model.clone()));
            }
            9 if !own.is_empty() => {
                let (id, of) = &own[rng.below(own.len() as u64) as usize];
                let kept = branch.roll_back(*id).unwrap();
                let before = std::mem::replace(&mut model, of.clone());
                known.alive.lock().unwrap().push((kept, crc32c::crc32c(&before)));
                own.push((kept, before));
            }
            10 | 11 if own.len() > 6 => {
                let (id, _) = own.swap_remove(rng.below(own.len() as u64) as usize);
                known.dying.lock().unwrap().push(id);
                known.alive.lock().unwrap().retain(|(alive, _)| *alive != id);
                versions.delete(id).unwrap();
            }
            _ => assert!(all(disk).unwrap() == model, "a branch holds what its only writer did not write"),
        }
    }
    assert!(all(disk).unwrap() == model);
    own.iter().for_each(|(id, model)| assert!(all(&versions.open(*id).unwrap()).unwrap() == *model));
}

/// Reads versions of all branches, and compares them with each other.
fn read_versions(versions: &Versions, known: &Known, seed: u64) {
    let mut rng = Rng::new(seed);
    while !known.stop.load(SeqCst) {
        let mut any = || {
            let alive = known.alive.lock().unwrap();
            alive.get(rng.below(alive.len() as u64) as usize).copied()
        };
        let (Some((a, sum)), Some((b, _))) = (any(), any()) else { continue };
        let gone = |e: &chart::Error| {
            let dying = known.dying.lock().unwrap();
            assert!(e.kind() == Kind::NotFound && (dying.contains(&a) || dying.contains(&b)), "{e:?}");
        };
        match versions.open(a).and_then(|disk| all(&disk)) {
            Ok(bytes) => assert_eq!(crc32c::crc32c(&bytes), sum, "a version has changed"),
            Err(e) => gone(&e),
        }
        if let Err(e) = versions.diff(a, b, |_| Ok(())) {
            gone(&e);
        }
        known.looked.fetch_add(1, SeqCst);
    }
}

#[test]
fn many_branches_and_readers_at_once() {
    for (seed, interval, cache_bytes) in [(1, 512, 0), (2, 4096, 64 << 10), (3, 512, 1 << 20)] {
        let options = Options { interval, cache_bytes, maps: None };
        let versions = Versions::new(300_000, Arc::new(Memory::new(0)), options).unwrap();
        versions.head().write_at(5000, &[7; 200_000], Wait::Allowed).unwrap();
        let first = versions.snapshot("first").unwrap();
        let branches =
            [versions.main(), versions.branch(first, "a").unwrap(), versions.branch(first, "b").unwrap()];
        let known = Known::default();
        std::thread::scope(|scope| {
            for (i, branch) in branches.iter().enumerate() {
                let (versions, known) = (&versions, &known);
                scope.spawn(move || write_a_branch(versions, branch, known, seed * 10 + i as u64));
            }
            for i in 0..2 {
                let (versions, known) = (&versions, &known);
                scope.spawn(move || read_versions(versions, known, seed * 100 + i));
            }
            let until = Instant::now() + Duration::from_millis(700);
            while Instant::now() < until {
                std::thread::sleep(Duration::from_millis(50));
            }
            versions.delete(first).unwrap();
            std::thread::sleep(Duration::from_millis(300));
            known.stop.store(true, SeqCst);
        });
        assert!(known.looked.load(SeqCst) > 0);
        versions.audit().unwrap();
        for branch in branches.into_iter().skip(1) {
            branch.delete().unwrap();
        }
        versions.audit().unwrap();
    }
}
