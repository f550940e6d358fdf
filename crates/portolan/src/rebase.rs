//! Rebasing: the same disk over another backing file.

use crate::open::MAX_CHAIN;
use crate::{Format, Image, Location, Opened, Options, Spec, Watch, gate, open};
use chart::{Disk, Error, Result, Source};
use format::qcow2::create::Backing;
use io::file::{File, Options as FileOptions};
use serde::Serialize;
use std::sync::Arc;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The new backing file, as the image will name it: relative to the image. None, to stand alone.
    pub backing: Option<String>,
    /// Its format, which must be said.
    pub format: Option<String>,
    /// Only change the name, and look at nothing: for when the file was moved.
    pub only_name: bool,
}

/// What a rebase did, in bytes of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Copied up, since the new backing file holds something else there.
    pub copied: u64,
    /// Of those: stored as zeros.
    pub zeroed: u64,
    /// Compared by reading.
    pub compared: u64,
}

/// Puts the image that `spec` names over another backing file. The disk stays the same, unless only the name is
/// changed.
pub fn rebase(spec: &Spec, options: &Options, request: &Request, watch: Watch<'_>) -> Result<Report> {
    let backing = backing(request)?;
    let alone = request.only_name;
    let opened = open(spec, &Options { writable: true, alone, ..options.clone() })?;
    let done = put_over(&opened, backing.as_ref(), options, request, watch);
    opened.close_after(done)
}

fn put_over(
    opened: &Opened,
    backing: Option<&Backing>,
    options: &Options,
    request: &Request,
    watch: Watch<'_>,
) -> Result<Report> {
    let map = opened.image.qcow2("backing file")?;
    if let Some(backing) = backing {
        refuse_loop(opened, backing, options)?;
    }
    let mut report = Report::default();
    if !request.only_name {
        let new = backing.map(|backing| new_base(opened, backing, options)).transpose()?;
        let total = opened.disk.len();
        let mut tell = |at| {
            watch.tell(at, total);
            watch.go_on()
        };
        let new_disk: Option<&Disk> = new.as_ref().map(|new| new.disk.as_ref());
        let done = map.copy_up(&opened.disk, new_disk, &mut tell)?;
        report = Report { copied: done.copied, zeroed: done.zeroed, compared: done.compared };
    }
    map.set_backing(backing)?;
    Ok(report)
}

fn backing(request: &Request) -> Result<Option<Backing>> {
    let Some(name) = request.backing.clone().filter(|name| !name.is_empty()) else { return Ok(None) };
    let Some(format) = request.format.clone() else {
        let what = format!("which format has {name}? It must be said: readers do not guess it");
        return Err(Error::invalid(what));
    };
    Format::named(&format)?;
    Ok(Some(Backing { name, format: Some(format) }))
}

/// Opens the new backing file as the image will name it.
fn new_base(opened: &Opened, backing: &Backing, options: &Options) -> Result<Opened> {
    let image = &opened.image;
    let named = gate::beside(&image.spec.location, &backing.name)?;
    let spec = Spec { format: backing.format.clone(), ..named };
    let reading = Options { writable: false, alone: false, ..options.clone() };
    let base = open(&spec, &reading).map_err(|e| e.during("opening the new backing file"))?;
    if base.image.chain().any(|below| is_same(below, image)) {
        let what = format!("{} stands on this image: it cannot be put below it", backing.name);
        return Err(Error::invalid(what).in_path(image.spec.location.to_string()));
    }
    Ok(base)
}

/// Refuses to put the image over itself, or over one that stands on it, however far below. Only names are followed
/// for that, as far as they lead: with `only_name`, the files may be elsewhere today.
fn refuse_loop(opened: &Opened, backing: &Backing, options: &Options) -> Result<()> {
    let image = &opened.image;
    let Ok(named) = gate::beside(&image.spec.location, &backing.name) else { return Ok(()) };
    let pass = options.gate.pass(&named.location)?;
    let looking =
        Options { writable: false, unlocked: true, alone: true, allow_corrupt: true, ..options.clone() };
    let mut spec = Spec { format: backing.format.clone(), ..named };
    let mut chain = vec![backing.name.clone()];
    while chain.len() <= MAX_CHAIN {
        let Location::File(path) = &spec.location else { break };
        let Ok(there) = File::open(path, FileOptions::default()) else { break };
        if there.identity() == image.container.identity() {
            let chain = chain.join(" -> ");
            let what = format!("{} stands on this image ({chain}): it cannot be put below it", backing.name);
            return Err(Error::invalid(what).in_path(image.spec.location.to_string()));
        }
        let Some((name, format)) = open(&spec, &looking).ok().and_then(|there| names(&there)) else { break };
        let Ok(admitted) = pass.admit(&spec.location, &name, "backing file") else { break };
        spec = Spec { format: admitted.spec.format.clone().or(format), ..admitted.spec };
        chain.push(name);
    }
    Ok(())
}

/// What an image names as its backing file, and as that one's format.
fn names(there: &Opened) -> Option<(String, Option<String>)> {
    let info = there.image.qcow2("backing file").ok()?.info().ok()?;
    Some((info.backing_file?, info.backing_format))
}

fn is_same(a: &Image, b: &Arc<Image>) -> bool {
    a.container.identity() == b.container.identity()
}
