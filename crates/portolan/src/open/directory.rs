//! A directory of the host as a disk.

use super::build::Map;
use super::{Image, Opening, build};
use crate::{Format, Spec, Step};
use chart::{Disk, Error, Result, Source};
use fs::iso9660;
use io::tree::{Options, Tree};
use std::path::Path;
use std::sync::Arc;

/// The longest name of a volume, in bytes.
const VOLUME_MAX: usize = 32;

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
        let skip_unreadable = options.switch("skip-unreadable", false)?;
        let joliet = options.switch("joliet", true)?;
        options.finish(format)?;
        let walk = Options { skip_unreadable, ..Options::default() };
        let tree = Arc::new(Tree::watched(path, &walk, self.options.onlooker.watch())?);
        // What is named `.` has a name all the same.
        let volume = volume.or_else(|| if path.file_name().is_none() { own_name(path) } else { None });
        let how = iso9660::Options { volume, joliet, ..iso9660::Options::default() };
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

/// The name of a directory that was named otherwise, as far as a volume's goes.
fn own_name(path: &Path) -> Option<String> {
    let whole = path.canonicalize().ok()?;
    let name = whole.file_name()?.to_string_lossy();
    let end = (0..=name.len().min(VOLUME_MAX)).rev().find(|&end| name.is_char_boundary(end))?;
    Some(name[..end].to_owned())
}
