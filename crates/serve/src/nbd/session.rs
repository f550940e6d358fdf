//! What a handshake agreed on.

use super::failure::Log;
use super::notices::Notices;
use crate::Export;
use io::nbd::wire::{BASE_ALLOCATION, Headers};
use std::sync::Arc;

/// How deep in the chain of backing files a range is found.
const ALLOCATION_DEPTH: &str = "qemu:allocation-depth";
/// Before the name of a dirty bitmap.
const DIRTY_BITMAP: &str = "qemu:dirty-bitmap:";
/// Where each range lives.
const PLACE: &str = "portolan:place";

/// Metadata that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    /// Holes and zeros.
    Allocation,
    /// Which layer of a backing chain answers.
    Depth,
    /// A dirty bitmap, by its number in the export.
    Dirt(usize),
    /// Where each range lives.
    Place,
}

impl Context {
    /// Every context of an export, with its name.
    pub(super) fn all(export: &Export) -> Vec<(String, Context)> {
        let mut all = vec![
            (BASE_ALLOCATION.to_owned(), Context::Allocation),
            (ALLOCATION_DEPTH.to_owned(), Context::Depth),
        ];
        let dirt = export.dirt.iter().enumerate();
        all.extend(dirt.map(|(i, d)| (format!("{DIRTY_BITMAP}{}", d.name()), Context::Dirt(i))));
        if export.places {
            all.push((PLACE.to_owned(), Context::Place));
        }
        all
    }
}

/// A context that was chosen, and the number that stands for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chosen {
    pub(super) id: u32,
    pub(super) context: Context,
}

/// What both sides agreed on.
pub(super) struct Session {
    pub(super) export: Arc<Export>,
    pub(super) headers: Headers,
    pub(super) contexts: Vec<Chosen>,
    /// Where the server's owner hears what a client is not told.
    pub(super) notices: Arc<Notices>,
}

impl Session {
    /// Tells the server's owner why a request failed, and of what.
    pub(super) fn tell(&self, log: &Log) {
        let export = &self.export;
        let words = match export.name.as_str() {
            // What became of it is known, and what it is called below is nothing that anybody has heard of.
            name if log.is_absent && export.is_withdrawn() => {
                format!(
                    "{name:?} is served no more, and a client that had chosen it has asked for what is gone"
                )
            }
            "" => log.words.clone(),
            name => format!("{name:?}: {}", log.words),
        };
        self.notices.tell(log.severity, &words);
    }
}
