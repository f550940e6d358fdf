//! From a container and a format to a disk.

use super::absent::Absent;
use super::{Container, Image, Named, Opening};
use crate::{Format, Location, Spec, size};
use chart::{Disk, Error, Remedy, Result, Source};
use format::qcow2::{self, Needed, Role};
use format::{raw, vdi};
use io::tree::Tree;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The map that a format keeps, for what only that format has.
#[derive(Clone)]
pub enum Map {
    /// There is none.
    None,
    /// Its header, tables, snapshots and bitmaps.
    Qcow2(Arc<qcow2::Image>),
    /// Its header and block map.
    Vdi(Arc<vdi::Image>),
    /// The directory that is shown.
    Directory(Arc<Tree>),
}

/// How a container is to be read.
pub(super) struct Request {
    pub(super) format: Format,
    pub(super) version: Option<String>,
    pub(super) writable: bool,
    /// Nobody said the format of this file, which an image named.
    pub(super) guessed: bool,
}

/// What an image stands on.
#[derive(Default)]
struct Below {
    backing: Option<Arc<Image>>,
    data_file: Option<Arc<Image>>,
}

impl Opening<'_> {
    pub(super) fn build(&mut self, spec: Spec, container: &Container, request: &Request) -> Result<Image> {
        let &Request { format, writable, .. } = request;
        let mut below = Below::default();
        let source = Arc::clone(&container.source);
        let (map, disk) = match format {
            Format::Raw => (Map::None, self.raw(&spec, &source, request)?),
            Format::Qcow2 => {
                let map = Arc::new(self.qcow2(&spec, container, request, &mut below)?);
                let disk = map.disk(spec.to_string())?;
                (Map::Qcow2(map), disk)
            }
            Format::Vdi => {
                let map = Arc::new(self.vdi(&spec, container, request)?);
                let disk = map.disk(spec.to_string())?;
                (Map::Vdi(map), disk)
            }
            Format::Chart if container.inside.is_some() => {
                let what = "a chart inside a disk is not followed to files of the host; extract it first";
                return Err(Error::denied(what).in_path(spec.to_string()));
            }
            Format::Chart => (Map::None, self.chart(&spec, &source, request)?),
            Format::Iso9660 => {
                let what = "iso9660 shows a directory; of a file that holds such a disk the format is raw";
                return Err(Error::invalid(what).in_path(spec.to_string()).with_remedy(Remedy::NameRaw));
            }
        };
        let Below { backing, data_file } = below;
        let within = container.inside.as_ref().map(|inside| Arc::clone(&inside.within));
        Ok(Image { spec, format, container: source, map, below: backing, data_file, within, disk, writable })
    }

    fn raw(&self, spec: &Spec, source: &Arc<dyn Source>, request: &Request) -> Result<Arc<Disk>> {
        if let Some(version) = &request.version {
            return Err(
                Error::unsupported(format!("@{version}: a raw disk has no versions")).in_path(source.name())
            );
        }
        let mut options = Options::of(spec);
        let (offset, len) = (options.size("offset")?, options.size("size")?);
        let parts = options.text("parts");
        options.finish(request.format)?;
        match (offset, len, parts) {
            (None, None, None) => raw::open(Arc::clone(source), request.writable),
            (offset, len, None) => {
                let window = raw::Window { offset: offset.unwrap_or(0), len };
                raw::open_window(Arc::clone(source), window, request.writable)
            }
            (None, None, Some(list)) => {
                let parts = self.parts(spec, source, &list, request.writable)?;
                raw::split(spec.location.to_string(), parts, request.writable)
            }
            _ => Err(Error::invalid("a disk in parts is not a window too")),
        }
    }

    /// The first part, and those the user named behind it.
    fn parts(
        &self,
        spec: &Spec,
        first: &Arc<dyn Source>,
        list: &str,
        writable: bool,
    ) -> Result<Vec<Arc<dyn Source>>> {
        let Location::File(path) = &spec.location else {
            return Err(Error::unsupported("only files can be parts of a disk"));
        };
        let mut parts = vec![Arc::clone(first)];
        for name in part_names(path, list)? {
            let part = Container::of(&Location::File(name), None, self.options.file(writable))?;
            if parts.iter().any(|known| known.identity() == part.source.identity()) {
                return Err(Error::invalid("is named as a part twice").in_path(part.source.name()));
            }
            part.lock(self.options.unlocked, writable)?;
            parts.push(part.source);
        }
        Ok(parts)
    }

    fn qcow2(
        &mut self,
        spec: &Spec,
        container: &Container,
        request: &Request,
        below: &mut Below,
    ) -> Result<qcow2::Image> {
        Options::of(spec).finish(request.format)?;
        let mut options = qcow2::Options {
            writable: request.writable,
            allow_corrupt: self.options.allow_corrupt,
            repair: request.writable,
            snapshot: request.version.clone(),
            onlooker: self.options.onlooker.clone(),
            ..qcow2::Options::default()
        };
        if let Some(bytes) = self.options.cache_bytes {
            options.cache_bytes = bytes;
        }
        let mut opener = |needed: Needed<'_>| {
            if self.alone {
                return Ok(Absent::source(needed.name));
            }
            let image = self.named_by(spec, container, &needed, request)?;
            let disk: Arc<dyn Source> = Arc::<Disk>::clone(&image.disk);
            match needed.role {
                Role::Backing => below.backing = Some(image),
                Role::DataFile => below.data_file = Some(image),
            }
            Ok(disk)
        };
        let image = qcow2::Image::open(Arc::clone(&container.source), &options, &mut opener)?;
        // Whoever writes to an image in spite of what is wrong with it is about to repair it.
        if request.writable && !self.options.allow_corrupt {
            image.recover()?;
        }
        Ok(image)
    }

    fn vdi(&self, spec: &Spec, container: &Container, request: &Request) -> Result<vdi::Image> {
        let source = &container.source;
        if let Some(version) = &request.version {
            let what = format!("@{version}: a VDI image has no versions inside");
            return Err(Error::unsupported(what).in_path(source.name()));
        }
        Options::of(spec).finish(request.format)?;
        let options = vdi::Options {
            writable: request.writable,
            repair: self.options.allow_corrupt,
            onlooker: self.options.onlooker.clone(),
        };
        vdi::Image::open(Arc::clone(source), &options)
    }

    /// Opens a file that the image `by` names.
    fn named_by(
        &mut self,
        by: &Spec,
        holder: &Container,
        needed: &Needed<'_>,
        request: &Request,
    ) -> Result<Arc<Image>> {
        let role = match needed.role {
            Role::Backing => "backing file",
            Role::DataFile => "data file",
        };
        if request.guessed && !self.options.guess {
            let what = format!(
                "{by} names {} as its {role}, but nothing says that {by} is {}: a guest may have written those \
                 bytes. Name its format in the image above it, or allow guessing",
                needed.name, request.format
            );
            return Err(Error::denied(what).with_remedy(Remedy::AllowGuessing));
        }
        // Only data belongs to the image itself; what lies below is not its to write, unless it is committed there.
        let commits = self.options.below_writable && self.chain.len() == 1;
        let writable = request.writable && (needed.role == Role::DataFile || commits);
        let (mut spec, container) = match &holder.inside {
            Some(inside) => {
                inside.named(needed.name).map_err(|e| e.during(format!("{by} names its {role}")))?
            }
            None => {
                let admitted = self.pass.admit(&by.location, needed.name, role)?;
                let options = self.options.file(writable);
                let container = Container::of(&admitted.spec.location, Some(&admitted), options)?;
                (admitted.spec.clone(), container)
            }
        };
        if let (None, Some(format)) = (&spec.format, needed.format) {
            spec.format = Some(format.to_owned());
        }
        self.image(spec, &container, writable, Named::ByImage)
    }
}

/// The names behind the first part: a list, or the files numbered on from it.
fn part_names(first: &Path, list: &str) -> Result<Vec<PathBuf>> {
    if list != "auto" {
        return Ok(list.split(',').map(PathBuf::from).collect());
    }
    if raw::next_part(first).is_none() {
        let what = "parts=auto takes files that are numbered on (disk.001, disk.002, ...): none can follow this name";
        return Err(Error::invalid(what).in_path(first));
    }
    let next = |path: &PathBuf| raw::next_part(path).filter(|p| p.exists());
    Ok(std::iter::successors(next(&first.to_path_buf()), next).take(raw::MAX_PARTS).collect())
}

/// Options that are taken one by one, until none is left.
pub(super) struct Options(BTreeMap<String, String>);

impl Options {
    pub(super) fn of(spec: &Spec) -> Options {
        Options(spec.options.clone())
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        self.0.remove(key)
    }

    fn size(&mut self, key: &str) -> Result<Option<u64>> {
        self.0.remove(key).map(|text| size::parse(&text)).transpose()
    }

    pub(super) fn switch(&mut self, key: &str, unsaid: bool) -> Result<bool> {
        match self.0.remove(key).as_deref() {
            None => Ok(unsaid),
            Some("on") => Ok(true),
            Some("off") => Ok(false),
            Some(other) => Err(Error::invalid(format!("{key}={other}: it is on or off"))),
        }
    }

    pub(super) fn finish(self, format: Format) -> Result<()> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(key) => Err(Error::invalid(format!("{format} has no option {key:?} for opening"))),
        }
    }
}
