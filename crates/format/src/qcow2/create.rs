//! Making a new image: everything but the header first, then, when that is durable, the header.

use super::layout::{self as l, FeatureName, autoclear, compatible, extension, incompatible};
use super::places::Places;
use super::refcount::Width;
use super::{Clusters, Compression, Header};
use crate::field::{to_index, to_u64};
pub use crate::preallocation::Preallocation;
use crate::preallocation::{reserve, write_pieces};
use chart::{Error, Result, Source, Wait};
use zerocopy::IntoBytes;

/// A backing file's name and format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backing {
    /// As it will be stored.
    pub name: String,
    /// Its format; images without it make readers guess.
    pub format: Option<String>,
}

/// What a new image is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct New {
    /// Bytes in the disk.
    pub size: u64,
    /// 2 or 3.
    pub version: u32,
    /// A cluster has `1 << cluster_bits` bytes.
    pub cluster_bits: u32,
    /// A refcount has `1 << refcount_order` bits.
    pub refcount_order: u32,
    /// Writers may leave refcounts stale.
    pub lazy_refcounts: bool,
    /// Clusters have subclusters.
    pub extended_l2: bool,
    /// How compressed clusters will be encoded.
    pub compression: Compression,
    /// The external data file's name, as it will be stored.
    pub data_file: Option<String>,
    /// The data file will be a raw image of the disk at all times.
    pub data_file_raw: bool,
    /// What the disk begins as.
    pub backing: Option<Backing>,
    /// What space it takes from the beginning.
    pub preallocation: Preallocation,
}

impl New {
    /// A disk of `size` bytes with what `qemu-img create` would choose.
    pub fn of(size: u64) -> New {
        New {
            size,
            version: 3,
            cluster_bits: 16,
            refcount_order: 4,
            lazy_refcounts: false,
            extended_l2: false,
            compression: Compression::Zlib,
            data_file: None,
            data_file_raw: false,
            backing: None,
            preallocation: Preallocation::Off,
        }
    }

    pub(super) fn check(&self) -> Result<Clusters> {
        let refuse = |what: String| Err(Error::invalid(what));
        let clusters = Clusters::new(self.cluster_bits, self.extended_l2)?;
        Width::new(self.refcount_order)?;
        if !(2..=3).contains(&self.version) {
            return refuse(format!("qcow2 version {}; 2 and 3 can be made", self.version));
        }
        let new = [
            (self.lazy_refcounts, "lazy refcounts"),
            (self.refcount_order != 4, "refcounts of other than 16 bits"),
            (self.extended_l2, "extended L2 entries"),
            (self.compression != Compression::Zlib, "zstd compression"),
            (self.data_file.is_some(), "an external data file"),
        ];
        if let (2, Some((_, what))) = (self.version, new.iter().find(|(used, _)| *used)) {
            return refuse(format!("{what} need version 3 (compat=1.1)"));
        }
        if self.data_file_raw && self.data_file.is_none() {
            return refuse("a raw data file needs the name of a data file".to_owned());
        }
        if self.data_file_raw && self.backing.is_some() {
            return refuse(
                "a raw data file holds the whole disk, so there can be no backing file".to_owned(),
            );
        }
        if self.preallocation != Preallocation::Off && self.backing.is_some() {
            return refuse(
                "preallocated clusters would hide the backing file; use preallocation=off".to_owned(),
            );
        }
        if clusters.l1_entries(self.size).saturating_mul(8) > l::MAX_L1_BYTES {
            let what =
                format!("clusters of {} bytes are too small for a disk of {}", clusters.size(), self.size);
            return refuse(format!("{what}; use larger ones"));
        }
        Ok(clusters)
    }

    /// A raw data file is only true to the disk if no cluster is left to a backing file or to nothing.
    fn preallocates(&self) -> bool {
        self.preallocation != Preallocation::Off || self.data_file_raw
    }

    fn places(&self, clusters: Clusters) -> Result<Places> {
        let tables = clusters.l1_entries(self.size);
        let l2_count = if self.preallocates() { tables } else { 0 };
        let in_image = self.preallocates() && self.data_file.is_none();
        let data_count = if in_image { clusters.count(self.size) } else { 0 };
        Places::lay(clusters, self.refcount_order, tables, l2_count, data_count)
    }

    pub(super) fn header(&self, places: &Places) -> Result<Header> {
        let mut header = Header {
            version: self.version,
            backing_file: self.backing.as_ref().map(|backing| backing.name.clone()),
            cluster_bits: self.cluster_bits,
            size: self.size,
            crypt_method: 0,
            l1_size: u32::try_from(places.l1_entries).unwrap_or(u32::MAX),
            l1_table_offset: places.offset(places.l1),
            refcount_table_offset: places.offset(places.table),
            refcount_table_clusters: u32::try_from(places.table_clusters).unwrap_or(u32::MAX),
            nb_snapshots: 0,
            snapshots_offset: 0,
            incompatible_features: flags(&[
                (self.data_file.is_some(), incompatible::DATA_FILE),
                (self.compression != Compression::Zlib, incompatible::COMPRESSION),
                (self.extended_l2, incompatible::EXTENDED_L2),
            ]),
            compatible_features: flags(&[(self.lazy_refcounts, compatible::LAZY_REFCOUNTS)]),
            autoclear_features: flags(&[(self.data_file_raw, autoclear::DATA_FILE_RAW)]),
            refcount_order: self.refcount_order,
            header_length: if self.version < 3 { l::HEADER_V2_LENGTH } else { l::HEADER_V3_LENGTH },
            additional: Vec::new(),
            extensions: Vec::new(),
        };
        if self.version >= 3 {
            header.additional = vec![self.compression.number(), 0, 0, 0, 0, 0, 0, 0];
        }
        if let Some(format) = self.backing.as_ref().and_then(|backing| backing.format.as_ref()) {
            if to_u64(format.len()) > l::MAX_FORMAT_NAME_BYTES.into() {
                return Err(Error::invalid(format!("a backing format named {format:?}")));
            }
            header.set_extension(extension::BACKING_FORMAT, Some(format.clone().into_bytes()));
        }
        if let Some(name) = &self.data_file {
            if name.is_empty() || to_u64(name.len()) > l::MAX_BACKING_NAME_BYTES.into() {
                return Err(Error::invalid(format!("a data file named {name:?}")));
            }
            header.set_extension(extension::DATA_FILE, Some(name.clone().into_bytes()));
        }
        if self.version >= 3 {
            let mut named = header.clone();
            named.set_extension(extension::FEATURE_NAMES, Some(feature_names()));
            // In the smallest clusters there may be no room for what is only a courtesy.
            if named.encode().is_ok() {
                header = named;
            }
        }
        Ok(header)
    }
}

fn flags(bits: &[(bool, u64)]) -> u64 {
    bits.iter().filter(|(set, _)| *set).fold(0, |all, (_, bit)| all | bit)
}

/// The names by which programs that do not know these features will call them.
pub(super) fn feature_names() -> Vec<u8> {
    const NAMES: [(u8, u8, &str); 8] = [
        (0, 0, "dirty bit"),
        (0, 1, "corrupt bit"),
        (0, 2, "external data file"),
        (0, 3, "compression type"),
        (0, 4, "extended L2 entries"),
        (1, 0, "lazy refcounts"),
        (2, 0, "bitmaps"),
        (2, 1, "raw external data"),
    ];
    let entry = |(kind, bit, text): (u8, u8, &str)| {
        let mut name = [0; 46];
        for (to, from) in name.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        FeatureName { kind, bit, name }
    };
    NAMES.into_iter().flat_map(|name| entry(name).as_bytes().to_vec()).collect()
}

/// Makes a new image in `file`, which holds nothing that matters, and its data file. Only when this returns is it
/// an image: the header is written last, when everything else is durable.
pub fn create(file: &dyn Source, data_file: Option<&dyn Source>, new: &New) -> Result<()> {
    let clusters = new.check()?;
    let places = new.places(clusters)?;
    let header = new.header(&places)?;
    let head = header.encode()?;
    match (data_file, &new.data_file) {
        (Some(data_file), Some(_)) => {
            data_file.set_len(new.size)?;
            reserve(data_file, 0, new.size, new.preallocation)?;
            data_file.flush()?;
        }
        (None, None) => {}
        _ => return Err(Error::invalid("a data file must be both named and given, or neither")),
    }
    // Whatever was there before must not look like an image meanwhile.
    file.set_len(0)?;
    file.set_len(places.offset(places.end))?;
    if new.data_file.is_none() {
        reserve(file, places.offset(places.data), places.offset(places.data_count), new.preallocation)?;
    }
    write_l2(file, new, &places)?;
    let first = if places.l2_count == 0 { None } else { Some(places.l2) };
    write_pointers(file, &places, places.l1, places.l2_count, first, l::OFLAG_COPIED)?;
    write_refcounts(file, &places)?;
    write_pointers(file, &places, places.table, places.block_count, Some(places.blocks), 0)?;
    file.flush()?;
    file.write_at(0, &head, Wait::Allowed)?;
    file.flush()
}

/// Writes a table of pointers to `count` clusters in a row.
fn write_pointers(
    file: &dyn Source,
    places: &Places,
    table: u64,
    count: u64,
    first: Option<u64>,
    flag: u64,
) -> Result<()> {
    let Some(first) = first else { return Ok(()) };
    write_pieces(file, places.offset(table), count.saturating_mul(8), |done, piece| {
        for (index, word) in (done / 8..).zip(piece.as_chunks_mut::<8>().0) {
            *word = (places.offset(first.saturating_add(index)) | flag).to_be_bytes();
        }
    })
}

/// Writes the L2 tables, which follow each other as the data they point to does.
fn write_l2(file: &dyn Source, new: &New, places: &Places) -> Result<()> {
    let clusters = places.clusters;
    let total = clusters.count(new.size);
    let first = if new.data_file.is_some() { 0 } else { places.data };
    let entry_bytes = clusters.entry_words().saturating_mul(8);
    // With subclusters, a cluster has its place and none of its subclusters is in use yet; in a raw data file all
    // are, since that is what it means.
    let bitmap: u64 = if new.data_file_raw { 0xffff_ffff } else { 0 };
    let bytes = places.l2_count.saturating_mul(clusters.size());
    write_pieces(file, places.offset(places.l2), bytes, |done, piece| {
        piece.fill(0);
        let words = (done / 8..).zip(piece.as_chunks_mut::<8>().0);
        for (word, out) in words {
            let index = word.saturating_mul(8).checked_div(entry_bytes).unwrap_or(0);
            if index >= total {
                break;
            }
            let second = clusters.extended_l2() && word % 2 == 1;
            let value = places.offset(first.saturating_add(index)) | l::OFLAG_COPIED;
            *out = if second { bitmap } else { value }.to_be_bytes();
        }
    })
}

/// Writes the refcount blocks: one for every cluster up to the end.
fn write_refcounts(file: &dyn Source, places: &Places) -> Result<()> {
    let per_block = places.width.per_block(places.clusters);
    let mut block = vec![0; to_index(places.clusters.size())];
    for index in 0..places.block_count {
        block.fill(0);
        let first = index.saturating_mul(per_block);
        for entry in 0..places.end.saturating_sub(first).min(per_block) {
            places.width.write(&mut block, entry, 1);
        }
        file.write_at(places.offset(places.blocks.saturating_add(index)), &block, Wait::Allowed)?;
    }
    Ok(())
}
