//! What holds an image: a file, or something at an address.

use super::inside::Inside;
use crate::Location;
use crate::gate::Admitted;
use chart::{Error, Kind, Result, Source};
use io::file::{Access, File, Options};
use io::{http, nbd};
use std::sync::Arc;
use std::time::Duration;

/// Somebody who only looks at an image, or a child that is about to become another program, holds its lock for a
/// moment: worth waiting for, where a virtual machine is not.
const LOCK_TRIES: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The bytes an image is in.
pub(super) struct Container {
    pub(super) source: Arc<dyn Source>,
    /// The same, where it is a host file.
    pub(super) file: Option<Arc<File>>,
    /// Where it lies, if that is a file system in another image.
    pub(super) inside: Option<Inside>,
}

impl Container {
    /// Opens it: through the Gate's hands where another image named it.
    pub(super) fn of(
        location: &Location,
        admitted: Option<&Admitted>,
        options: Options,
    ) -> Result<Container> {
        match location {
            Location::File(path) => {
                let file = match admitted {
                    Some(admitted) => admitted.open(options)?,
                    None => File::open(path, options)?,
                };
                let file = Arc::new(file);
                Ok(Container { source: Arc::<File>::clone(&file), file: Some(file), inside: None })
            }
            Location::Nbd(address) => {
                let patience = nbd::Options { read_only: !options.writable, ..nbd::Options::default() };
                Ok(Container {
                    source: Arc::new(nbd::Client::open(address, patience)?),
                    file: None,
                    inside: None,
                })
            }
            Location::Http(address) => {
                if options.writable {
                    return Err(Error::read_only("a web server's object cannot be written").in_path(address));
                }
                let object = http::Ranged::open(address, &http::Options::default())?;
                Ok(Container { source: Arc::new(object), file: None, inside: None })
            }
        }
    }

    /// Takes the image lock that QEMU would take.
    pub(super) fn lock(&self, unlocked: bool, writable: bool) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let access = match (unlocked, writable) {
            (true, _) => Access::Unlocked,
            (false, true) => Access::Write,
            (false, false) => Access::Read,
        };
        let mut tries = LOCK_TRIES;
        loop {
            match io::file::lock(file, access) {
                Err(e) if e.kind() == Kind::Conflict && tries > 0 => {
                    tries -= 1;
                    std::thread::sleep(LOCK_PAUSE);
                }
                done => return done.map(drop),
            }
        }
    }
}
