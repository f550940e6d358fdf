//! The images that are open in this process, so that one file is one disk.

use super::Image;
use crate::Format;
use chart::{Error, Identity, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

static OPEN: Mutex<Table> = Mutex::new(Table(Vec::new()));

/// What makes two openings of a file the same disk.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) identity: Identity,
    pub(super) format: Format,
    pub(super) options: BTreeMap<String, String>,
    pub(super) version: Option<String>,
    /// Opened for its metadata only, or in spite of what is wrong with it: not the disk that others want.
    pub(super) alone: bool,
}

struct Entry {
    key: Key,
    writable: bool,
    image: Weak<Image>,
}

pub(super) struct Table(Vec<Entry>);

pub(super) type Guard = MutexGuard<'static, Table>;

pub(super) fn lock() -> Guard {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Table {
    /// The image that is open already, for whoever wants to read it. A writer must be alone.
    pub(super) fn find(&mut self, key: &Key, writable: bool) -> Result<Option<Arc<Image>>> {
        self.0.retain(|e| e.image.strong_count() > 0);
        let mut found = None;
        for entry in self.0.iter().filter(|e| e.key.identity == key.identity) {
            let Some(image) = entry.image.upgrade() else { continue };
            if writable || (entry.writable && entry.key != *key) {
                let how = if entry.writable { "for writing" } else { "for reading" };
                let what = format!("is open {how} in this process already, as {}", entry.key.format);
                return Err(Error::conflict(what).in_path(image.spec.location.to_string()));
            }
            if entry.key == *key {
                found = Some(image);
            }
        }
        Ok(found)
    }

    pub(super) fn add(&mut self, key: Key, writable: bool, image: &Arc<Image>) {
        self.0.push(Entry { key, writable, image: Arc::downgrade(image) });
    }
}
