//! Packing: the same file with its clusters compressed. Their sizes are known only when they are, so here the
//! data is written, one batch after the other, and the tables at the end.

use super::tables::{Layout, Tables};
use super::{Entries, plain};
use crate::field::{to_index, to_u64};
use crate::qcow2::create::New;
use crate::qcow2::layout::{COMPRESSED_SECTOR, OFLAG_COMPRESSED, OFLAG_COPIED};
use crate::qcow2::refcount::Width;
use crate::qcow2::{Clusters, Compression};
use crate::survey::Survey;
use chart::{Coded, Disk, Error, LeafPlace, Purpose, Result, Source, Wait};
use io::codec::Encoder;
use io::copy::Progress;
use io::generated::Rule;
use io::watch::Watch;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A worker reads about so much at once.
const BATCH_BYTES: u64 = 1 << 20;

/// How a disk is packed.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// The encoder's level, or its usual one.
    pub level: Option<i32>,
    /// How many workers; 0 means one for each processor.
    pub threads: usize,
    /// Told now and then how far it is.
    pub progress: Option<&'a (dyn Fn(Progress) + Sync)>,
    /// When this is set, packing ends with an error as soon as it can.
    pub cancel: Option<&'a AtomicBool>,
}

/// What packing did, in bytes of the disk unless it says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Encoded.
    pub encoded: u64,
    /// Taken over as they were stored, encoded already.
    pub passed: u64,
    /// Stored as they are: encoding did not make them smaller.
    pub plain: u64,
    /// Zeros, not stored.
    pub zeros: u64,
    /// Bytes of data in the file.
    pub stored: u64,
}

impl Packed {
    fn add(&mut self, other: &Packed) {
        self.encoded = self.encoded.saturating_add(other.encoded);
        self.passed = self.passed.saturating_add(other.passed);
        self.plain = self.plain.saturating_add(other.plain);
        self.zeros = self.zeros.saturating_add(other.zeros);
    }
}

/// Writes the qcow2 file that holds what `disk` holds, its clusters compressed, to `sink`, which is empty. Not
/// flushed.
pub fn pack(disk: &Disk, sink: &dyn Source, new: &New, options: &Options<'_>) -> Result<Packed> {
    let clusters = plain(disk, new)?;
    // Soon done beside the packing: that is what progress is told of.
    let watch = Watch { progress: None, cancel: options.cancel };
    let survey = Arc::new(Survey::of(disk, clusters.grain(), watch)?);
    let layout = Layout::new(new, clusters, &survey, survey.count())?;
    let data_start = layout.data_start();
    let job = Job {
        disk,
        sink,
        new,
        options,
        clusters,
        survey: &survey,
        next: AtomicU64::new(0),
        failed: AtomicBool::new(false),
        words: (0..survey.count()).map(|_| AtomicU64::new(0)).collect(),
        room: Mutex::new(Room::new(data_start, clusters, new.refcount_order)?),
    };
    let mut packed = job.run()?;
    let room = job.room.into_inner().unwrap_or_else(PoisonError::into_inner);
    let end = clusters.round_up(room.end);
    packed.stored = room.end.saturating_sub(data_start);
    let words = job.words.iter().map(|word| word.load(Ordering::Relaxed)).collect();
    let tables = Tables::new(layout, Arc::clone(&survey), Stored { words, counts: room.counts });
    sink.set_len(end)?;
    write_tables(&tables, data_start, sink)?;
    Ok(packed)
}

fn write_tables(tables: &impl Rule, len: u64, sink: &dyn Source) -> Result<()> {
    let mut buf = vec![0; 1 << 20];
    let mut offset = 0_u64;
    while offset < len {
        let now = to_index(len.saturating_sub(offset)).min(buf.len());
        let part = buf.get_mut(..now).unwrap_or_default();
        tables.fill(offset, part, Wait::Allowed)?;
        if !io::engine::is_zero(part) {
            sink.write_at(offset, part, Wait::Allowed)?;
        }
        offset = offset.saturating_add(to_u64(now));
    }
    Ok(())
}

/// Where packed clusters went.
struct Stored {
    words: Vec<u64>,
    counts: Vec<u32>,
}

impl Entries for Stored {
    fn word(&self, rank: u64) -> u64 {
        self.words.get(to_index(rank)).copied().unwrap_or(0)
    }

    fn refcount(&self, data_cluster: u64) -> u64 {
        self.counts.get(to_index(data_cluster)).copied().unwrap_or(0).into()
    }
}

/// The room that is left in the file, and how often each cluster of data is referred to.
struct Room {
    start: u64,
    end: u64,
    clusters: Clusters,
    width: Width,
    counts: Vec<u32>,
}

impl Room {
    fn new(start: u64, clusters: Clusters, refcount_order: u32) -> Result<Room> {
        Ok(Room { start, end: start, clusters, width: Width::new(refcount_order)?, counts: Vec::new() })
    }

    /// One more reference to all clusters that `len` bytes from `offset` on touch.
    fn count(&mut self, offset: u64, len: u64) -> Result<()> {
        let data = |offset: u64| to_index(self.clusters.index(offset.saturating_sub(self.start)));
        let (first, last) = (data(offset), data(offset.saturating_add(len).saturating_sub(1)));
        if self.counts.len() <= last {
            self.counts.resize(last.saturating_add(1), 0);
        }
        for count in self.counts.get_mut(first..=last).unwrap_or_default() {
            *count = count.saturating_add(1);
            if u64::from(*count) > self.width.max() {
                let what =
                    format!("refcounts of {} bits are too small for compressed clusters", self.width.bits());
                return Err(Error::unsupported(format!("{what}; choose wider ones")));
            }
        }
        Ok(())
    }

    /// The word of a compressed cluster.
    fn compressed(&mut self, offset: u64, len: u64) -> Result<u64> {
        let begin = offset.saturating_sub(offset % COMPRESSED_SECTOR);
        let sectors = offset.saturating_add(len).saturating_sub(begin).div_ceil(COMPRESSED_SECTOR);
        self.count(begin, sectors.saturating_mul(COMPRESSED_SECTOR))?;
        // 62 - (cluster_bits - 8), as the specification has it.
        let x = 70_u32.saturating_sub(self.clusters.bits());
        if offset >= 1_u64.wrapping_shl(x) {
            return Err(Error::unsupported("the image is too large for compressed clusters of this size"));
        }
        Ok(OFLAG_COMPRESSED | sectors.saturating_sub(1).wrapping_shl(x) | offset)
    }
}

/// What the workers share.
struct Job<'a> {
    disk: &'a Disk,
    sink: &'a dyn Source,
    new: &'a New,
    options: &'a Options<'a>,
    clusters: Clusters,
    survey: &'a Survey,
    /// The rank of the next cluster that nobody has taken.
    next: AtomicU64,
    failed: AtomicBool,
    /// The L2 entry of every stored cluster, by rank.
    words: Vec<AtomicU64>,
    room: Mutex<Room>,
}

impl Job<'_> {
    fn run(&self) -> Result<Packed> {
        let processors = || std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let threads = if self.options.threads == 0 { processors() } else { self.options.threads };
        let outcome = Mutex::new((Packed::default(), None));
        std::thread::scope(|scope| {
            for _ in 0..threads.clamp(1, 64) {
                scope.spawn(|| {
                    let done = Worker::new(self).and_then(Worker::run);
                    let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                    match done {
                        Ok(packed) => outcome.0.add(&packed),
                        Err(e) => {
                            self.failed.store(true, Ordering::Relaxed);
                            outcome.1.get_or_insert(e);
                        }
                    }
                });
            }
        });
        let (packed, error) = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
        match error {
            Some(e) => Err(e),
            None if self.is_cancelled() => Err(Error::conflict("cancelled")),
            None => Ok(packed),
        }
    }

    fn is_cancelled(&self) -> bool {
        self.options.cancel.is_some_and(|c| c.load(Ordering::Relaxed))
    }

    fn tell(&self, rank: u64) {
        if let Some(tell) = self.options.progress {
            let bytes = |clusters: u64| clusters.saturating_mul(self.clusters.size());
            tell(Progress { done: bytes(rank), total: bytes(self.survey.count()) });
        }
    }
}

/// What became of a cluster of a batch, until its place is known.
enum Became {
    Zero,
    /// So many bytes, encoded.
    Frame(u64),
    /// Stored as it is.
    Plain,
}

struct Worker<'j> {
    job: &'j Job<'j>,
    encoder: Encoder,
    /// The batch as it is read.
    bytes: Vec<u8>,
    /// Its frames, one behind the other.
    frames: Vec<u8>,
    /// Its clusters that stay as they are, likewise.
    plain: Vec<u8>,
    /// Room for one frame.
    frame: Vec<u8>,
    packed: Packed,
}

impl<'j> Worker<'j> {
    fn new(job: &'j Job<'j>) -> Result<Self> {
        let level = job.options.level;
        let encoder = match job.new.compression {
            Compression::Zlib => Encoder::deflate(level)?,
            Compression::Zstd => Encoder::zstd(level)?,
        };
        let size = to_index(job.clusters.size());
        Ok(Worker {
            job,
            encoder,
            bytes: vec![0; size],
            frames: Vec::new(),
            plain: Vec::new(),
            // What does not become smaller is not worth it.
            frame: vec![0; size.saturating_sub(1)],
            packed: Packed::default(),
        })
    }

    fn run(mut self) -> Result<Packed> {
        let per_batch = (BATCH_BYTES.checked_div(self.job.clusters.size()).unwrap_or(1)).max(1);
        while !self.job.failed.load(Ordering::Relaxed) && !self.job.is_cancelled() {
            let rank = self.job.next.fetch_add(per_batch, Ordering::Relaxed);
            let count = self.job.survey.count().saturating_sub(rank).min(per_batch);
            if count == 0 {
                break;
            }
            self.batch(rank, count)?;
            self.job.tell(rank.saturating_add(count));
        }
        Ok(self.packed)
    }

    fn batch(&mut self, first: u64, count: u64) -> Result<()> {
        self.frames.clear();
        self.plain.clear();
        let mut became = Vec::with_capacity(to_index(count));
        let mut done = 0_u64;
        while done < count {
            let (cluster, run) =
                self.job.survey.select(first.saturating_add(done), count.saturating_sub(done))?;
            for cluster in cluster..cluster.saturating_add(run) {
                became.push(self.cluster(cluster)?);
            }
            done = done.saturating_add(run);
        }
        self.place(first, &became)
    }

    /// Reads and encodes one cluster.
    fn cluster(&mut self, cluster: u64) -> Result<Became> {
        let size = self.job.clusters.size();
        let at = cluster.saturating_mul(size);
        let len = self.job.disk.len().saturating_sub(at).min(size);
        if let Some(stored) = self.pass(at, len)? {
            self.packed.passed = self.packed.passed.saturating_add(len);
            return Ok(Became::Frame(stored));
        }
        let (held, behind) = self.bytes.split_at_mut(to_index(len));
        self.job.disk.read_at(at, held, Wait::Allowed)?;
        behind.fill(0);
        if io::engine::is_zero(held) {
            self.packed.zeros = self.packed.zeros.saturating_add(len);
            return Ok(Became::Zero);
        }
        let Some(stored) = self.encoder.encode(&self.bytes, &mut self.frame)? else {
            self.plain.extend_from_slice(&self.bytes);
            self.packed.plain = self.packed.plain.saturating_add(len);
            return Ok(Became::Plain);
        };
        self.frames.extend_from_slice(self.frame.get(..stored).unwrap_or_default());
        self.packed.encoded = self.packed.encoded.saturating_add(len);
        Ok(Became::Frame(to_u64(stored)))
    }

    /// Takes over a cluster that is stored as a frame that would do here as it is.
    fn pass(&mut self, at: u64, len: u64) -> Result<Option<u64>> {
        // Held until the stored bytes are read.
        let _pin = self.job.disk.pin();
        let leaf = self.job.disk.leaf(at, len, Wait::Allowed, Purpose::Locate)?;
        let LeafPlace::Coded(coded) = &leaf.place else { return Ok(None) };
        if leaf.len != len || !self.fits(coded) {
            return Ok(None);
        }
        let start = self.frames.len();
        let end = start.saturating_add(coded.stored_len());
        self.frames.resize(end, 0);
        let room = self.frames.get_mut(start..end).unwrap_or_default();
        coded.source.read_at(coded.offset, room, Wait::Allowed)?;
        Ok(Some(to_u64(coded.stored_len())))
    }

    fn fits(&self, coded: &Coded<'_>) -> bool {
        coded.frame.skip == 0
            && u64::from(coded.frame.decoded_len) == self.job.clusters.size()
            && coded.codec.name() == self.job.new.compression.name()
            && to_u64(coded.stored_len()) <= self.job.clusters.size()
            && coded.stored_len() > 0
    }

    /// Finds room for a batch and writes it.
    fn place(&self, first: u64, became: &[Became]) -> Result<()> {
        let size = self.job.clusters.size();
        let mut room = self.job.room.lock().unwrap_or_else(PoisonError::into_inner);
        let mut frame_at = room.end;
        let frames_at = frame_at;
        let frames_end = frame_at.saturating_add(to_u64(self.frames.len()));
        let mut plain_at = self.job.clusters.round_up(frames_end);
        let plains_at = plain_at;
        for (rank, became) in (first..).zip(became) {
            let word = match became {
                Became::Zero => 0,
                Became::Frame(len) => {
                    let word = room.compressed(frame_at, *len)?;
                    frame_at = frame_at.saturating_add(*len);
                    word
                }
                Became::Plain => {
                    room.count(plain_at, size)?;
                    plain_at = plain_at.saturating_add(size);
                    plain_at.saturating_sub(size) | OFLAG_COPIED
                }
            };
            if let Some(entry) = self.job.words.get(to_index(rank)) {
                entry.store(word, Ordering::Relaxed);
            }
        }
        room.end = if self.plain.is_empty() { frames_end } else { plain_at };
        self.job.sink.set_len(self.job.sink.len().max(self.job.clusters.round_up(room.end)))?;
        drop(room);
        self.job.sink.write_at(frames_at, &self.frames, Wait::Allowed)?;
        self.job.sink.write_at(plains_at, &self.plain, Wait::Allowed)
    }
}
