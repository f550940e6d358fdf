//! What there is: the partitions of a disk, the files of a file system.

use crate::{Node, Opened, Watch};
use chart::{Error, Result};
use fs::{FileSystem, Inode, Kind, Stat, Time, partition};
use serde::Serialize;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A directory that is listed has so many names at most.
pub const MAX_ENTRIES: usize = 1 << 22;
/// So many directories are listed at most.
pub const MAX_DIRECTORIES: usize = 1 << 22;
/// So many bytes may the paths have that are known at a time: those in a directory, and of directories to come.
pub const MAX_PATH_BYTES: usize = 1 << 29;

/// The partitions of a disk.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Partitions {
    /// The kind of the table: `mbr` or `gpt`.
    pub scheme: &'static str,
    /// What tells the disk from others.
    pub id: String,
    /// How many bytes a sector has, in which the table counts.
    pub sector_size: u64,
    /// The partitions, by number.
    pub partitions: Vec<Partition>,
    /// What is wrong with the table, and was dealt with.
    pub notes: Vec<String>,
}

/// A partition.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Partition {
    /// Its number, as Linux numbers them.
    pub number: u32,
    /// Where it begins, in bytes.
    pub start: u64,
    /// How long it is, in bytes.
    pub size: u64,
    /// What the table says is in it, as people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub type_name: Option<&'static str>,
    /// The same, as it is stored.
    pub type_id: String,
    /// Its name, in the table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What Linux calls its PARTUUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Whether it is marked as the one to boot.
    pub bootable: bool,
    /// The file system in it, or what else bears a mark: not all of them are read here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_system: Option<&'static str>,
    /// What that calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Why the file system cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

/// The partitions of a disk; none where it has no table.
pub fn partitions(opened: &Opened) -> Result<Option<Partitions>> {
    let read = partition::read(&opened.disk).map_err(|e| e.in_path(opened.image.name()));
    let Some(table) = read? else { return Ok(None) };
    let mut rows = Vec::new();
    for found in &table.partitions {
        let mut row = Partition {
            number: found.number,
            start: found.start,
            size: found.len,
            type_name: found.kind.name(),
            type_id: found.kind.to_string(),
            name: found.name.clone(),
            uuid: found.uuid.clone(),
            bootable: found.bootable,
            file_system: None,
            label: None,
            unreadable: None,
        };
        if !found.kind.is_extended() {
            let held = |disk| Ok((fs::open(&disk)?, fs::mark(&disk)?));
            match found.disk(&opened.disk, false).and_then(held) {
                Ok((Some(there), _)) => {
                    row.file_system = Some(there.kind());
                    row.label = Some(there.label()).filter(|label| !label.is_empty());
                }
                Ok((None, mark)) => row.file_system = mark,
                Err(e) => row.unreadable = Some(e.to_string()),
            }
        }
        rows.push(row);
    }
    Ok(Some(Partitions {
        scheme: table.scheme.name(),
        id: table.id,
        sector_size: table.sector,
        partitions: rows,
        notes: table.notes,
    }))
}

/// A file, a directory or something else with a name.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Row {
    /// Its path from what is listed.
    pub path: String,
    /// The same, where it is not UTF-8: its bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<Vec<u8>>,
    /// What it is: `file`, `directory`, `symlink`, ...
    pub kind: &'static str,
    /// Permission bits, with set-id and sticky.
    pub mode: u16,
    /// How many names it has.
    pub links: u64,
    /// Who owns it.
    pub uid: u32,
    /// Which group does.
    pub gid: u32,
    /// How many bytes it has.
    pub size: u64,
    /// How many are stored for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<u64>,
    /// When its content changed last: seconds since 1970.
    pub modified_sec: i64,
    /// And the nanoseconds.
    pub modified_nsec: u32,
    /// The number its file system gives it.
    pub inode: u64,
    /// Where it leads, if it is a symbolic link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Which device it is: major and minor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<(u32, u32)>,
}

/// What there is to know of `kind`, in a word.
pub fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Symlink => "symlink",
        Kind::CharacterDevice => "character-device",
        Kind::BlockDevice => "block-device",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
    }
}

impl Row {
    fn new(fs: &dyn FileSystem, path: &Path, stat: &Stat) -> Result<Row> {
        let target = if stat.kind == Kind::Symlink { Some(fs.target(stat.inode)?) } else { None };
        let Time { seconds, nanos } = stat.modified;
        let bytes = path.as_os_str().as_bytes();
        Ok(Row {
            path: String::from_utf8_lossy(bytes).into_owned(),
            path_bytes: std::str::from_utf8(bytes).is_err().then(|| bytes.to_vec()),
            kind: word(stat.kind),
            mode: stat.mode,
            links: stat.links,
            uid: stat.uid,
            gid: stat.gid,
            size: stat.len,
            stored: stat.stored,
            modified_sec: seconds,
            modified_nsec: nanos,
            inode: stat.inode.0,
            target: target.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            device: stat.device,
        })
    }
}

/// Tells what is in a directory, sorted by name, then, if that is wanted, what is in those below; of what is no
/// directory, that alone. `each` is told the directory, as a path from the one that was named, and what is in it; `wrong`
/// the path of whatever cannot be looked at, and why: the others are told all the same.
pub fn files(
    node: &Node,
    recursive: bool,
    watch: Watch<'_>,
    mut each: impl FnMut(&Path, &[Row]) -> Result<()>,
    mut wrong: impl FnMut(&Path, Error) -> Result<()>,
) -> Result<()> {
    let fs = node.fs.as_ref();
    let stat = fs.stat(node.inode)?;
    if stat.kind != Kind::Directory {
        let name = node.path.file_name().unwrap_or_default();
        return each(Path::new(""), &[Row::new(fs, Path::new(name), &stat)?]);
    }
    let mut open = vec![(PathBuf::new(), node.inode)];
    let mut seen = HashSet::from([node.inode]);
    let mut waiting = 0;
    while let Some((path, inode)) = open.pop() {
        watch.go_on()?;
        waiting -= path.as_os_str().len();
        let mut here = 0;
        let (mut rows, mut below) = (Vec::new(), Vec::new());
        let (names, ended) = names(fs, inode);
        for (name, inode) in names {
            let path = path.join(OsStr::from_bytes(&name));
            here += path.as_os_str().len();
            if here + waiting > MAX_PATH_BYTES {
                let what = format!("paths of more than {MAX_PATH_BYTES} bytes together");
                return Err(Error::unsupported(what));
            }
            let stat = fs.stat(inode).and_then(|stat| Ok((Row::new(fs, &path, &stat)?, stat.kind)));
            let (row, kind) = match stat {
                Ok(found) => found,
                Err(e) => {
                    wrong(&path, e)?;
                    continue;
                }
            };
            rows.push(row);
            if recursive && kind == Kind::Directory {
                if !seen.insert(inode) {
                    wrong(&path, Error::corrupt("is a directory that has another name already"))?;
                    continue;
                }
                waiting += path.as_os_str().len();
                below.push((path, inode));
            }
        }
        if seen.len() > MAX_DIRECTORIES {
            return Err(Error::unsupported(format!("more than {MAX_DIRECTORIES} directories")));
        }
        open.extend(below.into_iter().rev());
        each(&path, &rows)?;
        if let Err(e) = ended {
            wrong(&path, e)?;
        }
    }
    Ok(())
}

/// The names in a directory, sorted: those that could be read, and whether that is all.
fn names(fs: &dyn FileSystem, directory: Inode) -> (Vec<(Vec<u8>, Inode)>, Result<()>) {
    let mut names = Vec::new();
    let ended = fs.list(directory, &mut |entry| {
        if names.len() >= MAX_ENTRIES {
            return Err(Error::unsupported(format!("a directory of more than {MAX_ENTRIES} names")));
        }
        names.push((entry.name.to_vec(), entry.inode));
        Ok(())
    });
    names.sort();
    (names, ended)
}
