//! What the kernel mounts.

use std::ffi::OsStr;
use std::path::Path;
use testkit::peer;

/// A mount, undone however the test ends.
pub(crate) struct Mounted(tempfile::TempDir);

impl Mounted {
    /// Mounts an image with these options.
    pub(crate) fn new(image: &Path, options: &str) -> Mounted {
        let at = tempfile::tempdir().unwrap();
        let options = format!("loop,{options}");
        let args = ["-o".as_ref(), OsStr::new(&options), image.as_os_str(), at.path().as_os_str()];
        peer::run("mount", &args);
        Mounted(at)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if !peer::attempt("umount", &[self.path()]).status.success() {
            peer::attempt("umount", &["-l".as_ref(), self.path().as_os_str()]);
        }
    }
}
