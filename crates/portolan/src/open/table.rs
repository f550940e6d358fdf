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
    /// What has been opened last that stands on it.
    above: Option<String>,
    image: Weak<Image>,
}

pub(super) struct Table(Vec<Entry>);

pub(super) type Guard = MutexGuard<'static, Table>;

pub(super) fn lock() -> Guard {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Table {
    /// The image that is open already, for whoever wants to read it. A writer must be alone, but for those who look at
    /// the same disk; what stands on an image, which is `above` then, counts on its staying as it is. Who comes first
    /// makes no difference to that.
    pub(super) fn find(
        &mut self,
        key: &Key,
        writable: bool,
        above: Option<&str>,
    ) -> Result<Option<Arc<Image>>> {
        self.0.retain(|e| e.image.strong_count() > 0);
        let mut found = None;
        for entry in self.0.iter_mut().filter(|e| e.key.identity == key.identity) {
            let Some(image) = entry.image.upgrade() else { continue };
            let is_other = entry.key != *key || above.is_some();
            if writable || (entry.writable && is_other) {
                let what = entry.taken(writable, above);
                return Err(Error::conflict(what).in_path(image.spec.location.to_string()));
            }
            if entry.key == *key {
                entry.above = above.map(str::to_owned).or(entry.above.take());
                found = Some(image);
            }
        }
        Ok(found)
    }

    pub(super) fn add(&mut self, key: Key, writable: bool, above: Option<&str>, image: &Arc<Image>) {
        let above = above.map(str::to_owned);
        self.0.push(Entry { key, writable, above, image: Arc::downgrade(image) });
    }
}

impl Entry {
    /// Why nobody else gets it, for writing or for what is `above`.
    fn taken(&self, writable: bool, above: Option<&str>) -> String {
        // What stands on it only reads it.
        let above = match (self.writable, writable) {
            (false, true) => self.above.as_deref(),
            (true, false) => above,
            _ => None,
        };
        if let Some(above) = above {
            return format!(
                "cannot be written while {above} stands on it, which would change too: open it read-only, or put an \
                 overlay over it"
            );
        }
        let how = if self.writable { "for writing" } else { "for reading" };
        format!("is open {how} in this process already, as {}", self.key.format)
    }
}
