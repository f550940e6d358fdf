//! The header: read, checked against every limit, and written back with what is not understood kept.

use super::cluster::Clusters;
use super::layout::{self as l, ExtensionHeader, FeatureName, HeaderV2, HeaderV3, extension, incompatible};
use crate::field::{text, to_index, to_u64};
use chart::{Error, Result, Source, Wait};
use zerocopy::{FromBytes, IntoBytes};

/// As much of the header is read at first; the rest of its cluster only if it turns out to be used.
const HEAD_BYTES: u64 = 4096;

/// How the disk's compressed clusters are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Compression {
    /// Raw deflate; called zlib.
    #[default]
    Zlib,
    /// zstd.
    Zstd,
}

impl Compression {
    /// Its name, as QEMU says it.
    pub fn name(self) -> &'static str {
        match self {
            Compression::Zlib => "zlib",
            Compression::Zstd => "zstd",
        }
    }

    /// Its number in the header; also its codec id in the disks made here.
    pub fn number(self) -> u8 {
        match self {
            Compression::Zlib => 0,
            Compression::Zstd => 1,
        }
    }
}

/// A header extension, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// One of [`extension`], or unknown.
    pub kind: u32,
    /// Its data, without padding.
    pub data: Vec<u8>,
}

/// A header. Decoding and encoding keeps everything, unknown extensions and fields included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// The backing file's name.
    pub backing_file: Option<String>,
    /// A cluster has `1 << cluster_bits` bytes.
    pub cluster_bits: u32,
    /// The disk's size in bytes.
    pub size: u64,
    /// 0 none, 1 AES, 2 LUKS.
    pub crypt_method: u32,
    /// Entries in the active L1 table.
    pub l1_size: u32,
    /// Where the active L1 table is.
    pub l1_table_offset: u64,
    /// Where the refcount table is.
    pub refcount_table_offset: u64,
    /// How many clusters the refcount table takes.
    pub refcount_table_clusters: u32,
    /// How many snapshots there are.
    pub nb_snapshots: u32,
    /// Where the snapshot table is.
    pub snapshots_offset: u64,
    /// See [`incompatible`].
    pub incompatible_features: u64,
    /// See [`l::compatible`].
    pub compatible_features: u64,
    /// See [`l::autoclear`].
    pub autoclear_features: u64,
    /// A refcount has `1 << refcount_order` bits.
    pub refcount_order: u32,
    /// Bytes before the extensions.
    pub header_length: u32,
    /// The additional fields, from byte 104 to `header_length`; the first is the compression type.
    pub additional: Vec<u8>,
    /// The extensions, in the order they were found.
    pub extensions: Vec<Extension>,
}

impl Header {
    /// Reads and checks the header of an image.
    pub fn read(source: &dyn Source) -> Result<Header> {
        let len = source.len();
        let mut bytes = read_head(source, len.min(HEAD_BYTES))?;
        let (fixed, _) = fixed_v2(&bytes)?;
        let clusters = Clusters::new(fixed.cluster_bits.get(), false).map_err(|e| e.at(20))?;
        let whole = len.min(clusters.size());
        bytes.truncate(to_index(whole));
        if let Some(header) = Header::decode(&bytes, to_u64(bytes.len()) == whole)? {
            return Ok(header);
        }
        let bytes = read_head(source, whole)?;
        Header::decode(&bytes, true)?.ok_or_else(|| Error::corrupt("the header is cut off").at(0))
    }

    /// Decodes the first bytes of an image. `None` if they are not `whole`, all there is of the first cluster,
    /// and more of them is needed.
    pub fn decode(bytes: &[u8], whole: bool) -> Result<Option<Header>> {
        let (v2, rest) = fixed_v2(bytes)?;
        let version = v2.version.get();
        let clusters = Clusters::new(v2.cluster_bits.get(), false).map_err(|e| e.at(20))?;
        let v3 = fixed_v3(version, rest)?;
        let mut header = Header {
            version,
            backing_file: None,
            cluster_bits: v2.cluster_bits.get(),
            size: v2.size.get(),
            crypt_method: v2.crypt_method.get(),
            l1_size: v2.l1_size.get(),
            l1_table_offset: v2.l1_table_offset.get(),
            refcount_table_offset: v2.refcount_table_offset.get(),
            refcount_table_clusters: v2.refcount_table_clusters.get(),
            nb_snapshots: v2.nb_snapshots.get(),
            snapshots_offset: v2.snapshots_offset.get(),
            incompatible_features: v3.incompatible_features.get(),
            compatible_features: v3.compatible_features.get(),
            autoclear_features: v3.autoclear_features.get(),
            refcount_order: v3.refcount_order.get(),
            header_length: v3.header_length.get(),
            additional: Vec::new(),
            extensions: Vec::new(),
        };
        let length = u64::from(header.header_length);
        if length > clusters.size() {
            return Err(
                Error::corrupt(format!("the header is {length} bytes long, more than a cluster")).at(100)
            );
        }
        let Some(head) = bytes.get(..to_index(length)) else { return short(whole, length) };
        header.additional = head.get(l::COMPRESSION_TYPE_OFFSET..).unwrap_or_default().to_vec();
        let backing = v2.backing_file_offset.get();
        if backing > clusters.size() {
            return Err(Error::corrupt(format!("the backing file's name is at byte {backing}")).at(8));
        }
        let end = if backing == 0 { clusters.size() } else { backing };
        match extensions(bytes, length, end, whole)? {
            Some(found) => header.extensions = found,
            None => return Ok(None),
        }
        if backing != 0 {
            match backing_name(bytes, backing, v2.backing_file_size.get(), clusters, whole)? {
                Some(name) => header.backing_file = (!name.is_empty()).then_some(name),
                None => return Ok(None),
            }
        }
        Ok(Some(header))
    }

    /// The first bytes of the image, as this header says. Unsupported if they do not fit into a cluster.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let clusters = Clusters::new(self.cluster_bits, false)?;
        let mut out = self.encode_area();
        if let Some(name) = &self.backing_file {
            let (offset, size) = (to_u64(out.len()), u32::try_from(name.len()).unwrap_or(u32::MAX));
            if size > l::MAX_BACKING_NAME_BYTES {
                let what =
                    format!("a backing file name of {size} bytes; {} are allowed", l::MAX_BACKING_NAME_BYTES);
                return Err(Error::invalid(what));
            }
            out.extend_from_slice(name.as_bytes());
            put(&mut out, 8, &offset.to_be_bytes());
            put(&mut out, 16, &size.to_be_bytes());
        }
        if to_u64(out.len()) > clusters.size() {
            let what =
                format!("a header of {} bytes does not fit into a cluster of {}", out.len(), clusters.size());
            return Err(Error::unsupported(format!(
                "{what}; use larger clusters or a shorter backing file name"
            )));
        }
        Ok(out)
    }

    /// The fields and the extensions: what comes before the backing file's name, whose place is left 0.
    pub(super) fn encode_area(&self) -> Vec<u8> {
        let mut out = self.encode_fixed();
        for extension in &self.extensions {
            put_extension(&mut out, extension.kind, &extension.data);
        }
        put_extension(&mut out, extension::END, &[]);
        out
    }

    /// The fields. The place of the backing file's name is left 0.
    pub(super) fn encode_fixed(&self) -> Vec<u8> {
        let v2 = HeaderV2 {
            magic: l::MAGIC.into(),
            version: self.version.into(),
            backing_file_offset: 0.into(),
            backing_file_size: 0.into(),
            cluster_bits: self.cluster_bits.into(),
            size: self.size.into(),
            crypt_method: self.crypt_method.into(),
            l1_size: self.l1_size.into(),
            l1_table_offset: self.l1_table_offset.into(),
            refcount_table_offset: self.refcount_table_offset.into(),
            refcount_table_clusters: self.refcount_table_clusters.into(),
            nb_snapshots: self.nb_snapshots.into(),
            snapshots_offset: self.snapshots_offset.into(),
        };
        let mut out = v2.as_bytes().to_vec();
        if self.version >= 3 {
            let length = u32::try_from(self.additional.len()).unwrap_or(u32::MAX);
            let v3 = HeaderV3 {
                incompatible_features: self.incompatible_features.into(),
                compatible_features: self.compatible_features.into(),
                autoclear_features: self.autoclear_features.into(),
                refcount_order: self.refcount_order.into(),
                header_length: length.saturating_add(l::MIN_HEADER_V3_LENGTH).into(),
            };
            out.extend_from_slice(v3.as_bytes());
            out.extend_from_slice(&self.additional);
        }
        out
    }

    /// The data of the extension of that kind.
    pub fn extension(&self, kind: u32) -> Option<&[u8]> {
        self.extensions.iter().find(|e| e.kind == kind).map(|e| e.data.as_slice())
    }

    /// Sets, replaces or (with `None`) removes an extension.
    pub fn set_extension(&mut self, kind: u32, data: Option<Vec<u8>>) {
        let old = self.extensions.iter().position(|e| e.kind == kind);
        match (old, data) {
            (Some(i), Some(data)) => {
                if let Some(old) = self.extensions.get_mut(i) {
                    old.data = data;
                }
            }
            (Some(i), None) => drop(self.extensions.remove(i)),
            (None, Some(data)) => self.extensions.push(Extension { kind, data }),
            (None, None) => {}
        }
    }

    fn string(&self, kind: u32, what: &str) -> Result<Option<String>> {
        self.extension(kind).map(|bytes| text(bytes, what, 0)).transpose()
    }

    /// The backing file's format, where it is stored.
    pub fn backing_format(&self) -> Result<Option<String>> {
        self.string(extension::BACKING_FORMAT, "backing file's format")
    }

    /// The data file's name, where it is stored.
    pub fn data_file(&self) -> Result<Option<String>> {
        self.string(extension::DATA_FILE, "data file's name")
    }

    /// The bitmaps extension, whether or not it is consistent.
    pub fn bitmaps(&self) -> Option<l::BitmapsExtension> {
        l::BitmapsExtension::read_from_prefix(self.extension(extension::BITMAPS)?).ok().map(|(e, _)| e)
    }

    /// Whether all of these incompatible features are set.
    pub fn is_incompatible(&self, features: u64) -> bool {
        self.incompatible_features & features == features
    }

    /// Whether all of these autoclear features are set.
    pub fn is_autoclear(&self, features: u64) -> bool {
        self.autoclear_features & features == features
    }

    /// Whether writers may leave refcounts stale.
    pub fn is_lazy(&self) -> bool {
        self.compatible_features & l::compatible::LAZY_REFCOUNTS != 0
    }

    /// The compression type's number.
    pub fn compression_type(&self) -> u8 {
        self.additional.first().copied().unwrap_or(0)
    }

    /// How compressed clusters are encoded.
    pub fn compression(&self) -> Result<Compression> {
        let kind = match self.compression_type() {
            0 => Compression::Zlib,
            1 => Compression::Zstd,
            n => return Err(Error::unsupported(format!("compression type {n} is not known here")).at(104)),
        };
        if self.is_incompatible(incompatible::COMPRESSION) != (kind != Compression::Zlib) {
            let what = format!("the compression type is {}, which contradicts its feature bit", kind.name());
            return Err(Error::corrupt(what).at(72));
        }
        Ok(kind)
    }

    /// The geometry.
    pub fn clusters(&self) -> Result<Clusters> {
        Clusters::new(self.cluster_bits, self.is_incompatible(incompatible::EXTENDED_L2))
            .map_err(|e| e.at(20))
    }

    /// Refuses what cannot be opened: features nobody here knows, encryption, and, unless `allow_corrupt`, an
    /// image marked corrupt.
    pub fn check_features(&self, allow_corrupt: bool) -> Result<()> {
        let unknown = self.incompatible_features & !incompatible::KNOWN;
        if unknown != 0 {
            let names = (0..64u8).filter(|&bit| unknown.wrapping_shr(bit.into()) & 1 != 0);
            let names: Vec<_> = names.map(|bit| self.feature_name(0, bit)).collect();
            let what = format!("the image needs features that are not known here: {}", names.join(", "));
            return Err(Error::unsupported(what).at(72));
        }
        let encryption = match self.crypt_method {
            0 => None,
            1 => Some("AES".to_owned()),
            2 => Some("LUKS".to_owned()),
            n => Some(format!("method {n}")),
        };
        if let Some(method) = encryption {
            let what = format!("the image is encrypted ({method}), which is not supported");
            return Err(Error::unsupported(what).at(32));
        }
        if self.is_incompatible(incompatible::CORRUPT) && !allow_corrupt {
            let what =
                "the image is marked corrupt (feature \"corrupt bit\"); check it, and repair it, first";
            return Err(Error::corrupt(what).at(72));
        }
        self.compression().map(drop)
    }

    /// What a feature bit is called: by the image's own table, else by its number.
    pub fn feature_name(&self, kind: u8, bit: u8) -> String {
        let table = self.extension(extension::FEATURE_NAMES).unwrap_or_default();
        let mut entries =
            table.as_chunks::<48>().0.iter().filter_map(|e| FeatureName::read_from_bytes(e).ok());
        let number = format!(
            "{} bit {bit}",
            ["incompatible", "compatible", "autoclear"].get(usize::from(kind)).unwrap_or(&"feature")
        );
        let Some(entry) = entries.find(|e| e.kind == kind && e.bit == bit) else { return number };
        let name: String =
            String::from_utf8_lossy(&entry.name).trim_end_matches('\0').escape_debug().collect();
        if name.is_empty() { number } else { format!("\"{name}\" ({number})") }
    }

    /// Refuses tables that are unaligned, too large, or not in a file of `file_len` bytes.
    pub fn check_tables(&self, file_len: u64) -> Result<()> {
        let clusters = self.clusters()?;
        if self.refcount_order > l::MAX_REFCOUNT_ORDER {
            let what = format!("refcounts of 2^{} bits; the most is 64", self.refcount_order);
            return Err(Error::corrupt(what).at(96));
        }
        let l1_bytes = u64::from(self.l1_size).saturating_mul(8);
        let table = Table { clusters, file_len, what: "L1 table", field: 40 };
        table.check(self.l1_table_offset, l1_bytes, l::MAX_L1_BYTES)?;
        if u64::from(self.l1_size) < clusters.l1_entries(self.size) {
            let what = format!("the L1 table has {} entries, too few for {} bytes", self.l1_size, self.size);
            return Err(Error::corrupt(what).at(36));
        }
        let bytes = u64::from(self.refcount_table_clusters).saturating_mul(clusters.size());
        let table =
            Table { clusters, file_len: clusters.round_up(file_len), what: "refcount table", field: 48 };
        table.check(self.refcount_table_offset, bytes, l::MAX_REFCOUNT_TABLE_BYTES)?;
        if self.nb_snapshots > l::MAX_SNAPSHOTS {
            let what = format!("{} snapshots; the most is {}", self.nb_snapshots, l::MAX_SNAPSHOTS);
            return Err(Error::unsupported(what).at(60));
        }
        let least = u64::from(self.nb_snapshots).saturating_mul(40);
        let table = Table { clusters, file_len, what: "snapshot table", field: 64 };
        table.check(self.snapshots_offset, least, l::MAX_SNAPSHOT_TABLE_BYTES)?;
        if self.is_autoclear(l::autoclear::DATA_FILE_RAW) && !self.is_incompatible(incompatible::DATA_FILE) {
            return Err(Error::corrupt("a raw data file is promised, but no data file").at(88));
        }
        Ok(())
    }
}

/// What a table's place is checked against.
pub(super) struct Table {
    pub(super) clusters: Clusters,
    pub(super) file_len: u64,
    pub(super) what: &'static str,
    /// Where the image says where the table is.
    pub(super) field: u64,
}

impl Table {
    /// Refuses a table of `bytes` bytes at `offset` that is unaligned, over the limit, or not in the file.
    pub(super) fn check(&self, offset: u64, bytes: u64, limit: u64) -> Result<()> {
        let Table { clusters, file_len, what, field } = self;
        if bytes > limit {
            let what = format!("the {what} has {bytes} bytes; the most is {limit}");
            return Err(Error::unsupported(what).at(*field));
        }
        if bytes == 0 {
            return Ok(());
        }
        if clusters.within(offset) != 0 {
            return Err(
                Error::corrupt(format!("the {what} is at byte {offset}, not a cluster's start")).at(*field)
            );
        }
        let end = offset.checked_add(bytes).filter(|end| end <= file_len && *end <= l::MAX_HOST_OFFSET);
        if offset == 0 || end.is_none() {
            let what = format!("the {what} is at byte {offset}, {bytes} bytes long, in a file of {file_len}");
            return Err(Error::corrupt(what).at(*field));
        }
        Ok(())
    }
}

fn read_head(source: &dyn Source, len: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; to_index(len)];
    source.read_at(0, &mut bytes, Wait::Allowed)?;
    Ok(bytes)
}

fn fixed_v2(bytes: &[u8]) -> Result<(HeaderV2, &[u8])> {
    let short = || Error::corrupt("too short for a qcow2 header").at(0);
    let (v2, rest) = HeaderV2::read_from_prefix(bytes).map_err(|_| short())?;
    if v2.magic.get() != l::MAGIC {
        return Err(Error::corrupt("not a qcow2 image: the magic number is missing").at(0));
    }
    Ok((v2, rest))
}

fn fixed_v3(version: u32, rest: &[u8]) -> Result<HeaderV3> {
    match version {
        2 => Ok(HeaderV3 {
            incompatible_features: 0.into(),
            compatible_features: 0.into(),
            autoclear_features: 0.into(),
            refcount_order: 4.into(),
            header_length: l::HEADER_V2_LENGTH.into(),
        }),
        3 => {
            let short = || Error::corrupt("too short for a qcow2 header").at(72);
            let (v3, _) = HeaderV3::read_from_prefix(rest).map_err(|_| short())?;
            let length = v3.header_length.get();
            if length < l::MIN_HEADER_V3_LENGTH || !length.is_multiple_of(8) {
                let what = format!("a header of {length} bytes; it must be 104 or more, a multiple of 8");
                return Err(Error::corrupt(what).at(100));
            }
            Ok(v3)
        }
        n => Err(Error::unsupported(format!("qcow2 version {n}; 2 and 3 are supported")).at(4)),
    }
}

/// What to say when bytes up to `end` are needed and not there.
fn short<T>(whole: bool, end: u64) -> Result<Option<T>> {
    if !whole {
        return Ok(None);
    }
    Err(Error::corrupt(format!("the header reaches byte {end}, past the end of the file")).at(0))
}

fn extensions(bytes: &[u8], start: u64, end: u64, whole: bool) -> Result<Option<Vec<Extension>>> {
    let (mut found, mut offset) = (Vec::new(), start);
    while offset.saturating_add(8) <= end {
        let rest = bytes.get(to_index(offset)..).unwrap_or_default();
        let Ok((head, data)) = ExtensionHeader::read_from_prefix(rest) else {
            // A file may end where its extensions do.
            return if whole { Ok(Some(found)) } else { Ok(None) };
        };
        let (kind, length) = (head.kind.get(), head.length.get());
        if kind == extension::END {
            break;
        }
        let data_end = offset.saturating_add(8).saturating_add(length.into());
        if data_end > end {
            let what = format!("header extension {kind:#x} is {length} bytes long and does not fit");
            return Err(Error::corrupt(what).at(offset));
        }
        let Some(data) = data.get(..to_index(length.into())) else { return short(whole, data_end) };
        check_extension(kind, length, offset)?;
        if found.len() >= l::MAX_EXTENSIONS {
            let what = format!("more than {} header extensions", l::MAX_EXTENSIONS);
            return Err(Error::unsupported(what).at(offset));
        }
        found.push(Extension { kind, data: data.to_vec() });
        offset = data_end.next_multiple_of(8);
    }
    Ok(Some(found))
}

fn check_extension(kind: u32, length: u32, offset: u64) -> Result<()> {
    let (what, range) = match kind {
        extension::BACKING_FORMAT => ("backing format", 0..=l::MAX_FORMAT_NAME_BYTES),
        extension::BITMAPS => ("bitmaps", 24..=24),
        extension::CRYPTO => ("encryption", 16..=16),
        extension::DATA_FILE => ("data file name", 0..=l::MAX_BACKING_NAME_BYTES),
        _ => return Ok(()),
    };
    if range.contains(&length) {
        return Ok(());
    }
    Err(Error::corrupt(format!("the {what} extension has {length} bytes")).at(offset))
}

fn backing_name(bytes: &[u8], offset: u64, size: u32, c: Clusters, whole: bool) -> Result<Option<String>> {
    let end = offset.saturating_add(size.into());
    if size > l::MAX_BACKING_NAME_BYTES || end > c.size() {
        let what = format!("the backing file's name is {size} bytes long at byte {offset}");
        return Err(Error::corrupt(format!("{what}; at most {} fit", l::MAX_BACKING_NAME_BYTES)).at(16));
    }
    let Some(name) = bytes.get(to_index(offset)..to_index(end)) else { return short(whole, end) };
    text(name, "backing file's name", offset).map(Some)
}

fn put(out: &mut [u8], at: usize, value: &[u8]) {
    if let Some(field) = out.get_mut(at..at.saturating_add(value.len())) {
        field.copy_from_slice(value);
    }
}

fn put_extension(out: &mut Vec<u8>, kind: u32, data: &[u8]) {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(ExtensionHeader { kind: kind.into(), length: length.into() }.as_bytes());
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(8), 0);
}
