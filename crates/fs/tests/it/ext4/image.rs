//! Images, made by the real tools and mounted by the kernel.

use chart::{Disk, Slice, Source, SourceId};
use io::file::{File, Options};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use testkit::peer;

/// An image in a directory of its own, which goes when this does.
pub(crate) struct Image {
    dir: tempfile::TempDir,
}

impl Image {
    /// A file system that `mkfs.ext4` makes with these options: the last thing that is told is its length.
    pub(crate) fn made(options: &[&str], len: u64) -> Image {
        let image = Image { dir: tempfile::tempdir().unwrap() };
        std::fs::File::create(image.path()).unwrap().set_len(len).unwrap();
        let path = image.path();
        let mut args = vec!["-q", "-F"];
        args.extend(options);
        args.push(path.to_str().unwrap());
        peer::run("mkfs.ext4", &args);
        image
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// Its bytes as they are now, as another image.
    pub(crate) fn copy(&self) -> Image {
        let copy = Image { dir: tempfile::tempdir().unwrap() };
        peer::run("cp", &["--sparse=always".as_ref(), self.path().as_os_str(), copy.path().as_os_str()]);
        copy
    }

    pub(crate) fn open(&self) -> fs::ext4::Ext4 {
        fs::ext4::open(open(&self.path())).unwrap()
    }

    /// Mounted with these options, until what is returned goes.
    pub(crate) fn mount(&self, options: &str) -> Mounted {
        let at = tempfile::tempdir().unwrap();
        let options = format!("loop,{options}");
        peer::run(
            "mount",
            &[
                "-t".as_ref(),
                "ext4".as_ref(),
                "-o".as_ref(),
                options.as_ref(),
                self.path().as_os_str(),
                at.path().as_os_str(),
            ],
        );
        Mounted { at }
    }
}

/// A mount, undone however the test ends.
pub(crate) struct Mounted {
    at: tempfile::TempDir,
}

impl Mounted {
    pub(crate) fn path(&self) -> &Path {
        self.at.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let done = peer::attempt("umount", &[self.path()]);
        if !done.status.success() {
            peer::attempt("umount", &["-l".as_ref(), self.path().as_os_str()]);
        }
    }
}

/// A file as a disk.
pub(crate) fn open(path: &Path) -> Arc<Disk> {
    let file: Arc<dyn Source> = Arc::new(File::open(path, Options::default()).unwrap());
    let window = Slice::new(SourceId(0), 0, file.len(), false).unwrap();
    Disk::builder("disk", Arc::new(window)).source(file).build().unwrap()
}
