//! Committing: what a layer holds goes down into the image below it.
//!
//! Only this layer's own answers are moved: what it leaves to the layer below is below already. The layer is emptied
//! only when all of it is durable there. Interrupted before that, the layer still covers whatever part of it arrived
//! below; interrupted afterwards, it shows the same bytes from below.

use crate::qcow2::Image;
use crate::qcow2::layout::autoclear;
use chart::{Disk, Error, Layer, Result, Source};
use io::copy::{self, Report};
use std::sync::Arc;

impl Image {
    /// What this layer holds itself, as a disk with holes where it holds nothing. Nobody may write meanwhile.
    fn own_disk(self: &Arc<Self>) -> Result<Arc<Disk>> {
        let layer: Arc<dyn Layer> = Arc::<Self>::clone(self);
        let name = format!("what {} holds itself", self.file.name());
        let mut builder = Disk::builder(name, layer).image().source(Arc::clone(&self.file));
        if let Some(data_file) = &self.data_file {
            builder = builder.source(Arc::clone(data_file));
        }
        if let Some(mutator) = &self.mutator {
            builder = builder.epochs(Arc::clone(&mutator.epochs));
        }
        builder.codec(Arc::new(io::codec::Deflate)).codec(Arc::new(io::codec::Zstd)).build()
    }

    /// Brings what this layer holds down into `base`, which holds what the image below does, and is made longer if
    /// it is shorter than this disk. When this returns all of it is durable there. The layer itself is left as it
    /// is: see [`Image::empty`]. Nobody may write to it meanwhile.
    pub fn commit_into(self: &Arc<Self>, base: &dyn Source, options: &copy::Options<'_>) -> Result<Report> {
        self.may_be_emptied("committed")?;
        let own = self.own_disk()?;
        let options = copy::Options { keep_holes: true, sink_reads_zero: false, ..*options };
        let report = copy::copy(&own, base, &options)?;
        base.flush()?;
        Ok(report)
    }

    /// Lets go of all that this layer holds, at once, so that the disk reads as the image below does. Its space is
    /// given back.
    pub fn empty(&self) -> Result<()> {
        self.may_be_emptied("emptied")?;
        self.replace_roots(|mut roots| {
            roots.l1.fill(0);
            Ok(roots)
        })?;
        self.punch_free()
    }

    fn may_be_emptied(&self, done: &str) -> Result<()> {
        let refuse = |what: String| Err(Error::invalid(what).in_path(self.file.name()));
        let header = self.header();
        if header.backing_file.is_none() {
            return refuse(format!("has no backing file; there is nothing it could be {done} into"));
        }
        if header.nb_snapshots > 0 {
            // They fall through to the image below, whose content changes.
            return refuse(format!(
                "has internal snapshots, which would read otherwise if it were {done}; delete them first"
            ));
        }
        if header.is_autoclear(autoclear::DATA_FILE_RAW) {
            return refuse(format!("has a raw data file, which holds the whole disk: it cannot be {done}"));
        }
        Ok(())
    }

    /// Gives the space of free clusters back to the file system, where it takes it.
    fn punch_free(&self) -> Result<()> {
        let mut w = self.begin()?;
        let mut from = 0;
        while let Some((first, count)) = w.alloc.free_run(from)? {
            from = first.saturating_add(count);
            let (Some(start), Some(end)) = (self.clusters.offset(first), self.clusters.offset(from)) else {
                break;
            };
            let end = end.min(self.file.len());
            if start < end {
                match self.file.punch(start, end.saturating_sub(start)) {
                    Err(e) if e.kind() == chart::Kind::Unsupported => break,
                    done => done?,
                }
            }
        }
        Ok(())
    }
}
