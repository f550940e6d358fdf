//! Files out of a disk: a whole tree, or one file.
//!
//! One thread finds what there is, and makes the directories for it; then it joins the others, who make files. Bytes
//! are moved by the copy engine, which shares with the image what the file system lets it share. Attributes of
//! directories are given at the end, from the inside out, since making files in them would change them.

mod dress;
mod make;
mod queue;
mod report;
mod scan;
mod target;

pub use report::{Report, Skipped, Unreadable};
pub use scan::{MAX_DEPTH, MAX_DIRECTORIES, MAX_LINKED, MAX_NAMES, MAX_PATH_BYTES};

use crate::{Node, Progress, Watch};
use chart::{Error, Result, ResultExt};
use dress::{Dressed, Rights};
use fs::{FileSystem, Kind, Stat};
use io::copy::{Copier, Reflink};
use io::engine::Choice;
use io::replace::{Directory, Replacement};
use make::Maker;
use queue::Queue;
use report::{Tally, shown};
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use scan::{Folder, Link, Scanner};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use target::Target;

/// How files are extracted.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// Replace what is there.
    pub force: bool,
    /// Whether owners are kept: unless it is said, if root does it.
    pub owners: Option<bool>,
    /// Leave out what cannot be read, and report it, rather than give up.
    pub keep_going: bool,
    /// Make everything durable before it takes its place.
    pub flush: bool,
    /// Whether ranges are shared with the image.
    pub reflink: Reflink,
    /// How many threads work; 0 means as many as do good here.
    pub threads: usize,
    /// Who looks on.
    pub watch: Watch<'a>,
}

/// Extracts what a node names to `target`. A directory becomes a directory of that name, or fills an empty one that
/// is there; a file becomes a file of that name, or goes by its own into a directory that is there.
pub fn extract(node: &Node, target: &Path, options: &Options<'_>) -> Result<Report> {
    let stat = node.fs.stat(node.inode)?;
    match stat.kind {
        Kind::Directory => tree(node, stat, target, options),
        Kind::File => file(node, stat, target, options),
        _ => Err(Error::invalid("is neither a directory nor a regular file").in_path(node.spec.to_string())),
    }
}

/// What all threads share.
struct Job<'a> {
    fs: &'a dyn FileSystem,
    target: Target<'a>,
    options: &'a Options<'a>,
    rights: Rights,
    queue: Queue,
    failed: AtomicBool,
    /// Bytes that were found, and whether those are all.
    total: AtomicU64,
    counted: AtomicBool,
    done: AtomicU64,
}

impl<'a> Job<'a> {
    fn new(fs: &'a dyn FileSystem, target: Target<'a>, options: &'a Options<'a>) -> Self {
        Job {
            fs,
            target,
            options,
            rights: Rights::find(options.owners),
            queue: Queue::default(),
            failed: AtomicBool::new(false),
            total: AtomicU64::new(0),
            counted: AtomicBool::new(false),
            done: AtomicU64::new(0),
        }
    }

    /// Whether another thread has failed.
    fn is_over(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Ends the work of all threads.
    fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
        self.queue.abandon();
    }

    fn found(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes that something is done.
    fn advance(&self, bytes: u64) {
        self.tell_within(bytes);
    }

    /// Tells how far it is, once it is known how far it goes.
    fn tell_within(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if self.counted.load(Ordering::Acquire) {
            let total = self.total.load(Ordering::Relaxed);
            if let Some(tell) = self.options.watch.progress {
                tell(Progress { done: done.min(total), total });
            }
        }
    }

    /// What was told of something that is now told as a whole.
    fn take_back(&self, bytes: u64) {
        self.done.fetch_sub(bytes, Ordering::Relaxed);
    }
}

fn tree(node: &Node, stat: Stat, target: &Path, options: &Options<'_>) -> Result<Report> {
    let directory = Directory::create(target, options.force)?;
    bare(&directory, target)?;
    let job = Job::new(node.fs.as_ref(), Target(directory.fd()), options);
    let mut scanner = Scanner::new(&job, stat);
    let mut tally = run(&job, &mut scanner)?;
    let Scanner { folders, links, tally: found, .. } = scanner;
    tally.add(found);
    link(&job, &links, &mut tally)?;
    finish(&job, &folders, directory.is_new(), &mut tally)?;
    options.watch.go_on()?;
    directory.commit(options.flush)?;
    Ok(tally.finish())
}

/// Takes from a new directory what it may have got from the one it is in, and would pass on.
fn bare(directory: &Directory, target: &Path) -> Result<()> {
    for attribute in [c"system.posix_acl_default", c"system.posix_acl_access"] {
        // Mostly there is none.
        let _ = rustix::fs::fremovexattr(directory.fd(), attribute);
    }
    rustix::fs::fchmod(directory.fd(), Mode::RWXU).map_err(std::io::Error::from).in_path(target)
}

/// Finds and makes everything but links and what directories wear.
fn run<'j>(job: &'j Job<'j>, scanner: &mut Scanner<'j>) -> Result<Tally> {
    let outcome = Mutex::new((Tally::default(), None));
    let end = |tally: Tally, done: Result<()>| {
        let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.0.add(tally);
        if let Err(e) = done {
            // What another thread says because of this one comes later.
            outcome.1.get_or_insert(e);
            job.fail();
        }
    };
    let work = || {
        let mut maker = Maker::new(job);
        let mut done = Ok(());
        while let (Ok(()), Some(unit)) = (&done, job.queue.next()) {
            done = maker.unit(&unit);
        }
        end(maker.tally, done);
    };
    std::thread::scope(|scope| {
        for _ in 1..threads(job.options.threads) {
            scope.spawn(work);
        }
        let done = scanner.run();
        job.counted.store(true, Ordering::Release);
        if done.is_ok() {
            job.queue.close();
        }
        end(Tally::default(), done);
        work();
    });
    let (tally, error) = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    error.map_or(Ok(tally), Err)
}

/// Two threads for each processor, since they wait for the disk as much as they work; and two at the least, since
/// one finds what another makes.
fn threads(asked: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    if asked == 0 { (2 * processors).clamp(2, 16) } else { asked.clamp(2, 64) }
}

/// Gives files their further names.
fn link(job: &Job<'_>, links: &[Link], tally: &mut Tally) -> Result<()> {
    const LOST: &str = "further names of files that were left out";
    for Link { first, further } in links {
        job.options.watch.go_on()?;
        let (from, to) = (job.target.open(&first.folder)?, job.target.open(&further.folder)?);
        let names = (target::name(&first.name)?, target::name(&further.name)?);
        match rustix::fs::linkat(&from, names.0, &to, names.1, AtFlags::empty()) {
            Ok(()) => tally.report.hard_links += 1,
            Err(Errno::NOENT) => tally.skip(LOST, &further.folder, &further.name),
            Err(Errno::EXIST) => {
                tally.skip(scan::TWICE, &further.folder, &further.name);
            }
            Err(e) => {
                let e = Error::from(std::io::Error::from(e));
                return Err(e.during(format!("linking {}", shown(&further.folder, &further.name))));
            }
        }
    }
    Ok(())
}

/// Dresses directories, from the inside out: what is in them must be reached until then. Who can reach everything
/// anyhow does it with all threads.
fn finish(job: &Job<'_>, folders: &[Folder], outermost: bool, tally: &mut Tally) -> Result<()> {
    let skipped = usize::from(!outermost);
    let rest = folders.get(skipped..).unwrap_or_default();
    let next = AtomicUsize::new(rest.len());
    let work = || {
        let (mut tally, mut done) = (Tally::default(), Ok(()));
        while done.is_ok() && !job.is_over() {
            let Ok(at) = next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)) else {
                break;
            };
            let Some(folder) = rest.get(at - 1) else { break };
            done = dress(job, folder, &mut tally);
            if done.is_err() {
                job.fail();
            }
        }
        (tally, done)
    };
    let threads = if job.rights.is_privileged() { threads(job.options.threads) } else { 1 };
    let all = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut all = vec![work()];
        all.extend(
            others.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))),
        );
        all
    });
    for (part, done) in all {
        done?;
        tally.add(part);
    }
    tally.report.directories += rest.len() as u64;
    Ok(())
}

/// Gives a directory what belongs to it.
fn dress(job: &Job<'_>, folder: &Folder, tally: &mut Tally) -> Result<()> {
    let Folder { path, stat, made, .. } = folder;
    job.options.watch.go_on()?;
    let dressed = job.target.open(path).and_then(|directory| {
        let found = match job.fs.attributes(stat.inode) {
            Err(e) if job.forgives(&e, path) => {
                tally.unreadable(path, b"", &e);
                Vec::new()
            }
            found => found?,
        };
        let attributes = job.rights.settable(found, (path, b""), tally);
        let what = Dressed { folder: path, name: b"", stat, made: *made };
        job.rights.dress(directory.as_fd(), &what, &attributes, tally)
    });
    dressed.during(|| format!("finishing {}", shown(path, b"")))
}

/// Extracts one file.
fn file(node: &Node, stat: Stat, target: &Path, options: &Options<'_>) -> Result<Report> {
    let own = node.path.file_name();
    let target = match own {
        Some(own) if target.is_dir() => target.join(own),
        _ => target.to_path_buf(),
    };
    node.within.refuse_as_target(&target)?;
    let mut new = Replacement::create(&target, options.force)?;
    new.keep_rights();
    let file = new.file()?;
    let job = Job::new(node.fs.as_ref(), Target(file.fd()), options);
    job.found(stat.len);
    job.counted.store(true, Ordering::Release);
    let mut tally = Tally::default();
    let (folder, name) = (Path::new(""), target.file_name().unwrap_or_default().as_bytes());
    let disk = node.fs.file(node.inode)?;
    if !disk.is_empty() {
        let done = job.content(&mut Copier::new(Choice::Auto), &disk, file)?;
        tally.bytes(&done, disk.len());
    }
    let attributes = job.rights.settable(node.fs.attributes(node.inode)?, (folder, name), &mut tally);
    let what = Dressed { folder, name, stat: &stat, made: u32::MAX };
    job.rights.dress(file.fd(), &what, &attributes, &mut tally)?;
    tally.report.files += 1;
    options.watch.go_on()?;
    if options.flush {
        new.commit()?;
    } else {
        new.commit_in_haste()?;
    }
    Ok(tally.finish())
}
