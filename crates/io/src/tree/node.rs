//! What a tree is made of, packed.

use super::seal::Stamp;
use rustix::fs::{FileType, Statx, makedev};
use std::collections::HashMap;

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
    /// When it was read last, where that was asked for.
    pub accessed: Option<Time>,
    /// When it was made, where that is noted.
    pub born: Option<Time>,
    /// The device that its file system is on.
    pub device: u64,
    /// Its number there: two nodes of one device and inode are one file with two names.
    pub inode: u64,
    /// Which device, of a device: major and minor.
    pub special: (u32, u32),
}

/// What many nodes have in common: each that there is is kept once.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Common {
    mode: u16,
    /// Whether fewer bytes are stored of a file than it has, as far as its file system says.
    pub(super) sparse: bool,
    uid: u32,
    gid: u32,
    links: u32,
    pub(super) device: u64,
}

const FORMAT_BITS: u16 = 0o170_000;

impl Common {
    pub(super) fn of(stat: &Statx) -> Common {
        let file = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile;
        Common {
            mode: stat.stx_mode,
            sparse: file && stat.stx_blocks.saturating_mul(512) < stat.stx_size,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            links: stat.stx_nlink,
            device: makedev(stat.stx_dev_major, stat.stx_dev_minor),
        }
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
}

/// All that nodes have in common, each by a small number.
#[derive(Default)]
pub(super) struct Commons {
    list: Vec<Common>,
    numbers: HashMap<Common, u32>,
    /// Those that were met last: neighbours are alike, mostly.
    last: [Option<(Common, u32)>; 16],
}

impl Commons {
    pub(super) fn number(&mut self, common: Common) -> u32 {
        let last = &mut self.last[(u32::from(common.mode >> 12 ^ common.mode) ^ common.links) as usize % 16];
        if let Some((_, number)) = last.filter(|(known, _)| *known == common) {
            return number;
        }
        let list = &mut self.list;
        let number = *self.numbers.entry(common).or_insert_with(|| {
            list.push(common);
            list.len() as u32 - 1
        });
        *last = Some((common, number));
        number
    }

    pub(super) fn list(&self) -> &[Common] {
        &self.list
    }
}

/// A node as it is kept.
#[derive(Clone, Copy)]
pub(super) struct Record {
    /// Where it is among the names: its length, its name, and what it says, of a symbolic link.
    pub(super) name_at: u32,
    /// What it has in common with others, by its number.
    pub(super) common: u32,
    /// Of a device its numbers.
    pub(super) len: u64,
    pub(super) inode: u64,
    pub(super) modified: Stamp,
    pub(super) changed: Stamp,
    pub(super) born: Stamp,
}

const _: () = assert!(size_of::<Record>() == 48);

impl Record {
    /// What `stat` says, without a name.
    pub(super) fn new(stat: &Statx, common: u32) -> Record {
        let len = match FileType::from_raw_mode(stat.stx_mode.into()) {
            FileType::RegularFile | FileType::Symlink => stat.stx_size,
            FileType::CharacterDevice | FileType::BlockDevice => {
                u64::from(stat.stx_rdev_major) << 32 | u64::from(stat.stx_rdev_minor)
            }
            _ => 0,
        };
        Record {
            name_at: 0,
            common,
            len,
            inode: stat.stx_ino,
            modified: Stamp::of(stat.stx_mtime),
            changed: Stamp::of(stat.stx_ctime),
            born: Stamp::birth(stat),
        }
    }

    /// A place in which no node is.
    pub(super) fn nothing() -> Record {
        let never = Stamp::new(0, 0);
        Record {
            name_at: 0,
            common: u32::MAX,
            len: 0,
            inode: 0,
            modified: never,
            changed: never,
            born: never,
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.common == u32::MAX
    }

    pub(super) fn name<'n>(&self, names: &'n [u8]) -> &'n [u8] {
        let (len, name) = names[self.name_at as usize..].split_first_chunk().unwrap_or((&[0; 2], &[]));
        &name[..u16::from_le_bytes(*len).into()]
    }

    /// Adds a name, of at most 64 KiB, and tells where it is.
    pub(super) fn push_name(name: &[u8], names: &mut Vec<u8>) -> u32 {
        let at = names.len();
        names.extend_from_slice(&(name.len() as u16).to_le_bytes());
        names.extend_from_slice(name);
        at as u32
    }

    /// What it says, of a symbolic link.
    pub(super) fn target<'n>(&self, names: &'n [u8]) -> &'n [u8] {
        let at = self.name_at as usize + size_of::<u16>() + self.name(names).len();
        &names[at..][..self.len as usize]
    }

    pub(super) fn node(&self, common: &Common) -> Node {
        let kind = common.kind();
        let special = matches!(kind, Kind::CharacterDevice | Kind::BlockDevice);
        Node {
            kind,
            mode: u32::from(common.mode & !FORMAT_BITS),
            uid: common.uid,
            gid: common.gid,
            links: common.links,
            len: if special { 0 } else { self.len },
            modified: self.modified.time(),
            changed: self.changed.time(),
            accessed: None,
            born: self.born.known().map(Stamp::time),
            device: common.device,
            inode: self.inode,
            special: if special { ((self.len >> 32) as u32, self.len as u32) } else { (0, 0) },
        }
    }
}

/// A directory that was listed, and the first node in it: the next one's first is behind its last.
#[derive(Clone, Copy)]
pub(super) struct Listed {
    pub(super) node: u32,
    pub(super) first: u32,
}
