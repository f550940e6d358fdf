//! What there is to tell about an image. The words of the serialised form are those of `qemu-img info`.

use crate::open::Map;
use crate::{Format, Image, Location, Options, Spec, gate, open};
use chart::{Backing, Kind, Result, Source};
use format::{qcow2, vdi};
use io::tree::{self, Tree};
use serde::Serialize;

/// What an image says of itself, and what it takes on the host.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Info {
    /// How it was named.
    pub filename: String,
    /// Its format.
    pub format: &'static str,
    /// Bytes in the disk.
    pub virtual_size: u64,
    /// Bytes that the host has given to the file, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual_size: Option<u64>,
    /// Bytes in what holds it.
    pub container_size: u64,
    /// Bytes in a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_size: Option<u64>,
    /// Somebody did not close it.
    pub dirty_flag: bool,
    /// The backing file's name, as the image has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing_filename: Option<String>,
    /// Where that is, seen from here: a relative name belongs to the image's own directory. Nobody has looked
    /// whether it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_backing_filename: Option<String>,
    /// Its format, where the image says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing_filename_format: Option<String>,
    /// Internal snapshots.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<Snapshot>,
    /// What only that format has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format_specific: Option<Specific>,
    /// Why it cannot be used, where it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unusable: Option<String>,
}

/// An internal snapshot.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Snapshot {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was taken: seconds since 1970.
    pub date_sec: u32,
    /// And the nanoseconds.
    pub date_nsec: u32,
    /// The size of the saved machine.
    pub vm_state_size: u64,
    /// How long the guest had run, in nanoseconds.
    pub vm_clock_nsec: u64,
    /// The disk's size then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_size: Option<u64>,
}

/// What only one format has.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Specific {
    /// qcow2.
    Qcow2(Qcow2),
    /// VDI.
    Vdi(Vdi),
    /// A directory.
    Directory(Directory),
}

/// What is in a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Directory {
    /// Regular files, by their names: one of two names counts twice.
    pub files: u64,
    /// Directories, itself among them.
    pub directories: u64,
    /// Symbolic links, devices and all else.
    pub others: u64,
    /// What was left out because it may not be read.
    pub skipped: u64,
}

impl Directory {
    /// Counts.
    pub fn of(tree: &Tree) -> Directory {
        let mut counts = Directory { skipped: tree.skipped().len() as u64, ..Directory::default() };
        for id in tree.nodes() {
            match tree.node(id).kind {
                tree::Kind::File => counts.files += 1,
                tree::Kind::Directory => counts.directories += 1,
                _ => counts.others += 1,
            }
        }
        counts
    }
}

/// What a VDI image says.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Vdi {
    /// "dynamic" or "static".
    pub image_type: &'static str,
    /// What tells it from all others.
    pub uuid: String,
    /// How many blocks the file holds.
    pub blocks_allocated: u32,
}

/// What a qcow2 image says.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Qcow2 {
    /// Its version, in QEMU's words.
    pub compat: &'static str,
    /// How its compressed clusters are encoded.
    pub compression_type: &'static str,
    /// Whether refcounts may be stale.
    pub lazy_refcounts: bool,
    /// Bits in a refcount.
    pub refcount_bits: u32,
    /// Whether it is marked corrupt.
    pub corrupt: bool,
    /// Whether it has subclusters.
    pub extended_l2: bool,
    /// The file that holds its data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_file: Option<String>,
    /// Whether that is a raw image of the disk.
    pub data_file_raw: bool,
    /// How it is encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypt: Option<&'static str>,
    /// Features that are not known here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown_features: Vec<String>,
    /// Persistent bitmaps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bitmaps: Vec<Bitmap>,
}

/// A persistent bitmap.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Bitmap {
    /// Its name.
    pub name: String,
    /// Bytes of the disk that a bit stands for.
    pub granularity: u64,
    /// It was not saved properly.
    pub in_use: bool,
    /// It follows all writes.
    pub auto: bool,
}

/// What there is to tell about the image that `spec` names: its own metadata only, nothing that it names is
/// opened. An image that cannot be used can be told about all the same.
pub fn look(spec: &Spec, options: &Options) -> Result<Info> {
    let alone = Options { alone: true, allow_corrupt: true, writable: false, ..options.clone() };
    match open(spec, &alone) {
        Ok(opened) => of(&opened.image),
        Err(e) if e.kind() == Kind::Unsupported => unusable(spec, &alone, e),
        Err(e) => Err(e),
    }
}

/// Tells what an image says that refuses to be opened.
fn unusable(spec: &Spec, options: &Options, why: chart::Error) -> Result<Info> {
    if spec.format.as_deref().is_some_and(|f| f != Format::Qcow2.name()) || !spec.steps.is_empty() {
        return Err(why);
    }
    let bytes = Spec { format: Some(Format::Raw.name().into()), ..spec.clone() };
    let Ok(opened) = open(&bytes, options) else { return Err(why) };
    let Ok(qcow2) = qcow2::Info::read(opened.image.container.as_ref()) else { return Err(why) };
    let mut info = begin(spec, Format::Qcow2, opened.image.container.as_ref());
    take_qcow2(&mut info, &qcow2, &spec.location);
    info.unusable = Some(why.to_string());
    Ok(info)
}

/// What there is to tell about an image that is open.
pub fn of(image: &Image) -> Result<Info> {
    let mut info = begin(&image.spec, image.format, image.container.as_ref());
    match &image.map {
        Map::None => {}
        Map::Directory(tree) => info.format_specific = Some(Specific::Directory(Directory::of(tree))),
        Map::Qcow2(map) => take_qcow2(&mut info, &map.info()?, &image.spec.location),
        Map::Vdi(map) => {
            let header = map.header();
            info.cluster_size = Some(header.block_size());
            info.format_specific = Some(Specific::Vdi(Vdi {
                image_type: match header.kind {
                    vdi::Kind::Dynamic => "dynamic",
                    vdi::Kind::Static => "static",
                },
                uuid: header.uuid().to_string(),
                blocks_allocated: header.head.blocks_allocated.get(),
            }));
        }
    }
    // Not what the header says, where this is a snapshot.
    info.virtual_size = image.disk().len();
    Ok(info)
}

fn begin(spec: &Spec, format: Format, container: &dyn Source) -> Info {
    Info {
        filename: if spec.steps.is_empty() { spec.location.to_string() } else { spec.to_string() },
        format: format.name(),
        virtual_size: 0,
        actual_size: allocated(container),
        container_size: container.len(),
        cluster_size: None,
        dirty_flag: false,
        backing_filename: None,
        full_backing_filename: None,
        backing_filename_format: None,
        snapshots: Vec::new(),
        format_specific: None,
        unusable: None,
    }
}

/// Bytes that the host has given to a file.
pub fn allocated(source: &dyn Source) -> Option<u64> {
    let Backing::File(fd) = source.backing() else { return None };
    let stat = rustix::fs::fstat(fd).ok()?;
    u64::try_from(stat.st_blocks).ok()?.checked_mul(512)
}

fn take_qcow2(info: &mut Info, q: &qcow2::Info, location: &Location) {
    info.virtual_size = q.virtual_size;
    info.cluster_size = Some(q.cluster_size);
    info.dirty_flag = q.dirty;
    info.backing_filename.clone_from(&q.backing_file);
    info.full_backing_filename = q.backing_file.as_deref().and_then(|name| full_name(location, name));
    info.backing_filename_format.clone_from(&q.backing_format);
    info.snapshots = q.snapshots.iter().map(snapshot).collect();
    info.format_specific = Some(Specific::Qcow2(Qcow2 {
        compat: q.compat(),
        compression_type: q.compression.name(),
        lazy_refcounts: q.lazy_refcounts,
        refcount_bits: q.refcount_bits,
        corrupt: q.corrupt,
        extended_l2: q.extended_l2,
        data_file: q.data_file.clone(),
        data_file_raw: q.data_file_raw,
        encrypt: q.encryption,
        unknown_features: q.unknown_features.clone(),
        bitmaps: q.bitmaps.iter().map(bitmap).collect(),
    }));
}

/// Where the file is that an image at `by` names. Nowhere, if the name means nothing there.
fn full_name(by: &Location, name: &str) -> Option<String> {
    let spec = gate::beside(by, name).ok()?;
    // Where more is said than a place, all of that is its name.
    let plain = spec == Spec::of(spec.location.clone());
    Some(if plain { spec.location.to_string() } else { name.to_owned() })
}

pub(crate) fn bitmap(b: &qcow2::Bitmap) -> Bitmap {
    Bitmap { name: b.name.clone(), granularity: b.granularity(), in_use: b.is_in_use(), auto: b.is_auto() }
}

pub(crate) fn snapshot(s: &qcow2::Snapshot) -> Snapshot {
    Snapshot {
        id: s.id.clone(),
        name: s.name.clone(),
        date_sec: s.date_sec,
        date_nsec: s.date_nsec,
        vm_state_size: s.vm_state_size,
        vm_clock_nsec: s.vm_clock_nsec,
        disk_size: s.disk_size,
    }
}
