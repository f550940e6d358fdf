//! What a tree is made of, packed.

use super::seal::Stamp;
use rustix::fs::{FileType, Statx};
use std::ops::Range;

/// A node of a tree, by its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// A moment, to the nanosecond. What lies before the end of 1901 or behind the middle of 2446 is taken for that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds within them.
    pub nanos: u32,
}

/// What is known of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with set-id and sticky: the low twelve.
    pub mode: u32,
    /// Who owns it.
    pub uid: u32,
    /// Which group does.
    pub gid: u32,
    /// How many names it has, in the tree and outside it.
    pub links: u32,
    /// How many bytes a file has, or what a symbolic link says; of anything else 0.
    pub len: u64,
    /// When its content changed last.
    pub modified: Time,
    /// When its content or its attributes changed last.
    pub changed: Time,
    /// When it was read last.
    pub accessed: Time,
    /// When it was made, where that is noted.
    pub born: Option<Time>,
    /// The device that its file system is on.
    pub device: u64,
    /// Its number there: two nodes of one device and inode are one file with two names.
    pub inode: u64,
    /// Which device, of a device: major and minor.
    pub special: (u32, u32),
    /// The directory it is in; of the root, itself.
    pub parent: NodeId,
}

/// A node as it is kept.
#[derive(Clone, Copy)]
pub(super) struct Record {
    mode: u16,
    name_len: u16,
    /// Whether fewer bytes are stored of it than it has, as far as its file system says.
    pub(super) sparse: bool,
    uid: u32,
    gid: u32,
    links: u32,
    /// An index into the list of devices.
    pub(super) device: u32,
    pub(super) parent: u32,
    name_at: u32,
    /// Of a directory its first child, of a symbolic link where its target is among the names.
    first: u32,
    count: u32,
    /// Of a device its numbers.
    pub(super) len: u64,
    pub(super) inode: u64,
    pub(super) modified: Stamp,
    pub(super) changed: Stamp,
    accessed: Stamp,
    pub(super) born: Stamp,
}

const _: () = assert!(size_of::<Record>() == 88);

const FORMAT_BITS: u16 = 0o170_000;

impl Record {
    /// What `stat` says, without a place in the tree.
    pub(super) fn new(stat: &Statx, device: u32) -> Record {
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        let len = match kind {
            FileType::RegularFile | FileType::Symlink => stat.stx_size,
            FileType::CharacterDevice | FileType::BlockDevice => {
                u64::from(stat.stx_rdev_major) << 32 | u64::from(stat.stx_rdev_minor)
            }
            _ => 0,
        };
        Record {
            mode: stat.stx_mode,
            name_len: 0,
            sparse: kind == FileType::RegularFile && stat.stx_blocks.saturating_mul(512) < stat.stx_size,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            links: stat.stx_nlink,
            device,
            parent: 0,
            name_at: 0,
            first: 0,
            count: 0,
            len,
            inode: stat.stx_ino,
            modified: Stamp::of(stat.stx_mtime),
            changed: Stamp::of(stat.stx_ctime),
            accessed: Stamp::of(stat.stx_atime),
            born: Stamp::birth(stat),
        }
    }

    /// Gives it a name, which begins at `at` among the names.
    pub(super) fn set_name(&mut self, at: usize, len: usize) {
        (self.name_at, self.name_len) = (at as u32, len as u16);
    }

    /// Gives it what it holds: children from a node on, or a target that begins somewhere among the names.
    pub(super) fn set_content(&mut self, first: usize, count: usize) {
        (self.first, self.count) = (first as u32, count as u32);
        if self.kind() == Kind::Symlink {
            self.len = count as u64;
        }
    }

    /// Moves it to where `names` is in front of its own, in the directory `parent`.
    pub(super) fn settle(&mut self, names: usize, parent: u32) {
        self.name_at += names as u32;
        if self.kind() == Kind::Symlink {
            self.first += names as u32;
        }
        self.parent = parent;
    }

    pub(super) fn kind(&self) -> Kind {
        match FileType::from_raw_mode((self.mode & FORMAT_BITS).into()) {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::CharacterDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            _ => Kind::File,
        }
    }

    pub(super) fn name<'n>(&self, names: &'n [u8]) -> &'n [u8] {
        &names[self.name_at as usize..][..self.name_len.into()]
    }

    pub(super) fn children(&self) -> Range<u32> {
        if self.kind() == Kind::Directory { self.first..self.first + self.count } else { 0..0 }
    }

    pub(super) fn target<'n>(&self, names: &'n [u8]) -> &'n [u8] {
        if self.kind() == Kind::Symlink { &names[self.first as usize..][..self.count as usize] } else { &[] }
    }

    pub(super) fn node(&self, devices: &[u64]) -> Node {
        let kind = self.kind();
        let special = matches!(kind, Kind::CharacterDevice | Kind::BlockDevice);
        Node {
            kind,
            mode: u32::from(self.mode & !FORMAT_BITS),
            uid: self.uid,
            gid: self.gid,
            links: self.links,
            len: if special { 0 } else { self.len },
            modified: self.modified.time(),
            changed: self.changed.time(),
            accessed: self.accessed.time(),
            born: self.born.known().map(Stamp::time),
            device: devices[self.device as usize],
            inode: self.inode,
            special: if special { ((self.len >> 32) as u32, self.len as u32) } else { (0, 0) },
            parent: NodeId(self.parent),
        }
    }
}

/// Adds the path of a node, relative to the root.
pub(super) fn push_path(records: &[Record], names: &[u8], mut id: NodeId, bytes: &mut Vec<u8>) {
    let mut parts = Vec::new();
    while id.0 != 0 {
        let record = &records[id.0 as usize];
        parts.push(record.name(names));
        id = NodeId(record.parent);
    }
    for (i, part) in parts.into_iter().rev().enumerate() {
        if i > 0 {
            bytes.push(b'/');
        }
        bytes.extend(part);
    }
}
