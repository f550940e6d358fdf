//! Comparing two disks: by place where that decides, by bytes where it does not.

#[cfg(test)]
mod tests;

use crate::watch::Watch;
use chart::{Backing, Disk, Leaf, LeafPlace, Result, Wait, both_at, same_place};
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How two disks are compared.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// A difference in length is a difference, whatever the longer one holds.
    pub strict: bool,
    /// How many threads read; 0 means one for each processor, and one more.
    pub threads: usize,
    /// Who looks on.
    pub watch: Watch<'a>,
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Whether they are the same.
    pub identical: bool,
    /// Where the first difference is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_difference: Option<u64>,
    /// Whether one is longer. Without `strict` that is no difference if the rest of it is zeros.
    pub sizes_differ: bool,
    /// Bytes that are one and the same place, or zeros by both charts: not read.
    pub skipped: u64,
    /// Bytes of one disk that were compared by reading.
    pub read: u64,
}

/// What a thread compares at once.
const PIECE: u64 = 1 << 20;

/// What is looked up in one turn, so that threads do not wait long for each other.
const TURN: u64 = 1 << 40;

/// A range to compare.
struct Piece {
    at: u64,
    len: u64,
    /// What has to be read of each: a side that is zeros by its chart is not.
    read: [bool; 2],
}

struct Job<'a> {
    disks: [&'a Disk; 2],
    total: u64,
    options: Options<'a>,
    /// Where the next piece is looked for.
    next: Mutex<u64>,
    /// The first difference known so far.
    first: AtomicU64,
    skipped: AtomicU64,
    read: AtomicU64,
}

/// Compares two disks, which nobody may change meanwhile.
pub fn compare(a: &Disk, b: &Disk, options: &Options<'_>) -> Result<Report> {
    let sizes_differ = a.len() != b.len();
    let shorter = a.len().min(b.len());
    if options.strict && sizes_differ {
        return Ok(Report {
            identical: false,
            first_difference: Some(shorter),
            sizes_differ,
            skipped: 0,
            read: 0,
        });
    }
    let job = Job {
        disks: [a, b],
        total: a.len().max(b.len()),
        options: *options,
        next: Mutex::new(0),
        first: AtomicU64::new(u64::MAX),
        skipped: AtomicU64::new(0),
        read: AtomicU64::new(0),
    };
    job.run()?;
    let first = Some(job.first.into_inner()).filter(|&at| at != u64::MAX);
    Ok(Report {
        identical: first.is_none(),
        first_difference: first,
        sizes_differ,
        skipped: job.skipped.into_inner(),
        read: job.read.into_inner(),
    })
}

impl Job<'_> {
    fn run(&self) -> Result<()> {
        let threads = match self.options.threads {
            0 => std::thread::available_parallelism().map_or(2, |n| n.get() + 1),
            n => n,
        };
        let failed = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..threads.clamp(1, 64) {
                scope.spawn(|| {
                    if let Err(e) = self.work() {
                        // Nobody goes on behind what failed.
                        self.first.fetch_min(0, Ordering::Relaxed);
                        failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
                    }
                });
            }
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn work(&self) -> Result<()> {
        let mut buffers = [vec![0; PIECE as usize], vec![0; PIECE as usize]];
        while let Some(piece) = self.piece()? {
            let differs = self.differs(&piece, &mut buffers)?;
            self.read.fetch_add(piece.len, Ordering::Relaxed);
            if let Some(at) = differs {
                self.first.fetch_min(at, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// The next range that has to be read, if it lies before the first difference known.
    fn piece(&self) -> Result<Option<Piece>> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let began = *next;
        while *next < self.total.min(self.first.load(Ordering::Relaxed)) {
            self.options.watch.go_on()?;
            if *next - began > TURN {
                self.options.watch.tell(*next, self.total);
            }
            let piece = self.look(*next)?;
            *next += piece.len;
            if piece.read == [false; 2] {
                self.skipped.fetch_add(piece.len, Ordering::Relaxed);
                continue;
            }
            self.options.watch.tell(*next, self.total);
            return Ok(Some(piece));
        }
        Ok(None)
    }

    /// What begins at `at`, and whether it has to be read.
    fn look(&self, at: u64) -> Result<Piece> {
        let _pins = self.disks.map(Disk::pin);
        let [a, b] = both_at(self.disks.map(Some), at, self.total - at)?;
        let (mut len, mut read) = (a.len, [a.data, b.data]);
        if same_place(&a, &b) {
            read = [false; 2];
        } else if let bytes @ 1.. = shared(&a, &b) {
            (len, read) = (bytes, [false; 2]);
        }
        // Pieces end on the same bounds whatever was skipped before, so that reads stay aligned.
        let most = if read == [false; 2] { len } else { len.min(PIECE - at % PIECE) };
        Ok(Piece { at, len: most, read })
    }

    fn differs(&self, piece: &Piece, buffers: &mut [Vec<u8>; 2]) -> Result<Option<u64>> {
        let len = piece.len as usize;
        for ((disk, buffer), read) in self.disks.iter().zip(buffers.iter_mut()).zip(piece.read) {
            let buffer = &mut buffer[..len];
            if read { disk.read_at(piece.at, buffer, Wait::Allowed)? } else { buffer.fill(0) }
        }
        let [a, b] = buffers;
        if a[..len] == b[..len] {
            return Ok(None);
        }
        let within = a[..len].iter().zip(&b[..len]).position(|(x, y)| x != y);
        Ok(within.map(|i| piece.at + i as u64))
    }
}

/// How many bytes two leaves share on their device.
fn shared(a: &Leaf<'_>, b: &Leaf<'_>) -> u64 {
    let (LeafPlace::Raw { source: s, offset: x }, LeafPlace::Raw { source: t, offset: y }) =
        (a.place, b.place)
    else {
        return 0;
    };
    match (s.backing(), t.backing()) {
        (Backing::File(s), Backing::File(t)) if a.data && b.data => io::file::shared(s, x, t, y, a.len),
        _ => 0,
    }
}

impl Report {
    /// Says it in a sentence.
    pub fn sentence(&self) -> String {
        match self.first_difference {
            None if self.sizes_differ => "The disks are identical, but for zeros at the end of one.".into(),
            None => "The disks are identical.".into(),
            Some(at) => format!("The disks differ, first at byte {at}."),
        }
    }
}
