//! Converting: the same disk in another format, with as few bytes moved as the file system allows.

use crate::emission::{self, Emission};
use crate::watch::Watch;
use crate::{Format, Opened, create};
use chart::{Disk, Error, Remedy, Result, Source};
use format::qcow2::emit;
use io::copy::Reflink;
use io::file::{File, Options as FileOptions};
use io::replace::Replacement;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// How a disk is converted.
#[derive(Clone, Default)]
pub struct Options<'a> {
    /// The new format's options, as `qemu-img` calls them.
    pub options: BTreeMap<String, String>,
    /// Compress, where the format can.
    pub compress: bool,
    /// How hard to compress.
    pub level: Option<i32>,
    /// Leave zeros that are stored in the source as they are stored, rather than making them holes.
    pub keep_zeros: bool,
    /// Whether to share ranges of host files with the new one.
    pub reflink: Reflink,
    /// How many threads work; 0 means as many as do good.
    pub threads: usize,
    /// Replace what is there.
    pub force: bool,
    /// Leave it to the system when to make the new file durable.
    pub no_flush: bool,
    /// Write past the host's page cache; not what is compressed, which fills no blocks.
    pub direct: bool,
    /// Who looks on.
    pub watch: Watch<'a>,
}

/// What a conversion did, in bytes of the disk unless it says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// The disk's length.
    pub virtual_size: u64,
    /// The new file's length.
    pub file_size: u64,
    /// Shared with the source by the file system: not moved.
    pub cloned: u64,
    /// Copied inside the kernel.
    pub offloaded: u64,
    /// Read and written.
    pub copied: u64,
    /// Written as zeros.
    pub zeroed: u64,
    /// Holes that stayed holes.
    pub skipped: u64,
    /// Encoded on the way.
    pub encoded: u64,
    /// Taken over as they were encoded.
    pub passed: u64,
    /// Bytes of the new file, not of the disk: the format's own tables.
    pub tables: u64,
}

impl Report {
    /// Bytes that were really moved.
    pub fn moved(&self) -> u64 {
        self.offloaded + self.copied + self.zeroed + self.encoded + self.passed
    }
}

/// Writes what the disk holds, in `format`, to a new file at `target`: whole, or not at all.
pub fn convert(opened: &Opened, target: &Path, format: Format, options: &Options<'_>) -> Result<Report> {
    opened.image.refuse_as_target(target)?;
    let disk = &opened.disk;
    if let Some(device) = block_device(target, options)? {
        return onto_device(disk, &device, format, options);
    }
    let mut replacement = Replacement::create(target, options.force)?;
    if options.direct && !options.compress {
        replacement.go_past_the_cache()?;
    }
    let report = fill(disk, replacement.file()?, format, options)?;
    options.watch.go_on()?;
    if options.no_flush {
        replacement.commit_in_haste()?;
    } else {
        replacement.commit()?;
    }
    Ok(report)
}

fn fill(disk: &Arc<Disk>, sink: &File, format: Format, options: &Options<'_>) -> Result<Report> {
    match (format, options.compress) {
        (Format::Qcow2, true) => pack(disk, sink, options),
        (_, true) => Err(Error::unsupported(format!("{format} disks cannot be compressed"))),
        (_, false) => emitted(disk, sink, format, options),
    }
}

/// Moves what a file of `disk` in `format` would be into `sink`: its tables, then its data, counted apart.
fn emitted(disk: &Arc<Disk>, sink: &File, format: Format, options: &Options<'_>) -> Result<Report> {
    // Soon done beside the copying: that is what progress is told of.
    let watch = Watch { progress: None, ..options.watch };
    let Emission { file, tables } = emission::emit(format, Arc::clone(disk), options.options.clone(), watch)?;
    let how = how(options, true);
    if tables > 0 {
        io::copy::copy(&file, sink, &io::copy::Options { to: Some(tables), progress: None, ..how })?;
    }
    let done = io::copy::copy(&file, sink, &io::copy::Options { from: tables, ..how })?;
    let stored = done.cloned + done.offloaded + done.copied + done.zeroed;
    // What is not stored is no part of the file; and the last grain may be longer than the disk.
    let skipped = disk.len().saturating_sub(stored);
    Ok(Report { skipped, tables, ..moved(disk, sink, done) })
}

fn how<'a>(options: &Options<'a>, empty: bool) -> io::copy::Options<'a> {
    io::copy::Options {
        zero_detect: !options.keep_zeros,
        reflink: options.reflink,
        threads: options.threads,
        sink_reads_zero: empty,
        will_flush: !options.no_flush,
        progress: options.watch.progress,
        cancel: options.watch.cancel,
        ..io::copy::Options::default()
    }
}

fn moved(disk: &Disk, sink: &File, done: io::copy::Report) -> Report {
    Report {
        virtual_size: disk.len(),
        file_size: sink.len(),
        cloned: done.cloned,
        offloaded: done.offloaded,
        copied: done.copied,
        zeroed: done.zeroed,
        ..Report::default()
    }
}

fn pack(disk: &Disk, sink: &File, options: &Options<'_>) -> Result<Report> {
    let new = create::qcow2_options(disk.len(), options.options.clone())?;
    let how = emit::PackOptions {
        level: options.level,
        threads: options.threads,
        progress: options.watch.progress,
        cancel: options.watch.cancel,
    };
    let done = emit::pack(disk, sink, &new, &how)?;
    Ok(Report {
        virtual_size: disk.len(),
        file_size: sink.len(),
        copied: done.plain,
        encoded: done.encoded,
        passed: done.passed,
        skipped: disk.len().saturating_sub(done.plain + done.encoded + done.passed),
        tables: sink.len().saturating_sub(done.stored),
        ..Report::default()
    })
}

/// The target, where it is a block device: it is written in place, which cannot be undone.
fn block_device(target: &Path, options: &Options<'_>) -> Result<Option<File>> {
    use std::os::unix::fs::FileTypeExt;
    if !target.metadata().is_ok_and(|m| m.file_type().is_block_device()) {
        return Ok(None);
    }
    if !options.force {
        let refusal = Error::conflict("is a block device; what it holds is lost if it is overwritten");
        return Err(refusal.in_path(target).with_remedy(Remedy::Replace));
    }
    let how = FileOptions { writable: true, direct: options.direct, ..FileOptions::default() };
    let file = File::open(target, how)?;
    io::file::lock(&file, io::file::Access::Write)?;
    Ok(Some(file))
}

fn onto_device(disk: &Arc<Disk>, device: &File, format: Format, options: &Options<'_>) -> Result<Report> {
    if format != Format::Raw {
        return Err(Error::unsupported(format!("a device can be filled as raw, not as {format}")));
    }
    let done = io::copy::copy(disk, device, &how(options, false))?;
    let report = Report { skipped: done.skipped, ..moved(disk, device, done) };
    if !options.no_flush {
        device.flush()?;
    }
    Ok(report)
}
