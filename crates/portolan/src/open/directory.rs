//! A directory of the host as a disk.

use super::build::Map;
use super::{Image, Opening, build};
use crate::{Format, Spec, Step};
use chart::{Disk, Error, Result, Source};
use fs::iso9660;
use io::tree::{Options, Tree};
use std::path::Path;
use std::sync::Arc;

impl Opening<'_> {
    /// The disk that shows what is in a directory: its names and attributes as they are now, its files as long as
    /// they stay what they are now. No file is opened for it.
    pub(super) fn directory(&self, spec: Spec, path: &Path) -> Result<Arc<Image>> {
        if self.options.writable {
            let what = "a directory is shown as a disk that can be read, not written";
            return Err(Error::read_only(what).in_path(path));
        }
        if let Some(Step::Version(name)) = spec.steps.first() {
            return Err(Error::unsupported(format!("@{name}: a directory has no versions")).in_path(path));
        }
        let format = spec.format.as_deref().map_or(Ok(Format::Iso9660), Format::named)?;
        if format != Format::Iso9660 {
            let what = format!("a directory cannot be shown as {format}; {} it can be", Format::Iso9660);
            return Err(Error::unsupported(what).in_path(path));
        }
        let mut options = build::Options::of(&spec);
        let volume = options.text("volume");
        options.finish(format)?;
        let tree = Arc::new(Tree::watched(path, &Options::default(), self.options.onlooker.watch())?);
        let how = iso9660::Options { volume, ..iso9660::Options::default() };
        let disk = iso9660::synth(Arc::clone(&tree), &how)?;
        let container: Arc<dyn Source> = Arc::<Disk>::clone(&disk);
        Ok(Arc::new(Image {
            spec,
            format,
            container,
            map: Map::Directory(tree),
            below: None,
            data_file: None,
            within: None,
            disk,
            writable: false,
        }))
    }
}
