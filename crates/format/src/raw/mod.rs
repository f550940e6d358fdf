//! raw: the bytes of a source as they are.
//!
//! One writable extent, whatever the source; where nothing is stored is the source's own answer, asked only by
//! those who want to know. A disk in several files is a [`Table`](::chart::Table) over them.

mod chart;
mod split;
#[cfg(test)]
mod tests;

pub use chart::Raw;
pub use split::{MAX_PARTS, next_part, split};

use ::chart::{Disk, Error, Geometry, Layer, Result, Slice, Source, SourceId, check_range};
use std::sync::Arc;

/// A range of a file that is the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Where it begins.
    pub offset: u64,
    /// How long it is; to the end, where it is not said.
    pub len: Option<u64>,
}

/// The bytes of `source` as a disk.
pub fn open(source: Arc<dyn Source>, writable: bool) -> Result<Arc<Disk>> {
    let (name, limits) = (source.name(), source.limits());
    if writable && limits.read_only {
        return Err(Error::read_only(format!("{name} cannot be written")));
    }
    let raw = Arc::new(Raw::new(Arc::clone(&source)));
    let layer: Arc<dyn Layer> = Arc::<Raw>::clone(&raw);
    let geometry = Geometry { preferred: limits.preferred, ..Geometry::default() };
    let builder = Disk::builder(name, layer).source(source).geometry(geometry);
    if writable { builder.mutator(raw).build() } else { builder.build() }
}

/// A window of `source` as a disk. Its length is fixed.
pub fn open_window(source: Arc<dyn Source>, window: Window, writable: bool) -> Result<Arc<Disk>> {
    let rest = source.len().checked_sub(window.offset);
    let rest = rest.ok_or_else(|| past_the_end(source.as_ref(), window))?;
    let len = window.len.unwrap_or(rest);
    check_range(source.len(), window.offset, len).map_err(|_| past_the_end(source.as_ref(), window))?;
    if writable && source.limits().read_only {
        return Err(Error::read_only(format!("{} cannot be written", source.name())));
    }
    let slice = Slice::new(SourceId(0), window.offset, len, writable)?;
    let builder = Disk::builder(source.name(), Arc::new(slice)).source(source);
    if writable { builder.straight().build() } else { builder.build() }
}

fn past_the_end(source: &dyn Source, window: Window) -> Error {
    let Window { offset, len } = window;
    let len = len.map_or_else(String::new, |l| format!(" of {l} bytes"));
    let have = source.len();
    Error::out_of_range(format!(
        "{} has {have} bytes, too few for a window{len} from byte {offset} on",
        source.name()
    ))
}
