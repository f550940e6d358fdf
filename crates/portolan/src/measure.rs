//! Measuring: how large a file would be, before it is made.

use crate::{Format, Watch, create, emission};
use chart::{Disk, Error, Purpose, Result, Wait};
use format::raw;
use io::generated::{Generated, Rule};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What `qemu-img measure` tells, in its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Measure {
    /// Bytes that a new file would take.
    pub required: u64,
    /// Bytes that it would take with every byte of the disk written.
    pub fully_allocated: u64,
}

/// How large a file in `format` would be that holds what `disk` does.
pub fn of_disk(
    disk: &Arc<Disk>,
    format: Format,
    options: &BTreeMap<String, String>,
    watch: Watch<'_>,
) -> Result<Measure> {
    match format {
        Format::Raw => {
            create::finish(format, options)?;
            Ok(Measure { required: stored(disk, watch)?, fully_allocated: disk.len() })
        }
        _ => {
            let required = emission::emit(format, Arc::clone(disk), options.clone(), watch)?.file.len();
            Ok(Measure { required, ..of_size(disk.len(), format, options)? })
        }
    }
}

/// How large a file in `format` would be that holds an empty disk of `size` bytes.
pub fn of_size(size: u64, format: Format, options: &BTreeMap<String, String>) -> Result<Measure> {
    match format {
        Format::Raw => {
            create::finish(format, options)?;
            Ok(Measure { required: 0, fully_allocated: size })
        }
        _ => {
            let len = |full| {
                let file =
                    emission::emit(format, blank(size, full)?, options.clone(), Watch::default())?.file;
                Ok::<_, Error>(file.len())
            };
            Ok(Measure { required: len(false)?, fully_allocated: len(true)? })
        }
    }
}

/// Bytes that a disk has something stored for.
fn stored(disk: &Disk, watch: Watch<'_>) -> Result<u64> {
    let mut stored = 0;
    disk.walk(0..disk.len(), Purpose::Locate).ask_sources().each(|leaf| {
        stored += if leaf.data { leaf.len } else { 0 };
        watch.step(leaf.end(), disk.len())
    })?;
    Ok(stored)
}

/// A disk of nothing, or one that says it is full.
fn blank(size: u64, full: bool) -> Result<Arc<Disk>> {
    if full {
        return raw::open(Arc::new(Generated::new("every byte", size, Anything)), false);
    }
    Disk::builder("no byte", Arc::new(chart::Table::from_extents(size, [])?)).build()
}

/// Nobody reads it: that it is there is enough.
struct Anything;

impl Rule for Anything {
    fn fill(&self, _: u64, buf: &mut [u8], _: Wait) -> Result<()> {
        buf.fill(0xff);
        Ok(())
    }
}
