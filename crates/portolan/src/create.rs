//! Making new images.

use crate::watch::{Watch, Watched};
use crate::{Format, Location, Options, Spec, open, size};
use chart::{Error, Result, Source};
use format::preallocation::Preallocation;
use format::qcow2::create::{Backing, New};
use format::qcow2::{self, Compression};
use format::vdi;
use io::replace::Replacement;
use std::collections::BTreeMap;
use std::path::Path;

/// What lengths are rounded up to in formats whose disks other programs read in whole sectors.
const SECTOR: u64 = 512;

/// What is to be made.
#[derive(Clone, Debug)]
pub struct Request {
    /// In what format.
    pub format: Format,
    /// How long the disk is to be; as long as its backing file, where it is not said.
    pub size: Option<u64>,
    /// The backing file, as the image will name it: relative to the image.
    pub backing: Option<String>,
    /// The backing file's format. It must be said: readers do not guess.
    pub backing_format: Option<String>,
    /// The format's options, as `qemu-img` calls them.
    pub options: BTreeMap<String, String>,
    /// Replace what is there.
    pub force: bool,
    /// Do not open the backing file to see whether it is there.
    pub unsafe_backing: bool,
    /// How the backing file is opened, to see whether it is there and how long it is.
    pub access: Options,
}

impl Request {
    /// A disk of `size` bytes.
    pub fn of(format: Format, size: u64) -> Request {
        Request {
            format,
            size: Some(size),
            backing: None,
            backing_format: None,
            options: BTreeMap::new(),
            force: false,
            unsafe_backing: false,
            access: Options::default(),
        }
    }
}

/// Makes an image at `path`: whole, or not at all. Returns the disk's length.
pub fn create(path: &Path, request: &Request, watch: Watch<'_>) -> Result<u64> {
    let mut options = request.options.clone();
    let backing = backing(path, request, &mut options)?;
    let backed = backing.as_ref().and_then(|(_, len)| *len);
    let size = match (request.size, options.remove("size")) {
        (Some(size), None) => size,
        (None, Some(text)) => size::parse(&text)?,
        (None, None) => backed.ok_or_else(|| Error::invalid("how long is the disk to be? Give a size"))?,
        (Some(_), Some(_)) => return Err(Error::invalid("the size is given twice")),
    };
    match request.format {
        format @ (Format::Chart | Format::Iso9660) => return Err(format.not_made()),
        Format::Raw => raw(path, size, request, options, watch)?,
        Format::Vdi => vdi(path, &vdi_options(size, options)?, request.force, watch)?,
        Format::Qcow2 => {
            let mut new = qcow2_options(size, options)?;
            new.backing = backing.map(|(backing, _)| backing);
            qcow2(path, &new, request.force, watch)?;
        }
    }
    Ok(size)
}

/// The backing file as it will be named, and how long it is.
fn backing(
    path: &Path,
    request: &Request,
    options: &mut BTreeMap<String, String>,
) -> Result<Option<(Backing, Option<u64>)>> {
    let name = request.backing.clone().or_else(|| options.remove("backing_file"));
    let format = request.backing_format.clone().or_else(|| options.remove("backing_fmt"));
    let Some(name) = name else {
        return match format {
            None => Ok(None),
            Some(_) => Err(Error::invalid("a backing format without a backing file")),
        };
    };
    if request.format != Format::Qcow2 {
        return Err(Error::unsupported(format!("{} disks have no backing file", request.format)));
    }
    let Some(format) = format else {
        let what = format!(
            "which format has {name}? It must be said: readers do not guess what a guest may have written"
        );
        return Err(Error::invalid(what));
    };
    Format::named(&format)?;
    let len = if request.unsafe_backing {
        None
    } else {
        let named = crate::gate::beside(&Location::File(path.to_path_buf()), &name)?;
        let spec = Spec { format: Some(format.clone()), ..named };
        let opened = open(&spec, &request.access).map_err(|e| e.during("opening the backing file"))?;
        // It would be replaced by an image that stands on itself, and what it holds would be gone.
        opened.image.refuse_as_target(path)?;
        Some(opened.disk.len())
    };
    Ok(Some((Backing { name, format: Some(format) }, len)))
}

fn raw(
    path: &Path,
    size: u64,
    request: &Request,
    mut options: BTreeMap<String, String>,
    watch: Watch<'_>,
) -> Result<()> {
    let preallocation = preallocation(&mut options)?;
    finish(Format::Raw, &options)?;
    let replacement = Replacement::create(path, request.force)?;
    let file = replacement.file()?;
    file.set_len(size)?;
    match preallocation {
        Preallocation::Off => {}
        Preallocation::Metadata => {
            return Err(Error::unsupported("a raw disk has no metadata to preallocate: off, falloc or full"));
        }
        Preallocation::Falloc => watch.in_steps(0, size, |at, len| {
            file.reserve_space(at, len)?;
            watch.tell(at + len, size);
            Ok(())
        })?,
        Preallocation::Full => io::file::write_zeros(&Watched::new(file, watch), 0, size)?,
    }
    replacement.commit()
}

fn qcow2(path: &Path, new: &New, force: bool, watch: Watch<'_>) -> Result<()> {
    let image = Replacement::create(path, force)?;
    let data = match &new.data_file {
        None => None,
        Some(name) => {
            let beside = path.parent().unwrap_or(Path::new("")).join(name);
            Some(Replacement::create(beside, force)?)
        }
    };
    let data_file = data.as_ref().map(Replacement::file).transpose()?.map(|file| Watched::new(file, watch));
    let data_file = data_file.as_ref().map(|file| file as &dyn Source);
    qcow2::create::create(&Watched::new(image.file()?, watch), data_file, new)?;
    // The data first: an image whose data file is not there is of no use, a data file without an image does no harm.
    data.map_or(Ok(()), Replacement::commit)?;
    image.commit()
}

fn vdi(path: &Path, new: &vdi::New, force: bool, watch: Watch<'_>) -> Result<()> {
    let image = Replacement::create(path, force)?;
    vdi::create::create(&Watched::new(image.file()?, watch), new)?;
    image.commit()
}

/// What `qemu-img` calls a VDI image's options. It is a static one if it is asked for, or any preallocation is.
pub fn vdi_options(size: u64, mut options: BTreeMap<String, String>) -> Result<vdi::New> {
    let fixed = options.remove("static");
    let preallocation = preallocation(&mut options)?;
    let preallocation = match (switch("static", fixed.as_deref())?, preallocation) {
        (true, Preallocation::Off) => Preallocation::Metadata,
        (false, how) if fixed.is_some() && how != Preallocation::Off => {
            return Err(Error::invalid(
                "what is preallocated is a static image; static=off says that it is none",
            ));
        }
        (_, how) => how,
    };
    finish(Format::Vdi, &options)?;
    Ok(vdi::New { preallocation, ..vdi::New::of(size) })
}

/// What `qemu-img` calls a qcow2 image's options.
pub fn qcow2_options(size: u64, mut options: BTreeMap<String, String>) -> Result<New> {
    // QEMU takes a qcow2 disk for as many whole sectors as there are in its length, and would not show the rest.
    let mut new = New::of(size.checked_next_multiple_of(SECTOR).unwrap_or(size));
    let mut take = |key: &str| options.remove(key);
    if let Some(compat) = take("compat") {
        new.version = match compat.as_str() {
            "0.10" | "v2" => 2,
            "1.1" | "v3" => 3,
            _ => return Err(Error::invalid(format!("compat={compat}: 0.10 and 1.1 are known"))),
        };
    }
    if let Some(text) = take("cluster_size") {
        new.cluster_bits = power_of_two("cluster_size", size::parse(&text)?)?;
    }
    if let Some(text) = take("refcount_bits") {
        new.refcount_order = power_of_two("refcount_bits", size::parse(&text)?)?;
    }
    new.lazy_refcounts = switch("lazy_refcounts", take("lazy_refcounts").as_deref())?;
    new.extended_l2 = switch("extended_l2", take("extended_l2").as_deref())?;
    new.data_file_raw = switch("data_file_raw", take("data_file_raw").as_deref())?;
    new.data_file = take("data_file");
    if let Some(kind) = take("compression_type") {
        new.compression = match kind.as_str() {
            "zlib" => Compression::Zlib,
            "zstd" => Compression::Zstd,
            _ => return Err(Error::invalid(format!("compression_type={kind}: zlib and zstd are known"))),
        };
    }
    new.preallocation = preallocation(&mut options)?;
    finish(Format::Qcow2, &options)?;
    Ok(new)
}

fn power_of_two(key: &str, value: u64) -> Result<u32> {
    let wrong = || Error::invalid(format!("{key}={value} is no power of two"));
    if value.is_power_of_two() { Ok(value.trailing_zeros()) } else { Err(wrong()) }
}

fn switch(key: &str, value: Option<&str>) -> Result<bool> {
    match value {
        None | Some("off" | "false" | "no") => Ok(false),
        Some("on" | "true" | "yes") => Ok(true),
        Some(other) => Err(Error::invalid(format!("{key}={other}: on and off are known"))),
    }
}

fn preallocation(options: &mut BTreeMap<String, String>) -> Result<Preallocation> {
    match options.remove("preallocation").as_deref() {
        None | Some("off") => Ok(Preallocation::Off),
        Some("metadata") => Ok(Preallocation::Metadata),
        Some("falloc") => Ok(Preallocation::Falloc),
        Some("full") => Ok(Preallocation::Full),
        Some(other) => {
            let what = format!("preallocation={other}: off, metadata, falloc and full are known");
            Err(Error::invalid(what))
        }
    }
}

/// Refuses options that nobody took.
pub(crate) fn finish(format: Format, options: &BTreeMap<String, String>) -> Result<()> {
    match options.keys().next() {
        None => Ok(()),
        // An empty one has.
        Some(key) if format == Format::Raw && key == "preallocation" => {
            Err(Error::unsupported("a raw disk that is made of another one has no space reserved"))
        }
        Some(key) => Err(Error::invalid(format!("{format} has no option {key:?} for making an image"))),
    }
}
