//! Opening: from a SPEC to a disk, with all that it stands on.
//!
//! One image file that is opened twice in one process is one disk (`table`): read-only users share it, a second
//! writer is refused, and so is one beside a disk that stands on it. Between processes QEMU's image locks say the same.

mod absent;
mod build;
mod container;
mod directory;
mod inside;
mod table;
#[cfg(test)]
mod tests;
mod view;
mod written;

pub use build::Map;
pub use inside::{Found, Node, find};

use crate::{Format, Gate, Onlooker, Spec, Step};
use chart::{Disk, Error, Identity, Remedy, Result, Source};
use container::Container;
use format::qcow2;
use std::path::Path;
use std::sync::Arc;

/// How many images a chain of backing files may have.
pub const MAX_CHAIN: usize = 100;

/// How a disk is opened.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// For writing too. The format must be said, unless the bytes show that it is not raw.
    pub writable: bool,
    /// For writing the image's backing file too: what is committed goes there.
    pub below_writable: bool,
    /// Take no locks: for looking at an image that somebody is using. Not together with `writable`.
    pub unlocked: bool,
    /// Files past the page cache.
    pub direct: bool,
    /// Which other files an image may name.
    pub gate: Gate,
    /// Take the format of a file that an image names from its bytes, where the image does not say it, even if
    /// that file then names further ones.
    pub guess: bool,
    /// Do not open what the image names: its metadata is all that is wanted.
    pub alone: bool,
    /// Open an image that is marked corrupt: for checking it, and for saving what can be read.
    pub allow_corrupt: bool,
    /// How many bytes of a format's tables may be kept in memory.
    pub cache_bytes: Option<usize>,
    /// Who looks on while an image does what takes long: checks and repairs itself, changes its length or its
    /// snapshots.
    pub onlooker: Onlooker,
}

/// An image: a disk in a format, in a place, and what it stands on.
pub struct Image {
    /// How it was named.
    pub spec: Spec,
    /// What format it has.
    pub format: Format,
    /// What holds it.
    pub container: Arc<dyn Source>,
    /// The format's own map, for what only that format has.
    pub map: Map,
    /// The image its unheld ranges are found in.
    pub below: Option<Arc<Image>>,
    /// The file that holds its data, where that is another one.
    pub data_file: Option<Arc<Image>>,
    /// The image it lies in: of a partition, or of a file in a file system.
    pub within: Option<Arc<Image>>,
    disk: Arc<Disk>,
    writable: bool,
}

impl Image {
    /// The image as a disk.
    pub fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// What to call it where people read: its SPEC, without what was said of its format.
    pub fn name(&self) -> String {
        Spec { format: None, options: Default::default(), ..self.spec.clone() }.to_string()
    }

    /// Its path, where it is a file of the host.
    pub fn path(&self) -> Option<&Path> {
        self.spec.plain_file()
    }

    /// The map that qcow2 keeps, for what no other format has: the error says that its own `lacks` it.
    pub(crate) fn qcow2(&self, lacks: &str) -> Result<&Arc<qcow2::Image>> {
        match &self.map {
            Map::Qcow2(map) => Ok(map),
            Map::None | Map::Vdi(_) | Map::Directory(_) => {
                let what = format!("{} disks have no {lacks}", self.format);
                Err(Error::unsupported(what).in_path(self.spec.location.to_string()))
            }
        }
    }

    /// It, and the images below it, from the top.
    pub fn chain(&self) -> impl Iterator<Item = &Image> {
        std::iter::successors(Some(self), |image| image.below.as_deref())
    }

    /// Every image whose container holds something of it: its chain with the data files, and what that lies in.
    pub fn stands_on(&self) -> Vec<&Image> {
        let (mut found, mut open) = (Vec::new(), vec![self]);
        while let Some(image) = open.pop() {
            open.extend(
                [&image.below, &image.data_file, &image.within].into_iter().flatten().map(Arc::as_ref),
            );
            found.push(image);
        }
        found
    }

    /// Refuses a target that this disk itself stands on.
    pub fn refuse_as_target(&self, target: &Path) -> Result<()> {
        let Ok(there) = io::file::File::open(target, io::file::Options::default()) else { return Ok(()) };
        if self.stands_on().iter().any(|file| file.container.identity() == there.identity()) {
            let what = format!("{} is made of this file: it cannot be its own target", self.spec.location);
            return Err(Error::conflict(what).in_path(target));
        }
        Ok(())
    }

    /// Makes everything durable and leaves it, and what it lies in, as readers want to find them.
    fn close(&self) -> Result<()> {
        for image in std::iter::successors(Some(self), |image| image.within.as_deref()) {
            image.disk.close()?;
        }
        Ok(())
    }
}

/// A disk that is open for somebody.
pub struct Opened {
    /// What to read, and to write where that was asked for.
    pub disk: Arc<Disk>,
    /// The image it is.
    pub image: Arc<Image>,
    writable: bool,
}

impl Opened {
    /// Ends writing: makes everything durable and leaves the image as a reader wants to find it. Dropping a
    /// writable disk without this may leave it marked as in use.
    pub fn close(self) -> Result<()> {
        if self.writable { self.image.close() } else { Ok(()) }
    }

    /// The same, whatever came of the work: what has failed or was interrupted leaves the image at rest too, and
    /// its bitmaps worth something.
    pub fn close_after<T, E: From<Error>>(
        self,
        done: std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let closed = self.close();
        let done = done?;
        closed?;
        Ok(done)
    }
}

/// Opens a disk, and all that it stands on.
pub fn open(spec: &Spec, options: &Options) -> Result<Opened> {
    let mut opening = Opening::begin(spec, options)?;
    let image = match opening.follow(spec)? {
        inside::Here::Image(image) => image,
        inside::Here::Node(node) => opening.image_at(&node, None)?,
    };
    opening.opened(image)
}

/// Refuses to write without locks.
pub(crate) fn may_be_unlocked(spec: &Spec, options: &Options) -> Result<()> {
    if options.unlocked && (options.writable || options.below_writable) {
        let what = "what is to be written must be locked: -U is only for looking at it";
        return Err(Error::invalid(what).in_path(spec.location.to_string()));
    }
    Ok(())
}

impl Options {
    fn file(&self, writable: bool) -> io::file::Options {
        io::file::Options { writable, direct: self.direct, ..io::file::Options::default() }
    }
}

/// Who named an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    /// The user: what they say goes.
    ByUser,
    /// Another image, as its backing or data file.
    ByImage,
}

/// The work of opening one disk.
struct Opening<'a> {
    options: &'a Options,
    pass: crate::gate::Pass,
    /// What is being opened right now, from the top: to notice a loop.
    chain: Vec<(Option<Identity>, String)>,
    /// The whole SPEC, where that leads to something inside of the image it begins with.
    inside: Option<String>,
    /// Held throughout. Two threads that open two images which name each other must not wait for each other.
    table: table::Guard,
    /// Do not open what the image names. Of one that is only opened for what lies in it, everything is wanted.
    alone: bool,
}

impl<'a> Opening<'a> {
    fn begin(spec: &Spec, options: &'a Options) -> Result<Opening<'a>> {
        may_be_unlocked(spec, options)?;
        let pass = options.gate.pass(&spec.location)?;
        let is_inside = spec.steps.iter().any(|step| !matches!(step, Step::Version(_)));
        let inside = is_inside.then(|| spec.to_string());
        Ok(Opening { options, pass, chain: Vec::new(), inside, table: table::lock(), alone: options.alone })
    }

    /// The image for whoever asked. Who did not ask to write gets a disk that cannot, even where it is shared with a
    /// writer.
    fn opened(&self, image: Arc<Image>) -> Result<Opened> {
        let writable = self.options.writable;
        let disk =
            if image.writable && !writable { view::read_only(&image.disk)? } else { Arc::clone(&image.disk) };
        Ok(Opened { disk, image, writable })
    }

    fn image(
        &mut self,
        spec: Spec,
        container: &Container,
        writable: bool,
        named: Named,
    ) -> Result<Arc<Image>> {
        self.enter(&spec, container)?;
        let shown = spec.location.to_string();
        let image = self.image_in_chain(spec, container, writable, named);
        self.chain.pop();
        image.map_err(|e| if named == Named::ByImage { e.during(format!("opening {shown}")) } else { e })
    }

    /// Notes that `spec` is being opened. Refuses it if it is being opened already, or the chain is too long.
    fn enter(&mut self, spec: &Spec, container: &Container) -> Result<()> {
        let identity = container.file.as_ref().map(|f| f.identity());
        let names = || {
            let names: Vec<_> = self.chain.iter().map(|(_, name)| name.as_str()).collect();
            names.join(" -> ")
        };
        if identity.is_some() && self.chain.iter().any(|(known, _)| *known == identity) {
            let what = format!("the chain of images loops: {} -> {}", names(), spec.location);
            return Err(Error::corrupt(what).with_remedy(Remedy::BreakLoop));
        }
        if self.chain.len() >= MAX_CHAIN {
            return Err(Error::unsupported(format!("a chain of more than {MAX_CHAIN} images: {}", names())));
        }
        self.chain.push((identity, spec.location.to_string()));
        Ok(())
    }

    fn image_in_chain(
        &mut self,
        spec: Spec,
        container: &Container,
        writable: bool,
        named: Named,
    ) -> Result<Arc<Image>> {
        let format = self.format_of(&spec, container, writable)?;
        let version = match spec.steps.last() {
            Some(Step::Version(name)) => Some(name.clone()),
            _ => None,
        };
        let guessed = spec.format.is_none() && named == Named::ByImage;
        let key = container.file.as_ref().map(|file| table::Key {
            identity: file.identity(),
            format,
            options: spec.options.clone(),
            version: version.clone(),
            alone: self.alone || self.options.allow_corrupt,
        });
        let above = match named {
            Named::ByUser => self.inside.clone(),
            // The last is the image itself.
            Named::ByImage => self.chain.iter().rev().nth(1).map(|(_, above)| above.clone()),
        };
        if let Some(key) = &key {
            if let Some(image) = self.table.find(key, writable, above.as_deref())? {
                return Ok(image);
            }
            container.lock(self.options.unlocked, writable)?;
        }
        let request = build::Request { format, version, writable, guessed };
        let image = Arc::new(self.build(spec, container, &request)?);
        if let Some(key) = key {
            self.table.add(key, writable, above.as_deref(), &image);
        }
        Ok(image)
    }

    /// What was said, or what the bytes say. They are never taken for raw when the disk is to be written: a guest
    /// that writes its own disk writes those bytes too, and may make them look like anything tomorrow.
    fn format_of(&self, spec: &Spec, container: &Container, writable: bool) -> Result<Format> {
        if let Some(name) = &spec.format {
            return Format::named(name);
        }
        let format = Format::probe(container.source.as_ref(), &spec.location)?;
        if format == Format::Raw && writable {
            let what =
                "has no header of a known format; a raw disk that is to be written must be named as raw";
            return Err(Error::invalid(what).in_path(container.source.name()).with_remedy(Remedy::NameRaw));
        }
        Ok(format)
    }
}
