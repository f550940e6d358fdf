//! What is inside a disk: its partitions, the files of its file systems, and the images among those.

use super::build::Map;
use super::{Container, Image, Named, Opened, Opening, Options};
use crate::{Format, Location, Spec, Step};
use chart::{Disk, Error, Remedy, Result, Source};
use fs::{FileSystem, Inode, Kind, partition};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a SPEC names.
pub enum Found {
    /// A disk: an image, or a partition of one.
    Disk(Opened),
    /// Something in a file system.
    Node(Node),
}

/// Something in a file system.
#[derive(Clone)]
pub struct Node {
    /// The file system.
    pub fs: Arc<dyn FileSystem>,
    /// Which inode of it.
    pub inode: Inode,
    /// Its path in the file system, as it was named.
    pub path: PathBuf,
    /// What to call it.
    pub spec: Spec,
    /// The image that the file system lies in, which stays open.
    pub within: Arc<Image>,
}

/// Where an image lies, if not on the host: what it names is looked for there too.
#[derive(Clone)]
pub(super) struct Inside {
    fs: Arc<dyn FileSystem>,
    /// The directory it is in.
    folder: PathBuf,
    pub(super) within: Arc<Image>,
}

/// Opens what a SPEC names, whatever that is. Who wants a disk in any case, and so the image that a file in a file
/// system is, calls [`open`](super::open()).
pub fn find(spec: &Spec, options: &Options) -> Result<Found> {
    let mut opening = Opening::begin(spec, options)?;
    Ok(match opening.follow(spec)? {
        Here::Image(image) => Found::Disk(opening.opened(image)?),
        Here::Node(node) => Found::Node(node),
    })
}

/// How far the steps of a SPEC have led.
pub(super) enum Here {
    Image(Arc<Image>),
    Node(Node),
}

impl Opening<'_> {
    /// Follows a SPEC, from its location through all of its steps.
    pub(super) fn follow(&mut self, spec: &Spec) -> Result<Here> {
        let mut done = match spec.steps.first() {
            Some(Step::Version(_)) => 1,
            _ => 0,
        };
        let mut here = Here::Image(self.outermost(spec, done)?);
        while let Some(step) = spec.steps.get(done) {
            self.alone = self.options.alone && done + 1 == spec.steps.len();
            here = match (here, step) {
                (Here::Image(image), Step::Partition(number)) => {
                    Here::Image(self.partition(&image, *number)?)
                }
                (Here::Image(image), Step::Path(path)) => Here::Node(node_in(&image, path)?),
                (Here::Node(node), Step::Version(_)) => Here::Image(self.image_at(&node, Some(step))?),
                // What is asked for is inside the image that this file is.
                (Here::Node(node), _) => {
                    here = Here::Image(self.image_at(&node, None)?);
                    continue;
                }
                (Here::Image(image), Step::Version(name)) => {
                    let what = format!("@{name}: only an image has versions, and a version has none");
                    return Err(Error::unsupported(what).in_path(image.name()));
                }
            };
            done += 1;
        }
        Ok(here)
    }

    /// The image in the place that a SPEC begins with, in the version that is named first if one is.
    fn outermost(&mut self, spec: &Spec, steps: usize) -> Result<Arc<Image>> {
        let spec = Spec { steps: spec.steps.get(..steps).unwrap_or_default().to_vec(), ..spec.clone() };
        if let Location::File(path) = &spec.location
            && path.is_dir()
        {
            let path = path.clone();
            return self.directory(spec, &path);
        }
        let writable = self.options.writable;
        let container = Container::of(&spec.location, None, self.options.file(writable))?;
        self.image(spec, &container, writable, Named::ByUser)
    }

    /// A partition of an image, as a disk of its own. It can be written if the image can.
    fn partition(&mut self, image: &Arc<Image>, number: u32) -> Result<Arc<Image>> {
        let spec = further(&image.spec, Step::Partition(number));
        let table = partition::read(&image.disk).map_err(|e| e.in_path(image.name()))?;
        let none = || Error::not_found("there is no partition table").in_path(image.name());
        let table = table.ok_or_else(none)?;
        let found = table.partitions.iter().find(|p| p.number == number).ok_or_else(|| {
            let there: Vec<_> = table.partitions.iter().map(|p| format!("#{}", p.number)).collect();
            let there = if there.is_empty() { "there are none".to_owned() } else { there.join(", ") };
            Error::not_found(format!("there is no partition #{number}: {there}")).in_path(image.name())
        })?;
        let disk = found.disk(&image.disk, image.writable)?;
        let container: Arc<dyn Source> = Arc::<Disk>::clone(&image.disk);
        Ok(Arc::new(Image {
            spec,
            format: Format::Raw,
            container,
            map: Map::None,
            below: None,
            data_file: None,
            within: Some(Arc::clone(image)),
            disk,
            writable: image.writable,
        }))
    }

    /// The image that a file in a file system is.
    pub(super) fn image_at(&mut self, node: &Node, version: Option<&Step>) -> Result<Arc<Image>> {
        let name = || node.spec.to_string();
        if self.options.writable || self.options.below_writable {
            let what = "files inside a disk can be read, not written; make an overlay over it";
            return Err(Error::read_only(what).in_path(name()));
        }
        match node.fs.stat(node.inode)?.kind {
            Kind::File => {}
            Kind::Directory => {
                let what = "is a directory in a file system, not a disk";
                return Err(Error::invalid(what).in_path(name()).with_remedy(Remedy::ListOrExtract));
            }
            _ => return Err(Error::invalid("is no regular file").in_path(name())),
        }
        let spec = version.map_or_else(|| node.spec.clone(), |v| further(&node.spec, v.clone()));
        // What the user said of the outermost image says nothing of this one.
        let spec = Spec { format: None, options: Default::default(), ..spec };
        let container = Container::inside(node)?;
        self.image(spec, &container, false, Named::ByUser)
    }
}

impl Container {
    /// A file in a file system.
    fn inside(node: &Node) -> Result<Container> {
        let folder = node.path.parent().unwrap_or(Path::new("/")).to_path_buf();
        let inside = Inside { fs: Arc::clone(&node.fs), folder, within: Arc::clone(&node.within) };
        Ok(Container { source: node.fs.file(node.inode)?, file: None, inside: Some(inside) })
    }
}

impl Inside {
    /// A file that an image in here names: one of the same file system.
    pub(super) fn named(&self, name: &str) -> Result<(Spec, Container)> {
        let spec = Spec::parse(name)?;
        let Some(path) = spec.plain_file() else {
            let what =
                format!("a file inside a disk may name only files of the same file system, not {name}");
            return Err(Error::denied(what));
        };
        let node = node_of(&self.fs, &self.folder.join(path), &self.within)?;
        let container = Container::inside(&node)?;
        Ok((node.spec, container))
    }
}

/// What a path names in the file system on an image's disk.
fn node_in(image: &Arc<Image>, path: &Path) -> Result<Node> {
    let named = || image.name();
    if let Some(fs) = fs::open(&image.disk).map_err(|e| e.in_path(named()))? {
        return node_of(&fs, path, image);
    }
    let table = partition::read(&image.disk).map_err(|e| e.in_path(named()))?;
    match table.map(|t| t.partitions.len()) {
        Some(1..) => {
            let what = "is divided into partitions: a path is inside one of them";
            Err(Error::invalid(what).in_path(named()).with_remedy(Remedy::ChoosePartition))
        }
        _ if image.format == Format::Iso9660 => {
            let what = "is a directory of this machine: what is in it has its own path there";
            Err(Error::invalid(what).in_path(named()))
        }
        _ => Err(Error::unsupported(match fs::mark(&image.disk)? {
            Some(mark) => {
                format!("holds {mark}, which is not read here: of file systems, ext2, ext3 and ext4 are")
            }
            None => "no file system that is known here".to_owned(),
        })
        .in_path(named())),
    }
}

fn node_of(fs: &Arc<dyn FileSystem>, path: &Path, within: &Arc<Image>) -> Result<Node> {
    let spec = further(&within.spec, Step::Path(path.to_path_buf()));
    let inode = fs::path::resolve(fs.as_ref(), path).map_err(|e| e.in_path(spec.to_string()))?;
    Ok(Node { fs: Arc::clone(fs), inode, path: path.to_path_buf(), spec, within: Arc::clone(within) })
}

fn further(spec: &Spec, step: Step) -> Spec {
    let mut spec = spec.clone();
    spec.steps.push(step);
    spec
}
