//! Serving disks to others: what is offered under which name, and what lies on top of it.

mod history;

use crate::create::{Request as New, create};
use crate::emission::emit;
use crate::info::Directory;
use crate::open::Map;
use crate::{Format, Gate, Image, Location, Opened, Options, Spec, Watch, open};
use chart::{Disk, Error, Kind, Result, ResultExt as _, Run};
use format::qcow2::DirtyMap;
use io::file::{File, Options as FileOptions};
use serve::Dirt;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use history::{CHANGED, History, Kept};
pub use serve::nbd::{Config, Limits, Listener, Server, Severity, tls::Tls};
pub use serve::{Counters, Export, counters};

/// How many names are tried for a temporary directory.
const TEMPORARY_TRIES: u32 = 1000;

/// What takes the writes of clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Top {
    /// The disk itself.
    #[default]
    Itself,
    /// Nothing: the disk is read only.
    Nothing,
    /// A qcow2 overlay in this file, which is made where it is not there; the disk itself is only read.
    Overlay(PathBuf),
    /// A history of which nothing is kept, and which is gone when the server ends.
    Temporary,
    /// A history, of which so many states are kept; gone when the server ends.
    History(usize),
}

/// A format that a disk is shown in, which need not be its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guise {
    /// The format.
    pub format: Format,
    /// Its options, as for making an image.
    pub options: BTreeMap<String, String>,
}

/// How a disk is offered.
#[derive(Clone, Debug, Default)]
pub struct Offer {
    /// As which export.
    pub name: String,
    /// What takes writes.
    pub top: Top,
    /// Not the disk is served, but the bytes of the image file of this format that would hold it.
    pub guise: Option<Guise>,
    /// The dirty bitmaps that clients are told.
    pub bitmaps: Vec<String>,
    /// Whether clients may ask where ranges live.
    pub places: bool,
}

/// A disk that is open to be served.
pub struct Offered {
    /// To be given to a [`Server`].
    pub export: Export,
    /// To be closed when that has finished.
    pub opened: Opened,
    /// Why it can only be read, where nobody has asked for that.
    pub read_only: Option<Error>,
    /// The states that are kept of it.
    pub history: Option<History>,
}

/// Opens a disk to be served.
pub fn offer(spec: &Spec, offer: &Offer, options: &Options, watch: Watch<'_>) -> Result<Offered> {
    let reading = Options { writable: false, ..options.clone() };
    let writing = Options { writable: true, ..options.clone() };
    let (opened, read_only) = match &offer.top {
        Top::Nothing | Top::Temporary | Top::History(_) => (open(spec, &reading)?, None),
        // Nobody expects to write to one.
        Top::Itself if spec.plain_file().is_some_and(Path::is_dir) => (open(spec, &reading)?, None),
        Top::Itself => match open(spec, &writing) {
            // What is read-only by its nature is served so; what only looks so by accident is an error.
            Err(e) if e.kind() == Kind::ReadOnly => (open(spec, &reading)?, Some(e)),
            opened => (opened?, None),
        },
        Top::Overlay(path) => (overlay(spec, path, options, watch)?, None),
    };
    let mut disk = Arc::clone(&opened.disk);
    // As a person names it: the format is told behind it.
    let name = Spec { format: None, options: BTreeMap::new(), ..spec.clone() };
    let format = opened.image.format;
    let mut description = format!("{name} ({format})");
    if let Map::Directory(tree) = &opened.image.map {
        let Directory { files, directories, skipped, .. } = Directory::of(tree);
        let skipped = if skipped > 0 { format!(", left out: {skipped}") } else { String::new() };
        description = format!("{name} ({format}, files: {files}, directories: {directories}{skipped})");
    }
    if let Some(guise) = &offer.guise {
        disk = disguised(&opened, guise, watch)?;
        description = format!("{name} ({format}, as {})", guise.format);
    }
    let mut history = None;
    match offer.top {
        Top::Temporary => disk = history::over(disk)?.head(),
        Top::History(most) => {
            let begun = History::over(disk, offer, &description, most)?;
            disk = begun.head();
            history = Some(begun);
        }
        Top::Itself | Top::Nothing | Top::Overlay(_) => {}
    }
    let mut export = Export::new(offer.name.clone(), disk);
    (export.description, export.places) = (description, offer.places);
    for name in &offer.bitmaps {
        export.dirt.push(bitmap(&opened, name, export.writable)?);
    }
    Ok(Offered { export, opened, read_only, history })
}

/// The image file of another format that this disk would be. It is laid out once: the disk must stay as it is.
fn disguised(opened: &Opened, guise: &Guise, watch: Watch<'_>) -> Result<Arc<Disk>> {
    if opened.image.disk().is_writable() {
        let what = format!("is open for writing, and what is shown as {} must not change", guise.format);
        return Err(Error::conflict(what).in_path(opened.image.spec.to_string()));
    }
    emit(guise.format, Arc::clone(&opened.disk), guise.options.clone(), watch).map(|made| made.file)
}

/// Opens the overlay of `spec` at `path`, or makes it.
fn overlay(spec: &Spec, path: &Path, options: &Options, watch: Watch<'_>) -> Result<Opened> {
    if !spec.steps.is_empty() || spec.plain_file().is_some_and(Path::is_dir) {
        let what = "an overlay file can only name a whole image; --temporary and --history go over anything";
        return Err(Error::unsupported(what).in_path(spec.to_string()));
    }
    let is_new = !path.exists();
    if is_new {
        make_overlay(spec, path, options, watch)?;
    }
    let named =
        Spec { format: Some(Format::Qcow2.name().to_owned()), ..Spec::of(Location::File(path.to_owned())) };
    let gate = gate(spec, &options.gate);
    let opened = open(&named, &Options { writable: true, gate, ..options.clone() })?;
    if !is_new {
        stands_on(&opened.image, spec, options)?;
    }
    Ok(opened)
}

/// What an overlay may name: what the user allows, and the disk they have named themselves.
fn gate(spec: &Spec, gate: &Gate) -> Gate {
    match &spec.location {
        Location::File(path) => {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            gate.clone().allow(parent)
        }
        _ => Gate::any(),
    }
}

fn make_overlay(spec: &Spec, path: &Path, options: &Options, watch: Watch<'_>) -> Result<()> {
    let (backing, format) = {
        let base = open(spec, options)?;
        let whole = base.image.path().map(std::fs::canonicalize).transpose()?;
        let name = whole.map_or_else(|| spec.location.to_string(), |path| path.display().to_string());
        (name, base.image.format.name().to_owned())
    };
    let request = New {
        size: None,
        backing: Some(backing),
        backing_format: Some(format),
        access: Options { writable: false, gate: gate(spec, &options.gate), ..options.clone() },
        ..New::of(Format::Qcow2, 0)
    };
    create(path, &request, watch).map(drop)
}

/// An overlay that is there already must be one of the disk that is to be served.
fn stands_on(image: &Image, spec: &Spec, options: &Options) -> Result<()> {
    let base = open(spec, options)?;
    if let Some(below) = &image.below {
        let (there, asked) = (&below.spec.location, &base.image.spec.location);
        // An export is another one to every connection: there is no more to go by than its address.
        let is_same_address = matches!(there, Location::Nbd(_)) && there == asked;
        if is_same_address || below.container.identity() == base.image.container.identity() {
            return Ok(());
        }
    }
    let what = format!("it is there already, and is no overlay of {}", spec.location);
    Err(Error::conflict(what).in_path(image.spec.location.to_string()))
}

/// A file that has lost its name: it is gone when it is closed.
fn temporary_file(name: &str) -> Result<File> {
    let dir = temporary_dir()?;
    let path = dir.join(name);
    let file = File::open(&path, FileOptions { create_new: true, volatile: true, ..FileOptions::default() });
    // Nothing else is in there, and where it was not made there is nothing.
    let _ = std::fs::remove_file(&path);
    std::fs::remove_dir(&dir).in_path(&dir)?;
    file
}

/// A new directory, which was not there and which nobody else can enter.
fn temporary_dir() -> Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let large = Path::new("/var/tmp");
    let asked = std::env::var_os("TMPDIR").map(PathBuf::from);
    let parent =
        asked.or_else(|| large.is_dir().then(|| large.to_owned())).unwrap_or_else(std::env::temp_dir);
    for _ in 0..TEMPORARY_TRIES {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!("portolan-{}-{number}", std::process::id()));
        match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| dir.clone()).in_path(&dir),
        }
    }
    Err(Error::conflict("every name for a temporary directory is taken").in_path(parent))
}

/// A dirty bitmap, as it was when the server began.
struct Marked {
    name: String,
    map: DirtyMap,
}

impl Dirt for Marked {
    fn name(&self) -> &str {
        &self.name
    }

    fn dirt_at(&self, at: u64, want: u64) -> Result<Run> {
        let (data, len) = self.map.run(at, want);
        Ok(Run { len, data })
    }
}

fn bitmap(opened: &Opened, name: &str, writable: bool) -> Result<Arc<dyn Dirt>> {
    let image = &opened.image;
    let Map::Qcow2(map) = &image.map else {
        return Err(Error::unsupported(format!("{} disks have no bitmaps", image.format)));
    };
    let bitmaps = map.bitmaps()?;
    let found = bitmaps.iter().find(|b| b.name == name);
    let found = found.ok_or_else(|| Error::not_found(format!("there is no bitmap {name:?}")))?;
    if writable && found.is_auto() {
        let what =
            format!("the bitmap {name:?} follows writes, and what clients are told must stay as it is");
        return Err(Error::conflict(what));
    }
    Ok(Arc::new(Marked { name: name.to_owned(), map: map.dirty_map(name)? }))
}
