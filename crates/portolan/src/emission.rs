//! A disk as the file it would be in another format: what converting writes down, and presenting shows.

use crate::{Format, Watch, create};
use chart::{Disk, Result};
use format::{qcow2, vdi};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The file that a disk would be.
pub(crate) struct Emission {
    /// Its bytes: tables that are computed when they are read, and the disk's own where they lie.
    pub(crate) file: Arc<Disk>,
    /// How many bytes at its beginning are tables.
    pub(crate) tables: u64,
}

/// What `disk`, which must not change meanwhile, would be as a file in `format`, with these of the format's options.
/// Watched while it is looked where the disk holds anything.
pub(crate) fn emit(
    format: Format,
    disk: Arc<Disk>,
    options: BTreeMap<String, String>,
    watch: Watch<'_>,
) -> Result<Emission> {
    let (file, tables) = match format {
        Format::Chart | Format::Iso9660 => return Err(format.not_made()),
        Format::Raw => {
            create::finish(format, &options)?;
            (disk, 0)
        }
        Format::Qcow2 => {
            let new = create::qcow2_options(disk.len(), options)?;
            qcow2::emit::emit_apart(disk, &new, watch)?
        }
        Format::Vdi => {
            let new = create::vdi_options(disk.len(), options)?;
            vdi::emit(disk, &new, watch)?
        }
    };
    Ok(Emission { file, tables })
}
