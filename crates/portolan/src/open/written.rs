//! A chart that was written down, as a disk again.

use super::build::Request;
use super::{Container, Named, Opening};
use crate::Spec;
use chart::file::{FamilyRecord, Outside, SourceRecord, Written};
use chart::{Backing, Codec, Disk, Error, Geometry, Remedy, Result, Source, Wait};
use io::codec::{Deflate, Zstd};
use io::generated::{Generated, Kept};
use io::tree::Files;
use std::sync::Arc;

/// A chart file may have so many bytes.
const MAX_BYTES: u64 = 1 << 30;

impl Opening<'_> {
    /// The disk that the chart in `source` describes. Its sources are opened through the Gate, and must be what
    /// they were when they were charted: one by one when the disk is opened, those of a directory when they are
    /// read.
    pub(super) fn chart(
        &mut self,
        spec: &Spec,
        source: &Arc<dyn Source>,
        request: &Request,
    ) -> Result<Arc<Disk>> {
        if request.writable {
            let what = "a written chart cannot be written to; make an overlay over it";
            return Err(Error::read_only(what).in_path(source.name()));
        }
        if let Some(version) = &request.version {
            return Err(Error::unsupported(format!("@{version}: a chart has no versions")));
        }
        let written = read(source.as_ref())?;
        let geometry = Geometry { logical_block: written.logical_block, ..Geometry::default() };
        let mut builder = Disk::builder(spec.to_string(), Arc::new(written.table)).geometry(geometry);
        for record in written.sources {
            builder = builder.source(match record {
                SourceRecord::Outside(outside) => self.charted(spec, &outside)?,
                SourceRecord::Inline(bytes) => {
                    let len = bytes.len() as u64;
                    Arc::new(Generated::new(source.name(), len, Kept(bytes)))
                }
                SourceRecord::Family(family) => self.family(spec, &family)?,
            });
        }
        for name in &written.codecs {
            builder = builder.codec(codec(name)?);
        }
        builder.build()
    }

    /// A source of the chart at `by`, if it still is what it was.
    fn charted(&mut self, by: &Spec, record: &Outside) -> Result<Arc<dyn Source>> {
        let admitted = self.pass.admit(&by.location, &record.name, "source")?;
        let spec = Spec { format: Some("raw".into()), ..admitted.spec.clone() };
        let container = Container::of(&spec.location, Some(&admitted), self.options.file(false))?;
        unchanged(record, container.source.as_ref())?;
        let image = self.image(spec, &container, false, Named::ByImage)?;
        Ok(Arc::<Disk>::clone(&image.disk))
    }

    /// Many files of the chart at `by`, none of which is opened before it is read.
    fn family(&self, by: &Spec, record: &FamilyRecord) -> Result<Arc<dyn Source>> {
        let (root, path) = self.pass.admit_directory(&by.location, &record.root)?;
        let mut files = Files::beneath(root, path);
        for member in &record.members {
            files.member(member)?;
        }
        Ok(files.build(record.len)?)
    }
}

fn read(source: &dyn Source) -> Result<Written> {
    let len = source.len();
    if len > MAX_BYTES {
        let what = format!("a chart of {len} bytes; the most is {MAX_BYTES}");
        return Err(Error::unsupported(what).in_path(source.name()));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    source.read_at(0, &mut bytes, Wait::Allowed)?;
    Written::read(&bytes).map_err(|e| e.in_path(source.name()).with_remedy(Remedy::ChartAgain))
}

/// Refuses a source that is another one now, or has changed since.
fn unchanged(record: &Outside, source: &dyn Source) -> Result<()> {
    let modified = match source.backing() {
        Backing::File(fd) => io::file::modified(fd),
        _ => None,
    };
    // Where a connection is part of an identity it says nothing about the next one.
    let same_file = match (&record.identity, source.identity()) {
        (Some(charted @ chart::Identity::File { .. }), now) => *charted == now,
        _ => true,
    };
    let what = if !same_file {
        "is another file than the one that was charted".to_owned()
    } else if source.len() != record.len {
        format!("had {} bytes when it was charted, and has {} now", record.len, source.len())
    } else if record.modified.is_some() && record.modified != modified {
        "has been written to since it was charted".to_owned()
    } else {
        return Ok(());
    };
    let changed = Error::conflict(format!("{what}; chart it again")).in_path(source.name());
    Err(changed.with_remedy(Remedy::ChartAgain))
}

fn codec(name: &str) -> Result<Arc<dyn Codec>> {
    match name {
        "zlib" => Ok(Arc::new(Deflate)),
        "zstd" => Ok(Arc::new(Zstd)),
        _ => Err(Error::unsupported(format!("a chart with the codec {name:?}, which is not known here"))),
    }
}
