//! Opening an image, and the disk it makes.

use super::alloc::Allocator;
use super::guard::Guard;
use super::writer::Mutator;
use super::{Clusters, Compression, Header, L1, chart::Reserved, snapshot};
use super::{
    Image, Needed, Opener, Options, Role,
    cache::{SliceCache, enough},
    layout::incompatible,
};
use chart::{Disk, DiskBuilder, Error, Geometry, Result, Source};
use io::codec::{Deflate, Zstd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

/// What an image is opened as: the active disk, or a snapshot of it.
struct View {
    l1_offset: u64,
    l1_size: u64,
    size: u64,
}

impl Image {
    /// Opens the image in `file`. What it names is asked of `opener`.
    pub fn open(file: Arc<dyn Source>, options: &Options, opener: &mut Opener<'_>) -> Result<Image> {
        let name = file.name();
        Image::open_inner(file, options, opener).map_err(|e| e.in_path(name))
    }

    fn open_inner(file: Arc<dyn Source>, options: &Options, opener: &mut Opener<'_>) -> Result<Image> {
        let header = Header::read(file.as_ref())?;
        header.check_features(options.allow_corrupt || options.repair)?;
        let len = file.len();
        header.check_tables(len)?;
        check_writable(&header, options)?;
        let clusters = header.clusters()?;
        let view = view(file.as_ref(), &header, clusters, options)?;
        let l1 = L1::read(file.as_ref(), view.l1_offset, view.l1_size)?;
        let has_data_file = header.is_incompatible(incompatible::DATA_FILE);
        let data_file =
            if has_data_file && !options.alone { Some(open_data_file(&header, opener)?) } else { None };
        let below = if options.alone { None } else { open_backing(&header, opener)? };
        let mutator = match options.writable {
            true => {
                let guard = Arc::new(Guard::default());
                let alloc = Allocator::open(Arc::clone(&file), &header, Arc::clone(&guard))?;
                Some(Mutator::new(alloc, guard, is_damaged(&header)))
            }
            false => None,
        };
        Ok(Image {
            ends: [AtomicU64::new(len), AtomicU64::new(data_file.as_ref().map_or(0, |file| file.len()))],
            reserved: reserved(&header, clusters),
            version: header.version,
            compression: header.compression()?,
            has_backing: header.backing_file.is_some(),
            header: RwLock::new(header),
            slices: SliceCache::new(clusters, options.cache_bytes.min(enough(clusters, view.size))),
            size: AtomicU64::new(view.size),
            in_place: AtomicBool::new(false),
            writable: options.writable,
            onlooker: options.onlooker.clone(),
            mutator,
            file,
            data_file,
            below,
            clusters,
            has_data_file,
            l1,
        })
    }

    /// The image as the layer of a disk, with its file, its data file and the backing file as sources.
    pub fn builder(self: &Arc<Self>, name: impl Into<String>) -> Result<DiskBuilder> {
        let grain = self.clusters.subcluster_size();
        let geometry = Geometry {
            grain,
            preferred: u32::try_from(self.clusters.size()).unwrap_or(1 << 21),
            ..Geometry::default()
        };
        let layer: Arc<dyn chart::Layer> = Arc::<Self>::clone(self);
        let mut builder = Disk::builder(name, layer).image().source(Arc::clone(&self.file));
        if self.mutator.is_some() {
            let mutator: Arc<dyn chart::ChartMut> = Arc::<Self>::clone(self);
            builder = builder.mutator(mutator);
        }
        match &self.data_file {
            Some(data_file) => builder = builder.source(Arc::clone(data_file)),
            None if self.has_data_file => return Err(self.opened_alone("data file")),
            None => {}
        }
        match &self.below {
            Some(below) => builder = builder.below(Arc::clone(below)),
            None if self.has_backing => return Err(self.opened_alone("backing file")),
            None => {}
        }
        Ok(builder.codec(Arc::new(Deflate)).codec(Arc::new(Zstd)).geometry(geometry))
    }

    /// The disk: to be written too, where the image was opened so.
    pub fn disk(self: &Arc<Self>, name: impl Into<String>) -> Result<Arc<Disk>> {
        self.builder(name)?.build()
    }

    fn opened_alone(&self, what: &str) -> Error {
        Error::invalid(format!("the {what} was left out when the image was opened")).in_path(self.file.name())
    }

    /// The image file.
    pub fn file(&self) -> &Arc<dyn Source> {
        &self.file
    }

    /// The file that holds guest clusters: the image file, unless there is an external one.
    pub fn data_file(&self) -> Option<&Arc<dyn Source>> {
        if self.has_data_file { self.data_file.as_ref() } else { Some(&self.file) }
    }

    /// What unallocated clusters fall through to.
    pub fn below(&self) -> Option<&Arc<dyn Source>> {
        self.below.as_ref()
    }

    /// The header.
    pub fn header(&self) -> RwLockReadGuard<'_, Header> {
        self.header.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The geometry.
    pub fn clusters(&self) -> Clusters {
        self.clusters
    }

    /// How compressed clusters are encoded.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Whether it was opened to be written.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Whether it must be repaired before it is written: it was left dirty, or is marked corrupt.
    pub fn is_damaged(&self) -> bool {
        is_damaged(&self.header())
    }

    /// Says whether data clusters may be written where they are: from when the first write has marked all that a
    /// write must mark (bitmaps in use, unknown autoclear bits cleared), until that no longer holds.
    pub fn set_in_place(&self, may: bool) {
        self.in_place.store(may && self.writable, Ordering::SeqCst);
    }

    /// Bytes in the disk.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }
}

fn check_writable(header: &Header, options: &Options) -> Result<()> {
    if !options.writable {
        return Ok(());
    }
    if is_damaged(header) && !options.repair {
        let how = match header.is_incompatible(incompatible::CORRUPT) {
            true => "is marked corrupt",
            false => "was not closed properly (it is marked dirty)",
        };
        let what = format!("the image {how} and cannot be written before it is repaired");
        return Err(Error::corrupt(what).at(72));
    }
    if options.snapshot.is_some() {
        return Err(Error::read_only("a snapshot cannot be written; apply it, or convert it"));
    }
    Ok(())
}

/// Whether it must be repaired before it is written.
fn is_damaged(header: &Header) -> bool {
    header.incompatible_features & (incompatible::CORRUPT | incompatible::DIRTY) != 0
}

fn view(file: &dyn Source, header: &Header, clusters: Clusters, options: &Options) -> Result<View> {
    let Some(wanted) = &options.snapshot else {
        return Ok(View {
            l1_offset: header.l1_table_offset,
            l1_size: header.l1_size.into(),
            size: header.size,
        });
    };
    let snapshots = snapshot::read(file, header)?;
    let snapshot = snapshot::find(&snapshots, wanted)?;
    snapshot.check(clusters, file.len())?;
    Ok(View {
        l1_offset: snapshot.l1_table_offset,
        l1_size: snapshot.l1_size.into(),
        size: snapshot.disk_size.unwrap_or(header.size),
    })
}

fn reserved(header: &Header, clusters: Clusters) -> [Reserved; 2] {
    let l1_clusters = clusters.count(u64::from(header.l1_size).saturating_mul(8));
    [
        Reserved::new(clusters.index(header.l1_table_offset), l1_clusters),
        Reserved::new(clusters.index(header.refcount_table_offset), header.refcount_table_clusters.into()),
    ]
}

fn open_data_file(header: &Header, opener: &mut Opener<'_>) -> Result<Arc<dyn Source>> {
    let missing = || Error::corrupt("the image has an external data file but does not name it").at(72);
    let name = header.data_file()?.ok_or_else(missing)?;
    opener(Needed { role: Role::DataFile, name: &name, format: Some("raw") })
        .map_err(|e| e.during(format!("opening the data file {name}")))
}

fn open_backing(header: &Header, opener: &mut Opener<'_>) -> Result<Option<Arc<dyn Source>>> {
    let Some(name) = &header.backing_file else { return Ok(None) };
    let format = header.backing_format()?;
    opener(Needed { role: Role::Backing, name, format: format.as_deref() })
        .map(Some)
        .map_err(|e| e.during(format!("opening the backing file {name}")))
}
