//! What an image names and nobody opened.

use chart::{Error, Identity, Result, Source, Wait};
use std::sync::Arc;

/// Stands where a backing or data file belongs when only an image's metadata is wanted. Cannot be read.
pub(super) struct Absent {
    name: String,
    identity: Identity,
}

impl Absent {
    pub(super) fn source(name: &str) -> Arc<dyn Source> {
        Arc::new(Absent { name: name.to_owned(), identity: Identity::unique() })
    }
}

impl Source for Absent {
    fn name(&self) -> String {
        self.name.clone()
    }

    /// Nobody knows; long enough to be asked for every byte.
    fn len(&self) -> u64 {
        u64::MAX
    }

    fn read_at(&self, offset: u64, _: &mut [u8], _: Wait) -> Result<()> {
        Err(Error::invalid("was not opened: only metadata was asked for").at(offset).in_path(&self.name))
    }

    fn identity(&self) -> Identity {
        self.identity.clone()
    }
}
