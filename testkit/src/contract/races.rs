//! Races that are certain: whoever must be overtaken is stopped at the moment that matters.

use super::stamp::SECTOR;
use super::{Maker, Subject, Verdict, difference, ensure, stamp, stamps};
use crate::source::{Memory, Op, Paused, When};
use chart::{Disk, Result, SetMode, Source, To, Wait};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// How long one may take who is not to wait for anybody.
const SOON: Duration = Duration::from_secs(10);

/// How long to look whether somebody waits who should.
const MOMENT: Duration = Duration::from_millis(150);

/// What brings data up into a layer.
pub type Copier = fn(&Disk, u64, u64) -> Result<u64>;

/// Makes a new, empty layer in the first source, over the second.
pub type Stack<'a> = &'a dyn Fn(Arc<dyn Source>, Arc<dyn Source>) -> Result<Arc<Disk>>;

/// Puts a disk of the same length, written straight, over another.
pub type Outer<'a> = &'a dyn Fn(Arc<Disk>) -> Result<Arc<Disk>>;

/// What a thread is doing.
struct Task<T>(Receiver<T>);

fn start<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> Task<T> {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        // Nobody listens any more once the contract has given up waiting.
        let _ = tell.send(act());
    });
    Task(told)
}

impl<T> Task<T> {
    /// Its result, if it comes that soon.
    fn within(&self, time: Duration) -> Option<T> {
        self.0.recv_timeout(time).ok()
    }

    fn end(&self, what: &str) -> Verdict<T> {
        self.within(SOON).ok_or_else(|| super::Report::new(format!("{what} waits for ever: a deadlock")))
    }
}

/// A disk over a source that can stop whoever comes by.
struct Stage {
    paused: Arc<Paused>,
    subject: Subject,
    /// A stretch that is whole grains, at least 4 KiB.
    grain: u64,
}

impl Stage {
    fn new(maker: &dyn Maker) -> Verdict<Self> {
        let paused = Arc::new(Paused::new(Arc::new(Memory::new(0))));
        let subject = maker.create(Arc::clone(&paused) as Arc<dyn Source>)?;
        let unit = subject.disk.geometry().grain.max(SECTOR);
        let grain = if unit < 4096 { 4096u64.next_multiple_of(unit) } else { unit };
        let stage = Stage { paused, subject, grain };
        ensure!(stage.disk().len() >= 4 * grain, "this contract needs at least four grains");
        Ok(stage)
    }

    fn disk(&self) -> &Arc<Disk> {
        &self.subject.disk
    }

    fn put(&self, at: u64, len: u64, writer: u32) -> Verdict {
        Ok(write(self.disk(), at, len, writer)?)
    }

    /// Frees the first grain, durably, then writes all other places there are, so that what was freed is used
    /// again if that is ever to happen.
    fn free_and_reuse(&self, to: To) -> Task<Result<()>> {
        let (disk, grain) = (Arc::clone(self.disk()), self.grain);
        start(move || {
            disk.set(0, grain, to, SetMode { may_unmap: true, fast_only: false })?;
            disk.flush()?;
            for i in 1..(disk.len() / grain).min(64) {
                write(&disk, i * grain, grain, 3)?;
                disk.flush()?;
            }
            Ok(())
        })
    }

    /// Every sector says where it belongs.
    fn all_at_home(&self) -> Verdict {
        let mut all = vec![0; self.disk().len() as usize / 512 * 512];
        self.disk().read_at(0, &mut all, Wait::Allowed)?;
        stamps(&all, 0).map(drop)
    }

    fn expect(&self, at: u64, writer: u32, what: &str) -> Verdict {
        let mut sector = vec![0; 512];
        self.disk().read_at(at, &mut sector, Wait::Allowed)?;
        let found = stamps(&sector, at)?[0];
        ensure!(found.is_some_and(|s| s.writer == writer), "{what}: the sector at {at} is {found:?}");
        Ok(())
    }
}

fn write(disk: &Disk, at: u64, len: u64, writer: u32) -> Result<()> {
    let mut buf = vec![0; len as usize];
    stamp(&mut buf, at, writer, 1);
    disk.write_at(at, &buf, Wait::Allowed)
}

/// All of these that need nothing but the maker.
pub fn races(maker: &dyn Maker) -> Verdict {
    reader_keeps_its_place(maker).map_err(|r| r.during("reader_keeps_its_place"))?;
    in_place_writer_keeps_its_place(maker).map_err(|r| r.during("in_place_writer_keeps_its_place"))?;
    snapshot_does_not_change(maker).map_err(|r| r.during("snapshot_does_not_change"))?;
    no_write_lost_to_a_snapshot(maker).map_err(|r| r.during("no_write_lost_to_a_snapshot"))?;
    readers_look_while_a_snapshot_waits(maker)
        .map_err(|r| r.during("readers_look_while_a_snapshot_waits"))?;
    no_write_lost_to_a_deleted_snapshot(maker)
        .map_err(|r| r.during("no_write_lost_to_a_deleted_snapshot"))?;
    overlapping_reservations_wait(maker).map_err(|r| r.during("overlapping_reservations_wait"))
}

/// Law 3: a reader that has looked up its place and not read it yet reads its own bytes or zeros, whatever is
/// freed and used again meanwhile.
pub fn reader_keeps_its_place(maker: &dyn Maker) -> Verdict {
    for to in [To::Hole, To::Zero] {
        let stage = Stage::new(maker)?;
        stage.put(0, stage.grain, 1)?;
        stage.disk().flush()?;
        // Once before, so that what is read next is the data, not the map.
        stage.all_at_home()?;
        let hold = stage.paused.stop(Op::Read, When::Before);
        let (disk, len) = (Arc::clone(stage.disk()), stage.grain as usize);
        let reader = start(move || {
            let mut buf = vec![0; len];
            disk.read_at(0, &mut buf, Wait::Allowed).map(|()| buf)
        });
        ensure!(hold.reached(SOON), "a read does not come to the source");
        let reuse = stage.free_and_reuse(to);
        // One who waits for the reader before using its place again is right too.
        let early = reuse.within(SOON / 5);
        hold.release();
        let read = reader.end("the reader")??;
        early.map_or_else(|| reuse.end("the writer"), Ok)??;
        stamps(&read, 0).map_err(|r| r.during("a reader overtaken by a discard"))?;
        stage.all_at_home()?;
    }
    Ok(())
}

/// Law 3: nor do the bytes of an in-place writer land in what is somebody else's by now.
pub fn in_place_writer_keeps_its_place(maker: &dyn Maker) -> Verdict {
    let stage = Stage::new(maker)?;
    stage.put(0, stage.grain, 1)?;
    stage.disk().flush()?;
    let hold = stage.paused.stop(Op::Write, When::Before);
    let (disk, grain) = (Arc::clone(stage.disk()), stage.grain);
    let writer = start(move || write(&disk, 0, grain, 2));
    ensure!(hold.reached(SOON), "a write does not come to the source");
    let reuse = stage.free_and_reuse(To::Hole);
    let early = reuse.within(SOON / 5);
    hold.release();
    writer.end("the writer")??;
    early.map_or_else(|| reuse.end("the other writer"), Ok)??;
    stage.all_at_home().map_err(|r| r.during("an in-place writer overtaken by a discard"))
}

/// Law 3: a snapshot waits for the in-place writers that found their place before it.
pub fn snapshot_does_not_change(maker: &dyn Maker) -> Verdict {
    let stage = Stage::new(maker)?;
    let Some(snapshots) = stage.subject.snapshots.clone() else { return Ok(()) };
    stage.put(0, 2 * stage.grain, 1)?;
    let hold = stage.paused.stop(Op::Write, When::Before);
    let disk = Arc::clone(stage.disk());
    let writer = start(move || write(&disk, SECTOR, SECTOR, 2));
    ensure!(hold.reached(SOON), "a write does not come to the source");
    let snapshot = start(move || snapshots.snapshot());
    let early = snapshot.within(MOMENT);
    let contents = |snapshot: &Disk| -> Verdict<Vec<u8>> {
        let mut buf = vec![0; 2 * stage.grain as usize];
        snapshot.read_at(0, &mut buf, Wait::Allowed)?;
        Ok(buf)
    };
    let before = match &early {
        Some(Ok(snapshot)) => Some(contents(snapshot)?),
        _ => None,
    };
    hold.release();
    writer.end("the writer")??;
    let snapshot = early.map_or_else(|| snapshot.end("the snapshot"), Ok)??;
    let after = contents(&snapshot)?;
    if let Some(before) = before {
        let what = "a snapshot was changed by a write that had found its place before";
        ensure!(before == after, "{what}: {}", difference(&after, &before));
    }
    stage.expect(SECTOR, 2, "a write that was overtaken by a snapshot")?;
    stage.put(0, 2 * stage.grain, 4)?;
    let later = contents(&snapshot)?;
    ensure!(later == after, "a snapshot was changed by a later write: {}", difference(&later, &after));
    stage.all_at_home()
}

/// Law 3, its other side: while a snapshot waits for in-place writers, nobody may copy away what they are about
/// to write.
pub fn no_write_lost_to_a_snapshot(maker: &dyn Maker) -> Verdict {
    let stage = Stage::new(maker)?;
    let Some(snapshots) = stage.subject.snapshots.clone() else { return Ok(()) };
    stage.put(0, stage.grain, 1)?;
    let hold = stage.paused.stop(Op::Write, When::Before);
    let disk = Arc::clone(stage.disk());
    let first = start(move || write(&disk, SECTOR, SECTOR, 2));
    ensure!(hold.reached(SOON), "a write does not come to the source");
    let snapshot = start(move || snapshots.snapshot());
    let early = snapshot.within(MOMENT);
    let disk = Arc::clone(stage.disk());
    let second = start(move || write(&disk, 5 * SECTOR, SECTOR, 3));
    let done = second.within(MOMENT);
    hold.release();
    first.end("the first writer")??;
    early.map_or_else(|| snapshot.end("the snapshot"), Ok)??;
    done.map_or_else(|| second.end("the second writer"), Ok)??;
    stage.expect(SECTOR, 2, "a write that was overtaken by a snapshot and a copy")?;
    stage.expect(5 * SECTOR, 3, "the write that copied")
}

/// Law 9: while a snapshot waits for those who look, they can look again.
pub fn readers_look_while_a_snapshot_waits(maker: &dyn Maker) -> Verdict {
    let stage = Stage::new(maker)?;
    let Some(snapshots) = stage.subject.snapshots.clone() else { return Ok(()) };
    // Backwards, so that they do not lie in a row and need a look each.
    for i in (0..3).rev() {
        stage.put(i * stage.grain, stage.grain, 1)?;
    }
    stage.all_at_home()?;
    let hold = stage.paused.stop(Op::Read, When::Before);
    let (disk, len) = (Arc::clone(stage.disk()), 3 * stage.grain as usize);
    let reader = start(move || disk.read_at(0, &mut vec![0; len], Wait::Allowed));
    ensure!(hold.reached(SOON), "a read does not come to the source");
    let snapshot = start(move || snapshots.snapshot());
    let early = snapshot.within(MOMENT);
    hold.release();
    let Some(read) = reader.within(SOON / 3) else {
        ensure!(false, "a reader and a snapshot wait for each other: a deadlock");
        return Ok(());
    };
    read?;
    early.map_or_else(|| snapshot.end("the snapshot"), Ok)??;
    Ok(())
}

/// Law 7: what a snapshot shared becomes writable when it is deleted, but not while it is being copied: a write
/// in place would be lost to the copy.
pub fn no_write_lost_to_a_deleted_snapshot(maker: &dyn Maker) -> Verdict {
    let stage = Stage::new(maker)?;
    let Some(snapshots) = stage.subject.snapshots.clone() else { return Ok(()) };
    stage.put(0, stage.grain, 1)?;
    snapshots.snapshot()?;
    let hold = stage.paused.stop(Op::Write, When::Before);
    let disk = Arc::clone(stage.disk());
    let first = start(move || write(&disk, SECTOR, SECTOR, 2));
    ensure!(hold.reached(SOON), "a write does not come to the source");
    let deleted = start(move || snapshots.delete_oldest());
    let early = deleted.within(MOMENT);
    let disk = Arc::clone(stage.disk());
    let second = start(move || write(&disk, 5 * SECTOR, SECTOR, 3));
    let done = second.within(MOMENT);
    hold.release();
    first.end("the writer that copies")??;
    early.map_or_else(|| deleted.end("the deletion"), Ok)??;
    done.map_or_else(|| second.end("the second writer"), Ok)??;
    stage.expect(SECTOR, 2, "the write that copied")?;
    stage.expect(5 * SECTOR, 3, "a write into a grain that was being copied when its snapshot was deleted")
}

/// Law 7: of two writers in one grain that has no place yet, none undoes the other.
pub fn overlapping_reservations_wait(maker: &dyn Maker) -> Verdict {
    let stage = Stage::new(maker)?;
    let hold = stage.paused.stop(Op::Write, When::Before);
    let disk = Arc::clone(stage.disk());
    let first = start(move || write(&disk, SECTOR, SECTOR, 1));
    ensure!(hold.reached(SOON), "a write does not come to the source");
    let disk = Arc::clone(stage.disk());
    let second = start(move || write(&disk, 5 * SECTOR, SECTOR, 2));
    let done = second.within(MOMENT);
    hold.release();
    first.end("the first writer")??;
    done.map_or_else(|| second.end("the second writer"), Ok)??;
    stage.expect(SECTOR, 1, "the first of two writes into one new grain")?;
    stage.expect(5 * SECTOR, 2, "the second of two writes into one new grain")
}

/// Law 7: a copier never undoes a write.
pub fn fill_is_void(make: Stack<'_>, copier: Copier) -> Verdict {
    const LEN: u64 = 1 << 20;
    let mut base = vec![0; LEN as usize];
    stamp(&mut base, 0, 1, 1);
    let below = Arc::new(Paused::new(Arc::new(Memory::of(base))));
    let disk = make(Arc::new(Memory::new(0)), Arc::clone(&below) as _)?;
    let grain = disk.geometry().grain.max(4096);
    let hold = below.stop(Op::Read, When::After);
    let copied = Arc::clone(&disk);
    let copy = start(move || copier(&copied, 0, grain));
    ensure!(hold.reached(SOON), "the copier does not read what lies below");
    let written = Arc::clone(&disk);
    let writer = start(move || write(&written, SECTOR, SECTOR, 9));
    let done = writer.within(MOMENT);
    hold.release();
    copy.end("the copier")??;
    done.map_or_else(|| writer.end("the writer"), Ok)??;
    let mut got = vec![0; grain as usize];
    disk.read_at(0, &mut got, Wait::Allowed)?;
    for (i, stamp) in stamps(&got, 0)?.into_iter().enumerate() {
        let writer = if i == 1 { 9 } else { 1 };
        ensure!(stamp.is_some_and(|s| s.writer == writer), "a copier undid a write: sector {i} is {stamp:?}");
    }
    // And what is here already is not brought up again.
    let moved = copier(&disk, 0, grain)?;
    ensure!(moved == 0, "{moved} bytes were brought up into a grain that is here already");
    Ok(())
}

/// Law 5: a disk writes into the disks below by way of their own maps.
pub fn writes_stay_in_their_disk(maker: &dyn Maker, outer: Outer<'_>) -> Verdict {
    let source: Arc<dyn Source> = Arc::new(Memory::new(0));
    let subject = maker.create(Arc::clone(&source))?;
    let inner = subject.disk;
    let len = inner.len() / 512 * 512;
    write(&inner, 0, len / 2 / 512 * 512, 1)?;
    let read = |disk: &Disk| -> Verdict<Vec<u8>> {
        let mut all = vec![0; len as usize];
        disk.read_at(0, &mut all, Wait::Allowed)?;
        Ok(all)
    };
    let mut wanted = read(&inner)?;
    let frozen = subject.snapshots.as_ref().map(|s| s.snapshot()).transpose()?;
    let over = outer(Arc::clone(&inner))?;
    for (at, many) in [(0, 8), (len / 4 / 512 * 512, 40), (len / 4 * 3 / 512 * 512, 3)] {
        write(&over, at, many * SECTOR, 2)?;
        stamp(&mut wanted[at as usize..][..(many * SECTOR) as usize], at, 2, 1);
    }
    for (disk, name) in [(&over, "outer"), (&inner, "inner")] {
        let got = read(disk)?;
        ensure!(
            got == wanted,
            "written through an outer disk, the {name} one: {}",
            difference(&got, &wanted)
        );
    }
    if let Some(frozen) = frozen {
        let half = len as usize / 2 / 512 * 512;
        let all = read(&frozen)?;
        let old = stamps(&all[..half], 0)?;
        let changed = old.iter().position(|s| s.is_none_or(|s| s.writer != 1));
        ensure!(changed.is_none(), "a write through an outer disk changed a snapshot, in sector {changed:?}");
    }
    over.flush()?;
    let again = maker.open(source)?;
    let got = read(&again.disk)?;
    ensure!(got == wanted, "after reopening: {}", difference(&got, &wanted));
    Ok(())
}
