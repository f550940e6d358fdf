//! Persistent bitmaps: what has been written since.

use crate::{Opened, info};
use chart::Result;
use format::qcow2;
use serde::Serialize;
use std::sync::Arc;

/// What is done to a bitmap.
#[derive(Clone, Copy)]
pub enum Change<'a> {
    /// It is added, empty.
    Add {
        /// Bytes of the disk that a bit stands for; what QEMU would choose, where it is not said.
        granularity: Option<u64>,
        /// It follows no writes yet.
        disabled: bool,
    },
    /// It is removed.
    Remove,
    /// It forgets what it says.
    Clear,
    /// It follows all writes from now on.
    Enable,
    /// It stays as it is from now on.
    Disable,
    /// What another bitmap says is dirty is added to it: one of `from`, or of the same image.
    Merge {
        /// The other bitmap's name.
        name: &'a str,
        /// The other bitmap's image.
        from: Option<&'a Opened>,
    },
}

/// A bitmap, and how much it says is dirty.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Listed {
    /// What the image says of it.
    #[serde(flatten)]
    pub bitmap: info::Bitmap,
    /// Bytes of the disk that are dirty, where it can be relied on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dirty: Option<u64>,
}

/// The bitmaps of an image.
pub fn list(opened: &Opened) -> Result<Vec<Listed>> {
    let map = map(opened)?;
    let listed = |bitmap: &qcow2::Bitmap| Listed {
        bitmap: info::bitmap(bitmap),
        dirty: map.dirty_map(&bitmap.name).ok().map(|dirty| dirty.dirty_bytes()),
    };
    Ok(map.bitmaps()?.iter().map(listed).collect())
}

/// Changes a bitmap of an image that is open for writing.
pub fn change(opened: &Opened, name: &str, change: Change<'_>) -> Result<()> {
    let image = map(opened)?;
    match change {
        Change::Add { granularity, disabled } => image.bitmap_add(name, granularity, !disabled),
        Change::Remove => image.bitmap_remove(name),
        Change::Clear => image.bitmap_clear(name),
        Change::Enable => image.bitmap_enable(name),
        Change::Disable => image.bitmap_disable(name),
        Change::Merge { name: other, from } => {
            let dirty = from.map_or(Ok(image), map)?.dirty_map(other)?;
            image.bitmap_merge(name, &dirty)
        }
    }
}

fn map(opened: &Opened) -> Result<&Arc<qcow2::Image>> {
    opened.image.qcow2("bitmaps")
}
