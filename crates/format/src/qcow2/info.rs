//! What there is to tell about an image.

use super::layout::{autoclear, incompatible};
use super::refcount::Width;
use super::{Bitmap, Clusters, Compression, Header, Image, Snapshot, bitmap, snapshot};
use chart::{Result, Source};

/// All that a tool would print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Bytes in the disk.
    pub virtual_size: u64,
    /// Bytes in a cluster.
    pub cluster_size: u64,
    /// 2 or 3.
    pub version: u32,
    /// Bits in a refcount.
    pub refcount_bits: u32,
    /// Whether writers may leave refcounts stale.
    pub lazy_refcounts: bool,
    /// Whether somebody did not close it, and refcounts may be stale.
    pub dirty: bool,
    /// Whether it is marked corrupt.
    pub corrupt: bool,
    /// Whether clusters have subclusters.
    pub extended_l2: bool,
    /// How compressed clusters are encoded.
    pub compression: Compression,
    /// The encryption's name, where it is encrypted.
    pub encryption: Option<&'static str>,
    /// The backing file's name.
    pub backing_file: Option<String>,
    /// The backing file's format.
    pub backing_format: Option<String>,
    /// The data file's name.
    pub data_file: Option<String>,
    /// Whether the data file is a raw image of the disk.
    pub data_file_raw: bool,
    /// Feature bits that are set and not known here, as the image names them.
    pub unknown_features: Vec<String>,
    /// Internal snapshots.
    pub snapshots: Vec<Snapshot>,
    /// Persistent bitmaps.
    pub bitmaps: Vec<Bitmap>,
    /// Whether bitmaps are stored that somebody wrote past, so that they mean nothing.
    pub stale_bitmaps: bool,
}

impl Info {
    /// The name QEMU gives to the version.
    pub fn compat(&self) -> &'static str {
        if self.version < 3 { "0.10" } else { "1.1" }
    }

    /// What there is to tell about the image in `file`, whether or not it could be opened.
    pub fn read(file: &dyn Source) -> Result<Info> {
        Info::of(file, &Header::read(file)?).map_err(|e| e.in_path(file.name()))
    }

    fn of(file: &dyn Source, header: &Header) -> Result<Info> {
        let stored = header.bitmaps().is_some();
        let current = header.is_autoclear(autoclear::BITMAPS);
        Ok(Info {
            virtual_size: header.size,
            cluster_size: Clusters::new(header.cluster_bits, false)?.size(),
            version: header.version,
            refcount_bits: Width::new(header.refcount_order)?.bits(),
            lazy_refcounts: header.is_lazy(),
            dirty: header.is_incompatible(incompatible::DIRTY),
            corrupt: header.is_incompatible(incompatible::CORRUPT),
            extended_l2: header.is_incompatible(incompatible::EXTENDED_L2),
            compression: header.compression()?,
            encryption: match header.crypt_method {
                0 => None,
                1 => Some("aes"),
                2 => Some("luks"),
                _ => Some("unknown"),
            },
            backing_file: header.backing_file.clone(),
            backing_format: header.backing_format()?,
            data_file: header.data_file()?,
            data_file_raw: header.is_autoclear(autoclear::DATA_FILE_RAW),
            unknown_features: unknown_features(header),
            snapshots: snapshot::read(file, header)?,
            bitmaps: bitmap::read(file, header)?,
            stale_bitmaps: stored && !current,
        })
    }
}

fn unknown_features(header: &Header) -> Vec<String> {
    let unknown = [
        header.incompatible_features & !incompatible::KNOWN,
        header.compatible_features & !super::layout::compatible::LAZY_REFCOUNTS,
        header.autoclear_features & !autoclear::KNOWN,
    ];
    let bits = |(kind, bits): (u8, u64)| {
        (0..64u8).filter(move |&bit| bits.wrapping_shr(bit.into()) & 1 != 0).map(move |bit| (kind, bit))
    };
    (0..).zip(unknown).flat_map(bits).map(|(kind, bit)| header.feature_name(kind, bit)).collect()
}

impl Image {
    /// What there is to tell about it.
    pub fn info(&self) -> Result<Info> {
        let header = self.header().clone();
        Info::of(self.file.as_ref(), &header).map_err(|e| e.in_path(self.file.name()))
    }

    /// Its internal snapshots.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let header = self.header().clone();
        snapshot::read(self.file.as_ref(), &header).map_err(|e| e.in_path(self.file.name()))
    }

    /// Its persistent bitmaps.
    pub fn bitmaps(&self) -> Result<Vec<Bitmap>> {
        let header = self.header().clone();
        bitmap::read(self.file.as_ref(), &header).map_err(|e| e.in_path(self.file.name()))
    }
}
