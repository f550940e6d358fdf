//! Committing: what an overlay holds goes down into its backing file.

use crate::open::Map;
use crate::{Image, Options, Spec, Watch, open};
use chart::{Error, Result, Source};
use serde::Serialize;

/// What a commit did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// The image that it was committed into.
    pub base: String,
    /// Bytes moved down.
    pub moved: u64,
    /// Bytes set to zeros there.
    pub zeroed: u64,
    /// Whether the overlay was emptied.
    pub emptied: bool,
}

/// Brings what the image that `spec` names holds itself down into its backing file, which is made longer where it
/// is shorter. The image is emptied when all of that is durable, unless it is to be kept as it is.
pub fn commit(spec: &Spec, options: &Options, keep: bool, watch: Watch<'_>) -> Result<Report> {
    let opened = open(spec, &Options { writable: true, below_writable: true, ..options.clone() })?;
    let nothing_below = || {
        let what = "has no backing file that it could be committed into";
        Error::invalid(what).in_path(spec.location.to_string())
    };
    let (Map::Qcow2(map), Some(base)) = (&opened.image.map, &opened.image.below) else {
        return Err(nothing_below());
    };
    let how =
        io::copy::Options { progress: watch.progress, cancel: watch.cancel, ..io::copy::Options::default() };
    let done = map.commit_into(sink(base), &how);
    // At rest before the overlay lets go of anything, its bitmaps too; and if that was interrupted.
    let rested = base.disk().close();
    let emptied = done.and_then(|done| {
        rested?;
        watch.go_on()?;
        if !keep {
            map.empty()?;
        }
        Ok(done)
    });
    let into = base.spec.location.to_string();
    let done = opened.close_after(emptied)?;
    Ok(Report {
        base: into,
        moved: done.cloned + done.offloaded + done.copied,
        zeroed: done.zeroed,
        emptied: !keep,
    })
}

/// A whole raw file is filled as a file, so that the file system can share what the overlay holds; everything else
/// as the disk it is.
fn sink(base: &Image) -> &dyn Source {
    match base.map {
        Map::None if base.format == crate::Format::Raw && base.spec.options.is_empty() => {
            base.container.as_ref()
        }
        _ => base.disk().as_ref(),
    }
}
